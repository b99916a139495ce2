"""The events of a push, one frozen dataclass each, of plain text and numbers.

A library user gets the same objects as the command line, which makes sentences of them
(`cli/progress`). A push never reads an event back: events inform, they decide nothing. Those that
every push tells are in `push_events`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from towline.push_events import BaseEvent, LayerProgress, PushStarted, Summary, TagPushed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Working(BaseEvent):
    """Bytes moved that are not sent: spooled, compressed for a digest, or read back."""

    event: ClassVar[str] = "work"
    what: str
    """What is done, as `spooling standard input`; the same text in every event of one piece."""
    current: int
    """Bytes done."""
    total: int | None = None
    """Bytes in all, where known; equal to `current` in the last event."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Retrying(BaseEvent):
    """An attempt at something other than a layer (a config, a manifest, a read) failed."""

    event: ClassVar[str] = "retry"
    what: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Verified(BaseEvent):
    """What was pushed was read back (`--verify`) and is right."""

    event: ClassVar[str] = "verified"
    manifests: int
    blobs: int
    diff_ids: int
    """DiffIDs computed from layers that were read back."""
    bytes: int
    """Bytes of blobs read back."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Note(BaseEvent):
    """A message that is neither progress nor a warning, such as where a pipe is spooled."""

    event: ClassVar[str] = "note"
    message: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Warned(BaseEvent):
    """A warning; the push goes on."""

    event: ClassVar[str] = "warning"
    message: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Failed(BaseEvent):
    """The command failed."""

    event: ClassVar[str] = "error"
    message: str
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Hinted(BaseEvent):
    """What to do about the failure of the event before."""

    event: ClassVar[str] = "hint"
    message: str


Event = (
    PushStarted
    | LayerProgress
    | Working
    | Retrying
    | Verified
    | TagPushed
    | Summary
    | Note
    | Warned
    | Failed
    | Hinted
)
Emit = Callable[[Event], None]
