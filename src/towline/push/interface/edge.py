"""The edge of the library: what leaves a `Pusher` passes here, and leaves its secrets behind.

Events, lines of the log, warnings and errors with all that they bring along. What images and
registries hold as data (names, tags, configs) is left as it is: it is the result. The caller's own
functions are told here, and whatever they do, the push goes on.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from towline.errors import Cancelled, TransferCancelled
from towline.push.interface.result import PlanResult, PushResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from towline.events import Event
    from towline.reference import Reference
    from towline.wire.secrets import Secrets


T = TypeVar("T")

_WORDS = ("message", "status", "what", "reason")
"""What events say in words; the rest of them is data."""
_DATA = frozenset({"references", "side"})
"""What an error keeps that is none of its words."""


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
        except Cancelled as inside:
            self._clear(inside)  # it is still to be had from what is raised now
            names = ", ".join(str(reference) for reference in pushed)
            what = f"the push to {names}" if names else "it"
            raise TransferCancelled(f"{what} was cancelled") from None
        except Exception as error:
            self._clear(error)
            raise

    def event(self, event: Event) -> Event:
        """An event without secrets in its words."""
        said = {name: getattr(event, name) for name in _WORDS if hasattr(event, name)}
        fit: dict[str, Any] = {name: self.secrets.redact(words) for name, words in said.items()}
        return event if fit == said else replace(event, **fit)

    def outcome(self, outcome: T) -> T:
        """A result whose warnings have none, or an error."""
        if isinstance(outcome, BaseException):
            self._clear(outcome)
        elif isinstance(outcome, PushResult | PlanResult):
            return replace(outcome, warnings=tuple(map(self.secrets.redact, outcome.warnings)))
        return outcome

    def _clear(self, error: BaseException) -> None:
        """Take them out of an error, and of whatever it was raised from, keeps or is made of."""
        todo, seen = [error], set()
        while todo:
            one = todo.pop()
            if id(one) in seen:
                continue
            seen.add(id(one))
            for name in _kept(one):
                # Set to what it is, one of the interpreter's own may say more than before.
                before = getattr(one, name, None)
                if (after := self._fit(before, todo)) is not before:
                    setattr(one, name, after)
            if one.__suppress_context__:
                one.__context__ = None  # nobody was to see it
            todo += filter(None, (one.__cause__, one.__context__))
            todo += getattr(one, "exceptions", ())

    def _fit(self, value: Any, errors: list[BaseException]) -> Any:  # noqa: ANN401 - whatever an error keeps
        """The value without secrets, itself where it has none; errors in it are added to those."""
        match value:
            case str():
                said = self.secrets.redact(value)
                return value if said == value else said
            case bytes() | bytearray():  # what could not be decoded
                text = value.decode("latin-1")
                return value if self.secrets.redact(text) == text else b""
            case BaseException():
                errors.append(value)
            case PushResult() | PlanResult():
                return self.outcome(value)
            case dict():
                items = tuple(value.items())
                fit = self._fit(items, errors)
                return value if fit is items else dict(fit)
            case tuple() | list() | set() | frozenset():
                parts = [self._fit(part, errors) for part in value]
                if any(part is not before for part, before in zip(parts, value, strict=True)):
                    make = getattr(value, "_make", type(value))  # of a named tuple
                    return make(parts)
        return value


def _kept(error: BaseException) -> set[str]:
    """Names of what an error keeps, also where the interpreter has its place for it."""
    slots = {
        name
        for cls in type(error).__mro__
        for name, kind in vars(cls).items()
        if isinstance(kind, MemberDescriptorType) and not name.startswith("__")
    }
    return {"args", *vars(error), *slots} - _DATA


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
