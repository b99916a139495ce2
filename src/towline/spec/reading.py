"""What somebody else wrote, read within bounds: JSON, numbers, values of the type expected."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


_DIGITS_MAX = 18
"""Of a number: what is longer fits no store, and Python reads none of some thousands."""
_NESTED_MAX = 100
"""Levels of a document; images have less than ten, and what walks it further down may fall."""
_TOO_DEEP = f"nested more than {_NESTED_MAX} levels deep"


def number(text: str | bytes) -> int | None:
    """A whole number of at most 18 digits; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else None


def document(content: str | bytes) -> Any:  # noqa: ANN401 - any JSON
    """JSON, its longer numbers as floats. ValueError with one clause when it is none."""
    try:
        found = json.loads(content, parse_int=_whole)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [found]
    for _ in range(_NESTED_MAX):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError(_TOO_DEEP)
    return found


def _whole(text: str) -> int | float:
    return int(text) if len(text) <= _DIGITS_MAX else float(text)


def array(document: Mapping[str, Any], key: str) -> list[Any]:
    """A list, empty where there is none; ValueError when it is something else."""
    value = document.get(key)
    if value is not None and not isinstance(value, list):
        raise ValueError(f"`{key}` is not a list")
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
        raise ValueError(f"`{key}` is not a map")
    return {str(name): str(each) for name, each in (value or {}).items()}
