"""Passes a request on to a real registry, for proxies that stand before one."""

from __future__ import annotations

import contextlib
import http.client
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
"""Headers of one connection, which the next one has anew."""


def forwarded(
    behind: str, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of the answer; the registry sees the `Host` that was asked."""
    connection = http.client.HTTPConnection(behind, timeout=30)
    with contextlib.closing(connection):
        kept = {name: value for name, value in headers if name.lower() not in HOP}
        sent = body if method in {"PUT", "POST", "PATCH"} else None
        connection.request(method, target, sent, kept)
        answer = connection.getresponse()
        content = answer.read()
    dropped = HOP - {"content-length"} if method == "HEAD" else HOP
    fields = [field for field in answer.getheaders() if field[0].lower() not in dropped]
    return answer.status, fields, content
