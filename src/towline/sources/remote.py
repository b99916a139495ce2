"""Images at a registry, read without keeping anything on disk.

A HEAD gives the digest under a tag, and everything else is asked for by digest, so that a tag that
is moved meanwhile changes nothing. Manifests and configs are read ahead, side by side; layers when
they are sent. A read that breaks goes on where it stopped.
"""

from __future__ import annotations

from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar

from towline.errors import NetworkError, RegistryError, SourceError, TowlineError
from towline.events import Retrying
from towline.registry.errors import on_side
from towline.registry.manifests import place
from towline.sources.base import Referrer, SourceEntry
from towline.sources.files import BLOCK
from towline.sources.oci_images import MAX_CHILDREN, MAX_DEPTH, Absent, OciImages
from towline.sources.select import worth_reading
from towline.spec import manifest as manifests
from towline.spec.distribution import cosign_tags
from towline.spec.manifest import MAX_SIZE
from towline.transfers.retry import Attempts, Policy, back_off, retry
from towline.transfers.threads import result_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from concurrent.futures import Future

    from towline.context import Context
    from towline.layers.reader import Reader
    from towline.reference import Reference
    from towline.registry.repository import Repository
    from towline.sources.base import SourceImage, SourceIndex
    from towline.spec.descriptor import Descriptor, Platform
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest
    from towline.transfers.retry import Gate
    from towline.transfers.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

_GONE = frozenset({404, 410})
_WORTH_IT = 64 << 10
"""Bytes that a read must have brought for the next one to begin without a pause."""


