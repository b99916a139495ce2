"""Which way each blob takes to each target: a rule over values, without a socket.

For a blob and a target a plan is a tuple of steps, walked until one succeeds: ask for digests
that may be there, mount from where they are known to be, send (unless the source lacks it).
`--dry-run` walks the same steps and only asks. The numbers are the Docker engine's: a small upload
is cheaper than a round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from towline.reference import RepositoryName
from towline.spec import media_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from towline.events import Outcome
    from towline.knowledge.base import Entry
    from towline.layers.profile import Profile
    from towline.push.image import Blob
    from towline.spec.compression import Compression
    from towline.spec.digest import Digest
    from towline.spec.media_types import Format

ASK_LIMIT = 3
"""HEADs for one layer at most: each is a round trip."""
KiB = 1 << 10
MiB = 1 << 20
_MOUNT_TRIES = ((100 * KiB, 1), (10 * MiB, 3))
_MOUNT_TRIES_ABOVE = 4
_COMPRESSION_RANK: dict[Compression, int] = {"gzip": 0, "zstd": 1, "none": 2}


class Candidate(NamedTuple):
    """A blob that would do, if it is there."""

    digest: Digest
    size: int
    """Bytes."""
    compression: Compression | None
    """None for blobs that are no layers."""
    profile: str | None
    """As recorded when it was made by a profile; None when it came from elsewhere."""
    remembered: bool = False
    """Knowledge says that it is there; to be forgotten where that is untrue."""
    learned: bool = False
    """That it is this layer is somebody else's word, not of our own hashing."""


class Made(NamedTuple):
    """The blob that a wanted one became."""

    digest: Digest
    size: int
    """Bytes."""
    compression: Compression | None
    """None for blobs that are no layers."""


class Delivered(NamedTuple):
    """The registry has confirmed the blob."""

    made: Made
    outcome: Outcome
    label: str
    """What the result says of the compression: a profile's name, `source` or `reused`."""
    profile: str | None = None
    """As recorded, when it is known that a profile of ours made the bytes."""
    mounted_from: str | None = None
    sent_bytes: int = 0
    learned: bool = False
    """As in `Candidate`: asking a registry for a blob does not tell which layer it is."""

    @property
    def candidate(self) -> Candidate:
        """The same blob as one to ask for elsewhere, or later."""
        made, learned = self.made, self.learned
        return Candidate(made.digest, made.size, made.compression, self.profile, learned=learned)


class Ask(NamedTuple):
    """HEAD the blob in the target."""

    candidate: Candidate


class Mount(NamedTuple):
    """Have the registry take the blob from another of its repositories."""

    candidate: Candidate
    origin: RepositoryName
    ours: bool
    """Last seen there with the credentials that we have now."""


class Send:
    """Upload it."""


Step = Ask | Mount | Send


class Rules(NamedTuple):
    """What a push allows."""

    profile: Profile
    """How layers are compressed when they must be sent."""
    explicit: bool = False
    """The profile was asked for by name: blobs of other profiles do not count."""
    formats: frozenset[Format] = frozenset({"docker", "oci"})
    """Formats of the manifests that list the blob: zstd fits OCI alone."""
    mounts: bool = True
    trust_learned: bool = True
    """Whether somebody else's word counts for which blob a layer is."""
    everywhere: frozenset[Digest] | None = None
    """With several targets the digests that are known at all of them; None for one target."""


class Destination(NamedTuple):
    """A target as the plan sees it."""

    name: RepositoryName
    accounts: Mapping[Digest, str]
    """For each digest the HMAC that an entry seen with our present credentials carries."""


def steps(
    blob: Blob, target: Destination, entries: Sequence[Entry], rules: Rules
) -> tuple[Step, ...]:
    """The way of one blob to one target; `entries` are those of its DiffID, oldest first."""
    fitting = [entry for entry in reversed(entries) if fits(blob, entry, rules)]
    asks: list[Step] = [Ask(candidate) for candidate in _asked(blob, target, fitting, rules)]
    mounts = _mounts(blob, target, fitting, rules) if rules.mounts else []
    if rules.mounts and not mounts and blob.held and blob.stored:
        mounts = _hinted(blob, target)
    origin = blob.origin
    if origin and origin.host == target.name.host and origin != target.name and blob.stored:
        # It costs what a question would, and most often nothing is left to be asked.
        asks = [Mount(own(blob), origin, ours=False), *asks]
    send = [Send()] if blob.held else []
    return (*asks, *mounts, *send)


def common(blobs: Iterable[Sequence[Entry]], hosts: frozenset[str]) -> frozenset[Digest]:
    """Digests that are known at every one of several hosts: one push, one digest."""
    found: dict[Digest, set[str]] = {}
    for entries in blobs:
        for entry in entries:
            found.setdefault(entry.digest, set()).add(_host(entry.repository))
    return frozenset(digest for digest, at in found.items() if at >= hosts)


