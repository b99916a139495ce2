"""The way to a host: name, connect, proxy, TLS. An error says which of these steps failed."""

from __future__ import annotations

import errno
import resource
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from towline.errors import NetworkError
from towline.wire import framing
from towline.wire.channel import Channel, Silence, words
from towline.wire.proxy import HINT, WANTS_CREDENTIALS, Proxy, failed, located

if TYPE_CHECKING:
    import ssl

    from towline.context import Cancel
    from towline.wire.message import Shunned, Url

Address = tuple[int, tuple[Any, ...]]

_PROXY_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses of a proxy that may be gone at the next attempt."""
_CONNECT_OK = range(200, 300)
"""Statuses by which a proxy has made the tunnel (RFC 9110, section 9.3.6: any 2xx)."""
_SPARE_FILES = 4
"""Open files that connections leave free: for modules that are still to be imported, and for
sources."""
_REFUSED = "alert handshake failure"
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's codes (X509_V_ERR) for a chain that ends at no known authority."""
CLIENT_CERTIFICATE = "give a client's certificate with `cert` and `key`"
"""A hint."""
_OF_CERTIFICATES = (
    "alert certificate",
    "alert bad certificate",
    "alert unsupported certificate",
    "alert unknown ca",
    "alert access denied",
    "alert decrypt error",
)
"""Alerts by which a server refuses its client's certificate (RFC 8446, section 6.2)."""
_ALERT, _HANDSHAKE = b"\x15", b"\x16"
"""Kinds of TLS records (RFC 8446, section 5.1)."""
_CLIENT_HELLO = bytes.fromhex(
    "160301 0072 01 00006e 0303"  # a handshake's record, and in it a ClientHello of TLS 1.2
    # Empty lines instead of random bytes: a server of plain http answers them at once (400), and
    # does not wait for more.
    + 16 * "0d0a"
    + "00 0016 13011302c02bc02fc02cc030cca9cca8c013009c002f 0100"  # no session; the suites
    "002f"  # the extensions
    "000a0006 0004001d0017"  # groups: x25519, secp256r1
    "000b0002 0100"  # points: uncompressed
    "000d000c 000a04030804040108070806"  # signatures
    "002b0005 0403040303"  # versions: 1.3, 1.2
    "00330002 0000"  # no key yet: a 1.3 server asks for one
)
"""A ClientHello of TLS 1.2 or 1.3 (RFC 8446, section 4.1.2); no handshake follows it."""


def resolve(host: str, port: int, cancel: Cancel, timeout: float) -> list[Address]:
    """The addresses of a host, in the order to try them. Raises NetworkError, Cancelled."""
    with suppress(socket.gaierror):  # an address in digits needs no name server, and no thread
        return _look_up(host, port, socket.AI_NUMERICHOST)
    found: list[Address] = []
    failed: list[OSError] = []
    done = threading.Event()

    def look_up() -> None:
        try:
            found.extend(_look_up(host, port, 0))
        except OSError as error:
            failed.append(error)
        done.set()

    # The C library cannot be interrupted while it asks: a thread does so, which is left behind
    # when the push is cancelled.
    try:
        threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    except RuntimeError:  # the system gives no thread: this one waits
        look_up()
    with cancel.on_cancel(done.set):
        answered = done.wait(timeout)
    cancel.check()
    if answered and not failed:
        return found
    why = failed[0].strerror if failed else None
    raise NetworkError(
        f"the name {host} cannot be resolved: {why or 'the name server is silent'}",
        hint="check how the registry is spelled, and that this machine can resolve names",
        transient=not failed or failed[0].errno not in {socket.EAI_NONAME, socket.EAI_FAIL},
    )


def _look_up(host: str, port: int, flags: int) -> list[Address]:
    try:
        # Bytes: a text makes Python load its tables of international names (6 ms).
        name = host.encode("ascii") if host.isascii() else host
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "this can be no host name") from None
    return [(int(info[0]), info[4]) for info in found]


class Way:
    """How a URL's server is reached."""

    def __init__(
        self,
        url: Url,
        proxy: Proxy | None,
        cancel: Cancel,
        timeout: float,
        *,
        shuns: Shunned | None = None,
        proxy_tls: ssl.SSLContext | None = None,
        whom: str = "",
    ) -> None:
        self.url = url
        self.proxy = proxy
        self.cancel = cancel
        self.timeout = timeout
        """Seconds without a byte."""
        self.shuns = shuns
        """The addresses to refuse."""
        self.proxy_tls = proxy_tls
        """Given exactly for a proxy that is spoken to over TLS."""
        self.whom = whom
        """The name for messages, where the other end is not the URL's server."""

    def __str__(self) -> str:
        return self.whom or self.url.authority


