"""Plans the steps by which each blob comes to each target: rules over values, without a socket.

A plan is a tuple of steps for a blob and a target. They are walked until one succeeds: ask for
digests that may be there, mount from repositories that are known to hold them, send (unless the
source lacks the blob). A dry run walks the same steps and only asks. The numbers of tries are the
Docker engine's: a small upload is cheaper than a round trip.
"""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from towline.knowledge.base import Entry
from towline.layers.profile import Profile
from towline.push.image import Blob
from towline.push_events import Outcome
from towline.reference import RepositoryName
from towline.spec import media_types
from towline.spec.digest import Digest
from towline.spec.media_types import Compression, Format

ASK_LIMIT = 3
"""HEADs for one layer at most: each is a round trip."""
KiB = 1 << 10
MiB = 1 << 20
_MOUNT_TRIES = ((100 * KiB, 1), (10 * MiB, 3))
"""Tries for layers of up to so many bytes: docker's numbers, since each try is a round trip."""
_MOUNT_TRIES_ABOVE = 4
"""Tries for larger layers, and for those that cannot be sent."""
_COMPRESSION_RANK: dict[Compression, int] = {"gzip": 0, "zstd": 1, "none": 2}


class Made(NamedTuple):
    """The blob that a layer or config has become, at a target or elsewhere."""

    digest: Digest
    size: int
    """Bytes."""
    compression: Compression | None
    """None for blobs that are no layers."""
    profile: str | None = None
    """The profile that made it, as it is recorded; None: not known, or it was made elsewhere."""
    remembered: bool = False
    """Whether the cache says that the target has it; if not so, that entry is dropped."""
    learned: bool = False
    """Whether others have told that it is this layer, and not our own hashing: a registry that
    confirms a blob does not tell which layer it is."""


class Delivered(NamedTuple):
    """A blob that the target has confirmed."""

    made: Made
    outcome: Outcome
    label: str
    """The word for its compression in results: a profile's name, `source` or `reused`."""
    mounted_from: str | None = None
    sent_bytes: int = 0


class Ask(NamedTuple):
    """Step: HEAD the blob at the target."""

    candidate: Made


class Mount(NamedTuple):
    """Step: have the registry link the blob from another of its repositories."""

    candidate: Made
    origin: RepositoryName
    ours: bool
    """Whether it was last seen there with the credentials that we have now."""


class Send:
    """Step: upload the blob."""


Step = Ask | Mount | Send


class Rules(NamedTuple):
    """The rules that a push sets for its plans."""

    profile: Profile
    """The profile for layers that must be sent."""
    explicit: bool = False
    """Whether the user named the profile: then blobs of other profiles do not count."""
    formats: frozenset[Format] = frozenset({"docker", "oci"})
    """Formats of the manifests that list the blob: only OCI's can list zstd."""
    trust_learned: bool = True
    """Whether entries that are learned count."""
    everywhere: frozenset[Digest] | None = None
    """With several targets: the digests that are known at all of their hosts; None: one target."""


class Destination(NamedTuple):
    """A target, as far as the plan needs it."""

    name: RepositoryName
    accounts: Mapping[Digest, str]
    """By digest: the HMAC in entries that were seen with our present credentials."""


def steps(
    blob: Blob, target: Destination, entries: Sequence[Entry], rules: Rules
) -> tuple[Step, ...]:
    """The steps of one blob to one target; `entries` are those of its DiffID, the oldest first."""
    fitting = [entry for entry in reversed(entries) if fits(blob, entry, rules)]
    asks: list[Step] = [Ask(candidate) for candidate in _asked(blob, target, fitting, rules)]
    mounts = _mounts(blob, target, fitting, rules) or _hinted(blob, target)
    origin = blob.origin
    if origin and origin.host == target.name.host and origin != target.name and blob.stored:
        # A copy within one registry: a mount costs what a question would, and mostly succeeds.
        asks = [Mount(own(blob), origin, ours=False), *asks]
    send = [Send()] if blob.held else []
    return (*asks, *mounts, *send)


