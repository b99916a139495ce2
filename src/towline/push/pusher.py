"""`Pusher`: the story of a push. Read this first.

Describe what the source holds, learn what is known of it, plan each blob's way, settle and send
them, put the manifests, tell the result. Each step is a module of this package; what pushes of
one `Pusher` share is `engine.Engine`.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, overload

from towline.context import Cancel, Context
from towline.errors import Cancelled, TransferCancelled
from towline.events import Note, PushStarted, Warned, nowhere
from towline.push import build, destinations, options
from towline.push.engine import Engine
from towline.push.run import Run
from towline.push.target import Target
from towline.push.wanted import Gatherer, images
from towline.sources.open import open_source
from towline.sources.select import select

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Self, Unpack

    from towline.push.options import PusherOptions, PushOptions, Wish
    from towline.push.result import PushResult
    from towline.push.wanted import Tree
    from towline.reference import Reference
    from towline.sources.base import ImageSource

Source = str | os.PathLike[str] | BinaryIO
"""A path, a text of the command line's grammar, or an open binary file."""


class Pusher:
    """Pushes images; connections, tokens and knowledge stay warm from one push to the next.

    May be used from many threads, not across a fork. Close it, or use it in a `with` block.

    Raises UsageError for options that cannot be.
    """

    def __init__(self, **settings: Unpack[PusherOptions]) -> None:
        self._emit = settings.get("on_event", nowhere)
        self._engine = Engine(settings, self._warn)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and stores, and end the threads; running pushes must be over."""
        self._engine.close()

    @overload
    def push(
        self, source: Source, destination: str, **wishes: Unpack[PushOptions]
    ) -> PushResult: ...

    @overload
    def push(
        self, source: Source, destination: Sequence[str], **wishes: Unpack[PushOptions]
    ) -> list[PushResult]: ...

    def push(
        self, source: Source, destination: str | Sequence[str], **wishes: Unpack[PushOptions]
    ) -> PushResult | list[PushResult]:
        """Push an image to a destination, `REGISTRY/REPOSITORY[:TAG]`.

        A tag is written only after every blob under it is confirmed.

        Raises UsageError, SourceError, AuthError, RegistryError, NetworkError, TransferCancelled.
        """
        wish = options.wish(wishes)
        references = destinations.parse(destination)
        cancel = wishes.get("cancel") or Cancel()
        with _public_edge(references), self._opened(source, cancel) as opened:
            results = [
                result
                for reference in references
                for result in self._push(opened, reference, wish, cancel)
            ]
        return results[0] if isinstance(destination, str) else results

    def _push(
        self, source: ImageSource, reference: Reference, wish: Wish, cancel: Cancel
    ) -> list[PushResult]:
        entry = select(source)
        tree = Gatherer(wish.profile).tree(entry.content)
        for image in images(tree):
            build.check(image, build.preferred(image, wish.format, wish.profile), wish.profile)
        target = self._target(reference, tree, cancel)
        repository = str(reference.repository)
        self._emit(PushStarted(reference=str(reference), repository=repository))
        for warning in entry.warnings:
            target.warn(warning)
        return Run(self._engine, target, wish).results()

    def _target(self, reference: Reference, tree: Tree, cancel: Cancel) -> Target:
        repository = self._engine.client.repository(reference.repository)
        context = Context(cancel=cancel, emit=self._emit)
        return Target(self._engine, repository, ((reference, tree),), context, [])

    @contextmanager
    def _opened(self, source: Source, cancel: Cancel) -> Iterator[ImageSource]:
        opened = open_source(source, self._engine.environ, self._note, cancel)
        try:
            yield opened
        finally:
            opened.close()

    def _warn(self, message: str) -> None:
        self._emit(Warned(reference="", message=message))

    def _note(self, message: str) -> None:
        self._emit(Note(reference="", message=message))


@contextmanager
def _public_edge(references: Sequence[Reference]) -> Iterator[None]:
    """`Cancelled` is for the inside: what leaves the library is `TransferCancelled`."""
    try:
        yield
    except Cancelled:
        names = ", ".join(str(reference) for reference in references)
        raise TransferCancelled(f"the push of {names} was cancelled") from None
