"""Where a registry's API is: its host, https or http, and the certificates for it.

https is spoken everywhere; http only where the user asked for it, or on this machine when nothing
there speaks TLS. That is decided once, by a greeting in TLS and not by a request.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from towline.context import Cancel, Context, acquired
from towline.errors import NetworkError, TowlineError, UsageError
from towline.reference import HUB
from towline.spec import distribution
from towline.wire.connect import Address, resolve, speaks_tls
from towline.wire.message import Response, Url, parse_url
from towline.wire.proxy import is_loopback, located

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from towline.wire.tls import Trust

    Outcome = Response | TowlineError
    """What comes of a call: an answer, or none."""

HUB_API = "registry-1.docker.io"
"""The host of the Hub's API; `docker.io` has none."""


class Endpoint:
    """One registry host. Safe from any thread."""

    def __init__(
        self,
        host: str,
        *,
        plain_http: bool,
        loopback_http: bool,
        checked: bool = True,
        timeout: float,
        resolve: Callable[[str, int, Cancel, float], list[Address]] = resolve,
    ) -> None:
        """`checked`: whether certificates are verified."""
        self.host = host
        """As references have it."""
        self.plain_http = plain_http
        """Whether the user asked for http."""
        self._checked = checked
        self._timeout = timeout
        self._resolve = resolve
        self._lock = threading.Lock()
        place = f"{HUB_API if host == HUB else host}{distribution.BASE}"
        self._secure, self._plain = parse_url(f"https://{place}"), parse_url(f"http://{place}")
        self._base: Url | None = self._plain if plain_http else self._secure
        if loopback_http and not plain_http and is_loopback(self._secure.host):
            self._base = None  # `base` finds out, at the first call
        self._settled = plain_http or not loopback_http
        """Whether `_base` is final, whatever fails from here on."""

    @property
    def is_verified(self) -> bool:
        """Whether a certificate vouches for the host; False while the scheme is undecided."""
        return self._checked and self._base is not None and self._base.scheme == "https"

    @property
    def is_bound(self) -> bool:
        """Whether plain http is spoken solely because the host is on this machine."""
        base = self._base
        return base is not None and base.scheme == "http" and not self.plain_http

    def base(self, context: Context) -> Url:
        """The URL of the API; decides between https and http if that is open.

        Raises NetworkError when a host on this machine cannot be reached.
        """
        base = self._base
        if base is None:
            with acquired(self._lock, context):
                base = self._base = self._base or self._decide(context)
        return base

    def gives_way(self, tried: Url, outcome: Outcome, context: Context) -> bool:
        """Whether to repeat a call to `tried`, with this outcome, at another base URL.

        Never once an answer has settled the scheme.
        """
        if self._settled and self._base == tried:
            return False
        with acquired(self._lock, context):
            if self._base != tried:  # another thread came to this before
                return True
            if self._settled or not isinstance(outcome, TowlineError):
                self._settled = True
                return False
            if tried.scheme == "http":
                # The greeting failed, and now http has failed too. Whoever hung up on the greeting
                # may have had another reason than not to know TLS: greet it again.
                self._base = None
            elif isinstance(outcome, NetworkError):
                # Its name does not look like this machine's, but may lead to it (hosts files):
                # then it may speak http. That is looked for once.
                self._settled = True
            else:
                return False
            try:
                self._base = self._decide(context)
            except NetworkError:
                return False
            return self._base != tried

    def explain(self, error: NetworkError, context: Context) -> None:
        """Complete the error of a call in plain http.

        A registry that hung up is greeted in TLS; the error's `speaks_tls` says whether it
        answered.
        """
        base = self._base
        if not (self.plain_http and base):
            error.speaks_tls = False  # then http was our own idea, or a proxy's
        elif error.hung_up and not error.speaks_tls:
            with suppress(NetworkError):
                error.speaks_tls = speaks_tls(base, context.cancel, self._timeout)
            error.transient = error.transient and not error.speaks_tls

    def _decide(self, context: Context) -> Url:
        """https, unless the name resolves to this machine and nothing there speaks TLS."""
        secure, plain = self._secure, self._plain
        found = self._resolve(secure.host, secure.port, context.cancel, self._timeout)
        try:
            # Addresses count, not the name: even `localhost` may lead to another machine.
            here = all(located(str(address[0])) == "this machine" for _, address in found)
            if not here or speaks_tls(secure, context.cancel, self._timeout):
                self._settled = True
                return secure
        except NetworkError:
            # Nothing listens at 443. Where the name has no port, http has another one (80).
            if secure.port == plain.port:
                raise
        return plain


def host_of(url: Url) -> str:
    """The host of a URL as references spell it."""
    return HUB if url.host == HUB_API else url.authority


def trust_of(host: str, given: Trust, environ: Mapping[str, str]) -> Trust:
    """The authorities and the client's certificate for a host: those given, and its `certs.d`'s.

    Docker and Podman keep a folder for each HOST[:PORT]: `*.crt` are authorities, NAME.cert and
    NAME.key a client's pair. Only the first folder that exists counts, the user's own before the
    system's. Raises UsageError for a client's certificate without a key, as Podman does.
    """
    from pathlib import Path

    home = environ.get("HOME")
    config = environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    own = (f"{config}/containers/certs.d", f"{config}/docker/certs.d") if config else ()
    places = (*own, "/etc/containers/certs.d", "/etc/docker/certs.d")
    folders = (Path(place, host) for place in places)
    # Not pathlib's is_dir: before Python 3.14 that raises where this user may not look.
    folder = next((folder for folder in folders if os.path.isdir(folder)), None)  # noqa: PTH112
    if folder is None or host == HUB:  # docker reads no folder for the Hub
        return given
    try:
        found = sorted(folder.iterdir())
    except OSError:  # this user may not read it, and Podman passes over it too
        return given
    authorities = tuple(path for path in found if path.suffix == ".crt")
    trust = given._replace(authorities=(*given.authorities, *authorities))
    pairs = [path for path in found if path.suffix == ".cert"]
    if given.certificate is not None or not pairs:
        return trust
    certificate = pairs[0]
    key = certificate.with_suffix(".key")
    if not key.exists():
        raise UsageError(f"{certificate} has no {key.name} beside it")
    return trust._replace(certificate=certificate, key=key)
