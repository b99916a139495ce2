"""Images at a registry: read there, and nothing of them kept on disk.

A HEAD says what stands under a tag, and everything else is asked for by its digest, so that a tag
that is moved meanwhile changes nothing. Manifests and configs are read side by side before they
are needed; layers when they are sent. A read that breaks goes on where it stopped.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from towline.errors import NetworkError, RegistryError, SourceError, TowlineError
from towline.events import Retrying
from towline.registry.errors import on_side
from towline.sources import platforms
from towline.sources.base import ForeignLayer, Found, Referrer, SourceEntry
from towline.sources.oci_images import MAX_CHILDREN, MAX_DEPTH, Absent, OciImages
from towline.spec import config as configs
from towline.spec import manifest as manifests
from towline.spec import media_types
from towline.spec.referrers import cosign_tags
from towline.transfers.retry import Attempts, Policy, back_off, retry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from towline.context import Context
    from towline.reference import Reference
    from towline.registry.repository import Repository
    from towline.sources.base import SourceIndex, SourceLayer
    from towline.spec.descriptor import Descriptor, Platform
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest
    from towline.transfers.retry import Gate
    from towline.transfers.threads import Threads
    from towline.wire.exchange import Unread

T = TypeVar("T")

_GONE = frozenset({404, 410})
_WORTH_IT = 64 << 10
"""Bytes after which a read that broke is taken up again at once."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A repository that is read from, and what its reads have in common."""

    repository: Repository
    context: Context
    policy: Policy
    gate: Gate
    threads: Threads
    """Of its host: what may be asked side by side."""

    @property
    def host(self) -> str:
        """Whose gate its reads pass."""
        return self.repository.name.host

    def retry(self, what: str, work: Callable[[], T]) -> T:
        """Call `work` until it succeeds or trying again is of no use."""
        told = partial(self.tell, what)
        return retry(work, self.attempts(), self.gate, self.host, self.context, told)

    def attempts(self) -> Attempts:
        """Failures of this side alone count."""
        return Attempts(self.policy, "source")

    def tell(self, what: str, seconds: float, reason: str) -> None:
        """Tell of a wait before the next attempt."""
        reference = str(self.repository.name)
        event = Retrying(reference=reference, what=what, seconds=seconds, reason=reason)
        self.context.emit(event)

    def side_by_side(self, work: Iterable[Callable[[], T]]) -> list[T]:
        """What each of them returns. Raises what one of them raised."""
        futures = [self.threads.submit(one) for one in work]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


