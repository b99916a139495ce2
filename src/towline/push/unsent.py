"""`--check-diffids` for layers that nobody had to send: they are read here, and go nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.layers.blobstream import BlobStream

if TYPE_CHECKING:
    from towline.context import Cancel
    from towline.push.engine import Engine
    from towline.push.wanted import Blob


def look_into(engine: Engine, blob: Blob, cancel: Cancel) -> None:
    """Decompress a blob of the source and compare its DiffID. Raises SourceError."""
    stream = BlobStream(
        blob.open(),
        None,
        engine.encoders,
        cancel,
        diff_id_of=blob.stored_compression,
        spares=engine.spares,
        name=f"layer {blob.id}",
    )
    for _ in stream:
        pass
    blob.check(stream.blob.digest, stream.blob.diff_id)
