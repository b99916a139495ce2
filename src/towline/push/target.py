"""One repository that a push writes to, with all that the push's own calls to it need."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar, cast

from towline.context import Context, Meter, Patience
from towline.errors import RegistryError, Side, TowlineError
from towline.knowledge.base import Entry
from towline.push.plan import Delivered, Destination, Made
from towline.registry.repository import Repository
from towline.spec import media_types
from towline.transfers.retry import Attempts, retry
from towline.transfers.threads import result_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from towline.push.image import Blob, Layer, Tree
    from towline.push.interface.options import Wish
    from towline.push.resources import Resources
    from towline.reference import Reference, RepositoryName
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest
    from towline.targets.layout import Layout
    from towline.targets.place import Place

P = ParamSpec("P")
T = TypeVar("T")


class Cost(NamedTuple):
    """The cost of a tag, or of a push so far."""

    sent_bytes: int
    requests: int
    seconds: float


class Costs:
    """The costs of a push to one target, since this was made.

    Each tag is charged the costs since the tag before it, so that they add up to the whole.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._before = Cost(0, 0, 0.0)
        self.layers: set[Layer] = set()
        """Layers whose bytes were charged already."""
        self.share()

    def share(self) -> Cost:
        """The costs since the last call."""
        meter, before = self._context.meter, self._before
        now = self._before = Cost(meter.sent_bytes, meter.requests, self._context.clock())
        return Cost._make(new - old for new, old in zip(now, before, strict=True))


class Referral(NamedTuple):
    """A manifest that refers to an image of the push, and is pushed with it."""

    reference: Reference
    """Its tag, or its digest."""
    tree: Tree
    subject: Digest
    main: Reference
    """The tag that has the subject."""


