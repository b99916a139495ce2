"""An engine's image as a push sees it: what describes it is known here, or at the destination.

Configs and manifests are remembered by their digests from the last time, and the destinations
hold those of what was pushed there; either way the bytes are checked by the digest that the
engine itself names.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from towline.errors import TowlineError
from towline.push.target import target_at
from towline.sources.engine import Access, EngineSource
from towline.spec import config as configs
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from towline.context import Context
    from towline.knowledge.base import Knowledge
    from towline.push.options import Wish
    from towline.push.resources import Resources
    from towline.push.result import TagPlan
    from towline.push.target import Target
    from towline.reference import Reference, RepositoryName


class EngineImage(EngineSource):
    """The images of an engine that a push is about."""

    def __init__(
        self,
        name: str,
        resources: Resources,
        context: Context,
        places: Iterable[RepositoryName],
        *,
        all_tags: bool = False,
        outline: bool = False,
    ) -> None:
        """`places` are pushed to; `outline`: a rough description will do.

        Raises SourceError, and UsageError for a URL that is no address of an engine.
        """
        self._at = partial(target_at, resources, context=context)
        targets = [self._at(place) for place in places]
        self._known = _Documents(resources.knowledge, targets, self._places_of_origin)
        access = Access(
            resources.engine,
            resources.limits.timeout,
            resources.log,
            resources.secrets,
            self._known,
            all_tags=all_tags,
            outline=outline,
        )
        super().__init__(name, access, context, resources.environ)

    def taught(self, wish: Wish) -> Wish:
        """The wish, to learn also from where the engine has its images from, or has put them."""
        return wish._replace(origins=self._seen())

    def _seen(self) -> tuple[Reference, ...]:
        """Where they were on the hosts that are pushed to."""
        hosts = {name.host for name in self._known.places}
        return tuple(place for place in self.origins if place.repository.host in hosts)

    def _places_of_origin(self) -> list[Target]:
        """Those repositories, but for what is pushed to."""
        names = dict.fromkeys(place.repository for place in self._seen())
        return [self._at(name) for name in names if name not in self._known.places]

    def charge(self, targets: Iterable[Target]) -> None:
        """Let the result of each target count what was asked there to describe the image."""
        elsewhere = self._known.asked_elsewhere
        for target in targets:
            asked = self._known.asked(target.repository.name)
            target.context.meter.add(requests=asked + elsewhere)
            elsewhere = 0  # counted for the first of them

    def told_of_export(self, plan: TagPlan) -> TagPlan:
        """A plan that says so where layers would have to come out of the engine."""
        if isinstance(plan, TowlineError) or plan.status != "pushed" or not plan.send_bytes:
            return plan
        if not (size := self.export_size):
            return plan
        message = f"the engine would have to export {self.name} first, about {size} bytes"
        return replace(plan, warnings=(*plan.warnings, message))


class _Documents:
    """`Documents` of one push."""

    def __init__(
        self,
        knowledge: Knowledge,
        targets: Sequence[Target],
        find_origins: Callable[[], Sequence[Target]],
    ) -> None:
        """`targets` are where the push goes; they are only read."""
        self._knowledge = knowledge
        self._targets = targets
        self._find_origins = find_origins
        self._lacking: set[Digest] = set()
        """What none of them has."""

    @cached_property
    def _origins(self) -> Sequence[Target]:
        return self._find_origins()

    @property
    def places(self) -> set[RepositoryName]:
        """Where the push goes."""
        return {target.repository.name for target in self._targets}

    def asked(self, name: RepositoryName) -> int:
        """Requests that went to a target for this."""
        meters = (each.context.meter for each in self._targets if each.repository.name == name)
        return sum(meter.requests for meter in meters)

    @property
    def asked_elsewhere(self) -> int:
        """Requests to where the images are from."""
        return sum(target.context.meter.requests for target in self._origins)

    def remembered(self, digest: Digest) -> bytes | None:
        """See `Documents`."""
        return self._knowledge.config(digest)

    def fetch(self, digest: Digest, *, manifest: bool) -> bytes | None:
        """See `Documents`."""
        places = () if digest in self._lacking else (*self._targets, *self._origins)
        for target in places:
            content = _read(target, digest, manifest=manifest)
            if content is not None and Digest.of(content) == digest:
                self._knowledge.record_config(digest, content)
                return content
        self._lacking.add(digest)
        return None

    def keep(self, content: bytes) -> None:
        """See `Documents`."""
        self._knowledge.record_config(Digest.of(content), content)

    def held(self, diff_ids: Collection[Digest]) -> Collection[Digest]:
        """See `Documents`: those that each of the targets was seen to hold."""
        places = set(map(str, self.places))
        held: set[Digest] = set()
        for diff_id, entries in self._knowledge.entries(list(diff_ids)).items():
            if places and places <= {entry.repository for entry in entries}:
                held |= {diff_id, *(entry.digest for entry in entries)}
        return held

    def near(self, root: Digest, diff_ids: Collection[Digest]) -> bool:
        """See `Documents`: each target's host was seen to hold all, or has the manifest."""
        known = self._knowledge.entries(list(diff_ids))
        for target in self._targets:
            host = target.repository.name.host
            beside = [each for each in self._origins if each.repository.name.host == host]
            seen = all(
                any(entry.repository.startswith(f"{host}/") for entry in known.get(diff_id, ()))
                for diff_id in diff_ids
            )
            if not seen and not any(_read(each, root, manifest=True) for each in (target, *beside)):
                return False
        return True


def _read(target: Target, digest: Digest, *, manifest: bool) -> bytes | None:
    """From a destination; whatever goes wrong there, the push itself will meet it."""
    repository, context = target.repository, target.context
    try:
        if manifest:
            found = repository.get_manifest(digest, context)
            return found.content if found else None
        return repository.read_blob(digest, context, configs.MAX_SIZE)
    except TowlineError:
        return None
