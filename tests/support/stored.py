"""A registry's folder read with other eyes: what its documented layout says, checked by hashing."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def check(root: Path) -> tuple[int, int]:
    """Hash every blob and follow every tag; how many of each there are."""
    assert json.loads((root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    json.loads((root / "index.json").read_text())
    blobs = [path for folder in (root / "blobs").iterdir() for path in folder.iterdir()]
    for path in blobs:
        with path.open("rb") as file:
            assert hashlib.file_digest(file, path.parent.name).hexdigest() == path.name
    tags = [tag for folder in root.glob("repositories/**/_tags") for tag in folder.iterdir()]
    for tag in tags:
        _check_manifest(root, tag.parent.parent, tag.read_text().strip())
    return len(blobs), len(tags)


def _check_manifest(root: Path, repository: Path, digest: str) -> None:
    record = _at(repository / "_manifests", digest).read_text().split()
    content = _at(root / "blobs", record[1]).read_bytes()
    document: dict[str, Any] = json.loads(content)
    for child in document.get("manifests", []):
        _check_manifest(root, repository, child["digest"])
    for blob in [document.get("config"), *document.get("layers", [])]:
        if blob and not blob.get("urls"):
            assert _at(repository / "_blobs", blob["digest"]).exists(), (repository, blob)
            assert _at(root / "blobs", blob["digest"]).stat().st_size == blob["size"]


def _at(folder: Path, digest: str) -> Path:
    algorithm, _, encoded = digest.partition(":")
    return folder / algorithm / encoded
