"""The types that the values of options have, checked for programs that no type checker has."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

from towline.context import Cancel
from towline.errors import UsageError


def _is_path(value: object) -> bool:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    return isinstance(path, str) and "\0" not in path


def _is_texts(value: object) -> bool:
    return isinstance(value, Collection) and all(isinstance(each, str) for each in value)


def _is_environment(value: object) -> bool:
    return isinstance(value, Mapping) and _is_texts([*value.keys(), *value.values()])


_Kind = tuple[str, Callable[[Any], bool]]
"""A type, in words and as a question."""
_FLAG: _Kind = ("True or False", lambda value: isinstance(value, bool))
_PATH: _Kind = ("a path without a NUL in it", _is_path)
_TEXT: _Kind = ("a text", lambda value: isinstance(value, str))
_TEXTS: _Kind = ("a text or a list of texts", _is_texts)
_FUNCTION: _Kind = ("a function", callable)

_KINDS: Mapping[str, _Kind] = {
    **dict.fromkeys(("ca", "cert", "key", "authfile", "cache", "trace"), _PATH),
    **dict.fromkeys(("plain_http", "insecure", "tls_verify", "all_tags", "by_digest"), _FLAG),
    **dict.fromkeys(("allow_schema1", "preserve_digests", "check_diffids"), _FLAG),
    **dict.fromkeys(("referrers", "no_learn", "check_push"), _FLAG),
    **dict.fromkeys(("engine", "compression"), _TEXT),
    **dict.fromkeys(("platform", "tags", "cache_from", "omit_from"), _TEXTS),
    **dict.fromkeys(("on_event", "log"), _FUNCTION),
    "annotation": (
        "a text, a list of texts, or a mapping",
        lambda value: isinstance(value, Mapping) or _is_texts(value),
    ),
    "environ": ("a mapping of texts to texts", _is_environment),
    "cancel": ("a towline.Cancel", lambda value: isinstance(value, Cancel)),
}
"""By options. Numbers, accounts and what has a few words are checked where they are read."""


def check_types(options: Mapping[str, object]) -> None:
    """Raise UsageError for a value of another type than its option has. None is no value."""
    for name, value in options.items():
        words, fits = _KINDS.get(name, ("", None))
        if fits and value is not None and not fits(value):
            raise UsageError(f"`{name}` must be {words}, and is {_type_of(value)}")


def _type_of(value: object) -> str:
    """The type of a value, in words. Never the value itself: it may be a secret."""
    named = f"of type {type(value).__name__}"
    if not isinstance(value, list | tuple):
        return named
    inside = sorted({type(each).__name__ for each in value})
    return f"{named} with {' and '.join(inside)} in it"
