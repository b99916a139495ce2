"""What somebody else wrote, read within bounds: JSON, numbers, values of the type expected."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_DIGITS_MAX = 18
"""Of a number: what is longer fits no store, and Python reads none of some thousands."""
_NESTED_MAX = 100
"""Levels of a document; images have less than ten, and what walks it further down may fall."""


def number(text: str | bytes) -> int | None:
    """A whole number of at most 18 digits; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else None


def document(content: str | bytes) -> Any:  # noqa: ANN401 - any JSON
    """JSON, its longer numbers as floats. ValueError with one clause when it is none."""
    try:
        found = json.loads(content, parse_int=_whole)
        level = [found]
        for _ in range(_NESTED_MAX):
            level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return found
    except ValueError as error:
        msg = f"not JSON ({error})"
        raise ValueError(msg) from None
    except RecursionError:
        pass
    msg = f"nested more than {_NESTED_MAX} levels deep"
    raise ValueError(msg)


def _inside(value: Any) -> Iterable[Any]:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _whole(text: str) -> int | float:
    return int(text) if len(text) <= _DIGITS_MAX else float(text)


def array(document: Mapping[str, Any], key: str) -> list[Any]:
    """A list, empty where there is none; ValueError when it is something else."""
    value = document.get(key)
    if value is not None and not isinstance(value, list):
        msg = f"`{key}` is not a list"
        raise ValueError(msg)
    return value or []


def texts(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts; ValueError when it is something else."""
    return tuple(str(each) for each in array(document, key))


def text(document: Mapping[str, Any], key: str) -> str | None:
    """A text; None where there is none or an empty one."""
    value = document.get(key)
    return str(value) if value else None


def pairs(document: Mapping[str, Any], key: str) -> dict[str, str]:
    """A map of texts, as annotations are; ValueError when it is something else."""
    value = document.get(key)
    if value is not None and not isinstance(value, dict):
        msg = f"`{key}` is not a map"
        raise ValueError(msg)
    return {str(name): str(each) for name, each in (value or {}).items()}
