"""Verifies what a manifest of schema 1 is signed with, by other means than ours."""

from __future__ import annotations

import base64
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils


def plain(text: str) -> bytes:
    """Base64 for URLs without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify(content: bytes) -> bytes:
    """What was signed; raises where the signature is not good."""
    (entry,) = json.loads(content)["signatures"]
    protected = json.loads(plain(entry["protected"]))
    payload = content[: protected["formatLength"]] + plain(protected["formatTail"])
    jwk = entry["header"]["jwk"]
    x, y = (int.from_bytes(plain(jwk[name]), "big") for name in "xy")
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    signature = plain(entry["signature"])
    assert len(signature) == 64
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    body = base64.urlsafe_b64encode(payload).rstrip(b"=")
    signed = entry["protected"].encode() + b"." + body
    key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    return payload
