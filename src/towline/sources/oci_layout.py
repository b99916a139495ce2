"""OCI layouts (image-spec, "OCI Image Layout"), in a folder or in a tar.

Every blob is looked for when the layout is read; layers are hashed only when they are sent.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from towline.errors import SourceError
from towline.sources import files as stores
from towline.sources.base import (
    Referrer,
    SourceEntry,
    SourceLayer,
    foreign_layer,
    missing_layer,
)
from towline.sources.oci_images import Absent, OciImages, is_plain
from towline.spec import manifest as manifests
from towline.spec import media_types
from towline.spec.descriptor import is_attestation
from towline.spec.digest import Digest
from towline.spec.distribution import subject_of
from towline.spec.manifest import Index, Manifest, RawManifest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from towline.sources.files import Files
    from towline.spec.descriptor import Descriptor

INDEX = "index.json"
CONTAINERD_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
SPARSE = "towline.sparse"
"""The annotation of an `index.json` whose layers were left out on purpose (`--omit-from`)."""
REFERRER = "io.containerd.manifest.subject"
"""The annotation by which Docker, since 29.1, marks a signature beside an image; it has no name."""


class OciLayout:
    """An ImageSource that owns its files."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.transport = "oci" if isinstance(files, stores.Folder) else "oci-archive"
        self._blobs = LayoutBlobs(files)
        self._raw = RawManifest(stores.read(files, INDEX), media_types.OCI_INDEX)
        with stores.understood(f"{INDEX} in {files.name}"):
            document = manifests.parse(self._raw.content, media_types.OCI_INDEX)
        if isinstance(document, Manifest):
            raise SourceError(f"{INDEX} in {files.name} is an image manifest, not an index")
        self._blobs.sparse = SPARSE in document.annotations
        self._listed = tuple(each for each in document.manifests if not _is_referrer(each))
        self._referrers = tuple(each for each in document.manifests if _is_referrer(each))

    def close(self) -> None:
        """See `ImageSource`."""
        self._files.close()

    def entries(self) -> Sequence[SourceEntry]:
        """See `ImageSource`."""
        if not self._listed:
            raise SourceError(f"{self._files.name} holds no image: its {INDEX} lists none")
        if self._is_one_image():
            return [SourceEntry((), lambda: self._blobs.entry_of(self._raw, self._listed))]
        return [
            SourceEntry(names, partial(self._blobs.entry, descriptor))
            for descriptor, names in self._roots()
        ]

    @property
    def may_have_referrers(self) -> bool:
        """Whether the layout has any manifest that refers to another."""
        names = (name for each in self._listed for name in _names(each))
        return bool(self._referrers) or any(map(subject_of, names))

    def referrers(self, subjects: Collection[Digest], *, patient: bool = True) -> list[Referrer]:
        """The manifests that refer to one of these. `patient` is for sources at a registry."""
        del patient
        found: list[tuple[str | None, Descriptor, str | None]] = [
            (each.annotations[REFERRER], each, None) for each in self._referrers
        ]
        named = ((name, each) for each in self._listed for name in _names(each))
        found += [(subject_of(name), each, name) for name, each in named]
        return [
            Referrer(Digest(str(subject)), each, tag, partial(self._blobs.entry, each))
            for subject, each, tag in found
            if subject in subjects
        ]

    def says_most(self) -> bool:
        """Whether `index.json` says more of its images than the `manifest.json` beside it.

        It does if every layer is compressed, as its manifests then go byte for byte, and if it has
        an index, as nothing else tells platforms. Raises SourceError for an image that contradicts
        itself: Docker 25.0 wrote some without layers (moby#47065).
        """
        plain = index = False
        may_be_index = any(each.media_type not in media_types.IMAGES for each in self._listed)
        for each in self._listed:
            if plain and not may_be_index:
                return False  # the others, perhaps a thousand, would change nothing
            try:
                raw, document = self._blobs.document(each)
                if isinstance(document, Index):
                    index = True
                else:
                    self._blobs.image(raw, document, each.platform)
                    plain = plain or any(map(is_plain, document.layers))
            except Absent:
                continue
        return index or bool(self._listed and not plain)

    def _is_one_image(self) -> bool:
        """Whether `index.json` is itself the index of one image: no names, each platform once."""
        platforms = [each.platform for each in self._listed if not is_attestation(each)]
        return (
            len(self._listed) > 1
            and not any(_names(each) for each in self._listed)
            and not any(each.media_type in media_types.INDEXES for each in self._listed)
            and None not in platforms
            and len(set(platforms)) == len(platforms)
        )

    def _roots(self) -> Iterable[tuple[Descriptor, tuple[str, ...]]]:
        """The descriptors of `index.json`, each digest once, with all its names."""
        names: dict[Digest, dict[str, None]] = {}
        for each in self._listed:
            names.setdefault(each.digest, {}).update(dict.fromkeys(_names(each)))
        roots = {each.digest: each for each in self._listed}
        return [(roots[digest], tuple(found)) for digest, found in names.items()]


def _names(listed: Descriptor) -> tuple[str, ...]:
    names = (listed.annotations.get(key) for key in (CONTAINERD_NAME, REF_NAME))
    return tuple(name for name in names if name)


def _is_referrer(listed: Descriptor) -> bool:
    return REFERRER in listed.annotations and not _names(listed)


class LayoutBlobs(OciImages):
    """The blobs of one layout, `blobs/ALGORITHM/ENCODED` (image-spec, "Blobs")."""

    def __init__(self, files: Files) -> None:
        super().__init__(files.name)
        self._files = files

    def layer(self, listed: Descriptor, diff_id: Digest | None) -> SourceLayer:
        """See `OciImages`."""
        path = path_of(listed.digest)
        size = self._files.size(path)
        if listed.urls and (size is None or media_types.is_foreign(listed.media_type)):
            return foreign_layer(listed, diff_id)
        self.check_plain(listed, diff_id)
        stored = None if is_plain(listed) and diff_id is not None else listed
        if size is None:
            return missing_layer(self.name, listed.digest, diff_id, stored, listed.size)
        self._check_size(listed, size, "layer")
        return SourceLayer(diff_id, stored, size, partial(self._files.open, path))

    def content(self, listed: Descriptor, what: str) -> bytes:
        """See `OciImages`."""
        self.check_algorithm(listed, what)
        path = path_of(listed.digest)
        size = self._files.size(path)
        if size is None:
            raise Absent(f"{self._files.name} lacks the {what} {listed.digest}")
        self._check_size(listed, size, what)
        content = stores.read(self._files, path)
        if (found := Digest.of(content)) != listed.digest:
            raise SourceError(
                f"the {what} {listed.digest} in {self._files.name} is damaged: "
                f"its bytes have the digest {found}"
            )
        return content

    def _check_size(self, listed: Descriptor, size: int, what: str) -> None:
        if size != listed.size:
            raise SourceError(
                f"the {what} {listed.digest} in {self._files.name} has {size} bytes "
                f"where {listed.size} are listed"
            )


def path_of(digest: Digest) -> str:
    """The path of a blob in a layout."""
    return f"blobs/{digest.algorithm}/{digest.hex}"