def fits(blob: Blob, entry: Entry | Candidate, rules: Rules) -> bool:
    """Whether what is there may be what the push's manifests list."""
    if blob.stored is not None:
        return entry.digest == blob.stored.digest
    if entry.learned and not rules.trust_learned:
        return False
    # A plain tar is what the profile `none` makes, whoever made it.
    as_ours = (
        entry.profile == rules.profile.recorded
        or entry.compression == rules.profile.compression == "none"
    )
    if rules.explicit and blob.held:
        return as_ours
    if rules.everywhere is not None and entry.digest not in rules.everywhere and blob.held:
        return as_ours  # as good as what we would send elsewhere
    return entry.compression in {"gzip", "none"} or rules.formats == {"oci"}


def _asked(
    blob: Blob, target: Destination, fitting: Sequence[Entry], rules: Rules
) -> list[Candidate]:
    if blob.stored is not None:
        known = any(entry.repository == str(target.name) for entry in fitting)
        return [own(blob)._replace(remembered=known)]
    here = [entry for entry in fitting if entry.repository == str(target.name)]
    return _unique(sorted(here, key=lambda entry: _rank(entry, target, rules)))[:ASK_LIMIT]


def own(blob: Blob) -> Candidate:
    """The one digest that a blob sent byte for byte can have."""
    assert blob.stored is not None  # noqa: S101 - the caller's own condition
    compression = media_types.layer_compression(blob.stored.media_type)
    told = blob.identity != blob.stored.digest  # by the source, until somebody decompresses it
    return Candidate(blob.stored.digest, blob.stored.size, compression, None, learned=told)


def there(blob: Blob, candidate: Candidate) -> Delivered:
    """What comes of a blob where the candidate is there already."""
    made = Made(candidate.digest, candidate.size, candidate.compression)
    return Delivered(made, "exists", blob.label or "reused", candidate.profile)


def _mounts(blob: Blob, target: Destination, fitting: Sequence[Entry], rules: Rules) -> list[Mount]:
    elsewhere = [
        entry
        for entry in fitting
        if entry.repository != str(target.name) and _host(entry.repository) == target.name.host
    ]
    ranked = sorted(elsewhere, key=lambda entry: _rank(entry, target, rules))
    return [_mount(blob, target, entry) for entry in ranked[: _mount_tries(blob)]]


def _hinted(blob: Blob, target: Destination) -> list[Mount]:
    """The likeliest place of which the source says that the blob has been there.

    Only for what the source holds itself: else blobs of others could be had by naming them.
    """
    host = target.name.host
    paths = [
        seen.path
        for seen in blob.seen_in
        if seen.host in {host, host.rpartition(":")[0]} and seen.path != target.name.path
    ]
    if not paths:
        return []
    likeliest = max(paths, key=lambda path: _likeness(path, target.name.path))
    return [Mount(own(blob), RepositoryName(host, likeliest), ours=False)]


def _mount(blob: Blob, target: Destination, entry: Entry) -> Mount:
    host, _, path = entry.repository.partition("/")
    candidate = own(blob) if blob.stored else _candidate(entry)
    return Mount(candidate, RepositoryName(host, path), _ours(entry, target))


def _mount_tries(blob: Blob) -> int:
    if not blob.held:
        return _MOUNT_TRIES_ABOVE
    return next((tries for limit, tries in _MOUNT_TRIES if blob.size <= limit), _MOUNT_TRIES_ABOVE)


def _rank(entry: Entry, target: Destination, rules: Rules) -> tuple[bool, int, bool, bool, int]:
    """Stable over newest first.

    What we saw ourselves comes before what we were told, whatever that claims to be. Then gzip
    and the bytes that the profile would make: the same input keeps its digest. Then own
    credentials, and likeness of name.
    """
    return (
        entry.learned,
        _COMPRESSION_RANK[entry.compression],
        entry.profile != rules.profile.recorded,
        not _ours(entry, target),
        -_likeness(entry.repository, str(target.name)),
    )


def _ours(entry: Entry, target: Destination) -> bool:
    return entry.account == target.accounts.get(entry.digest, "")


def _likeness(one: str, other: str) -> int:
    """How many leading components two names share; the host is one."""
    pairs = zip(one.split("/"), other.split("/"), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), len(one.split("/")))


def _unique(entries: Iterable[Entry]) -> list[Candidate]:
    """Each digest once, as its first entry has it."""
    found: dict[Digest, Candidate] = {}
    for entry in entries:
        found.setdefault(entry.digest, _candidate(entry))
    return list(found.values())


def _candidate(entry: Entry) -> Candidate:
    return Candidate(
        entry.digest,
        entry.size,
        entry.compression,
        entry.profile,
        remembered=True,
        learned=entry.learned,
    )


def _host(repository: str) -> str:
    return repository.partition("/")[0]
