"""Image manifests of schema 1 (docker's "Image Manifest Version 2, Schema 1"): read, built, signed.

A signed one carries its signatures inside the JSON itself, in libtrust's "pretty" form of JSON Web
Signatures (RFC 7515). Its digest is that of the payload: the bytes that were signed, which are left
when the signatures are cut out again. The signatures are not checked here, since any key can make
valid ones: registries check only that a signature fits the key beside it.

Schema 1 has no config blob: each entry of the config's history becomes a small JSON text, the
newest of which contains the config. An entry that made no layer lists the empty layer. What is
built here is byte for byte what docker's engine made.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from towline.spec import gojson, media_types, reading
from towline.spec.digest import Digest
from towline.spec.manifest import RawManifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_VERSION = 1
_TYPES = frozenset({media_types.SCHEMA1, media_types.SCHEMA1_SIGNED})
EMPTY_LAYER = bytes.fromhex("1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000")
"""The blob of a layer without files: docker's gzip of 1,024 zero bytes, the same everywhere."""
EMPTY_LAYER_DIGEST = Digest(
    "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"
)
_NO_TIME = "0001-01-01T00:00:00Z"
"""The zero value of Go's `time.Time`, which docker writes where `created` is missing."""
_TIME = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)"
_NANOSECONDS = 9
"""Digits of a fraction of a second that Go keeps."""
_BASE_ID_SIZE = 32
"""Bytes that are kept of the SHA-384 that names a Windows base layer."""
_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
"""The bytes before the point in the DER form of a key on P-256 (RFC 5480)."""


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
    """The content without its signatures."""
    signatures = reading.array(document, "signatures")
    if not signatures:
        return content
    payload, *others = {_signed_by(content, signature) for signature in signatures}
    if others:
        raise ValueError("its signatures are of different contents")
    # What was not signed must not be read as if it had been.
    if reading.mapping(payload) != {k: v for k, v in document.items() if k != "signatures"}:
        raise ValueError("a signature is of another content")
    return payload


