"""Has an engine export images, as rarely as possible: blobs pass, or a file keeps them."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from towline.context import acquired
from towline.errors import SourceError
from towline.events import Note
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping, Sequence

    from towline.context import Context
    from towline.sources.engine.client import EngineClient, ExportStream
    from towline.sources.engine.images import Listed
    from towline.sources.engine.kept_export import KeptExport
    from towline.sources.passing import PassingTar
    from towline.sources.passing_blob import Held, PassingBlob


class Exports:
    """The exports of one engine. Safe from any thread."""

    def __init__(
        self,
        client: EngineClient,
        context: Context,
        environ: Mapping[str, str],
        at_targets: Callable[[Collection[Digest]], Collection[Digest]],
    ) -> None:
        """`at_targets`: see `EngineSource`."""
        self._client = client
        self._context = context
        self._environ = environ
        self._at_targets = at_targets
        self._turn = threading.Lock()
        self._kept: dict[Digest, KeptExport] = {}
        """By the images in them."""
        self._made: list[KeptExport] = []
        """All of them: one may stand under no image any more."""
        self._closed = False
        self._passed: tuple[PassingTar, Held] | None = None
        """The export that has passed, and what was held of it."""

    def passing(
        self, image: Listed, held: Held, enough: Callable[[PassingTar], bool]
    ) -> Generator[PassingBlob | None, None, None]:
        """Each compressed blob of an export, as `ImageSource` has it, until there is `enough`.

        Raises SourceError, Cancelled.
        """
        from towline.sources.passing import PassingTar

        stream = self._begin([image], self._context)
        name = f"the export of {image.title}"
        tar = PassingTar(stream, name, self._context.cancel)
        self._passed = tar, held
        try:
            yield from tar.passing(held, lambda: enough(tar))
        except SourceError as error:
            raise stream.explained(error) from error
        finally:
            stream.close()

    def kept(self, images: Sequence[Listed], wanted: set[Digest] | None = None) -> KeptExport:
        """An export of these images, kept in a file; it is begun at the first call.

        `wanted`: blobs; the export is ended behind the last of them. None: all of it is wanted.
        Raises SourceError after `close`.
        """
        from towline.sources.engine.kept_export import KeptExport  # most pushes need none

        with acquired(self._turn, self._context):  # several layers are opened at once
            # A blob's thread may come late, when its push was cancelled.
            if self._closed:
                raise SourceError(f"{self._client.name} is closed already")
            if export := self._kept.get(images[0].id):
                return export
            unwanted = set(self._at_targets({each for image in images for each in image.diff_ids}))
            if self._passed and not self._passed[1].left_behind:
                tar, held = self._passed
                passed = {Digest(f"sha256:{path.rpartition('/')[2]}") for path in tar.passed}
                unwanted |= passed - held.missed
            export = KeptExport(
                partial(self._begin, images),
                f"the export of {_titles(images)}",
                self._context,
                self._environ,
                expected=sum(image.size for image in images),
                wanted=wanted,
                unwanted=unwanted,
            )
            self._made.append(export)
            self._kept |= dict.fromkeys((image.id for image in images), export)
            return export

    def _begin(self, images: Sequence[Listed], context: Context) -> ExportStream:
        """Have the engine begin an export. Raises SourceError."""
        size = sum(image.size for image in images)
        message = (
            f"{self._client.name} prepares its export of {_titles(images)}, about {size} bytes"
        )
        self._context.emit(Note(reference="", message=message))
        # One image by its ID: its name may be another image's by now. Several by their names: an
        # export by ID has no names to tell them apart.
        if len(images) > 1:
            return self._client.export([n for each in images for n in each.names], context)
        (image,) = images
        platform = image.platform if image.within else None
        return self._client.export([image.within or image.id], context, platform)

    def close(self) -> None:
        """Close the exports; readers that are open go on."""
        with self._turn:
            self._closed = True
            made, self._made = self._made, []
        for export in made:
            export.release()


def _titles(images: Sequence[Listed]) -> str:
    return ", ".join(image.title for image in images)