@dataclass(slots=True, eq=False, repr=False)
class Target:
    """A repository and the tags that are to be set in it."""

    resources: Resources
    repository: Repository | Layout
    tags: tuple[tuple[Reference, Tree], ...]
    """Each destination with its tree, sorted by tag."""
    context: Context
    """For the push's own calls to this repository; its meter counts for the result."""
    costs: Costs
    """What its tags are charged."""
    wish: Wish
    """The options of the push."""
    referrers: tuple[Referral, ...] = ()
    """Manifests that are put after their subjects."""
    alone: bool = True
    """Whether the push goes to no other registry."""
    passed: dict[str, Delivered] | None = None
    """Blobs that were sent before it was known what lists them; None: the source does not pass."""
    origins: Sequence[Reference] = ()
    """References at its host that an engine knows the image from."""
    teachers: dict[Digest, Reference] = field(default_factory=dict)
    """By DiffID: the reference that has taught which blob a layer is."""
    failure: TowlineError | None = None
    """The error by which no blob can be brought there."""
    warnings: list[str] = field(default_factory=list)
    seen: dict[str, Digest | None] = field(default_factory=dict)
    """The digest that a tag held when it was last looked at; None for nothing."""
    written: dict[Reference, Digest] = field(default_factory=dict)
    """Tags that were written, with their digests."""
    in_doubt: list[Reference] = field(default_factory=list)
    """Tags that may have been written: a cancel or a failure came meanwhile."""
    patience: Patience = field(default_factory=Patience)
    """How long it may keep the other targets of the push waiting."""

    @property
    def layout(self) -> Layout | None:
        """The folder or file that is written to; None: it is a registry's repository."""
        return None if isinstance(self.repository, Repository) else self.repository

    @property
    def registry(self) -> Repository:
        """The repository of a target at a registry."""
        assert isinstance(self.repository, Repository)  # noqa: S101 - its caller's own condition
        return self.repository

    @property
    def reference(self) -> str:
        """The reference in events of this target: its only tag, or its repository."""
        if len(self.tags) == 1:
            return str(self.tags[0][0])
        return str(self.repository.name)

    def with_referrers(self, reference: Reference, tree: Tree) -> list[Tree]:
        """The tree of a tag, and those of what refers to it and is put with it."""
        return [tree, *(each.tree for each in self.referrers if each.main == reference)]

    def watcher(self) -> Context:
        """The context in which this push watches flights: their events get its reference."""
        emit = self.context.emit
        return self.context.but(emit=lambda event: emit(replace(event, reference=self.reference)))

    def as_planned(self, entries: Mapping[Digest, Sequence[Entry]]) -> Destination:
        """The target for the plan: its name, and the HMACs of our account in these entries."""
        repository, knowledge = self.repository, self.resources.knowledge
        digests = {entry.digest for some in entries.values() for entry in some}
        key = knowledge.account_key() if digests else b""
        accounts = {digest: repository.account_mac(key, digest) for digest in digests}
        return Destination(repository.name, accounts)

    def remember(self, found: Iterable[tuple[Blob, Made]]) -> None:
        """Record in the cache that blobs were just seen here."""
        repository, knowledge = self.repository, self.resources.knowledge
        if not isinstance(repository, Repository):  # a folder is asked as fast as the cache
            return
        key, entries = knowledge.account_key(), []
        for blob, made in found:
            media_type = blob.stored.media_type if blob.stored else None
            # Not recorded: which layer a blob is, if a registry that may not teach has told it. Of
            # a stored blob the source has told it.
            if repository.may_teach or blob.stored or not made.learned:
                entries.append(entry_of(blob.identity, made, media_type, repository, key))
        if entries:
            knowledge.record(entries)

    def pull_from(self, names: Iterable[RepositoryName]) -> None:
        """Have tokens ask for `pull` of repositories from which blobs may be mounted."""
        name, client = self.repository.name, self.resources.client
        origins = {origin for origin in names if origin.host == name.host and origin != name}
        if origins:
            pull_from = tuple(sorted(origins, key=str))
            self.repository = client.repository(name, pull_from=pull_from, context=self.context)

    def note(self, message: str, reference: str = "") -> None:
        """Tell something worth knowing, of one tag or of the target."""
        from towline.events import Note  # which most pushes have no need of

        self.context.emit(Note(reference=reference or self.reference, message=message))

    def warn(self, message: str) -> None:
        """Tell a warning, and keep it for the result."""
        from towline.events import Warned  # which most pushes have no need of

        self.warnings.append(message)
        self.context.emit(Warned(reference=self.reference, message=message))

    def warn_of_referrers(self, subject: Digest) -> None:
        """Warn, once, that what refers to a manifest is left out: the manifest is not put here."""
        message = f"what refers to {subject} is left out: it has another digest"
        if message not in self.warnings:
            self.warn(message)

    def retry(self, what: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` until it succeeds. Raises its last error when trying again is of no use."""

        def told(seconds: float, reason: str) -> None:
            from towline.events import Retrying  # which most pushes have no need of

            event = Retrying(reference=self.reference, what=what, seconds=seconds, reason=reason)
            self.context.emit(event)

        gate, host = self.resources.gate, self.repository.name.host
        attempts = Attempts(self.resources.policy, self.repository.side)
        return retry(partial(work, *args, **kwargs), attempts, gate, host, self.context, told)

    def head_manifest(self, reference: str) -> Descriptor | None:
        """The descriptor under a tag or digest; None: there is none. Raises the last error."""
        return self.retry("the manifest", self.repository.head_manifest, reference, self.context)

    def get_manifest(self, reference: str) -> RawManifest | None:
        """The manifest under a tag or digest; None: there is none. Raises the last error."""
        get = self.repository.get_manifest
        return self.retry("the manifest", get, reference, self.context)

    def look(self, tag: str) -> Descriptor | None:
        """HEAD a tag, and note its digest. Raises AuthError, RegistryError, NetworkError."""
        found = self.head_manifest(tag)
        self.seen[tag] = found.digest if found else None
        return found

    def first_seen(self, tag: str) -> Digest | None:
        """The digest under a tag when this push first looked. Raises as `look` does."""
        if tag not in self.seen:
            self.look(tag)
        return self.seen[tag]

    def look_at_all(
        self, where: Mapping[Reference, str]
    ) -> dict[Reference, Descriptor | TowlineError | None]:
        """The manifest at each place, or the error of asking for it; None: there is none.

        `where`: the tag or digest of each place. Raises Cancelled.
        """

        def found(place: Reference) -> Descriptor | TowlineError | None:
            try:
                return self.look(where[place])
            except TowlineError as error:
                return error

        first, *others = where
        one = found(first)
        # The first alone: a host that is down, or lets nobody in, is not asked for all of them.
        if isinstance(one, TowlineError) and not isinstance(one, RegistryError):
            return dict.fromkeys(where, one)
        threads = self.resources.host_threads(self.repository.name.host)
        rest = {place: threads.submit(partial(found, place)) for place in others}
        cancel = self.context.cancel
        return {first: one} | {place: result_of(asked, cancel) for place, asked in rest.items()}

    def existing(self, reference: Reference) -> Descriptor:
        """The descriptor under a reference, by one HEAD. Raises RegistryError if there is none."""
        if (found := self.head_manifest(reference.target)) is None:
            raise self._missing(reference)
        return found

    def existing_manifest(self, reference: Reference) -> RawManifest:
        """The manifest under a reference. Raises RegistryError if there is none."""
        if (raw := self.get_manifest(reference.target)) is None:
            raise self._missing(reference)
        return raw

    def _missing(self, reference: Reference) -> RegistryError:
        self.registry.check_version(self.context)
        named = reference if reference.digest else reference.with_tag(reference.target)
        return RegistryError(
            f"there is no {named} at the registry",
            status=404,
            code="MANIFEST_UNKNOWN",
            hint=f"towline tags {reference.repository} lists what is there",
        )


def entry_of(
    diff_id: Digest, made: Made, media_type: str | None, repository: Repository | Layout, key: bytes
) -> Entry:
    """The entry of a blob that was just seen in a repository; `key` hides the account."""
    return Entry(
        diff_id=diff_id,
        digest=made.digest,
        size=made.size,
        media_type=media_type or media_types.layer("oci", made.compression or "none"),
        compression=made.compression or "none",
        profile=made.profile,
        repository=str(repository.name),
        account=repository.account_mac(key, made.digest),
        learned=made.learned,
        seen=time.time(),
    )


class Tag(NamedTuple):
    """A tag of a target with the tree that goes under it; all blobs of that are there."""

    target: Target
    reference: Reference
    tree: Tree
    delivered: Mapping[str, Delivered]

    @property
    def made(self) -> dict[str, Made]:
        """The tree's blobs as they are at the target, by their keys."""
        # Only these: the target may have those of a thousand other tags.
        return {blob.key: self.delivered[blob.key].made for blob in self.tree.blobs}


def target_at(
    resources: Resources,
    name: RepositoryName,
    context: Context,
    wish: Wish,
    side: Side = "destination",
) -> Target:
    """The target of that name, for a push with these options. Its costs are counted apart."""
    resources.check_open()
    context = context.but(meter=Meter())
    if name.is_at_registry:
        repository = resources.client.repository(name, side, context=context)
        return Target(resources, repository, (), context, Costs(context), wish)
    from towline.targets.archives import opened  # most pushes need none of it

    return Target(resources, opened(cast("Place", name)), (), context, Costs(context), wish)
