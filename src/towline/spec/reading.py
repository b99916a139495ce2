"""Values out of JSON that somebody else wrote: of the type that is expected, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


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
