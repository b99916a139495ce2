"""Proxies, as the environment names them; and what an address says about where it is.

`HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are read in upper and lower case. `NO_PROXY` holds names,
suffixes, ports, addresses and networks between commas; `*` means that no proxy is used. This
machine itself is never reached through a proxy.
"""

from __future__ import annotations

import re
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from towline.errors import NetworkError, UsageError
from towline.wire.message import DEFAULT_PORTS, Url, parse_url, user_pass

if TYPE_CHECKING:
    from collections.abc import Mapping

Located = Literal["this machine", "a private network", "the internet"]
HINT = "check HTTPS_PROXY and HTTP_PROXY, or except the registry in NO_PROXY"
WANTS_CREDENTIALS = 407
"""The status (RFC 9110, section 15.5.8)."""
_SCHEME = r"(?i)([a-z][a-z0-9+.-]*)://"
_USER = r"(?i)(https?://)([^@/]*)@"
_PORT = r"(\[.*\]|[^:]*):(\d+)"
_ODD_ADDRESS = r"(?:[0-9a-z-]+\.)*(?:0x[0-9a-f]*|[0-9]+)\.?"
_ADDRESS = r"[0-9.]+|[0-9a-f:.]*:[0-9a-f:.]*"


class Proxy(NamedTuple):
    """A proxy's address, and the credentials for it."""

    url: Url
    authorization: str | None = None
    """The value of `Proxy-Authorization`."""

    def __str__(self) -> str:
        return self.url.origin

    def __repr__(self) -> str:
        return f"<Proxy {self}>"


class Proxies:
    """The proxies by scheme, and the hosts that are reached without one."""

    def __init__(
        self,
        by_scheme: Mapping[str, Proxy] = MappingProxyType({}),
        exceptions: tuple[str, ...] = (),
    ) -> None:
        """`exceptions`: the parts of `NO_PROXY`, lower case."""
        self.by_scheme = by_scheme
        self.exceptions = exceptions

    def of(self, url: Url) -> Proxy | None:
        """The proxy for that URL; None: connect directly."""
        proxy = self.by_scheme.get(url.scheme)
        if proxy is None or is_loopback(url.host):
            return None
        return None if any(_matches(rule, url) for rule in self.exceptions) else proxy


def from_environment(environ: Mapping[str, str]) -> Proxies:
    """Read the variables. Raises UsageError for a proxy that we cannot use."""
    # Under CGI (REQUEST_METHOD) HTTP_PROXY is the request's own `Proxy:` header: not to be trusted.
    names = {"https": "HTTPS_PROXY", "http": "" if "REQUEST_METHOD" in environ else "HTTP_PROXY"}
    found = {}
    for scheme, name in names.items():
        text = environ.get(name) or environ.get(f"{scheme}_proxy")
        if text:
            found[scheme] = _proxy(text.strip(), name or "http_proxy")
    excepted = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    rules = (rule.strip().lower() for rule in excepted.split(","))
    return Proxies(found, tuple(rule for rule in rules if rule))


def failed(proxy: Proxy | str, url: Url, why: str, *, transient: bool = False) -> NetworkError:
    """The error of a proxy that answers, and does not connect."""
    return NetworkError(
        f"the proxy {proxy} does not connect to {url.authority}: {why}",
        hint=HINT,
        transient=transient,
    )


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine, by its text alone."""
    return (
        host in {"localhost", "::1"}
        or host.endswith(".localhost")
        or (host.startswith("127.") and set(host) <= set("0123456789."))
    )


def located(host: str) -> Located | None:
    """Where a name or address leads, by its text alone, in any spelling; None: a name tells not."""
    if is_loopback(host):
        return "this machine"
    if not re.fullmatch(_ADDRESS, host):
        # Some resolvers read 0x7f.1 or 017700000001 as an address: nobody means well with those.
        return "this machine" if re.fullmatch(_ODD_ADDRESS, host) else None
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "this machine"
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback or address.is_unspecified:
        return "this machine"
    private = address.is_private or address.is_link_local
    return "a private network" if private else "the internet"


def _proxy(text: str, variable: str) -> Proxy:
    scheme = re.match(_SCHEME, text)
    if scheme is None:
        text = f"http://{text}"
    elif scheme[1].lower() not in DEFAULT_PORTS:
        raise UsageError(
            f"{variable} names a proxy of the kind {scheme[1]}, which is not supported",
            hint=f"name an http or https proxy in {variable}, or unset it",
        )
    authorization = None
    if account := re.match(_USER, text):
        from urllib.parse import unquote

        user, _, password = account[2].partition(":")
        authorization = "Basic " + user_pass(unquote(user), unquote(password))
    try:
        return Proxy(parse_url(text), authorization)
    except ValueError:
        raise UsageError(f"{variable} is no address of a proxy") from None


def _matches(rule: str, url: Url) -> bool:
    """Whether a part of `NO_PROXY` matches that URL."""
    if rule == "*":
        return True
    if re.fullmatch(_ADDRESS, url.host):
        import ipaddress

        with suppress(ValueError):  # the rule is a name, or an address with a port
            network = ipaddress.ip_network(rule.strip("[]"), strict=False)
            if ipaddress.ip_address(url.host) in network:
                return True
    if with_port := re.fullmatch(_PORT, rule):
        rule = with_port[1]
        if int(with_port[2]) != url.port:
            return False
    rule = rule.strip("[]").removeprefix("*").lstrip(".")
    return url.host == rule or url.host.endswith("." + rule)
