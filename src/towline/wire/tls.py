"""TLS: which authorities to trust, which certificate to show, and who issued an untrusted one.

The system's authorities always count (`SSL_CERT_FILE` and `SSL_CERT_DIR`, as OpenSSL reads them);
those that are given are added to them.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import UsageError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    StrPath = str | os.PathLike[str]


_EXPLICIT_VERSION = 0xA0
"""The tag of a certificate's version, a field that may be missing (RFC 5280, section 4.1)."""
_COMMON_NAME, _ORGANIZATION = b"\x55\x04\x03", b"\x55\x04\x0a"
_BMP_STRING = 0x1E


class Trust(NamedTuple):
    """The authorities to believe, and the certificate to show."""

    insecure: bool = False
    """Take any certificate."""
    authorities: tuple[StrPath, ...] = ()
    """PEM files of certificates to trust besides the system's."""
    certificate: StrPath | None = None
    """PEM file of a client certificate; it may hold the key too."""
    key: StrPath | None = None


def context(trust: Trust) -> ssl.SSLContext:
    """A client's context. Raises UsageError naming the file that is no certificate or key."""
    import ssl

    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # HTTP/2 was slower for uploads wherever it was measured, and we do not speak it.
    made.set_alpn_protocols(["http/1.1"])
    if trust.insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    else:
        _trust_the_system(made)
    for path in trust.authorities:
        with _reading(path, "a certificate"):
            made.load_verify_locations(cafile=path)
    if trust.certificate is None:
        return made

    def encrypted() -> str:
        # Without this OpenSSL asks for a passphrase on the terminal, and no signal ends that.
        path = trust.key or trust.certificate
        raise UsageError(
            f"the key in {path} is encrypted, and no passphrase is asked for",
            hint=f"give a key without a passphrase: openssl pkey -in {path} -out FILE",
        )

    # OpenSSL's "PEM lib" is all that is said where a certificate has no key beside it.
    hint = None if trust.key else "give its key, too: `key`"
    with _reading(trust.certificate, "a client certificate with its key", hint):
        made.load_cert_chain(trust.certificate, trust.key, password=encrypted)
    return made


def check(trust: Trust) -> None:
    """Read the files that were given, even if no host speaks TLS. Raises UsageError."""
    if trust.key is not None and trust.certificate is None:
        raise UsageError(
            "a client's key was given without its certificate", hint="give both: `cert` and `key`"
        )
    if trust.authorities or trust.certificate is not None:
        context(trust)


def _trust_the_system(made: ssl.SSLContext) -> None:
    import ssl

    # A folder of hashed names is looked into when a certificate is to be checked; a bundle is
    # parsed whole (about 20 ms) by every process that opens a connection.
    folder = None if os.environ.get("SSL_CERT_FILE") else ssl.get_default_verify_paths().capath
    try:
        hashed = any(name.endswith(".0") for name in os.listdir(folder)) if folder else False  # noqa: PTH208 - pathlib costs start-up
    except OSError:
        hashed = False
    if hashed:
        made.load_verify_locations(capath=folder)
    else:
        made.set_default_verify_paths()


@contextmanager
def _reading(path: StrPath, what: str, hint: str | None = None) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"there is no file {path} to read {what} from") from None
    except OSError as error:  # ssl.SSLError is one: [NAME: NAME] what was wrong (_ssl.c:LINE)
        said = (error.strerror or str(error)).rpartition("] ")[2].partition(" (_ssl.c")[0]
        raise UsageError(f"{path} cannot be read as {what}: {said}", hint=hint) from None


def issuer(certificate: bytes) -> str:
    """The common name of a certificate's issuer, else its organization; empty: neither is there.

    `certificate` is in DER. Python's `ssl` names the issuer of a trusted certificate alone, so the
    name is read from the bytes (X.690; RFC 5280, section 4.1).
    """
    names = {}
    try:
        _, to_be_signed = next(_elements(next(_elements(certificate))[1]))
        fields = [each for each in _elements(to_be_signed) if each[0] != _EXPLICIT_VERSION]
        _, name = fields[2]  # after serial number and signature algorithm
        for _, relative in _elements(name):
            for _, pair in _elements(relative):
                (_, kind), (tag, value) = _elements(pair)
                text = value.decode("utf-16-be" if tag == _BMP_STRING else "utf-8", "replace")
                names[kind] = "".join(character for character in text if character.isprintable())
    except (ValueError, IndexError, StopIteration):
        return ""
    return names.get(_COMMON_NAME) or names.get(_ORGANIZATION) or ""


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element of DER."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        if at + length > len(data):
            raise ValueError
        yield tag, data[at : at + length]
        at += length
