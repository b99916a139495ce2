"""What goes wrong in an exchange, in words."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from towline.errors import NetworkError, RegistryError
from towline.wire.channel import words

if TYPE_CHECKING:
    from towline.errors import TowlineError
    from towline.wire.framing import Broken
    from towline.wire.url import Url

CLIENT_CERTIFICATE = "give a client's certificate with `cert` and `key`"
"""A hint."""
MORE_FILES = "raise the limit of open files (ulimit -n), or lower `jobs`"
_OF_CERTIFICATES = (
    "alert certificate",
    "alert bad certificate",
    "alert unsupported certificate",
    "alert unknown ca",
    "alert access denied",
    "alert decrypt error",
)
"""Alerts of a server about its client (RFC 8446, section 6.2)."""
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")


def is_out_of_files(error: BaseException | None) -> bool:
    """Whether this process, or the machine, may open no more files."""
    return isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}


def unanswered(url: Url, via_proxy: str | None, what: str) -> NetworkError:
    """`what` the other side did instead, after the request had begun to go out."""
    by = f" (by the proxy {via_proxy})" if via_proxy else ""
    error = NetworkError(f"{url.authority}{by} {what}", transient=True)
    error.sent = True
    return error


def no_http(url: Url, broken: Broken) -> TowlineError:
    """It answered in another language."""
    if broken.start.startswith(_TLS_RECORDS):
        error = NetworkError(f"{url.authority} speaks TLS, but was spoken to in plain http")
        error.speaks_tls = True
        return error
    return RegistryError(f"{url.authority} sent {broken}", transient=True)


def other_certificate(whom: object, *errors: Exception) -> NetworkError | None:
    """It does not take a client without a certificate, or not with ours; None: that is not it.

    With TLS 1.3 a server refuses a client only after the handshake, and its reason may come after
    the end of what we could send.
    """
    for said in (words(error) for error in errors if isinstance(error, OSError)):
        if any(alert in said for alert in _OF_CERTIFICATES):
            return NetworkError(
                f"{whom} wants a client's certificate that it knows: {said}",
                hint=CLIENT_CERTIFICATE,
            )
    return None
