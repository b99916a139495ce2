"""One target: the calls that are made to it, and all that a push knows of it."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar, cast

from towline.context import Context, Patience
from towline.errors import RegistryError, Side, TowlineError
from towline.knowledge.base import Entry
from towline.push.plan import Delivered, Destination, Made, Rules, Step
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
    from towline.results import TagOutcome
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
        self.context = context
        """Its meter and clock are what is charged."""
        self._before = Cost(0, 0, 0.0)
        self.layers: set[Layer] = set()
        """Layers whose bytes were charged already."""
        self.share()

    def share(self) -> Cost:
        """The costs since the last call."""
        meter, before = self.context.meter, self._before
        now = self._before = Cost(meter.sent_bytes, meter.requests, self.context.clock())
        return Cost._make(new - old for new, old in zip(now, before, strict=True))


class Referral(NamedTuple):
    """A manifest that refers to an image of the push, and is pushed with it."""

    reference: Reference
    """Its tag, or its digest."""
    tree: Tree
    subject: Digest
    main: Reference
    """The tag that has the subject."""


class Target:
    """A repository that is read or written to, with what calls to it need."""

    def __init__(
        self, resources: Resources, repository: Repository | Layout, context: Context
    ) -> None:
        self.resources = resources
        self.repository = repository
        self.context = context
        """For the calls to this repository alone: its meter counts them."""

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
        """The reference in events of this target."""
        return str(self.repository.name)

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

    def look_at_all(
        self, where: Mapping[Reference, str]
    ) -> dict[Reference, Descriptor | TowlineError | None]:
        """The manifest at each place, or the error of asking for it; None: there is none.

        `where`: the tag or digest of each place. Raises Cancelled.
        """

        def found(place: Reference) -> Descriptor | TowlineError | None:
            try:
                return self.head_manifest(where[place])
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


class TargetPush(Target):
    """A push to one target, and all that it comes to know and do there.

    The steps of `pipeline` and `tag_push` set the attributes, in the order in which they stand.
    """

    def __init__(
        self,
        resources: Resources,
        name: RepositoryName,
        costs: Costs,
        wish: Wish,
        agreed: dict[Tree, tuple[str, Digest]],
    ) -> None:
        context = costs.context
        super().__init__(resources, repository_at(resources, name, context), context)
        self.costs = costs
        """What its tags are charged."""
        self.wish = wish
        """The options of the push."""
        self.patience = Patience()
        """How long it may keep the other targets of the push waiting."""
        self.alone = True
        """Whether the push goes to no other registry."""
        self.tags: tuple[tuple[Reference, Tree], ...] = ()
        """Each destination with its tree, sorted by tag."""
        self.referrers: tuple[Referral, ...] = ()
        """Manifests that are put after their subjects."""
        self.origins: Sequence[Reference] = ()
        """References at its host that an engine knows the image from."""
        self.started = False
        """Whether its repository was told of."""
        self.warnings: list[str] = []
        self.failure: TowlineError | None = None
        """The error by which no blob can be brought there."""
        self.seen: dict[str, Digest | None] = {}
        """The digest that a tag held when it was last looked at; None for nothing."""
        self.staying: dict[Reference, Descriptor | RegistryError] = {}
        """Tags that are not written: the manifest under each, or the error of its push."""
        self.teachers: dict[Digest, Reference] = {}
        """By DiffID: the reference that has taught which blob a layer is."""
        self.rules = Rules(wish.profile, trust_learned=wish.learn)
        self.plans: dict[Blob, tuple[Step, ...]] = {}
        """The steps of each blob."""
        self.delivered: dict[str, Delivered] = {}
        """The blobs that are there, by their keys. Some are before the push begins: they were sent
        before it was known what lists them."""
        self.written: dict[Reference, Digest] = {}
        """Tags that were written, with their digests."""
        self.in_doubt: list[Reference] = []
        """Tags that may have been written: a cancel or a failure came meanwhile."""
        self.outcomes: dict[Reference, TagOutcome] = {}
        """What came of each tag whose push has ended."""
        self.untold: dict[Reference, int] = {}
        """Tags that are in place and not told yet, with the bytes of their blobs and referrers'."""
        self.agreed = agreed
        """By tree, the first tag at any target that has it, with its digest."""

    @property
    def reference(self) -> str:
        """The reference in events of this target: its only tag, or its repository."""
        if len(self.tags) == 1:
            return str(self.tags[0][0])
        return str(self.repository.name)

    @property
    def due(self) -> tuple[tuple[Reference, Tree], ...]:
        """The tags that will be written."""
        return tuple(pair for pair in self.tags if pair[0] not in self.staying)

    @property
    def trees(self) -> list[Tree]:
        """The trees of the tags that will be written, and of referrers."""
        return [tree for _, tree in self.due] + [each.tree for each in self.referrers]

    def with_referrers(self, reference: Reference, tree: Tree) -> list[Tree]:
        """The tree of a tag, and those of what refers to it and is put with it."""
        return [tree, *(each.tree for each in self.referrers if each.main == reference)]

    def watcher(self) -> Context:
        """The context in which this push watches flights: their events get its reference."""
        emit = self.context.emit
        return self.context.but(emit=lambda event: emit(replace(event, reference=self.reference)))

    def note(self, message: str, reference: str = "") -> None:
        """Tell something worth knowing, of one tag or of the target."""
        from towline.events import Note  # which most pushes have no need of

        self.context.emit(Note(reference=reference or self.reference, message=message))

    def warn(self, message: str) -> None:
        """Tell a warning, once, and keep it for the result."""
        from towline.events import Warned  # which most pushes have no need of

        if message not in self.warnings:
            self.warnings.append(message)
            self.context.emit(Warned(reference=self.reference, message=message))

    def warn_of_referrers(self, subject: Digest) -> None:
        """Warn that what refers to a manifest is left out: the manifest is not put here."""
        self.warn(f"what refers to {subject} is left out: it has another digest")

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


def repository_at(
    resources: Resources, name: RepositoryName, context: Context, side: Side = "destination"
) -> Repository | Layout:
    """The registry's repository of that name, or the folder or file. Raises UsageError."""
    resources.check_open()
    if name.is_at_registry:
        return resources.client.repository(name, side, context=context)
    from towline.targets.archives import opened  # most pushes need none of it

    return opened(cast("Place", name))
