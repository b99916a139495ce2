"""Reads image manifests of schema 1 (docker's "Image Manifest Version 2, Schema 1").

A signed one carries its signatures inside. Its digest is that of the payload: the bytes that were
signed, which are left when the signatures are cut out again. The signatures are not checked here,
since any key can make valid ones.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

from towline.spec import media_types, reading
from towline.spec.digest import Digest
from towline.spec.manifest import RawManifest

_VERSION = 1
_TYPES = frozenset({media_types.SCHEMA1, media_types.SCHEMA1_SIGNED})


class Schema1(NamedTuple):
    """The fields of a schema 1 manifest that a registry needs."""

    layers: tuple[Digest, ...]
    """Newest first, as in `fsLayers`; the empty layer may occur more than once."""
    payload: bytes
    """The bytes that the manifest's digest is of."""


def is_schema1(document: dict[str, Any]) -> bool:
    """Whether a JSON document has the marks of schema 1."""
    return document.get("schemaVersion") == _VERSION and "fsLayers" in document


def raw(content: bytes, media_type: str) -> RawManifest:
    """Any manifest with its bytes unchanged; one of schema 1 gets the digest of its payload."""
    if media_type in _TYPES:
        try:
            return RawManifest(content, media_type, parse(content).payload)
        except ValueError:  # then it has no other digest than that of its bytes
            pass
    return RawManifest(content, media_type)


def parse(content: bytes) -> Schema1:
    """Read a schema 1 manifest, signed or not; raises ValueError, one clause, for anything else."""
    document = reading.document(content)
    if not isinstance(document, dict) or not is_schema1(document):
        raise ValueError("not of schema 1")
    layers = reading.array(document, "fsLayers")
    history = reading.array(document, "history")
    for each in layers:
        if not isinstance(each, dict):
            raise ValueError(f"a layer is an object, not {each!r:.60}")  # noqa: TRY004 - bad data
    if not layers or len(layers) != len(history):
        raise ValueError(f"`fsLayers` has {len(layers)} entries and `history` {len(history)}")
    return Schema1(
        layers=tuple(Digest(str(each.get("blobSum"))) for each in layers),
        payload=_payload(content, document),
    )


def _payload(content: bytes, document: dict[str, Any]) -> bytes:
    """The content without its signatures.

    Each signature says in its signed header how many bytes of the content to take and which tail
    to add (`formatLength`, `formatTail`).
    """
    signatures = reading.array(document, "signatures")
    if not signatures:
        return content
    payloads = {_signed_by(content, signature) for signature in signatures}
    if len(payloads) != 1:
        raise ValueError("its signatures are of different contents")
    return payloads.pop()


def _signed_by(content: bytes, signature: Any) -> bytes:  # noqa: ANN401 - any JSON
    try:
        protected = reading.document(_decoded(signature["protected"]))
        length, tail = protected["formatLength"], _decoded(protected["formatTail"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("a signature does not say what it is of") from error
    if not isinstance(length, int) or not 0 < length <= len(content):
        raise ValueError("a signature is of more than there is")
    payload = content[:length] + tail
    whole = reading.document(content)
    whole.pop("signatures")
    try:
        same = reading.document(payload) == whole
    except ValueError:
        same = False
    if not same:  # what was not signed must not be read as if it had been
        raise ValueError("a signature is of another content")
    return payload


def _decoded(text: str) -> bytes:
    """Base64 for URLs, its padding left out (RFC 7515, section 2)."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
