"""One repository that a push writes to, with what the push's own calls to it need."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from towline.context import Meter, Patience
from towline.events import Retrying, Warned
from towline.registry.repository import Repository
from towline.transfers.retry import Attempts, retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from towline.context import Context
    from towline.errors import Side, TowlineError
    from towline.events import Event
    from towline.push.image import Layer, Tree
    from towline.push.interface.options import Wish
    from towline.push.plan import Delivered, Made
    from towline.push.resources import Resources
    from towline.reference import Reference, RepositoryName
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest
    from towline.targets.layout import Layout
    from towline.targets.place import Place

T = TypeVar("T")


class Cost(NamedTuple):
    """What it took."""

    sent_bytes: int
    requests: int
    seconds: float


class Costs:
    """What a push to one target costs, from the making of this on.

    Its tags share that: each is told what came since the one before it, so that they add up.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._before = self._so_far()
        self.layers: set[Layer] = set()
        """Those whose bytes are told of already."""

    def _so_far(self) -> Cost:
        meter = self._context.meter
        return Cost(meter.sent_bytes, meter.requests, self._context.clock())

    def share(self) -> Cost:
        """What came since this was asked for the last time."""
        before, now = self._before, self._so_far()
        self._before = now
        return Cost(
            now.sent_bytes - before.sent_bytes,
            now.requests - before.requests,
            now.seconds - before.seconds,
        )


class Referral(NamedTuple):
    """What refers to an image of a push and goes along with it."""

    reference: Reference
    """Its tag, or its digest."""
    tree: Tree
    subject: Digest
    main: Reference
    """The tag under which that is."""


@dataclass(slots=True, eq=False, repr=False)
class Target:
    """A repository and the tags that are to be set in it."""

    resources: Resources
    repository: Repository | Layout
    tags: tuple[tuple[Reference, Tree], ...]
    """Destination and what goes there, sorted by tag."""
    context: Context
    """Of the push's own calls to this repository; its meter counts for the result."""
    referrers: tuple[Referral, ...] = ()
    """What is put after what it refers to."""
    alone: bool = True
    """Whether the push goes to no other registry."""
    costs: Costs | None = None
    """Where those are counted already."""
    passed: dict[str, Delivered] | None = None
    """Blobs that were brought there before it was known what lists them; None: none could be."""
    teachers: dict[Digest, Reference] = field(default_factory=dict)
    """From where it was learned which blob a layer is, by DiffID."""
    failure: TowlineError | None = None
    """Why no blob can be brought there."""
    warnings: list[str] = field(default_factory=list)
    seen: dict[str, Digest | None] = field(default_factory=dict)
    """The digest that a tag held when it was last looked at; None for nothing."""
    written: dict[Reference, Digest] = field(default_factory=dict)
    """Tags that were written, and what they hold."""
    in_doubt: list[Reference] = field(default_factory=list)
    """Tags that were being written as a cancel came, or as their push failed."""
    patience: Patience = field(default_factory=Patience)
    """For how long it may make the other targets of the push wait."""

    @property
    def layout(self) -> Layout | None:
        """The folder or file that is written to, where it is not at a registry."""
        return None if isinstance(self.repository, Repository) else self.repository

    @property
    def registry(self) -> Repository:
        """The repository of one that is at a registry."""
        assert isinstance(self.repository, Repository)  # noqa: S101 - its caller's own condition
        return self.repository

    @property
    def reference(self) -> str:
        """What events of this target are told under."""
        if len(self.tags) == 1:
            return str(self.tags[0][0])
        return str(self.repository.name)

    def watcher(self) -> Context:
        """The context in which this push watches transfers: events get its reference."""

        def emit(event: Event) -> None:
            self.context.emit(replace(event, reference=self.reference))

        return self.context.but(emit=emit)

    def pull_from(self, names: Iterable[RepositoryName]) -> None:
        """Who mounts must be let in at the other repository too."""
        name = self.repository.name
        origins = {origin for origin in names if origin.host == name.host and origin != name}
        if origins:
            pull_from = tuple(sorted(origins, key=str))
            client = self.resources.client
            self.repository = client.repository(name, pull_from=pull_from, context=self.context)

    def warn(self, message: str) -> None:
        """Tell a warning, and keep it for the result."""
        self.warnings.append(message)
        self.context.emit(Warned(reference=self.reference, message=message))

    def retry(self, what: str, work: Callable[[], T]) -> T:
        """Call `work` until it succeeds or trying again is of no use."""

        def told(seconds: float, reason: str) -> None:
            event = Retrying(reference=self.reference, what=what, seconds=seconds, reason=reason)
            self.context.emit(event)

        attempts = Attempts(self.resources.policy, self.repository.side)
        gate = self.resources.gate
        return retry(work, attempts, gate, self.repository.name.host, self.context, told)

    def head_manifest(self, reference: str) -> Descriptor | None:
        """What stands under a tag or digest. Raises what the last attempt raised."""
        ask = partial(self.repository.head_manifest, reference, self.context)
        return self.retry("the manifest", ask)

    def get_manifest(self, reference: str) -> RawManifest | None:
        """The manifest under a tag or digest. Raises what the last attempt raised."""
        ask = partial(self.repository.get_manifest, reference, self.context)
        return self.retry("the manifest", ask)


class Tag(NamedTuple):
    """A tag of a target, and what is to stand under it, of blobs that are there."""

    target: Target
    wish: Wish
    reference: Reference
    tree: Tree
    delivered: Mapping[str, Delivered]

    @property
    def made(self) -> dict[str, Made]:
        """What became of the tree's own blobs: the target may have those of a thousand others."""
        return {blob.key: self.delivered[blob.key].made for blob in self.tree.blobs}


def target_at(
    resources: Resources, name: RepositoryName, context: Context, side: Side = "destination"
) -> Target:
    """A repository, or what else is written to; what its calls cost is counted apart."""
    resources.check_open()
    context = context.but(meter=Meter())
    if name.is_at_registry:
        repository = resources.client.repository(name, side, context=context)
        return Target(resources, repository, (), context)
    from towline.targets.archives import opened  # which most have no need of

    return Target(resources, opened(cast("Place", name)), (), context)