def _signed_by(content: bytes, signature: Any) -> bytes:  # noqa: ANN401 - any JSON
    """What a signature says that it is of: so many bytes of the content, and a tail to add."""
    try:
        protected = reading.document(_decoded(signature["protected"]))
        length, tail = protected["formatLength"], _decoded(protected["formatTail"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("a signature does not say what it is of") from error
    if not isinstance(length, int) or not 0 < length <= len(content):
        raise ValueError("a signature is of more than there is")
    return content[:length] + tail


def _decoded(text: str) -> bytes:
    """Base64 for URLs, its padding left out (RFC 7515, section 2)."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


# Built.


class Unsigned(NamedTuple):
    """A manifest before it is signed."""

    payload: bytes
    """The bytes to sign, which the digest is of."""
    lists_empty_layer: bool
    """Whether `EMPTY_LAYER` must be in the registry too."""


class _Entry(NamedTuple):
    """One entry of the history, and the blob of its layer or of the empty one."""

    blob: Digest
    created: str
    created_by: str
    comment: str
    author: str
    empty: bool


def build(config: bytes, layers: Sequence[Digest], *, name: str, tag: str) -> Unsigned:
    """The manifest of an image.

    `layers` are the blobs of the config's layers, base first; `name` is the repository's path
    without a host. Raises ValueError, one clause, where config and layers do not fit together.
    """
    # Go replaces each byte that is no UTF-8 by U+FFFD when it writes a string; so does `encode`.
    text = config.decode("utf-8", "surrogateescape")
    members = gojson.members(text)
    image = gojson.loads(text)
    entries = _entries(image, layers)
    texts: list[str] = []
    # A Windows base layer, which no registry holds, is the first parent.
    base = _text(_object(image.get("rootfs"), "rootfs"), "base_layer")
    parent = hashlib.sha384(base.encode()).digest()[:_BASE_ID_SIZE].hex() if base else ""
    above = ""
    for entry in entries[:-1]:
        # Docker hashes an empty parent for the first id even where a base layer is its parent.
        own = _id(entry.blob, above)
        texts.append(_v1(entry, own, parent))
        above = parent = own
    texts.append(_top(entries[-1], above, config, members))
    document = {
        "schemaVersion": 1,
        "name": name,
        "tag": tag,
        "architecture": _text(image, "architecture"),
        "fsLayers": [{"blobSum": entry.blob} for entry in reversed(entries)],
        "history": [{"v1Compatibility": text} for text in reversed(texts)],
    }
    payload = gojson.encode(document, indent=gojson.INDENT)
    return Unsigned(payload, any(entry.empty for entry in entries))


def _entries(image: Mapping[str, Any], layers: Sequence[Digest]) -> list[_Entry]:
    """The history, oldest first, each entry with its blob."""
    history = reading.array(image, "history")
    if not history:
        raise ValueError("empty history when trying to create schema1 manifest")
    diff_ids = reading.array(_object(image.get("rootfs"), "rootfs"), "diff_ids")
    if len(diff_ids) != len(layers):
        raise ValueError(
            "number of descriptors and number of layers in rootfs must match: "
            f"{len(layers)} and {len(diff_ids)}"
        )
    blobs = iter(layers)
    entries = [_entry(_object(each, "history"), blobs) for each in history]
    if left := len(list(blobs)):  # docker's would leave them out of the image
        raise ValueError(f"the last {left} of {len(layers)} layers are not in the history")
    return entries


def _entry(described: Mapping[str, Any], blobs: Any) -> _Entry:  # noqa: ANN401 - an iterator
    empty = described.get("empty_layer") or False
    if not isinstance(empty, bool):
        raise ValueError("`empty_layer` is neither true nor false")  # noqa: TRY004 - bad data
    blob = EMPTY_LAYER_DIGEST if empty else next(blobs, None)
    if blob is None:
        raise ValueError("too many non-empty layers in History section")
    return _Entry(
        blob=blob,
        created=_time(described.get("created")),
        created_by=_text(described, "created_by"),
        comment=_text(described, "comment"),
        author=_text(described, "author"),
        empty=empty,
    )


def _v1(entry: _Entry, own: str, parent: str) -> str:
    """The JSON text of any entry but the newest: its id, parent, command and comment."""
    fields = {
        "id": own,
        "parent": parent,
        "comment": entry.comment,
        "created": entry.created,
        "container_config": {"Cmd": [entry.created_by]},
        "author": entry.author,
        "throwaway": entry.empty,
    }
    return gojson.encode({name: value for name, value in fields.items() if value}).decode()


def _top(entry: _Entry, parent: str, config: bytes, members: Mapping[str, str]) -> str:
    """The JSON text of the newest entry: the config, its values in their original spelling."""
    shown = {key: value for key, value in members.items() if key not in {"rootfs", "history"}}
    shown["id"] = f'"{_id(entry.blob, parent, config)}"'
    if parent:
        shown["parent"] = f'"{parent}"'
    if entry.empty:
        shown["throwaway"] = "true"
    # Docker builds this entry as a Go map, whose keys are written sorted.
    pairs = (f"{gojson.encode(key).decode()}:{shown[key]}" for key in sorted(shown))
    return "{" + ",".join(pairs) + "}"


def _id(blob: Digest, parent: str, config: bytes | None = None) -> str:
    """The id of an entry: a hash over its blob, its parent's id and, for the newest, the config.

    The space after the blob's digest is hashed even where there is no parent.
    """
    hashed = hashlib.sha256(f"{blob.hex} {parent}".encode())
    if config is not None:
        hashed.update(b" " + config)
    return hashed.hexdigest()


def _object(value: Any, name: str) -> Mapping[str, Any]:  # noqa: ANN401 - any JSON
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"`{name}` holds {value!r:.60}, which is no object")
    return value or {}


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if value is not None and (not isinstance(value, str) or isinstance(value, gojson.Number)):
        raise ValueError(f"`{key}` is no text")
    return value or ""


def _time(value: Any) -> str:  # noqa: ANN401 - any JSON
    """A time in Go's spelling: no zeros at the end of the fraction, `Z` for UTC."""
    if value is None:
        return _NO_TIME
    from datetime import datetime

    match = re.fullmatch(_TIME, value) if isinstance(value, str) else None
    try:
        seconds, fraction, zone = match.groups() if match else ("", "", "")
        datetime.fromisoformat(seconds + ("+00:00" if zone == "Z" else zone))
    except ValueError:
        raise ValueError(f"`created` is no time: {value!r:.60}") from None
    shown = (fraction or "")[:_NANOSECONDS].rstrip("0")
    utc = zone == "Z" or zone[1:] == "00:00"
    return f"{seconds}{'.' if shown else ''}{shown}{'Z' if utc else zone}"


# Signed.


def sign(payload: bytes, key: EllipticCurvePrivateKey, time: str) -> RawManifest:
    """The manifest with a signature by a key on the curve P-256; `time`: see `sealed`."""
    from cryptography.hazmat.primitives.asymmetric import utils
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    point = key.public_key().public_numbers()

    def joined(*numbers: int) -> bytes:
        return b"".join(number.to_bytes(32, "big") for number in numbers)

    def signature(signed: bytes) -> bytes:
        return joined(*utils.decode_dss_signature(key.sign(signed, ECDSA(SHA256()))))

    content = sealed(payload, time, joined(point.x, point.y), signature)
    return RawManifest(content, media_types.SCHEMA1_SIGNED, payload)


def sealed(payload: bytes, time: str, point: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The payload, an indented JSON object, with its signature inside, as libtrust writes it.

    `time` is RFC 3339, UTC, whole seconds. `point` is the public key: its x and y on the curve
    P-256, 32 bytes each. `sign` gives the two numbers of a signature in the same form (RFC 7518,
    section 3.4). Raises ValueError when the payload is no JSON object or an empty one.
    """
    body = payload.rstrip()
    head = body[:-1].rstrip()  # up to the end of the last value
    if not body.endswith(b"}") or head.endswith((b",", b"{")) or not head:
        raise ValueError("what is signed is no JSON object with something in it")
    # How to cut the payload out of the sealed document again.
    cut = {"formatLength": len(head), "formatTail": _encoded(payload[len(head) :]), "time": time}
    protected = _encoded(gojson.encode(cut))
    signature = sign(f"{protected}.{_encoded(payload)}".encode())  # RFC 7515, section 5.1
    x, y = _encoded(point[:32]), _encoded(point[32:])
    jwk = {"crv": "P-256", "kid": key_id(point), "kty": "EC", "x": x, "y": y}  # RFC 7517, sorted
    entry = {
        "header": {"jwk": jwk, "alg": "ES256"},
        "signature": _encoded(signature),
        "protected": protected,
    }
    # `signatures` is one more member, indented as the first one is.
    line = payload.partition(b"\n")[2]
    indent = line[: len(line) - len(line.lstrip(b" "))]
    listed = gojson.encode([entry], indent=len(indent)).replace(b"\n", b"\n" + indent)
    return head + b",\n" + indent + b'"signatures": ' + listed + b"\n}"


def key_id(point: bytes) -> str:
    """The name that libtrust gives a key: its hash, 30 bytes of it, in groups of four letters."""
    text = base64.b32encode(hashlib.sha256(_P256 + point).digest()[:30]).decode()
    return ":".join(text[at : at + 4] for at in range(0, len(text), 4))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
