"""Where a registry's API is: its host, and whether https or http, decided once.

https everywhere; http only where it was asked for, or on this machine when nothing there speaks
TLS. No request is spent on deciding, and no greeting either where an earlier run has found it out:
what that says of a place on this machine holds until the first answer, and counts for no other.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from towline.errors import NetworkError, TowlineError
from towline.reference import HUB
from towline.wire.connect import resolve
from towline.wire.probe import speaks_tls
from towline.wire.proxy import is_loopback
from towline.wire.url import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.context import Cancel, Context
    from towline.registry.facts import Scheme
    from towline.wire.connect import Address
    from towline.wire.message import Response
    from towline.wire.url import Url

    Outcome = Response | TowlineError
    """What comes of a call: an answer, or none."""

HUB_API = "registry-1.docker.io"
"""The Hub's API answers elsewhere than its name says."""
BASE_PATH = "/v2/"
_ADDRESS = re.compile(r"[0-9.]+|.*:.*")
_REGISTRYS = frozenset({401, 404})
"""Refusals of a registry; to plain http a server of TLS says 400, or sends on to https."""


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
        recalled: Scheme | None = None,
    ) -> None:
        """`recalled` was found out in an earlier run; `http` is for those with nothing to hide."""
        self.host = host
        """As references have it."""
        self.plain_http = plain_http
        """Whether somebody said so."""
        self._api_host = HUB_API if host == HUB else host
        self._loopback_http = loopback_http
        self._timeout = timeout
        self._resolve = resolve
        self._lock = threading.Lock()
        certain = self._url("http") if plain_http else self._certain()
        self._is_open = certain is None
        """Whether it is for the place itself to say."""
        self._recalled = self._is_open and recalled is not None
        """Whether it was not asked in this run."""
        self._base = self._url(recalled) if self._is_open and recalled else certain
        self._settled = plain_http or not loopback_http
        """Whether it stays as it is, whatever fails from here on."""

    def _url(self, scheme: Scheme) -> Url:
        return parse(f"{scheme}://{self._api_host}{BASE_PATH}")

    def _certain(self) -> Url | None:
        url = self._url("https")
        return None if self._loopback_http and is_loopback(url.host) else url

    @property
    def key(self) -> str:
        """Which place this is: with the scheme once that is decided."""
        base = self._base
        return base.origin if base else self.host

    @property
    def is_bound(self) -> bool:
        """Whether it is spoken to in the clear only for what its name has led to."""
        base = self._base
        if base is None or base.scheme == "https" or self.plain_http:
            return False
        return not is_loopback(base.host)

    @property
    def found_out(self) -> Scheme | None:
        """What the place itself has shown to speak in this run, of what it might have."""
        base = self._base
        if base is None or self._recalled or not (self._is_open and self._settled):
            return None
        return "https" if base.scheme == "https" else "http"

    def base(self, context: Context) -> Url:
        """The URL of the API. Raises NetworkError when a host on this machine is not there."""
        base = self._base
        if base is None:
            with acquired(self._lock, context):
                base = self._base = self._base or self._decide(context)
        return base

    def gives_way(self, tried: Url, outcome: Outcome, context: Context) -> bool:
        """Whether a call to that base, which came to this, is to be made again to another one.

        Never once an answer has settled where the place is.
        """
        if self._settled and self._base == tried:
            return False
        with acquired(self._lock, context):
            if self._base != tried:  # another thread came to this before
                return True
            if self._settled or self._is_telling(outcome, tried):
                self._settled = True
                return False
            # Who hung up on the greeting may have had another reason than not to know TLS.
            unheard = self._is_open and tried.scheme == "http" and isinstance(outcome, TowlineError)
            if self._recalled or unheard:
                return self._has_changed(tried, context)
            return isinstance(outcome, NetworkError) and self._falls_back(tried, context)

    def _is_telling(self, outcome: Outcome, tried: Url) -> bool:
        """Whether it comes from a place that is spoken to as it should be."""
        if isinstance(outcome, TowlineError):
            return False
        if not self._recalled or tried.scheme == "https":
            return True
        understood = outcome.ok or outcome.status in _REGISTRYS
        return understood and outcome.url.origin == tried.origin

    def _has_changed(self, tried: Url, context: Context) -> bool:
        """Decide as if nothing were remembered; whether something else comes of it."""
        self._recalled, self._base = False, None
        try:
            self._base = self._decide(context)
        except NetworkError:
            return False
        return self._base != tried

    def _falls_back(self, tried: Url, context: Context) -> bool:
        """After https has failed: whether the name means this machine, where http is spoken.

        Asked once; names that say so themselves are decided without it.
        """
        self._settled = True
        if tried.scheme == "http" or _ADDRESS.fullmatch(tried.host):
            return False
        try:
            found = self._resolve(tried.host, tried.port, context.cancel, self._timeout)
            here = all(is_loopback(str(address[0])) for _, address in found)
            if not here or self._decide(context) == tried:
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
