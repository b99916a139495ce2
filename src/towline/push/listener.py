"""The caller's own functions, told of a push while it runs: whatever they do, it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


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
