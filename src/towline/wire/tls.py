"""TLS: whom to trust, and which certificate to show.

The system's authorities always count (`SSL_CERT_FILE` and `SSL_CERT_DIR` as OpenSSL reads them);
given ones are added to them.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import UsageError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path


class Trust(NamedTuple):
    """Whom to believe, and as whom to appear."""

    insecure: bool = False
    """Take any certificate."""
    authorities: tuple[Path, ...] = ()
    """PEM files of certificates to trust besides the system's."""
    certificate: Path | None = None
    """PEM file of a client certificate; it may hold the key too."""
    key: Path | None = None


def context(trust: Trust) -> ssl.SSLContext:
    """A client's context. Raises UsageError naming the file that is no certificate or key."""
    import ssl

    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.set_alpn_protocols(["http/1.1"])
    if trust.insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    else:
        _trust_the_system(made)
    for path in trust.authorities:
        with _reading(path, "a certificate"):
            made.load_verify_locations(cafile=path)
    if trust.certificate is not None:
        with _reading(trust.certificate, "a client certificate with its key"):
            load_pair(made, trust.certificate, trust.key)
    return made


def load_pair(made: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Read a certificate and its key. Raises OSError, and UsageError for an encrypted key."""

    def encrypted() -> str:
        # Else OpenSSL itself asks for a passphrase on the terminal, and no signal ends that.
        path = key or certificate
        raise UsageError(
            f"the key in {path} is encrypted, and no passphrase is asked for",
            hint=f"give a key without a passphrase: openssl pkey -in {path} -out FILE",
        )

    made.load_cert_chain(certificate, key, password=encrypted)


def check(trust: Trust) -> None:
    """Read the files that were given, which a host without TLS would leave unread.

    Raises UsageError.
    """
    if trust.key is not None and trust.certificate is None:
        raise UsageError(
            "a client's key was given without its certificate", hint="give both: `cert` and `key`"
        )
    if trust.authorities or trust.certificate is not None:
        context(trust)


def _trust_the_system(made: ssl.SSLContext) -> None:
    import ssl

    paths = ssl.get_default_verify_paths()
    # A folder of hashed names is looked into when a certificate is to be checked; a bundle is
    # parsed whole (about 20 ms) by every process that opens a connection.
    if not os.environ.get("SSL_CERT_FILE") and paths.capath and _is_hashed(paths.capath):
        made.load_verify_locations(capath=paths.capath)
    else:
        made.set_default_verify_paths()


def _is_hashed(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.endswith(".0") for entry in entries)
    except OSError:
        return False


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"there is no file {path} to read {what} from") from None
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(f"{path} cannot be read as {what}: {error}") from None
