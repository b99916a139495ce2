"""JSON as Go's encoder writes it: an image built here gets the digest that docker gives it."""

from __future__ import annotations

import json
import re
from typing import Any

INDENT = 3
"""Spaces: docker's builder of manifests indents by three, and the digest depends on it."""
_ESCAPED = "<>&\u2028\u2029"
"""Characters that Go escapes, for those who put JSON into HTML."""
_SURROGATE = "[\ud800-\udfff]"
"""Half of a UTF-16 pair, or a byte that was no UTF-8 (`surrogateescape` keeps those)."""
_STRING_OR_SPACE = r'"[^"\\]*(?:\\.[^"\\]*)*"|[ \t\r\n]+'


class Number(str):
    """A JSON number in its original spelling: `1e3` and `1000` are different bytes."""

    __slots__ = ()


def encode(value: Any, *, indent: int | None = None) -> bytes:  # noqa: ANN401 - any JSON
    r"""`value` as JSON: keys in the order given, `<`, `>` and `&` escaped, no final newline.

    Control characters are spelled as Go does since 1.22: `\b` and `\f` have short forms too.
    """
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=False)
    return _escaped(text if text.isascii() else re.sub(_SURROGATE, "\ufffd", text)).encode()


def compact(text: str) -> str:
    """JSON text without white space and with HTML characters escaped, else unchanged.

    Keys keep their order, numbers and escapes their spelling. `text` must be valid JSON.
    """
    bare = re.sub(
        _STRING_OR_SPACE, lambda match: match[0] if match[0].startswith('"') else "", text
    )
    return _escaped(bare)


def members(text: str) -> dict[str, str]:
    """The values of a JSON object by their keys, each as compact text.

    Of equal keys the last one counts, as in Go. Raises ValueError, one clause, where the text is
    no JSON object.
    """
    if not isinstance(loads(text), dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - bad data, not a bad call
    bare = compact(text)
    found: dict[str, str] = {}
    at = 1
    while bare[at] != "}":
        key, colon = _DECODER.raw_decode(bare, at)
        _, end = _DECODER.raw_decode(bare, colon + 1)
        found[key] = bare[colon + 1 : end]
        at = end + (bare[end] == ",")
    return found


def loads(text: str) -> Any:  # noqa: ANN401 - any JSON
    """Read JSON as strictly as Go does, numbers as `Number`.

    Raises ValueError, one clause, where the text is none; `NaN` and `Infinity` are none in Go.
    """
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None


def _no_constant(name: str) -> Any:  # noqa: ANN401 - never returns
    raise ValueError(f"{name} is no number")


_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_no_constant)


def _escaped(text: str) -> str:
    for character in _ESCAPED:
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
