"""The way to a host: name, connect, proxy, TLS. A failure says which of them it was."""

from __future__ import annotations

import errno
import resource
import socket
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from towline.errors import NetworkError
from towline.wire import framing
from towline.wire.channel import Channel, Silence, words
from towline.wire.failures import (
    CLIENT_CERTIFICATE,
    MORE_FILES,
    is_out_of_files,
    other_certificate,
)
from towline.wire.proxy import HINT, WANTS_CREDENTIALS, failed, is_elsewhere, is_here, is_private

if TYPE_CHECKING:
    import ssl

    from towline.context import Cancel
    from towline.wire.message import Shunned
    from towline.wire.proxy import Proxy
    from towline.wire.url import Url

Address = tuple[int, tuple[Any, ...]]

_PROXY_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_CONNECT_OK = range(200, 300)
_SPARE_FILES = 4
"""What connections leave of the files that may be open: for modules, and for sources."""
_REFUSED = "alert handshake failure"
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's codes (X509_V_ERR) for a chain that ends at nobody known."""


def resolve(host: str, port: int, cancel: Cancel, timeout: float) -> list[Address]:
    """The addresses of a host, in the order to try them. Raises NetworkError."""
    try:
        return _look_up(host, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        return _resolve_name(host, port, cancel, timeout)


def _resolve_name(host: str, port: int, cancel: Cancel, timeout: float) -> list[Address]:
    # The C library cannot be interrupted while it asks; a thread that nobody waits for can be left.
    found: list[Address] = []
    failed: list[OSError] = []
    done = threading.Event()

    def look_up() -> None:
        try:
            found.extend(_look_up(host, port, 0))
        except OSError as error:
            failed.append(error)
        done.set()

    try:
        threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    except RuntimeError:  # no thread is to be had: then this one waits
        look_up()
    with cancel.on_cancel(done.set):
        answered = done.wait(timeout)
    cancel.check()
    if failed or not answered:
        raise _unknown(host, failed[0] if failed else None)
    return found


def _look_up(host: str, port: int, flags: int) -> list[Address]:
    try:
        # Bytes: a text makes Python load its tables of international names (6 ms).
        name = host.encode("ascii") if host.isascii() else host
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "this can be no host name") from None
    return [(int(info[0]), info[4]) for info in found]


def _unknown(host: str, error: OSError | None) -> NetworkError:
    why = error.strerror if error is not None and error.strerror else "the name server is silent"
    lasting = error is not None and error.errno in {socket.EAI_NONAME, socket.EAI_FAIL}
    return NetworkError(
        f"the name {host} cannot be resolved: {why}",
        hint="check how the registry is spelled, and that this machine can resolve names",
        transient=not lasting,
    )


class Way(NamedTuple):
    """How a URL's server is reached."""

    url: Url
    proxy: Proxy | None
    cancel: Cancel
    timeout: float
    """Seconds without a byte."""
    shuns: Shunned | None = None
    """Refuse such an address."""
    proxy_tls: ssl.SSLContext | None = None
    """Given exactly for a proxy that is spoken to over TLS."""
    whom: str = ""
    """Who is at its end, where that is not the URL's server."""

    def __str__(self) -> str:
        return self.whom or self.url.authority


def connect(way: Way, secure: ssl.SSLContext | None) -> Channel:
    """A connection on which `way.url` can be asked; `secure` is given exactly for https.

    Raises NetworkError.
    """
    near = way.proxy.url if way.proxy else way.url
    check_shunned(way.shuns, way.url, way.url.host)
    if way.proxy and way.shuns == "another machine":
        raise _left(way.url, f"behind the proxy {way.proxy}")
    channel = dial(near, way.url, way.cancel, way.timeout)
    try:
        if not way.proxy:
            check_shunned(way.shuns, way.url, channel.peer)
        if way.proxy_tls:
            part = Way(near, None, way.cancel, way.timeout, whom=f"the proxy {near.authority}")
            _secure(channel, part, way.proxy_tls)
        if way.proxy and secure:
            _tunnel(channel, way.url, way.proxy)
        if secure:
            _secure(channel, way, secure)
    except BaseException:
        channel.close()
        raise
    return channel


def check_shunned(shunned: Shunned | None, url: Url, address: str) -> None:
    """Raise NetworkError when that address is one of those."""
    if shunned is None:
        return
    if shunned == "another machine":
        if is_elsewhere(address):
            raise _left(url, f"at {address}")
        return
    from_where = "on another machine" if shunned == "this machine" else "on the internet"
    if is_here(address) or (shunned == "a private network" and is_private(address)):
        raise NetworkError(
            f"{url.authority} is an address of {shunned}: a registry {from_where} has "
            "no business to send there",
            hint="check the registry, and what lies between here and it",
        )


def _left(url: Url, where: str) -> NetworkError:
    return NetworkError(
        f"{url.authority} was found on this machine, and is {where} now: it is not spoken to in "
        "the clear there",
        hint="if it is meant to be plain http, pass `plain_http=True`",
    )