def connect(way: Way, secure: ssl.SSLContext | None) -> Channel:
    """A connection on which `way.url` can be requested; `secure` is given exactly for https.

    Raises NetworkError.
    """
    near = way.proxy.url if way.proxy else way.url
    check_shunned(way.shuns, way.url, way.url.host)
    # A proxy connects for us, and does not say to which address.
    if way.proxy and way.shuns == "another machine":
        raise _left(way.url, f"behind the proxy {way.proxy}")
    channel = dial(near, way.url, way.cancel, way.timeout)
    try:
        if not way.proxy:
            # Once more by the address: a public name may lead to this machine.
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
    """Raise NetworkError if `address` is one that `shunned` refuses."""
    where = located(address)
    if shunned == "another machine":
        if where not in {None, "this machine"}:
            raise _left(url, f"at {address}")
    elif shunned and where in {"this machine", shunned}:
        from_where = "on another machine" if shunned == "this machine" else "on the internet"
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
    via_proxy = not near.same_origin(url)
    whom = f"the proxy {near.authority}" if via_proxy else near.authority
    try:
        addresses = resolve(near.host, near.port, cancel, timeout)
    except NetworkError as error:
        if not via_proxy:
            raise
        why = f"cannot connect to {whom}: {error.message}"
        raise NetworkError(why, hint=HINT, transient=error.transient) from None
    failure: OSError | Silence = OSError("it has no address")
    for family, address in addresses:
        try:
            return _dial_address(family, address, cancel, timeout)
        except (OSError, Silence) as error:
            failure = error
    hint = HINT if via_proxy else "check the address, and that the registry is running"
    if is_out_of_files(failure):
        hint = "raise the limit of open files (ulimit -n), or lower `jobs`"
    why = f"cannot connect to {whom}: {words(failure)}"
    raise NetworkError(why, hint=hint, transient=True) from failure


def is_out_of_files(error: BaseException | None) -> bool:
    """Whether the error says that this process, or the machine, may open no more files."""
    return isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}


def _dial_address(
    family: int,
    address: tuple[str, int] | tuple[str, int, int, int],
    cancel: Cancel,
    timeout: float,
) -> Channel:
    sock = socket.socket(family, socket.SOCK_STREAM)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most != resource.RLIM_INFINITY and sock.fileno() >= most - _SPARE_FILES:
        sock.close()
        raise OSError(errno.EMFILE, "too many open files")
    try:
        # A request's last small packet must not wait for an acknowledgement (Nagle).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel = Channel(sock, cancel, timeout)
        channel.connect(address)
    except BaseException:
        sock.close()
        raise
    return channel


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
    except (Silence, framing.Broken, OSError) as error:
        raise failed(proxy, url, words(error), transient=True) from None
    if status not in _CONNECT_OK:
        wanted = status == WANTS_CREDENTIALS
        why = "it wants credentials" if wanted else f"it answered {status}"
        raise failed(proxy, url, why, transient=status in _PROXY_TRANSIENT)


def _secure(channel: Channel, way: Way, context: ssl.SSLContext) -> None:
    """Speak TLS from here on. Raises NetworkError."""
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
    from towline.wire import tls

    said = (error.verify_message or str(error)).rstrip(".")
    message = f"the certificate of {way} is not trusted: {said}"
    if error.verify_code not in _UNKNOWN_ISSUER:
        return NetworkError(message, hint="have that certificate put right")
    issuer = ""
    try:  # again, without checking: a failed handshake leaves no certificate to look at
        channel = connect(way, tls.context(tls.Trust(insecure=True)))
        issuer = tls.issuer(channel.peer_certificate())
        channel.close()
    except NetworkError:
        pass
    named = f"its issuer, {issuer}," if issuer else "its issuer"
    hint = f"{named} is unknown here: give that authority's certificate with `ca`"
    return NetworkError(message, hint=hint)


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
    # A handshake that was cut short may be a proxy or a load balancer that is just starting.
    return NetworkError(
        f"no TLS connection to {way}: {said}",
        transient=not reason or reason == "UNEXPECTED_EOF_WHILE_READING",
        # With TLS 1.2 a server that wants a client's certificate says this, too.
        hint=f"if it wants one, {CLIENT_CERTIFICATE}" if said.endswith(_REFUSED) else None,
    )


def other_certificate(whom: object, *errors: Exception | None) -> NetworkError | None:
    """The error of a server that refuses our certificate, or wants one; None: it is another error.

    With TLS 1.3 a server refuses a client only after the handshake: its alert may be read after
    sending has failed. So several errors of one connection are looked at.
    """
    for said in (words(error) for error in errors if isinstance(error, OSError)):
        if any(alert in said for alert in _OF_CERTIFICATES):
            return NetworkError(
                f"{whom} wants a client's certificate that it knows: {said}",
                hint=CLIENT_CERTIFICATE,
            )
    return None


def speaks_tls(url: Url, cancel: Cancel, timeout: float) -> bool:
    """Whether the server at that address answers a ClientHello with TLS.

    No TLS library is loaded for it: that, and the system's certificates, would take longer than a
    small push over loopback. Raises NetworkError when the server takes no connection, or is silent.
    """
    channel = dial(url, url, cancel, timeout)
    try:
        channel.send([memoryview(_CLIENT_HELLO)])
        first = channel.receive()[:1]
    except Silence:
        raise NetworkError(
            f"{url.authority} sent no byte for {timeout:g} s", transient=True
        ) from None
    except OSError:
        return False  # it hung up on bytes that it did not understand
    finally:
        channel.close()
    return first in {_ALERT, _HANDSHAKE}
