"""Artifacts that refer to an image by `subject` (image-spec, "Image Manifest")."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

OCI = "application/vnd.oci.image"


def signature(layout: Path, subject: str, size: int) -> str:
    """An OCI layout that holds one artifact, which refers to an image; its digest."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def stored(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    document = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "artifactType": "application/vnd.example.signature",
        "config": stored(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [stored(b"signed", "application/vnd.example.signature")],
        "subject": {"mediaType": f"{OCI}.manifest.v1+json", "digest": subject, "size": size},
    }
    root = stored(json.dumps(document).encode(), f"{OCI}.manifest.v1+json")
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [root]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(root["digest"])
