"""Has an engine export images, as rarely as possible: blobs pass, or a file keeps them."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from towline.context import acquired
from towline.errors import SourceError
from towline.events import Note
from towline.sources.engine_documents import named_by

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping, Sequence

    from towline.context import Context
    from towline.sources.base import ImageSource
    from towline.sources.engine_client import EngineClient
    from towline.sources.engine_export import EngineExport
    from towline.sources.engine_images import Listed
    from towline.sources.passing import PassingTar
    from towline.sources.passing_blob import PassingBlob
    from towline.spec.digest import Digest
    from towline.wire.exchange import Unread


class Exporter:
    """The exports of one engine. Safe from any thread."""

    def __init__(
        self,
        client: EngineClient,
        context: Context,
        environ: Mapping[str, str],
        held: Callable[[Collection[Digest]], Collection[Digest]],
    ) -> None:
        """`held` gives those of some layers, and the blobs made of them, that need not be sent."""
        self._client = client
        self._context = context
        self._environ = environ
        self._held = held
        self._turn = threading.Lock()
        self._kept: dict[tuple[Digest, ...], EngineExport] = {}
        self._archives: dict[tuple[Digest, ...], ImageSource] = {}
        """The exports as sources, by the lists of images in them."""
        self._passed: PassingTar | None = None
        """The export that has passed."""

    def passing(
        self, image: Listed, enough: Callable[[PassingTar], bool]
    ) -> Generator[PassingBlob, None, None]:
        """Each compressed blob of an export, as it passes, until there is `enough`.

        Raises SourceError, Cancelled.
        """
        from towline.sources.engine_export import ExportStream
        from towline.sources.passing import PassingTar

        unread = self._ask([image], self._context)
        name = f"the export of {image.title}"
        stream = ExportStream(unread, name, self._client.gone)
        self._passed = tar = PassingTar(stream, name, self._context.cancel)
        try:
            yield from tar.passing(lambda: enough(tar))
        except SourceError as error:
            raise stream.explained(error) from error
        finally:
            stream.close()

    def kept(self, images: Sequence[Listed], wanted: set[str] | None) -> EngineExport:
        """An export of these images, kept in a file; it is begun at the first call.

        `wanted`: digests, without the algorithm; the export is ended behind the last of them. None:
        all of it is wanted.
        """
        key = tuple(image.id for image in images)
        with acquired(self._turn, self._context):  # several layers are opened at once
            if key not in self._kept:
                self._kept[key] = self._new(images)
                if wanted is not None:
                    self._kept[key].want_only(wanted)
            return self._kept[key]

    def _new(self, images: Sequence[Listed]) -> EngineExport:
        from towline.sources.engine_export import EngineExport  # most pushes need no export

        held = self._held({diff_id for each in images for diff_id in each.diff_ids})
        unwanted = {digest.hex for digest in held}
        if self._passed:
            missed = {digest.hex for digest in self._passed.held.missed}
            unwanted |= set(map(named_by, self._passed.passed)) - missed
        return EngineExport(
            partial(self._ask, images),
            self._client.gone,
            f"the export of {_titles(images)}",
            self._context,
            self._environ,
            expected=sum(image.size for image in images),
            unwanted=unwanted,
        )

    def _ask(self, images: Sequence[Listed], context: Context) -> Unread:
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

    def archive(self, images: Sequence[Listed]) -> ImageSource:
        """An export of these images as a source, by its list of images, which comes last."""
        from towline.sources.open_source import by_its_list
        from towline.sources.tar_members import TarMembers

        export = self.kept(images, None)
        key = tuple(image.id for image in images)
        with acquired(self._turn, self._context):
            if key not in self._archives:
                export.await_end()
                export.hold()
                try:
                    members = TarMembers(export, export.name, self._context.cancel)
                    self._archives[key] = by_its_list(members, None, self._context)
                except BaseException:
                    export.release()
                    raise
            return self._archives[key]

    def close(self) -> None:
        """Close the exports; readers that are open go on."""
        for archive in self._archives.values():
            archive.close()
        for export in self._kept.values():
            export.release()


def _titles(images: Sequence[Listed]) -> str:
    return ", ".join(image.title for image in images)