class RemoteSource(OciImages):
    """An ImageSource: one image, or tags of a repository.

    Its methods raise AuthError, RegistryError, NetworkError and Cancelled beside what they say.
    """

    transport = "docker"
    may_have_referrers = True

    def __init__(
        self,
        reading: Reading,
        reference: Reference,
        *,
        all_tags: bool = False,
        globs: Sequence[str] = (),
        wanted: Sequence[Platform] = (),
    ) -> None:
        """Of all tags those that fit one of `globs`, if there are any.

        Of indexes no more is read than what may be of the platforms that are `wanted`.
        """
        super().__init__(str(reference))
        self.origin = reference.repository
        self._reading = reading
        self._reference = reference
        self._all_tags = all_tags
        self._globs = globs
        self._wanted = wanted
        self._contents: dict[Digest, bytes] = {}

    def close(self) -> None:
        """See `ImageSource`: connections are the registry client's."""

    def entries(self) -> Sequence[SourceEntry]:
        """See `ImageSource`: by HEAD alone. Raises SourceError where there is nothing."""
        if not self._all_tags:
            tag = self._reference.tag
            return [self._entry((tag,) if tag else (), self._reference.target)]
        reading = self._reading
        try:
            tags = reading.retry("tags", partial(reading.repository.tags, reading.context))
        except RegistryError as error:
            if error.code != "NAME_UNKNOWN":  # 404 alone may be of a registry that lists no tags
                raise
            raise SourceError(f"no tags to push for {self.name}: {error.message}") from None
        if self._globs:
            tags = [tag for tag in tags if any(fnmatchcase(tag, glob) for glob in self._globs)]
        if not tags:
            fits = f" that fits {' or '.join(self._globs)}" if self._globs else ""
            raise SourceError(f"no tags to push for {self.name}: it has none{fits}")
        return reading.side_by_side(partial(self._entry, (tag,), tag) for tag in tags)

    def _entry(self, names: tuple[str, ...], target: str) -> SourceEntry:
        reading = self._reading
        head = partial(reading.repository.head_manifest, target, reading.context)
        known = reading.retry(target, head)
        if known is None:
            reading.repository.check_version(reading.context)
            what = "image" if ":" in target else "tag"
            raise SourceError(f"{what} does not exist: {self._reference}")
        return SourceEntry(names, lambda: Found(self.entry(known)), known)

    def _index(self, raw: RawManifest, listed: Sequence[Descriptor], depth: int) -> SourceIndex:
        return super()._index(raw, platforms.worth_reading(listed, self._wanted), depth)

    def referrers(self, subjects: Collection[Digest], *, patient: bool = True) -> list[Referrer]:
        """What refers to these manifests: as listed, and what cosign's tags hold.

        Those tags are asked for one by one: a repository may have 50,000 others. Where all tags
        go, they go by themselves. `patient`: questions that fail are asked again.
        """
        reading = self._reading if patient else replace(self._reading, policy=Policy(retries=0))
        repository, context = reading.repository, reading.context

        def listed(subject: Digest) -> list[Referrer]:
            ask = partial(repository.referrers, subject, context)
            entries = reading.retry("what refers to it", ask)
            return [Referrer(subject, one, None, partial(self.entry, one)) for one in entries]

        def tagged(subject: Digest, tag: str) -> list[Referrer]:
            ask = partial(repository.head_manifest, tag, context)
            if (one := reading.retry(tag, ask)) is None:
                return []
            return [Referrer(subject, one, tag, partial(self.entry, one))]

        questions = [partial(listed, subject) for subject in subjects]
        if not self._all_tags or self._globs:
            pairs = ((subject, tag) for subject in subjects for tag in cosign_tags(subject))
            questions += [partial(tagged, *pair) for pair in pairs]
        return list(chain.from_iterable(reading.side_by_side(questions)))

    # Manifests and configs.

    def read_ahead(self, roots: Iterable[Descriptor]) -> None:
        """Read what describes these images, a level of their indexes after the other."""
        level = list({each.digest: each for each in roots}.values())
        configs: dict[Digest, Descriptor] = {}
        for _ in range(MAX_DEPTH + 1):
            self._fetch_all(level, "manifest")
            documents = [self.document(each) for each in level if each.digest in self._contents]
            below: dict[Digest, Descriptor] = {}
            for raw, document in documents:
                if isinstance(document, manifests.Manifest):
                    configs[document.config.digest] = document.config
                    continue
                children = platforms.worth_reading(document.manifests, self._wanted)
                below |= {each.digest: each for each in children}
                if len(below) > MAX_CHILDREN:
                    raise self.too_many(raw)
            level = [each for each in below.values() if each.digest not in self._contents]
        self._fetch_all(configs.values(), "config")

    def _fetch_all(self, wanted: Iterable[Descriptor], what: str) -> None:
        """Those that are there; where one is absent it is said when it is asked for."""

        def fetch(listed: Descriptor) -> None:
            try:
                self.content(listed, what)
            except Absent:
                return

        self._reading.side_by_side(partial(fetch, listed) for listed in wanted)

    def content(self, listed: Descriptor, what: str) -> bytes:
        """See `OciImages`: it is read once."""
        if (content := self._contents.get(listed.digest)) is None:
            self.check_algorithm(listed, what)
            content = self._manifest(listed) if what == "manifest" else self._config(listed)
            self._contents[listed.digest] = content
        return content

    def _manifest(self, listed: Descriptor) -> bytes:
        reading, digest = self._reading, listed.digest
        get = partial(reading.repository.get_manifest, digest, reading.context)
        found = reading.retry(digest.short, get)
        if found is None:
            raise Absent(f"{self.name} lacks the manifest {digest}")
        return found.content

    def _config(self, listed: Descriptor) -> bytes:
        reading, digest = self._reading, listed.digest
        read = partial(reading.repository.read_blob, digest, reading.context, configs.MAX_SIZE)
        try:
            content = reading.retry(digest.short, read)
        except RegistryError as error:
            if error.status in _GONE:
                raise Absent(f"{self.name} lacks the config {digest}") from None
            raise
        if len(content) != listed.size:
            raise SourceError(
                f"the config {digest} in {self.name} has {len(content)} bytes "
                f"where {listed.size} are listed"
            )
        return content

    # Layers.

    def layer(self, listed: Descriptor, diff_id: Digest | None) -> SourceLayer:
        """See `OciImages`: it goes as it is, and is looked for when it is opened."""
        if listed.urls and media_types.is_foreign(listed.media_type):
            return ForeignLayer(listed, diff_id)
        self.check_plain(listed, diff_id)
        return RemoteLayer(self._reading, listed, diff_id)


