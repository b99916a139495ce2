"""Faults on demand, for tests of clients: refusals, cuts and silence at a chosen place."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from towline.server.http import Cut, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from towline.server.http import Body, Request


@dataclass(slots=True)
class _Failure:
    method: str
    path: re.Pattern[str]
    status: int
    left: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""

    def fits(self, request: Request) -> bool:
        return self.method in {"*", request.method} and bool(self.path.search(request.target))


class Faults:
    """None unless asked for. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.clear()

    def clear(self) -> None:
        """Behave from now on; whoever is being stalled goes on."""
        with self._lock:
            self._stop.set()
            self._stop = threading.Event()
            self._failures: list[_Failure] = []
            self._cut_after = 0
            self._cuts = 0
            self._stall = 0.0

    def fail(
        self,
        method: str,
        path: str,
        status: int,
        times: int = 1,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
    ) -> None:
        """Answer the next `times` requests of that method (`*`: any) and path so.

        `path` is a regular expression that is searched for in the path with its query.
        """
        failure = _Failure(method, re.compile(path), status, times, headers or {}, content)
        with self._lock:
            self._failures.append(failure)

    def cut(self, after_bytes: int, times: int = 1) -> None:
        """Close the connection of the next `times` request bodies after that many bytes."""
        with self._lock:
            self._cut_after, self._cuts = after_bytes, times

    def stall(self, seconds: float) -> None:
        """Wait so long before answering each request from now on."""
        with self._lock:
            self._stall = seconds

    def before(self, request: Request, interrupt: Callable[[], None]) -> Response | None:
        """What to answer instead; may wait, and may let the body end early."""
        del interrupt
        with self._lock:
            stop, stall = self._stop, self._stall
            failure = next((one for one in self._failures if one.fits(request)), None)
            if failure:
                failure.left -= 1
                if not failure.left:
                    self._failures.remove(failure)
            cut = self._cuts > 0 and (request.body.length or self._cut_after + 1) > self._cut_after
            if cut:
                self._cuts -= 1
        if stall:
            stop.wait(stall)
        if cut:
            request.body = _CutBody(request.body, self._cut_after)
        if failure:
            return Response(failure.status, dict(failure.headers), failure.content)
        return None


class _CutBody:
    """A body that breaks off."""

    def __init__(self, body: Body, after: int) -> None:
        self._body = body
        self._left = after

    @property
    def length(self) -> int | None:
        """See `Body`."""
        return self._body.length

    @property
    def received(self) -> int:
        """See `Body`."""
        return self._body.received

    @property
    def finished(self) -> bool:
        """See `Body`."""
        return self._body.finished

    def readinto(self, view: memoryview, /) -> int:
        """See `Body`; raises Cut once enough has come."""
        if not self._left:
            raise Cut
        count = self._body.readinto(view[: self._left])
        self._left -= count
        return count
