"""Faults for tests of clients: refusals, cuts and silence at a chosen request."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from towline.server.http import Body, Cut, Request, Response
from towline.server.refusals import Refused
from towline.spec import distribution

if TYPE_CHECKING:
    from collections.abc import Mapping


_CODES = {
    401: distribution.UNAUTHORIZED,
    403: distribution.DENIED,
    404: distribution.NAME_UNKNOWN,
    405: distribution.UNSUPPORTED,
    429: distribution.TOOMANYREQUESTS,
}


@dataclass(slots=True)
class _Failure:
    method: str
    path: str
    status: int
    left: int
    headers: Mapping[str, str]

    def fits(self, request: Request) -> bool:
        """Whether it is meant for this request, by its path: see `Faults.fail`."""
        if self.method not in {"*", request.method}:
            return False
        if self.path in request.target or self.path in request.path:
            return True
        if fnmatchcase(request.path, self.path):
            return True
        with suppress(re.error):
            return re.search(self.path, request.target) is not None
        return False


class Faults:
    """The faults that were ordered. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.clear()

    def clear(self) -> None:
        """Drop all orders. Requests that are being stalled go on at once."""
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
    ) -> None:
        """Answer the next `times` requests of that method (`*`: any) and path with `status`.

        `path`: a part of the path with its query, a pattern of the whole path (`/v2/*/blobs/*`), or
        a regular expression that is searched in it. The answer's body is an error in the
        specification's form.
        """
        failure = _Failure(method, path, status, times, headers or {})
        with self._lock:
            self._failures.append(failure)

    def cut(self, after_bytes: int, times: int = 1) -> None:
        """Close the connection after that many bytes of each of the next `times` bodies.

        Bodies are those of requests, and blobs and manifests in answers. Shorter ones pass.
        """
        with self._lock:
            self._cut_after, self._cuts = after_bytes, times

    def stall(self, seconds: float) -> None:
        """Wait so many seconds before each answer from now on."""
        with self._lock:
            self._stall = seconds

    def before(self, request: Request) -> Response | None:
        """The answer to give instead of the true one; None: none was ordered.

        May wait before it returns, and may make the request's body break off.
        """
        with self._lock:
            stop, stall = self._stop, self._stall
            failure = next((one for one in self._failures if one.fits(request)), None)
            if failure:
                failure.left -= 1
                if failure.left <= 0:
                    self._failures.remove(failure)
            length, cut_after = request.body.length, self._cut_after
            cut = self._cuts > 0 and (length is None or length > cut_after)
        if stall:
            stop.wait(stall)
        if failure:
            code = _CODES.get(failure.status, distribution.UNKNOWN)
            message = "this failure was asked for"
            return Refused(code, message, status=failure.status, headers=failure.headers).response()
        if cut:
            request.body = _CutBody(request.body, cut_after, self)
        return None

    def cut_of(self, length: int) -> int | None:
        """Bytes after which to cut an answer of that length, which uses a cut up; None: never."""
        with self._lock:
            if self._cuts <= 0 or length <= self._cut_after:
                return None
            self._cuts -= 1
            return self._cut_after

    def spend_cut(self) -> bool:
        """Use a cut up. False: none was left."""
        with self._lock:
            self._cuts -= 1
            return self._cuts >= 0


class _CutBody(Body):
    """A body that breaks off, unless it ends before, or another one has used the cut up."""

    def __init__(self, body: Body, after: int, faults: Faults) -> None:
        super().__init__(body.source, body.length)
        self._after = after
        self._faults = faults
        self._is_cut = False

    def read(self) -> bytes | bytearray:
        """See `Body`; raises Cut once enough has come."""
        before, block = self.received, b"" if self._is_cut else super().read()
        if before <= self._after < self.received and self._faults.spend_cut():
            self._is_cut, self.received = True, self._after
            block = block[: self._after - before]
        if self._is_cut and not block:
            raise Cut
        return block
