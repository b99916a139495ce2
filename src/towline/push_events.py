"""What a push tells: the base of events and results, and the events of every push.

`events` has the other events, and the type of all. They are apart, since to define a frozen
dataclass takes half a millisecond: a push that has nothing to do shall not pay for any in vain.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

Outcome = Literal["pushed", "exists", "mounted", "skipped", "resumed"]
"""How a blob got to its destination; the same words in events, results and JSON."""


class Value:
    """Equality, hash and repr of events and results.

    Written once here: making them for each class takes `dataclass` a third of its time.
    """

    __slots__ = ()

    def _items(self) -> list[tuple[str, Any]]:
        described = fields(self)  # type: ignore[arg-type]  # those below are dataclasses
        return [(field.name, getattr(self, field.name)) for field in described]

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Value):
            return NotImplemented
        return self._items() == other._items()

    def __hash__(self) -> int:
        return hash((type(self), *self._items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self._items())})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class BaseEvent(Value):
    """An event: what a push tells while it runs."""

    event: ClassVar[str]

    reference: str
    """The destination's full name, as in the result; empty where none is known yet."""
    time: float = field(default_factory=time.time)
    """Seconds since the epoch."""

    def as_dict(self) -> dict[str, Any]:
        """The event as `--progress json` prints it."""
        return {"event": self.event, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PushStarted(BaseEvent):
    """A push to one repository begins."""

    event: ClassVar[str] = "push"
    repository: str
    """Full name, registry host included."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LayerProgress(BaseEvent):
    """A layer's state changed, or bytes of it moved.

    `status` is one of docker's words: Preparing, Waiting, Pushing, Pushed, Layer already exists,
    Mounted from REPOSITORY, Skipped foreign layer, Retrying in N seconds (REASON).
    """

    event: ClassVar[str] = "layer"
    id: str
    """First 12 hex digits of the DiffID, else of the blob's digest."""
    status: str
    current: int | None = None
    """Bytes read from the source so far, where the status is Pushing."""
    total: int | None = None
    """Bytes to read in all, where known."""
    sent: int | None = None
    """Bytes of the blob put on the wire so far, resent ones too, where the status is Pushing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TagPushed(BaseEvent):
    """The manifest is in place under its tag. `as_dict` adds docker's `aux` object."""

    event: ClassVar[str] = "tag"
    tag: str | None
    digest: str
    size: int
    """Bytes of the manifest."""

    def as_dict(self) -> dict[str, Any]:
        """The event with docker's `aux` object, which scripts of `docker push` read."""
        aux = {"Tag": self.tag, "Digest": self.digest, "Size": self.size}
        status = f"{self.tag or self.digest}: digest: {self.digest} size: {self.size}"
        shown = {"event": self.event, "reference": self.reference, "time": self.time}
        return {**shown, "status": status, "aux": aux}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Summary(BaseEvent):
    """A push ended well: its bytes, requests and time."""

    event: ClassVar[str] = "summary"
    sent_bytes: int
    """Blob bytes put on the wire, resent ones too."""
    total_bytes: int
    """Bytes of all blobs of the image, and of what was put with it that refers to it, as stored at
    the destination."""
    requests: int
    seconds: float


def nowhere(_told: object) -> None:
    """Drop an event, or a line of a log."""