def dial(near: Url, url: Url, cancel: Cancel, timeout: float) -> Channel:
    """A connection to `near` on the way to `url`. Raises NetworkError."""
    failure: Exception | None = None
    for family, address in _addresses(near, url, cancel, timeout):
        try:
            return _dial_address(family, address, cancel, timeout)
        except (OSError, Silence) as error:
            failure = error
    raise unreachable(near, url, failure) from failure


def _addresses(near: Url, url: Url, cancel: Cancel, timeout: float) -> list[Address]:
    try:
        return resolve(near.host, near.port, cancel, timeout)
    except NetworkError as error:
        if near.origin == url.origin:
            raise
        why = f"cannot connect to the proxy {near.authority}: {error.message}"
        raise NetworkError(why, hint=HINT, transient=error.transient) from None


def _dial_address(
    family: int,
    address: tuple[str, int] | tuple[str, int, int, int],
    cancel: Cancel,
    timeout: float,
) -> Channel:
    sock = _socket(family)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel = Channel(sock, cancel, timeout)
        try:
            sock.connect(address)
        except BlockingIOError:
            channel.finish_connecting()
    except BaseException:
        sock.close()
        raise
    return channel


def _socket(family: int) -> socket.socket:
    """One that leaves a few files to be opened. Raises OSError."""
    made = socket.socket(family, socket.SOCK_STREAM)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most != resource.RLIM_INFINITY and made.fileno() >= most - _SPARE_FILES:
        made.close()
        raise OSError(errno.EMFILE, "too many open files")
    return made


def unreachable(near: Url, url: Url, failure: Exception | None) -> NetworkError:
    """The error of a host (or a proxy on the way to it) that takes no connection."""
    whom = near.authority if near.origin == url.origin else f"the proxy {near.authority}"
    why = words(failure) if isinstance(failure, OSError) else "no answer in time"
    hint = "check the address, and that the registry is running"
    if is_out_of_files(failure):
        hint = MORE_FILES
    elif near.origin != url.origin:
        hint = HINT
    return NetworkError(f"cannot connect to {whom}: {why}", hint=hint, transient=True)


def _tunnel(channel: Channel, url: Url, proxy: Proxy) -> None:
    host = f"[{url.host}]" if ":" in url.host else url.host
    target = f"{host}:{url.port}"
    fields = [("Host", target)]
    if proxy.authorization:
        fields.append(("Proxy-Authorization", proxy.authorization))
    tunnel = framing.Framing(channel)
    try:
        channel.send([memoryview(tunnel.request("CONNECT", target, fields) + tunnel.end())])
        status = tunnel.head(channel.timeout).status
    except Silence:
        raise failed(proxy, url, "no answer in time", transient=True) from None
    except framing.Broken as error:
        raise failed(proxy, url, str(error), transient=True) from None
    except OSError as error:
        raise failed(proxy, url, words(error), transient=True) from None
    if status not in _CONNECT_OK:
        wanted = status == WANTS_CREDENTIALS
        why = "it wants credentials" if wanted else f"it answered {status}"
        raise failed(proxy, url, why, transient=status in _PROXY_TRANSIENT)


def _secure(channel: Channel, way: Way, context: ssl.SSLContext) -> None:
    import ssl

    try:
        channel.secure(context, way.url.host)
    except Silence:
        raise NetworkError(f"{way} does not answer to TLS", transient=True) from None
    except ssl.SSLCertVerificationError as error:
        channel.close()
        raise _untrusted(way, error) from None
    except OSError as error:
        raise _tls_failed(way, error) from None


def _untrusted(way: Way, error: ssl.SSLCertVerificationError) -> NetworkError:
    why = error.verify_message or str(error)
    message = f"the certificate of {way} is not trusted: {why}"
    if error.verify_code not in _UNKNOWN_ISSUER:
        return NetworkError(message, hint="have that certificate put right")
    issuer = _issuer(way)
    named = f"its issuer, {issuer}," if issuer else "its issuer"
    return NetworkError(
        message,
        hint=f"{named} is unknown here: give that authority's certificate with `ca`",
    )


def _issuer(way: Way) -> str:
    """Who issued the certificate that was not trusted; a second look, which trusts nobody."""
    from towline.wire import certificate, tls

    channel = None
    try:
        channel = connect(way, tls.context(tls.Trust(insecure=True)))
        return certificate.issuer(channel.peer_certificate())
    except NetworkError:
        return ""
    finally:
        if channel:
            channel.close()


def _tls_failed(way: Way, error: OSError) -> NetworkError:
    reason = str(getattr(error, "reason", "") or "")
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
        hint = "if it is meant to be plain http, pass `plain_http=True`"
        return NetworkError(
            f"{way} does not speak TLS where https is wanted",
            hint=f"name it as http://{way.url.authority}" if way.whom else hint,
        )
    if not way.whom and (refused := other_certificate(way, error)):
        return refused
    said = words(error)
    # A handshake cut short may be a proxy or a load balancer that is just starting.
    return NetworkError(
        f"no TLS connection to {way}: {said}",
        transient=not reason or reason == "UNEXPECTED_EOF_WHILE_READING",
        # With TLS 1.2 it is also what a server says that wants a client's certificate.
        hint=f"if it wants one, {CLIENT_CERTIFICATE}" if said.endswith(_REFUSED) else None,
    )
