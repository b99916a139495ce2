"""What is told of a push to one target, beside what its transfers tell of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.events import LayerProgress, PushStarted, Summary, TagPushed
from towline.push.wanted import Blob, images

if TYPE_CHECKING:
    from towline.push.result import PushResult
    from towline.push.target import Target


class Telling:
    """Docker's words, in docker's order."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def announce(self) -> None:
        """Docker's first words, top layer first."""
        target = self._target
        repository = str(target.repository.name)
        target.context.emit(PushStarted(reference=target.reference, repository=repository))
        for tree in dict.fromkeys(tree for _, tree in target.tags):
            for layer in (layer for image in images(tree) for layer in reversed(image.layers)):
                if isinstance(layer, Blob):
                    self.layer(layer.id, "Preparing", layer.size)
                else:
                    self.layer(layer.digest.short, "Skipped foreign layer")

    def layer(self, shown: str, status: str, total: int | None = None) -> None:
        """A layer's state, by the id that it is shown under."""
        reference = self._target.reference
        event = LayerProgress(reference=reference, id=shown, status=status, total=total)
        self._target.context.emit(event)

    def ended(self, result: PushResult, total_bytes: int) -> None:
        """A tag is in place: what it holds, and what that cost."""
        emit, reference = self._target.context.emit, result.reference
        emit(TagPushed(reference=reference, tag=result.tag, digest=result.digest, size=result.size))
        emit(
            Summary(
                reference=reference,
                sent_bytes=result.sent_bytes,
                total_bytes=total_bytes,
                requests=result.requests,
                seconds=result.seconds,
            )
        )
