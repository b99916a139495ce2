"""Images of an engine for a push: their documents are in the cache, or at the destinations.

The cache keeps configs and manifests by their digests, and a destination has those of images that
were pushed there. The bytes are checked by the digest that the engine itself names.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from towline.context import Meter
from towline.errors import TowlineError
from towline.push.target import Target, repository_at
from towline.sources.engine import client as engine_client
from towline.sources.engine.source import EngineSource
from towline.spec.digest import Digest
from towline.spec.manifest import MAX_SIZE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from towline.context import Context
    from towline.push.interface.options import Wish
    from towline.push.resources import Resources
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
        wish: Wish,
        outline: bool,
        ahead: bool,
    ) -> None:
        """`places`: the destinations; `outline`, `ahead`: see `EngineSource`.

        Raises SourceError, and UsageError for a URL that is no address of an engine.
        """
        client = engine_client.connect(
            resources.engine,
            name,
            context,
            resources.environ,
            timeout=resources.limits.timeout,
            log=resources.log,
            secrets=resources.secrets,
        )
        super().__init__(
            name,
            client,
            context,
            resources.environ,
            platforms=wish.platforms,
            all_tags=wish.all_tags,
            outline=outline,
            ahead=ahead,
        )
        self._knowledge = resources.knowledge
        self._resources = resources
        self._context = context
        self._targets = [self._at(place) for place in places]
        """The push's targets, which are only read here."""
        self._documents: dict[Digest, bytes] = {}
        """What this push has kept: the cache may keep nothing."""
        self._fetched: set[tuple[RepositoryName, Digest]] = set()
        """Repositories that have them."""
        self._lacking: set[Digest] = set()
        """Documents that none of them has."""

    def _at(self, name: RepositoryName) -> Target:
        context = self._context.but(meter=Meter())
        return Target(self._resources, repository_at(self._resources, name, context), context)

    @property
    def near_origins(self) -> tuple[Reference, ...]:
        """See `ImageSource`."""
        hosts = {name.host for name in self._places}
        places = dict.fromkeys(place for image in self.listed for place in image.origins)
        return tuple(place for place in places if place.repository.host in hosts)

    @property
    def _places(self) -> set[RepositoryName]:
        return {target.repository.name for target in self._targets}

    @cached_property
    def _origins(self) -> list[Target]:
        """The repositories of those origins, without the targets themselves."""
        names = dict.fromkeys(place.repository for place in self.near_origins)
        return [self._at(name) for name in names if name not in self._places]

    @property
    def requests(self) -> dict[RepositoryName, int]:
        """See `ImageSource`."""
        asked = (*self._targets, *self._origins)
        return {each.repository.name: each.context.meter.requests for each in asked}

    def preparation(self, send_bytes: int) -> str:
        """See `ImageSource`."""
        # What a containerd store's layers are may be known of an export alone, so that there will
        # be one even if nothing of it is sent.
        if not (size := self.export_size) or not (send_bytes or self.needs_export):
            return ""
        return f"the engine would have to export {self.name} first, about {size} bytes"

    def find(self, digest: Digest, *, manifest: bool, anywhere: bool = True) -> bytes | None:
        """See `EngineSource`."""
        content = self._documents.get(digest) or self._knowledge.config(digest)
        if content is not None or not anywhere or digest in self._lacking:
            return content
        for target in (*self._targets, *self._origins):
            content = _read(target, digest, manifest=manifest)
            if content is not None and Digest.of(content) == digest:
                self._fetched.add((target.repository.name, digest))
                self.keep(content)
                return content
        self._lacking.add(digest)
        return None

    def keep(self, content: bytes) -> None:
        """See `EngineSource`."""
        digest = Digest.of(content)
        self._documents[digest] = content
        self._knowledge.record_config(digest, content)

    def at_targets(self, diff_ids: Collection[Digest]) -> Collection[Digest]:
        """See `EngineSource`. Those that each of the targets was seen to hold."""
        places = set(map(str, self._places))
        held: set[Digest] = set()
        for diff_id, entries in self._knowledge.entries(list(diff_ids)).items():
            if places and places <= {entry.repository for entry in entries}:
                held |= {diff_id, *(entry.digest for entry in entries)}
        return held

    def near(self, root: Digest, layers: Mapping[Digest, Digest]) -> bool:
        """See `EngineSource`. True if each host was seen to hold all, or has the manifest."""
        known = self._knowledge.entries(list(layers))
        for target in self._targets:
            host = target.repository.name.host
            beside = [each for each in self._origins if each.repository.name.host == host]
            seen = all(
                any(
                    entry.digest == digest and entry.repository.startswith(f"{host}/")
                    for entry in known.get(diff_id, ())
                )
                for diff_id, digest in layers.items()
            )
            if not seen and not any(
                (each.repository.name, root) in self._fetched
                or _read(each, root, manifest=True) is not None
                for each in (target, *beside)
            ):
                return False
        return True


def _read(target: Target, digest: Digest, *, manifest: bool) -> bytes | None:
    """A document at a target; None: it is not there. Errors are left to the push to meet."""
    repository, context = target.repository, target.context
    try:
        if manifest:
            found = repository.get_manifest(digest, context)
            return found.content if found else None
        return repository.read_blob(digest, context, MAX_SIZE)
    except TowlineError:
        return None
