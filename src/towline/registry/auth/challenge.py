"""Challenges: `WWW-Authenticate`, read as RFC 9110 (section 11) has it and somewhat beyond.

Several headers, several challenges in one, schemes without parameters, names in any case, values
quoted or not, escapes and commas inside of quotes. Pure.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a token of the grammar
_PARAMETER = re.compile(rf"({_TOKEN})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"?|([^\s,\"]*))", re.DOTALL)
_SCHEME = re.compile(rf"({_TOKEN})(?:\s+([A-Za-z0-9._~+/-]+=*)(?=\s*(?:,|$)))?")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class Challenge(NamedTuple):
    """One way to be let in."""

    scheme: str
    """Lower case: `bearer`, `basic`, `negotiate`."""
    parameters: Mapping[str, str] = MappingProxyType({})
    """Names in lower case."""


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """Every challenge of these header values, in their order; what cannot be read is skipped."""
    found: list[tuple[str, dict[str, str]]] = []
    for text in headers:
        at, first = 0, len(found)
        while at < len(text):
            if len(found) > first and (match := _PARAMETER.match(text, at)):
                name, quoted, bare = match.groups()
                value = _ESCAPE.sub(r"\1", quoted) if quoted is not None else bare
                found[-1][1].setdefault(name.lower(), value)
            elif match := _SCHEME.match(text, at):
                found.append((match[1].lower(), {}))
            at = match.end() if match else at + 1  # separators, or what nobody can read
    return [Challenge(scheme, parameters) for scheme, parameters in found]
