"""The edge of the library: what leaves a `Pusher` passes here, and leaves its secrets behind.

Events, lines of the log, warnings and errors with all that they bring along. What images and
registries hold as data (names, tags, configs) is left as it is: it is the result. The caller's own
functions are told here, and whatever they do, the push goes on.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from towline.errors import Cancelled, TowlineError, TransferCancelled
from towline.events import Failed, Hinted, LayerProgress, Note, Retrying, Warned
from towline.push.result import PlanResult, PushResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from towline.events import Event
    from towline.reference import Reference
    from towline.wire.secrets import Secrets


T = TypeVar("T")

_WORDS = ("hint", "code", "aftermath")
"""What an error has to say beside its message."""
_SAID = ("strerror", "filename", "filename2", "reason", "object")
"""Of the interpreter's own."""


class Edge:
    """Of one run, whose secrets it knows."""

    def __init__(self, secrets: Secrets) -> None:
        self.secrets = secrets

    @contextmanager
    def crossed(self, pushed: Sequence[Reference] = ()) -> Iterator[None]:
        """Errors leave the block without secrets.

        `Cancelled` is for the inside: what leaves the library is `TransferCancelled`.
        """
        try:
            yield
        except Cancelled:
            names = ", ".join(str(reference) for reference in pushed)
            what = f"the push to {names}" if names else "it"
            raise TransferCancelled(f"{what} was cancelled") from None
        except Exception as error:
            self._clear(error)
            raise

    def event(self, event: Event) -> Event:
        """An event without secrets in its words."""
        redact = self.secrets.redact
        match event:
            case Warned() | Note() | Failed() | Hinted():
                return replace(event, message=redact(event.message))
            case LayerProgress():
                said = redact(event.status)
                return event if said == event.status else replace(event, status=said)
            case Retrying():
                return replace(event, what=redact(event.what), reason=redact(event.reason))
        return event

    def outcome(self, outcome: T) -> T:
        """A result whose warnings have none, or an error."""
        if isinstance(outcome, BaseException):
            self._clear(outcome)
        elif isinstance(outcome, PushResult | PlanResult):
            return replace(outcome, warnings=tuple(map(self.secrets.redact, outcome.warnings)))
        return outcome

    def _clear(self, error: BaseException) -> None:
        """Take them out of an error, and of whatever it was raised from or is made of."""
        todo, seen = [error], set()
        while todo:
            one = todo.pop()
            if id(one) in seen:
                continue
            seen.add(id(one))
            self._reword(one)
            if one.__suppress_context__:
                one.__context__ = None  # nobody was to see it
            todo += filter(None, (one.__cause__, one.__context__))
            todo += getattr(one, "exceptions", ())

    def _reword(self, error: BaseException) -> None:
        error.args = tuple(map(self._said, error.args))
        for name in _SAID if isinstance(error, OSError | UnicodeError) else ():
            # These say what they were made of, not `args`; set to what it is, one may say more.
            before = getattr(error, name, None)
            if (after := self._said(before)) != before:
                setattr(error, name, after)
        if hasattr(error, "__notes__"):
            error.__notes__ = [self.secrets.redact(note) for note in error.__notes__]
        if isinstance(error, TowlineError):
            for name in _WORDS:
                if value := getattr(error, name, None):
                    setattr(error, name, self.secrets.redact(value))
            if results := getattr(error, "results", ()):
                vars(error)["results"] = tuple(map(self.outcome, results))

    def _said(self, value: Any) -> Any:  # noqa: ANN401 - whatever an error was made of
        if isinstance(value, bytes):  # what could not be decoded
            text = value.decode("latin-1")
            return value if self.secrets.redact(text) == text else b""
        return self.secrets.redact(value) if isinstance(value, str) else value


class Listener(Generic[T]):
    """Tells a function, from any thread; one that raises is told no more."""

    def __init__(self, name: str, hear: Callable[[T], object], fit: Callable[[T], T]) -> None:
        """`fit` makes what is told fit to be heard."""
        self._name = name
        self._hear = hear
        self._fit = fit
        self.fault: str | None = None
        """What it raised, as a warning."""

    def __call__(self, told: T) -> None:
        """Pass it on."""
        if self.fault is not None:
            return
        fit = self._fit(told)
        try:
            self._hear(fit)
        except Exception as error:  # noqa: BLE001 - it is not ours, and decides nothing
            self.fault = f"{self._name} raised {_named(error)}, and is told no more"


def _named(error: Exception) -> str:
    """`ValueError: what it says`, on one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