@dataclass(frozen=True, slots=True)
class RemoteLayer:
    """A layer, or another blob, at a registry."""

    reading: Reading
    stored: Descriptor
    diff_id: Digest | None
    foreign: Descriptor | None = None
    held: bool = True

    @property
    def size(self) -> int:
        """As the manifest has it."""
        return self.stored.size

    def open(self) -> RemoteReader:
        """See `SourceLayer`. Raises AuthError, RegistryError, NetworkError, Cancelled too."""
        return RemoteReader(self.reading, self.stored)


class RemoteReader:
    """A `layers.reader.Reader` of one blob, over as many answers as it takes.

    A digest names the same bytes for ever, so what is read after a break fits to what was read
    before it; whoever reads the blob hashes it, and finds out if it does not. A registry that
    redirects to an address that holds good for a while is asked for another each time.
    """

    def __init__(self, reading: Reading, listed: Descriptor) -> None:
        """Ask for it: what cannot be read at all is to fail before anything is sent elsewhere."""
        self._reading = reading
        self._listed = listed
        self._at = 0
        """Bytes read so far."""
        self._broke_at = 0
        self._attempts = reading.attempts()
        self._unread: Unread | None = None
        if listed.size:
            self._unread = self._persistently(lambda: self._ask(memoryview(b"")))

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`. Raises SourceError, AuthError, RegistryError, NetworkError, Cancelled."""
        left = self._listed.size - self._at
        count = self._persistently(lambda: self._receive(buffer[:left])) if left else 0
        self._at += count
        return count

    def _persistently(self, work: Callable[[], T]) -> T:
        """What `work` returns; it is done again, and asks for the rest, as often as it breaks."""
        while True:
            try:
                with on_side("source"):
                    return work()
            except TowlineError as error:
                self._broken(error)

    def _receive(self, room: memoryview) -> int:
        """The next bytes of the blob, and at its end no more than the manifest says there are."""
        if self._unread is None:
            self._unread = self._ask(room)
        count = self._unread.readinto(room)
        if not count:
            raise NetworkError(
                f"{self._reading.host} ended blob {self._listed.digest.short} after {self._at} of "
                f"{self._listed.size} bytes",
                transient=True,
            )
        if self._at + count == self._listed.size:
            with suppress(TowlineError):
                self._unread.readinto(memoryview(bytearray(1)))  # the connection is free again
            self.close()
        return count

    def _ask(self, room: memoryview) -> Unread:
        """The rest of the blob, where the registry gives the whole one without its beginning."""
        reading = self._reading
        digest = self._listed.digest
        reading.gate.wait(reading.host, reading.context.cancel)
        unread, at = reading.repository.blob_from(digest, self._at, reading.context)
        while at < self._at:
            count = unread.readinto(room[: self._at - at])
            if not count:
                unread.close()
                raise NetworkError(f"{reading.host} ended blob {digest.short}", transient=True)
            at += count
        return unread

    def _broken(self, error: TowlineError) -> None:
        """Wait until it is worth asking once more. Raises what the read ends with, if it does."""
        self.close()
        reading = self._reading
        reading.context.cancel.check()
        if getattr(error, "status", None) in {*_GONE, 416}:
            raise self._lacking(error) from error
        seconds = back_off(error, self._attempts, reading.gate, reading.host, self._at)
        if self._at - self._broke_at >= _WORTH_IT and error.retry_after is None:
            seconds = 0.0
        self._broke_at = self._at
        if seconds:
            reading.tell(self._listed.digest.short, seconds, error.message)
        reading.context.cancel.wait(seconds)

    def _lacking(self, error: TowlineError) -> SourceError:
        name, listed = self._reading.repository.name, self._listed
        if self._at:
            return SourceError(
                f"the blob {listed.digest} at {name} has {self._at} bytes where its manifest lists "
                f"{listed.size}"
            )
        return SourceError(
            f"{name} lacks the blob {listed.digest}, which its manifest lists: {error.message}",
            hint="push the image there again, or copy from another registry",
        )

    def close(self) -> None:
        """See `Reader`."""
        unread, self._unread = self._unread, None
        if unread is not None:
            unread.close()
