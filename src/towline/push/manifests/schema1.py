"""Signs manifests of schema 1 with a key that is made once and kept in the user's data folder.

Nobody has to trust that key: registries of that time only check that the signature fits the key
beside it. So where the key cannot be kept, one for a single push does as well.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from towline.knowledge import places
from towline.knowledge.base import KnowledgeError
from towline.spec import media_types
from towline.spec.jws import SIGNATURE_SIZE, Draft, PublicKey
from towline.spec.manifest import RawManifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

KEY_FILE = "schema1-key.pem"
_HALF = SIGNATURE_SIZE // 2


def sign(payload: bytes, environ: Mapping[str, str], warn: Callable[[str], None]) -> RawManifest:
    """The manifest with a signature (libtrust's JWS, with the present time)."""
    from cryptography.hazmat.primitives.asymmetric import utils
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    key = _key(environ, warn)
    numbers = key.public_key().public_numbers()
    draft = Draft(payload, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    signature = utils.decode_dss_signature(key.sign(draft.signed_bytes, ECDSA(SHA256())))
    content = draft.sealed(
        PublicKey(_bytes(numbers.x), _bytes(numbers.y)), b"".join(map(_bytes, signature))
    )
    return RawManifest(content, media_types.SCHEMA1_SIGNED, payload)


def _bytes(number: int) -> bytes:
    return number.to_bytes(_HALF, "big")


def _key(environ: Mapping[str, str], warn: Callable[[str], None]) -> EllipticCurvePrivateKey:
    """The user's key; one for this push alone where it cannot be kept or read."""
    from cryptography.hazmat.primitives.asymmetric import ec

    fresh = ec.generate_private_key(ec.SECP256R1())
    try:
        return _read(places.kept(environ, KEY_FILE, _pem(fresh)))
    except (KnowledgeError, OSError):
        return fresh
    except ValueError as error:
        warn(f"the key in {KEY_FILE} of the user's data folder is of no use: {error}")
        return fresh


def _pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _read(pem: bytes) -> EllipticCurvePrivateKey:
    """Parse a key. Raises ValueError for anything but one on P-256."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise ValueError("it cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("it is no key on the curve P-256")  # noqa: TRY004 - bad data
    return key
