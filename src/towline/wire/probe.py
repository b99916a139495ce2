"""Does a server speak TLS? Asked with one greeting, without loading a TLS library.

Loading it and the system's certificates takes longer than a small push over loopback. The greeting
holds an empty line, so that a server of plain http answers it at once instead of waiting for more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.errors import NetworkError
from towline.wire.channel import Silence
from towline.wire.connect import dial

if TYPE_CHECKING:
    from towline.context import Cancel
    from towline.wire.url import Url

_ALERT, _HANDSHAKE = 0x15, 0x16


def _client_hello() -> bytes:
    """A ClientHello of TLS 1.2 or 1.3 (RFC 8446, section 4.1.2) that nobody goes on with."""
    extensions = b"".join(
        (
            bytes.fromhex("000a 0006 0004 001d 0017"),  # groups: x25519, secp256r1
            bytes.fromhex("000b 0002 0100"),  # points: uncompressed
            bytes.fromhex("000d 000c 000a 0403 0804 0401 0807 0806"),  # signatures
            bytes.fromhex("002b 0005 04 0304 0303"),  # versions: 1.3, 1.2
            bytes.fromhex("0033 0002 0000"),  # no key yet: a 1.3 server asks for one
        )
    )
    suites = bytes.fromhex("1301 1302 c02b c02f c02c c030 cca9 cca8 c013 009c 002f")
    body = b"\x03\x03" + 16 * b"\r\n" + b"\x00"
    body += len(suites).to_bytes(2, "big") + suites + b"\x01\x00"
    body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def speaks_tls(url: Url, cancel: Cancel, timeout: float) -> bool:
    """Whether the server at that address answers a greeting of TLS in kind.

    Raises NetworkError when it takes no connection, or takes one and is silent.
    """
    channel = dial(url, url, cancel, timeout)
    try:
        channel.send([memoryview(_client_hello())])
        first = channel.receive()[:1]
    except Silence:
        raise NetworkError(
            f"{url.authority} sent no byte for {timeout:g} s", transient=True
        ) from None
    except OSError:
        return False  # it hung up on what it did not understand
    finally:
        channel.close()
    return first in {bytes([_ALERT]), bytes([_HANDSHAKE])}
