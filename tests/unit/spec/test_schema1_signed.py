"""Signatures inside the JSON that they sign: verified by another hand, taken out byte for byte."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import given
from hypothesis import strategies as st

from tests.support.signatures import plain, verify
from towline.spec import gojson, schema1

TIME = "2015-09-11T04:13:48Z"
KEY = ec.generate_private_key(ec.SECP256R1())
NUMBERS = KEY.public_key().public_numbers()
POINT = NUMBERS.x.to_bytes(32, "big") + NUMBERS.y.to_bytes(32, "big")
DOCUMENT = {"schemaVersion": 1, "fsLayers": [{"blobSum": "sha256:" + "a" * 64}], "history": [{}]}


def signature(signed: bytes) -> bytes:
    r, s = utils.decode_dss_signature(KEY.sign(signed, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def sealed(payload: bytes) -> bytes:
    return schema1.sealed(payload, TIME, POINT, signature)


def test_a_signature_is_good_and_comes_out_again() -> None:
    payload = gojson.encode(DOCUMENT, indent=3)
    content = sealed(payload)
    assert verify(content) == payload
    assert schema1.parse(content).payload == payload


@given(
    st.dictionaries(st.text(), st.text() | st.lists(st.integers()), min_size=1),
    st.integers(1, 8),
)
def test_whatever_is_signed_comes_out_byte_for_byte(document: dict[str, Any], indent: int) -> None:
    payload = gojson.encode(document, indent=indent)
    assert verify(sealed(payload)) == payload


def test_the_protected_header_says_how_to_take_the_signature_out() -> None:
    payload = gojson.encode(DOCUMENT, indent=3)
    header = plain(json.loads(sealed(payload))["signatures"][0]["protected"]).decode()
    length = len(payload) - 2
    assert header == f'{{"formatLength":{length},"formatTail":"Cn0","time":"{TIME}"}}'


def test_it_stands_at_the_end_with_the_documents_own_indent() -> None:
    content = sealed(gojson.encode(DOCUMENT, indent=3)).decode()
    at = content.index(
        ',\n   "signatures": [\n      {\n         "header": {\n            "jwk": {\n'
    )
    assert content[:at].endswith("]")
    assert content.endswith('"\n      }\n   ]\n}')
    (entry,) = json.loads(content)["signatures"]
    assert list(entry) == ["header", "signature", "protected"]
    assert list(entry["header"]) == ["jwk", "alg"]
    assert list(entry["header"]["jwk"]) == ["crv", "kid", "kty", "x", "y"]


def test_the_name_of_a_key_is_of_its_der_form() -> None:
    der = KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode()
    assert schema1.key_id(POINT).replace(":", "") == text
    assert [len(group) for group in schema1.key_id(POINT).split(":")] == [4] * 12


@pytest.mark.parametrize("payload", [b"", b"{}", b"{\n}", b'{\n   "a": 1,\n}', b"[1]"])
def test_what_is_no_object_with_something_in_it_is_not_signed(payload: bytes) -> None:
    with pytest.raises(ValueError, match="no JSON object"):
        sealed(payload)
