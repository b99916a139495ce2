"""JSON as Go's encoder writes it: manifests are hashed, so their bytes have one right form."""

from __future__ import annotations

import json
import re
from typing import Any

_ESCAPED = re.compile("[<>&\u2028\u2029]")


def encode(value: Any, *, indent: int | None = None) -> bytes:  # noqa: ANN401 - any JSON
    """`value` with its keys in their order, HTML characters escaped, no final newline."""
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=False)
    return _ESCAPED.sub(_escape, text).encode("utf-8", "replace")


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"
