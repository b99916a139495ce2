"""OCI layouts (image-spec, "OCI Image Layout"), in a folder or in a tar.

Every blob is looked for when the layout is read; layers are hashed only when they are sent.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from towline.errors import SourceError
from towline.sources.base import Referrer, SourceEntry
from towline.sources.files import Folder, read, understood
from towline.sources.oci_images import Absent, OciImages, is_plain
from towline.spec import manifest as manifests
from towline.spec import media_types
from towline.spec.descriptor import is_attestation
from towline.spec.digest import Digest
from towline.spec.distribution import subject_of
from towline.spec.manifest import Index, Manifest, RawManifest

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from towline.layers.reader import Reader
    from towline.sources.files import Files
    from towline.spec.descriptor import Descriptor

INDEX = "index.json"
CONTAINERD_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
SPARSE = "towline.sparse"
"""The annotation of an `index.json` whose layers were left out on purpose (`--omit-from`)."""
REFERRER = "io.containerd.manifest.subject"
"""The annotation by which Docker, since 29.1, marks a signature beside an image; it has no name."""


class OciLayout(OciImages):
    """A layout that owns its files; blobs are at `blobs/ALGORITHM/ENCODED`."""

    def __init__(self, files: Files) -> None:
        super().__init__(files.name)
        self._files = files
        self._raw = RawManifest(read(files, INDEX), media_types.OCI_INDEX)
        with understood(f"{INDEX} in {files.name}"):
            document = manifests.parse(self._raw.content, media_types.OCI_INDEX)
        if isinstance(document, Manifest):
            raise SourceError(f"{INDEX} in {files.name} is an image manifest, not an index")
        self.sparse = SPARSE in document.annotations
        subjects = [(each, self._subject(each)) for each in document.manifests]
        if all(subject for _, subject in subjects):  # then they are what is meant
            subjects = [(each, None) for each in document.manifests]
        self._listed = tuple(each for each, subject in subjects if not subject)
        self._referrers = tuple((subject, each) for each, subject in subjects if subject)

    @property
    def transport(self) -> str:
        """See `ImageSource`."""
        return "oci" if isinstance(self._files, Folder) else "oci-archive"

    def close(self) -> None:
        """See `ImageSource`."""
        self._files.close()

    def entries(self) -> Sequence[SourceEntry]:
        """See `ImageSource`."""
        if not self._listed:
            raise SourceError(f"{self._files.name} holds no image: its {INDEX} lists none")
        if self._is_one_image():
            return [SourceEntry((), lambda: self.entry_of(self._raw, self._listed))]
        roots = {each.digest: each for each in self._listed}
        names: dict[Digest, dict[str, None]] = {digest: {} for digest in roots}
        for each in self._listed:
            names[each.digest].update(dict.fromkeys(_names(each)))
        return [
            SourceEntry(tuple(names[digest]), partial(self.entry, root))
            for digest, root in roots.items()
        ]

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
                raw, document = self.document(each)
                if isinstance(document, Index):
                    index = True
                else:
                    self.image(raw, document, each.platform)
                    plain = plain or any(map(is_plain, document.layers))
            except Absent:
                continue
        return index or bool(self._listed and not plain)

    def referrers(self, subjects: Collection[Digest], *, patient: bool = True) -> list[Referrer]:
        """See `ImageSource`."""
        del patient
        found: list[tuple[str | None, Descriptor, str | None]] = [
            (subject, each, None) for subject, each in self._referrers
        ]
        named = ((name, each) for each in self._listed for name in _names(each))
        found += [(subject_of(name), each, name) for name, each in named]
        return [
            Referrer(Digest(str(subject)), each, tag, partial(self.entry, each))
            for subject, each, tag in found
            if subject in subjects
        ]

    def _subject(self, listed: Descriptor) -> str | None:
        """The manifest that an entry of `index.json` refers to; None: the entry is an image.

        What refers to another manifest has no name. Docker marks it; with oras and others its
        manifest's `subject` alone tells, which counts where the layout holds that, too.
        """
        if _names(listed):
            return None
        if mark := listed.annotations.get(REFERRER):
            return mark
        try:
            _, document = self.document(listed)
        except SourceError:  # told when its content is asked for
            return None
        subject = document.subject
        held = subject and self._files.size(path_of(subject.digest)) is not None
        return subject.digest if subject and held else None

    # Its blobs.

    def holds(self, listed: Descriptor) -> bool:
        """See `OciImages`."""
        if (size := self._files.size(path_of(listed.digest))) is None:
            return False
        self.check_size(listed, size, "layer")
        return True

    def open(self, listed: Descriptor) -> Reader:
        """See `OciImages`."""
        return self._files.open(path_of(listed.digest))

    def content(self, listed: Descriptor, what: str) -> bytes:
        """See `OciImages`."""
        self.check_algorithm(listed, what)
        path = path_of(listed.digest)
        if (size := self._files.size(path)) is None:
            raise Absent(f"{self.name} lacks the {what} {listed.digest}")
        self.check_size(listed, size, what)
        content = read(self._files, path)
        if (found := Digest.of(content)) != listed.digest:
            raise SourceError(
                f"the {what} {listed.digest} in {self.name} is damaged: "
                f"its bytes have the digest {found}"
            )
        return content


def _names(listed: Descriptor) -> tuple[str, ...]:
    names = (listed.annotations.get(key) for key in (CONTAINERD_NAME, REF_NAME))
    return tuple(name for name in names if name)


def path_of(digest: Digest) -> str:
    """The path of a blob in a layout."""
    return f"blobs/{digest.algorithm}/{digest.hex}"
