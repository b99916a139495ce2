"""Where a registry's API is: its host, and whether https or http, decided once.

https everywhere; http only where it was asked for, or on this machine when nothing there speaks
TLS. No request is spent on deciding.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from towline.errors import NetworkError
from towline.reference import HUB
from towline.wire.connect import resolve
from towline.wire.probe import speaks_tls
from towline.wire.proxy import is_loopback
from towline.wire.url import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.context import Cancel, Context
    from towline.wire.connect import Address
    from towline.wire.url import Url

HUB_API = "registry-1.docker.io"
"""The Hub's API answers elsewhere than its name says."""
BASE_PATH = "/v2/"
_ADDRESS = re.compile(r"[0-9.]+|.*:.*")


class Endpoint:
    """One registry host. Safe from any thread."""

    def __init__(
        self,
        host: str,
        *,
        plain_http: bool,
        loopback_http: bool,
        timeout: float,
        resolve: Callable[[str, int, Cancel, float], list[Address]] = resolve,
    ) -> None:
        self.host = host
        """As references have it."""
        self._api_host = HUB_API if host == HUB else host
        self._loopback_http = loopback_http
        self._timeout = timeout
        self._resolve = resolve
        self._may_fall_back = loopback_http and not plain_http
        self._lock = threading.Lock()
        self._base: Url | None = self._url("http") if plain_http else self._certain()

    def _url(self, scheme: str) -> Url:
        return parse(f"{scheme}://{self._api_host}{BASE_PATH}")

    def _certain(self) -> Url | None:
        url = self._url("https")
        return None if self._loopback_http and is_loopback(url.host) else url

    @property
    def key(self) -> str:
        """Which place this is: with the scheme once that is decided."""
        return self._base.origin if self._base else self.host

    def base(self, context: Context) -> Url:
        """The URL of the API. Raises NetworkError when a host on this machine is not there."""
        if self._base is None:
            with acquired(self._lock, context):
                if self._base is None:
                    self._base = self._decide(context)
        return self._base

    def falls_back(self, context: Context) -> bool:
        """After https has failed: whether the name means this machine, where http is spoken.

        Asked once; names that say so themselves are decided without it.
        """
        base = self._base
        if base is None:  # nothing was there to decide by
            return False
        with acquired(self._lock, context):
            asked, self._may_fall_back = not self._may_fall_back, False
            if asked or base.scheme == "http" or _ADDRESS.fullmatch(base.host):
                return False
            try:
                found = self._resolve(base.host, base.port, context.cancel, self._timeout)
                here = all(is_loopback(str(address[0])) for _, address in found)
                if not here or self._decide(context) == base:
                    return False
            except NetworkError:
                return False
            self._base = self._url("http")
        return True

    def _decide(self, context: Context) -> Url:
        secure, plain = self._url("https"), self._url("http")
        try:
            if speaks_tls(secure, context.cancel, self._timeout):
                return secure
        except NetworkError:
            # Without a port in its name, http is at another one.
            if secure.port == plain.port:
                raise
        return plain


class acquired:  # noqa: N801 - reads as what it is: with acquired(lock, context)
    """Hold a lock; the wait for it ends when the context is cancelled."""

    TICK = 0.1
    """Seconds after which a waiting thread looks whether it is still wanted."""

    def __init__(self, lock: threading.Lock, context: Context) -> None:
        self._lock = lock
        self._context = context

    def __enter__(self) -> None:
        while not self._lock.acquire(timeout=self.TICK):
            self._context.cancel.check()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
