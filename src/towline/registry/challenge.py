"""Parses how a registry asks for credentials: `WWW-Authenticate` (RFC 9110, section 11)."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a token of the grammar
_PARAMETER = rf"(?s)({_TOKEN})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"?|([^\s,\"]*))"
_SCHEME = rf"({_TOKEN})(?:\s+([A-Za-z0-9._~+/-]+=*)(?=\s*(?:,|$)))?"
_ESCAPE = r"(?s)\\(.)"


class Challenge(NamedTuple):
    """One way to authenticate that a registry offers (RFC 9110, section 11)."""

    scheme: str
    """Lower case: `bearer`, `basic`, `negotiate`."""
    parameters: Mapping[str, str] = MappingProxyType({})
    """Names in lower case."""

    @property
    def usable(self) -> bool:
        """Whether we can answer it."""
        # Enterprise proxies offer `Negotiate` before these two. Gitea's Basic has no realm.
        realm = self.parameters.get("realm")
        return self.scheme == "basic" or (self.scheme == "bearer" and bool(realm))

    @property
    def wants_more(self) -> bool:
        """Whether the token's scopes did not suffice (RFC 6750, section 3.1)."""
        return self.parameters.get("error") == "insufficient_scope"


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """Every challenge of the `WWW-Authenticate` headers, in order. What cannot be read is skipped.

    Takes several headers, several challenges in one, schemes without parameters, names in any case,
    values with and without quotes, escapes and commas in quotes: registries send all of these.
    """
    found: list[tuple[str, dict[str, str]]] = []
    parameter, scheme = re.compile(_PARAMETER), re.compile(_SCHEME)
    for text in headers:
        at, first = 0, len(found)
        while at < len(text):
            if len(found) > first and (match := parameter.match(text, at)):
                name, quoted, bare = match.groups()
                value = re.sub(_ESCAPE, r"\1", quoted) if quoted is not None else bare
                found[-1][1].setdefault(name.lower(), value)
            elif match := scheme.match(text, at):
                found.append((match[1].lower(), {}))
            at = match.end() if match else at + 1  # separators, or what nobody can read
    return [Challenge(name, parameters) for name, parameters in found]
