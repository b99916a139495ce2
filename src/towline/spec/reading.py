"""Reads JSON and numbers that somebody else wrote, within bounds and with checked types."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


_DIGITS_MAX = 18
"""Digits of a number: 18 fit into 64 bits; Python's `int` raises beyond some thousands."""
_NESTED_MAX = 100
"""Levels of a document: images have less than ten; recursion over deeper ones may overflow."""
_TOO_DEEP = f"nested more than {_NESTED_MAX} levels deep"


def number(text: str | bytes) -> int | None:
    """A whole number of at most 18 digits; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else None


def document(content: str | bytes) -> Any:  # noqa: ANN401 - any JSON
    """A JSON document; whole numbers of more than 18 digits are read as floats.

    Raises ValueError, one clause, when the content is no JSON or nested too deep.
    """
    try:
        found = json.loads(content, parse_int=_whole)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    # Level by level, not recursively: this is the check that lets others recurse.
    level = [found]
    for _ in range(_NESTED_MAX):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return found
    raise ValueError(_TOO_DEEP)


def mapping(content: str | bytes) -> dict[str, Any]:
    """A JSON object; empty where the content is anything else."""
    try:
        found = document(content)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _whole(text: str) -> int | float:
    return int(text) if len(text) <= _DIGITS_MAX else float(text)


def array(document: Mapping[str, Any], key: str) -> list[Any]:
    """The list under `key`, empty where it is missing or null; raises ValueError for another type.

    Go writes an empty list as null.
    """
    value = document.get(key)
    if value is not None and not isinstance(value, list):
        raise ValueError(f"`{key}` is not a list")
    return value or []


def texts(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The list of texts under `key`; raises ValueError when the value is no list."""
    return tuple(str(each) for each in array(document, key))


def text(document: Mapping[str, Any], key: str) -> str | None:
    """The text under `key`; None where it is missing or empty."""
    value = document.get(key)
    return str(value) if value else None


def annotations_of(document: Mapping[str, Any]) -> dict[str, str]:
    """The annotations of a manifest, an index or a descriptor; raises ValueError for no map."""
    value = document.get("annotations")
    if value is not None and not isinstance(value, dict):
        raise ValueError("`annotations` is not a map")
    return {str(name): str(each) for name, each in (value or {}).items()}
