"""Who issued a certificate: the one question asked of one that is not trusted.

Python's `ssl` answers it for trusted certificates alone, so the name is read from the bytes
(X.690; RFC 5280, section 4.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_EXPLICIT_VERSION = 0xA0
_COMMON_NAME, _ORGANIZATION = b"\x55\x04\x03", b"\x55\x04\x0a"
_BMP_STRING = 0x1E


def issuer(der: bytes) -> str:
    """The issuer's common name, else its organization; empty when it has none or is unreadable."""
    try:
        return _issuer(der)
    except (ValueError, IndexError, StopIteration):
        return ""


def _issuer(der: bytes) -> str:
    _, certificate = next(_parts(der))
    _, to_be_signed = next(_parts(certificate))
    fields = [part for part in _parts(to_be_signed) if part[0] != _EXPLICIT_VERSION]
    names = dict(_names(fields[2][1]))  # serial number, signature algorithm, issuer
    return names.get(_COMMON_NAME) or names.get(_ORGANIZATION) or ""


def _names(name: bytes) -> Iterator[tuple[bytes, str]]:
    for _, relative in _parts(name):
        for _, pair in _parts(relative):
            (_, kind), (tag, value) = _parts(pair)
            text = value.decode("utf-16-be" if tag == _BMP_STRING else "utf-8", "replace")
            yield kind, "".join(character for character in text if character.isprintable())


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element."""
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
