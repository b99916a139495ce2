"""Signatures inside the JSON that they sign, as manifests of schema 1 carry them.

The form is libtrust's "pretty" one of JSON Web Signatures (RFC 7515), with one signature by
ES256. Any key will do: registries check only that a signature fits the key beside it. The caller
has the key and does the signing.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from towline.spec import gojson

ALGORITHM = "ES256"
SIGNATURE_SIZE = 64
"""Bytes: the two numbers of a signature, 32 bytes each (RFC 7518, section 3.4)."""
_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
"""The bytes before the point in the DER form of a key on P-256 (RFC 5480)."""
_ID_SIZE, _GROUP = 30, 4
"""Bytes of the hash that libtrust makes an id of, and letters between two of its colons."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: a point on the curve P-256."""

    x: bytes
    """32 bytes, and so has `y`."""
    y: bytes

    @property
    def id(self) -> str:
        """The name that libtrust gives the key: base32 of its hash, in groups of four."""
        digest = hashlib.sha256(_P256 + self.x + self.y).digest()[:_ID_SIZE]
        text = base64.b32encode(digest).decode()
        return ":".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP))

    def as_json(self) -> dict[str, str]:
        """The JSON Web Key (RFC 7517), its members sorted."""
        x, y = _encoded(self.x), _encoded(self.y)
        return {"crv": "P-256", "kid": self.id, "kty": "EC", "x": x, "y": y}


@dataclass(frozen=True, slots=True)
class Draft:
    """A payload to be signed, and the time that its signature will state."""

    payload: bytes
    """An indented JSON object."""
    time: str
    """RFC 3339, UTC, whole seconds."""

    @property
    def length(self) -> int:
        """Bytes of the payload up to the end of its last value.

        Raises ValueError when the payload is no JSON object or an empty one.
        """
        body = self.payload.rstrip()
        inner = body[:-1].rstrip()
        if not body.endswith(b"}") or inner.endswith((b",", b"{")) or not inner:
            raise ValueError("what is signed is no JSON object with something in it")
        return len(inner)

    @property
    def protected(self) -> str:
        """The signed part of the header: how to cut the payload out of the sealed document."""
        header = {
            "formatLength": self.length,
            "formatTail": _encoded(self.payload[self.length :]),
            "time": self.time,
        }
        return _encoded(gojson.encode(header))

    @property
    def signed_bytes(self) -> bytes:
        """The bytes to sign (RFC 7515, section 5.1)."""
        return f"{self.protected}.{_encoded(self.payload)}".encode()

    def sealed(self, key: PublicKey, signature: bytes) -> bytes:
        """The payload with its signature inside; `signature` is `SIGNATURE_SIZE` bytes."""
        entry = {
            "header": {"jwk": key.as_json(), "alg": ALGORITHM},
            "signature": _encoded(signature),
            "protected": self.protected,
        }
        # As libtrust writes it: `signatures` is one more member, indented as the first one is.
        line = self.payload.partition(b"\n")[2]
        indent = line[: len(line) - len(line.lstrip(b" "))]
        listed = gojson.encode([entry], indent=len(indent)).replace(b"\n", b"\n" + indent)
        head = self.payload[: self.length]
        return head + b",\n" + indent + b'"signatures": ' + listed + b"\n}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
