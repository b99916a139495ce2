"""Where everything lies below the root; `docs/` describes it for people.

    oci-layout  index.json  blobs/ALG/HEX      an OCI image layout (image-spec, "Image Layout")
    repositories/NAME/
        _blobs/ALG/HEX           empty: the repository holds this blob; its time is that of the last
                                 question for it, or 0 once a manifest has listed it
        _manifests/ALG/HEX       two lines: the media type, and the digest of the stored bytes
        _tags/TAG                the digest
        _tagged/ALG/HEX/TAG      empty: what a tag leaves behind at its manifest, to find it by
        _referrers/ALG/HEX/ALG-HEX   the descriptor of a manifest whose subject the folder names
    uploads/                     open sessions, and files that are being written
    lock                         held by the one server of this root
    sweep.lock  sweep.turn       held by changes and by collections; by those who wait for it

No part of a repository's name begins with an underscore, so the two cannot be confused. Names,
tags and digests are checked before they come here: paths are made of nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from towline.spec.digest import Digest

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
EMPTY_INDEX = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
)


def at(folder: Path, digest: Digest) -> Path:
    """A digest's place in a folder of them."""
    algorithm, _, encoded = digest.partition(":")
    return folder / algorithm / encoded


class Layout:
    """The places of one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.version = root / "oci-layout"
        self.index = root / "index.json"
        self.blobs = root / "blobs"
        self.repositories = root / "repositories"
        self.uploads = root / "uploads"
        self.lock = root / "lock"
        self.sweep_lock = root / "sweep.lock"
        self.sweep_turn = root / "sweep.turn"

    def blob(self, digest: Digest) -> Path:
        """The one copy of a blob or manifest."""
        return at(self.blobs, digest)

    def repository(self, name: str) -> RepositoryLayout:
        """The places of one repository."""
        return RepositoryLayout(self.repositories / name)


class RepositoryLayout:
    """The places of one repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "_blobs"
        self.manifests = folder / "_manifests"
        self.tags = folder / "_tags"
        self.tagged = folder / "_tagged"
        self.referrers = folder / "_referrers"

    def blob(self, digest: Digest) -> Path:
        """The sign that the repository holds a blob."""
        return at(self.blobs, digest)

    def manifest(self, digest: Digest) -> Path:
        """What the repository knows of a manifest."""
        return at(self.manifests, digest)

    def tag(self, tag: str) -> Path:
        """What a tag points to."""
        return self.tags / tag

    def tags_of(self, digest: Digest) -> Path:
        """The folder of the tags that were put on a manifest."""
        return at(self.tagged, digest)

    def referrers_of(self, subject: Digest) -> Path:
        """The folder of the manifests that have this subject."""
        return at(self.referrers, subject)

    def referrer(self, subject: Digest, digest: Digest) -> Path:
        """The file of one of these manifests."""
        return self.referrers_of(subject) / digest.replace(":", "-")
