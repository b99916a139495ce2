"""An entry that cannot be pushed does not stand in the way of the others of its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from towline.sources.base import SourceEntry

if TYPE_CHECKING:
    from towline.errors import SourceError


class UnusableEntry(SourceEntry):
    """Its names are known; asking for its content raises why there is none."""

    __slots__ = ("_error",)
    _error: SourceError

    def __init__(self, names: tuple[str, ...], error: SourceError) -> None:
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "warnings", ())
        object.__setattr__(self, "_error", error)

    # Each is one of its own: what others are compared by cannot be read here.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def content(self) -> NoReturn:
        """Raises SourceError."""
        raise self._error
