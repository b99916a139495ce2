"""What an image source is: a new kind is a subclass, and a case in `push/source_images.py`.

A source reads metadata when it is opened, and layers when they are opened. It promises that a layer
can be opened as often as needed, from any thread, with the same bytes each time. A source that
cannot seek keeps that promise by spooling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Mapping, Sequence

    from towline.reference import Reference, RepositoryName
    from towline.sources.base import Referrer, SourceEntry, SourceImage
    from towline.sources.passing_blob import Held, PassingBlob
    from towline.spec.digest import Digest


class ImageSource:
    """An opened source. Each kind says its transport and entries; the rest where it can do more."""

    origin: RepositoryName | None = None
    """Its repository, if it is at a registry."""

    @property
    def transport(self) -> str:
        """The transport that names such a source, such as `docker-archive`; "": none does."""
        return ""

    def entries(self) -> Sequence[SourceEntry]:
        """All images and indexes of the source, in its own order. Raises SourceError."""
        raise NotImplementedError

    def close(self) -> None:
        """Close files; readers that are still open keep working until they are closed."""

    def read_ahead(self, entries: Iterable[SourceEntry]) -> None:
        """Read the documents of these entries side by side, where each is a request."""

    def referrers(self, subjects: Collection[Digest], *, patient: bool) -> Sequence[Referrer]:
        """The manifests that refer to one of these.

        `patient`: questions that fail are asked again. Raises a registry's errors.
        """
        del subjects, patient
        return ()

    # What is sent before it is known what lists it.

    once = True
    """Whether blobs that have passed are gone for good (a pipe); else they can be had again."""

    def passes(self) -> bool:
        """Whether the blobs are to be taken from `passing`, before entries are asked for."""
        return False

    def passing(self, held: Held) -> Generator[PassingBlob | None, None, None]:
        """Each blob, as it begins to pass, and None after each piece of it, and each short wait.

        The caller takes its shares at once, and releases them at the end. They are read by other
        threads. Raises SourceError, Cancelled.
        """
        raise NotImplementedError

    @property
    def early_outline(self) -> SourceImage | None:
        """The only image by its layers, if they can be sent before its config has come."""
        return None

    # What is known of it elsewhere.

    @property
    def near_origins(self) -> Sequence[Reference]:
        """References at the destinations' hosts from which the source has its images."""
        return ()

    @property
    def requests(self) -> Mapping[RepositoryName, int]:
        """Requests to other repositories than `origin` that have described the source."""
        return {}

    def preparation(self, send_bytes: int) -> str:
        """What the source has to do before so many bytes are sent, as a sentence; "": nothing."""
        del send_bytes
        return ""