def common(blobs: Iterable[Sequence[Entry]], hosts: frozenset[str]) -> frozenset[Digest]:
    """Digests that are known at all of these hosts: a push has one digest at all its targets."""
    found: dict[Digest, set[str]] = {}
    for entries in blobs:
        for entry in entries:
            found.setdefault(entry.digest, set()).add(entry.repository.partition("/")[0])
    return frozenset(digest for digest, at in found.items() if at >= hosts)


def fits(blob: Blob, entry: Entry | Made, rules: Rules) -> bool:
    """Whether the manifests of the push may list this blob."""
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
        return as_ours  # the same bytes as those that we would send to the other targets
    return entry.compression in {"gzip", "none"} or rules.formats == {"oci"}


def _asked(blob: Blob, target: Destination, fitting: Sequence[Entry], rules: Rules) -> list[Made]:
    if blob.stored is not None:
        known = any(entry.repository == str(target.name) for entry in fitting)
        return [own(blob)._replace(remembered=known)]
    here = [entry for entry in fitting if entry.repository == str(target.name)]
    found: dict[Digest, Made] = {}
    for entry in sorted(here, key=lambda entry: _rank(entry, target, rules)):
        found.setdefault(entry.digest, _candidate(entry))
    return list(found.values())[:ASK_LIMIT]


def own(blob: Blob) -> Made:
    """The candidate of a blob that is sent byte for byte, which has one digest alone."""
    assert blob.stored is not None  # noqa: S101 - the caller's own condition
    compression = media_types.layer_compression(blob.stored.media_type)
    told = blob.identity != blob.stored.digest  # by the source, until somebody decompresses it
    return Made(blob.stored.digest, blob.stored.size, compression, None, learned=told)


def there(blob: Blob, candidate: Made) -> Delivered:
    """The outcome of a blob whose candidate the target has already."""
    return Delivered(candidate, "exists", blob.label or "reused")


def _mounts(blob: Blob, target: Destination, fitting: Sequence[Entry], rules: Rules) -> list[Mount]:
    own_name, host = str(target.name), f"{target.name.host}/"
    elsewhere = [
        entry
        for entry in fitting
        if entry.repository != own_name and entry.repository.startswith(host)
    ]
    ranked = sorted(elsewhere, key=lambda entry: _rank(entry, target, rules))
    limited = (tries for limit, tries in _MOUNT_TRIES if blob.held and blob.size <= limit)
    mounts = []
    for entry in ranked[: next(limited, _MOUNT_TRIES_ABOVE)]:
        origin = RepositoryName(target.name.host, entry.repository.removeprefix(host))
        candidate = own(blob) if blob.stored else _candidate(entry)
        mounts.append(Mount(candidate, origin, _ours(entry, target)))
    return mounts


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
    if not (paths and blob.held and blob.stored):
        return []
    likeliest = max(paths, key=lambda path: _likeness(path, target.name.path))
    return [Mount(own(blob), RepositoryName(host, likeliest), ours=False)]


def _rank(entry: Entry, target: Destination, rules: Rules) -> tuple[bool, int, bool, bool, int]:
    """A sorting key for entries; the sort is stable, so that of equal ones the newest is first."""
    # Our own hashing goes before what others have told, whatever that claims to be. Then gzip, and
    # the bytes that the profile would make, so that the same input keeps its digest. Then entries
    # seen with our own credentials, and likeness of the name.
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
    """How many leading components two names share; the host is one of them."""
    return shared(one.split("/"), other.split("/"))


def shared(one: Sequence[object], other: Sequence[object]) -> int:
    """How many leading items both have."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _candidate(entry: Entry) -> Made:
    known = (entry.digest, entry.size, entry.compression, entry.profile)
    return Made(*known, remembered=True, learned=entry.learned)