class Reading(NamedTuple):
    """A repository that is read, with all that its reads share."""

    repository: Repository
    context: Context
    policy: Policy
    gate: Gate
    threads: Threads
    """Those of its host, for questions side by side."""

    @property
    def host(self) -> str:
        """The host, whose gate the reads pass."""
        return self.repository.name.host

    def retry(self, what: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` until it succeeds. Raises its error when trying again is of no use."""
        ask, told = partial(work, *args, **kwargs), partial(self.tell, what)
        return retry(ask, self.attempts(), self.gate, self.host, self.context, told)

    def attempts(self) -> Attempts:
        """A new count of failures, of the source's side alone."""
        return Attempts(self.policy, "source")

    def tell(self, what: str, seconds: float, reason: str) -> None:
        """Tell of a wait before the next attempt."""
        reference = str(self.repository.name)
        event = Retrying(reference=reference, what=what, seconds=seconds, reason=reason)
        self.context.emit(event)

    def side_by_side(self, work: Iterable[Callable[[], T]]) -> list[T]:
        """The results, in order. Raises the first error of them in that order."""
        futures = [self.threads.submit(one) for one in work]
        try:
            return [result_of(future, self.context.cancel) for future in futures]
        finally:
            for future in futures:
                future.cancel()


class RemoteSource(OciImages):
    """Images at a registry: one image, or tags of a repository.

    Beside what they name, its methods raise AuthError, RegistryError, NetworkError and Cancelled.
    """

    transport = "docker"
    packs_plain = False

    def __init__(
        self,
        reading: Reading,
        reference: Reference,
        *,
        all_tags: bool = False,
        globs: Sequence[str] = (),
        wanted: Sequence[Platform] = (),
    ) -> None:
        """With `all_tags`: those that match one of `globs`, or all if there are none.

        Of an index only what may be of the `wanted` platforms is read.
        """
        super().__init__(str(reference))
        self.origin = reference.repository
        self._reading = reading
        self._reference = reference
        self._all_tags = all_tags
        self._globs = globs
        self._wanted = wanted
        self._contents: dict[Digest, bytes | Absent | RegistryError] = {}
        """The documents that were asked for, or the error of each that could not be read."""
        self._asked: list[Future[Descriptor | None]] = []

    def close(self) -> None:
        """See `ImageSource`. The connections are the registry client's."""
        for future in self._asked:
            future.cancel()

    def entries(self) -> Sequence[SourceEntry]:
        """See `ImageSource`. Raises SourceError where there is no image."""
        # By HEAD alone: at Docker Hub a GET of a manifest counts as a pull.
        if not self._all_tags:
            tag, target = self._reference.tag, self._reference.target
            if (known := self._head(target)) is None:
                raise self._lacks(target)
            return [self._entry((tag,) if tag else (), target, lambda: known)]
        reading = self._reading
        try:
            tags = reading.retry("tags", reading.repository.tags, reading.context)
        except RegistryError as error:
            if error.code != "NAME_UNKNOWN":  # a bare 404 may mean that it lists no tags at all
                raise
            raise SourceError(f"no tags to push for {self.name}: {error.message}") from None
        if self._globs:
            tags = [tag for tag in tags if any(fnmatchcase(tag, glob) for glob in self._globs)]
        # Awaited when they are needed: a destination is asked meanwhile.
        self._asked = [reading.threads.submit(partial(self._head, tag)) for tag in tags]
        asked = zip(tags, self._asked, strict=True)
        cancel = reading.context.cancel
        return [self._entry((tag,), tag, partial(result_of, head, cancel)) for tag, head in asked]

    def _head(self, target: str) -> Descriptor | None:
        reading = self._reading
        return reading.retry(target, reading.repository.head_manifest, target, reading.context)

    def _entry(
        self, names: tuple[str, ...], target: str, asked: Callable[[], Descriptor | None]
    ) -> SourceEntry:
        def know() -> Descriptor | None:
            try:
                return asked()
            except RegistryError:  # of this tag alone: raised when it is read
                return None

        def read() -> SourceImage | SourceIndex:
            if (known := asked()) is None:
                raise self._lacks(target)
            return self.entry(known)

        return SourceEntry(names, read, know)

    def _lacks(self, target: str) -> SourceError:
        """The error for a tag or digest of nothing. Raises what `check_version` does."""
        self._reading.repository.check_version(self._reading.context)
        what = "image" if ":" in target else "tag"
        return SourceError(f"{what} does not exist: {place(self._reference.repository, target)}")

    def _index(self, raw: RawManifest, listed: Sequence[Descriptor], depth: int) -> SourceIndex:
        return super()._index(raw, worth_reading(listed, self._wanted), depth)

    def referrers(self, subjects: Collection[Digest], *, patient: bool = True) -> list[Referrer]:
        """See `ImageSource`. Those that are listed, and those under cosign's tags."""
        # cosign's tags are asked for one by one: a repository may have 50,000 others. With
        # `all_tags` they are among the tags themselves.
        reading = self._reading if patient else self._reading._replace(policy=Policy(retries=0))
        repository, context = reading.repository, reading.context

        def listed(subject: Digest) -> list[Referrer]:
            entries = reading.retry("what refers to it", repository.referrers, subject, context)
            return [Referrer(subject, one, None, partial(self.entry, one)) for one in entries]

        def tagged(subject: Digest, tag: str) -> list[Referrer]:
            one = reading.retry(tag, repository.head_manifest, tag, context)
            if one is None:
                return []
            return [Referrer(subject, one, tag, partial(self.entry, one))]

        questions = [partial(listed, subject) for subject in subjects]
        if not self._all_tags or self._globs:
            pairs = ((subject, tag) for subject in subjects for tag in cosign_tags(subject))
            questions += [partial(tagged, *pair) for pair in pairs]
        return list(chain.from_iterable(reading.side_by_side(questions)))

    # Manifests and configs.

    def read_ahead(self, entries: Iterable[SourceEntry]) -> None:
        """See `ImageSource`. The documents of a level are read side by side."""
        roots = {known.digest: known for entry in entries if (known := entry.known)}
        level = list(roots.values())
        configs: dict[Digest, Descriptor] = {}
        for _ in range(MAX_DEPTH + 1):
            level = self._fetch_all(level, "manifest")
            documents = [self.document(each) for each in level]
            below: dict[Digest, Descriptor] = {}
            for raw, document in documents:
                if isinstance(document, manifests.Manifest):
                    configs[document.config.digest] = document.config
                    continue
                children = worth_reading(document.manifests, self._wanted)
                below |= {each.digest: each for each in children}
                if len(below) > MAX_CHILDREN:
                    raise self.too_many(raw)
            level = [each for each in below.values() if each.digest not in self._contents]
        self._fetch_all(configs.values(), "config")

    def _fetch_all(self, wanted: Iterable[Descriptor], what: str) -> list[Descriptor]:
        """Read these documents side by side. Returns those that could be read.

        One that is absent or refused raises only when it is needed.
        """

        def fetch(listed: Descriptor) -> Descriptor | None:
            try:
                self.content(listed, what)
            except (Absent, RegistryError):
                return None
            return listed

        fetched = self._reading.side_by_side(partial(fetch, listed) for listed in wanted)
        return [listed for listed in fetched if listed]

    def content(self, listed: Descriptor, what: str) -> bytes:
        """See `OciImages`. Each document is asked for once, whatever comes of it."""
        if (content := self._contents.get(listed.digest)) is None:
            self.check_algorithm(listed, what)
            try:
                content = self._fetch(listed, what)
            except (Absent, RegistryError) as error:
                content = error
            self._contents[listed.digest] = content
        if isinstance(content, Exception):
            raise content
        return content

    def _fetch(self, listed: Descriptor, what: str) -> bytes:
        reading, digest = self._reading, listed.digest
        repository, context = reading.repository, reading.context
        try:
            if what == "manifest":
                found = reading.retry(digest.short, repository.get_manifest, digest, context)
                if found:
                    return found.content
            else:
                read = repository.read_blob
                content = reading.retry(digest.short, read, digest, context, MAX_SIZE)
                self.check_size(listed, len(content), what)
                return content
        except RegistryError as error:
            if error.status not in _GONE:
                raise
        raise Absent(f"{self.name} lacks the {what} {digest}")

    # Layers.

    def holds(self, listed: Descriptor) -> bool:
        """See `OciImages`. Whether the registry has the layer is seen when it is opened."""
        del listed
        return True

    def open(self, listed: Descriptor) -> RemoteReader:
        """See `OciImages`."""
        return RemoteReader(self._reading, listed)


class RemoteReader:
    """A `layers.reader.Reader` of one blob, over as many answers as it takes.

    A digest always names the same bytes, so those after a break fit to those before it; the caller
    hashes the blob, and would find out. Each time the registry itself is asked: it may redirect to
    an address that ends after a while.
    """

    def __init__(self, reading: Reading, listed: Descriptor) -> None:
        """Ask for the blob: one that cannot be read fails before anything is sent elsewhere."""
        self._reading = reading
        self._listed = listed
        self._at = 0
        """Bytes read so far."""
        self._broke_at = 0
        self._attempts = reading.attempts()
        self._unread: Reader | None = None
        self.readinto(memoryview(b""))

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`. Raises SourceError, AuthError, RegistryError, NetworkError, Cancelled."""
        while left := self._listed.size - self._at:
            try:
                with on_side("source"):
                    unread = self._unread or self._ask()
                    return self._receive(unread, buffer[:left]) if buffer else 0
            except TowlineError as error:
                self._broken(error)
        return 0

    def _ask(self) -> Reader:
        """Ask for the rest of the blob."""
        reading, digest = self._reading, self._listed.digest
        reading.gate.wait(reading.host, reading.context.cancel)
        self._unread, at = reading.repository.blob_from(digest, self._at, reading.context)
        # Where `Range` is ignored the whole blob comes: its beginning is read and dropped.
        room = memoryview(bytearray(min(BLOCK, self._at - at)))
        while at < self._at:
            if not (count := self._unread.readinto(room[: self._at - at])):
                raise NetworkError(f"{reading.host} ended blob {digest.short}", transient=True)
            at += count
        return self._unread

    def _receive(self, unread: Reader, room: memoryview) -> int:
        """Read the next bytes of the blob into `room`. Returns their number."""
        listed = self._listed
        if not (count := unread.readinto(room)):
            raise NetworkError(
                f"{self._reading.host} ended blob {listed.digest.short} after {self._at} of "
                f"{listed.size} bytes",
                transient=True,
            )
        self._at += count
        if self._at == listed.size:
            with suppress(TowlineError):
                # Only an answer that was read to its end frees its connection for others.
                unread.readinto(memoryview(bytearray(1)))
            self.close()
        return count

    def _broken(self, error: TowlineError) -> None:
        """Wait before the next attempt. Raises the error that ends the read, if it ends."""
        self.close()
        reading, digest = self._reading, self._listed.digest
        name = reading.repository.name
        reading.context.cancel.check()
        # 416: nothing is left after the bytes that we have, so the blob is shorter than listed.
        if getattr(error, "status", None) in {*_GONE, 416}:
            if self._at:
                raise SourceError(
                    f"the blob {digest} at {name} has {self._at} bytes where its manifest lists "
                    f"{self._listed.size}"
                ) from error
            raise SourceError(
                f"{name} lacks the blob {digest}, which its manifest lists: {error.message}",
                hint="push the image there again, or copy from another registry",
            ) from error
        seconds = back_off(error, self._attempts, reading.gate, reading.host, self._at)
        if self._at - self._broke_at >= _WORTH_IT and error.retry_after is None:
            seconds = 0.0
        self._broke_at = self._at
        if seconds:
            reading.tell(digest.short, seconds, error.message)
        reading.context.cancel.wait(seconds)

    def close(self) -> None:
        """See `Reader`."""
        unread, self._unread = self._unread, None
        if unread is not None:
            unread.close()
