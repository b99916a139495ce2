"""Manifests of schema 1: the bytes that docker's engine made of the same image."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from typing import Any

import pytest

from towline.spec import media_types, schema1
from towline.spec.digest import EMPTY_LAYER_DIFF_ID, Digest
from towline.spec.schema1 import EMPTY_LAYER, EMPTY_LAYER_DIGEST, build

LAYERS = [
    EMPTY_LAYER_DIGEST,
    Digest("sha256:86e0e091d0da6bde2456dbb48306f3956bbeb2eae1b5b9a43045843f69fe4aaa"),
    Digest("sha256:b4ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"),
]
IDS = [
    "3690474eb5b4b26fdfbd89c6e159e8cc376ca76ef48032a30fa6aafd56337880",
    "9e3447ca24cb96d86ebd5960cb34d1299b07e0a0e03801d90b9969a2c187dd6e",
    "b449305a55a283538c4574856a8b701f2a3d5ec08ef8aec47f385f20339a4866",
    "178be37afc7c49e951abd75525dbe0871b62ad49402f037164ee6314f754599d",
    "74cf9c92699240efdba1903c2748ef57105d5bedc588084c4e88f3bb1c3ef0b0",
]
"""Of distribution's own test of its builder, oldest first; they do not depend on the config."""
HISTORY: list[dict[str, Any]] = [
    {"created": "2015-10-31T22:22:54.690851953Z", "created_by": "ADD file in /"},
    {"created_by": "<none> & co"},
    {"empty_layer": True, "comment": "nothing", "created": "2020-02-29T00:00:00.100+00:00"},
    {"empty_layer": True, "author": "Ann <ann@example.com>"},
    {"created": "2020-01-01T00:00:00.000000000+02:00"},
    {"empty_layer": True},
]


def config(history: Any = None, **more: Any) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [EMPTY_LAYER_DIFF_ID] * 3, **more.pop("rootfs", {})}
    document = {"architecture": "amd64", "rootfs": rootfs, "history": history or HISTORY, **more}
    return json.dumps(document).encode()


def texts(payload: bytes) -> list[str]:
    """Of the history, oldest first."""
    return [entry["v1Compatibility"] for entry in reversed(json.loads(payload)["history"])]


def built(content: bytes, layers: list[Digest] | None = None) -> list[str]:
    return texts(build(content, layers or LAYERS, name="team/app", tag="1").payload)


def test_the_empty_layer_is_the_one_that_all_registries_know() -> None:
    assert Digest.of(EMPTY_LAYER) == EMPTY_LAYER_DIGEST
    assert gzip.decompress(EMPTY_LAYER) == bytes(1024)
    assert Digest.of(bytes(1024)) == EMPTY_LAYER_DIFF_ID


def test_ids_are_those_of_distributions_own_vector() -> None:
    content = config()
    found = [json.loads(text) for text in built(content)]
    assert [each["id"] for each in found[:-1]] == IDS
    assert [each.get("parent") for each in found] == [None, *IDS]
    hashed = f"{EMPTY_LAYER_DIGEST.hex} {IDS[-1]} ".encode() + content
    assert found[-1]["id"] == hashlib.sha256(hashed).hexdigest()


def test_older_entries_are_spelled_as_go_does() -> None:
    first, second, third, fourth, fifth, _ = built(config())
    none = "0001-01-01T00:00:00Z"
    assert first == (
        f'{{"id":"{IDS[0]}","created":"2015-10-31T22:22:54.690851953Z",'
        '"container_config":{"Cmd":["ADD file in /"]}}'
    )
    assert second == (
        f'{{"id":"{IDS[1]}","parent":"{IDS[0]}","created":"{none}",'
        '"container_config":{"Cmd":["\\u003cnone\\u003e \\u0026 co"]}}'
    )
    assert third == (
        f'{{"id":"{IDS[2]}","parent":"{IDS[1]}","comment":"nothing",'
        '"created":"2020-02-29T00:00:00.1Z","container_config":{"Cmd":[""]},"throwaway":true}'
    )
    assert fourth == (
        f'{{"id":"{IDS[3]}","parent":"{IDS[2]}","created":"{none}","container_config":{{"Cmd":[""]}}'
        ',"author":"Ann \\u003cann@example.com\\u003e","throwaway":true}'
    )
    assert '"created":"2020-01-01T00:00:00+02:00"' in fifth


def test_the_newest_entry_holds_the_config_as_it_is_spelled() -> None:
    text = (
        '{ "os": "linux", "rootfs": {"diff_ids": ["x"]}, "parent": "of old", "Zone": 1.50,\n'
        ' "config": {"b": [ 1e3, null ], "a": "\\u00e9 <\\/>" }, "history": [{}],'
        ' "architecture": "arm" }'
    )
    (top,) = built(text.encode(), LAYERS[1:2])
    own = json.loads(top)["id"]
    assert top == (
        '{"Zone":1.50,"architecture":"arm",'
        '"config":{"b":[1e3,null],"a":"\\u00e9 \\u003c\\/\\u003e"},'
        f'"id":"{own}","os":"linux","parent":"of old"}}'
    )


def test_the_document_is_indented_by_three_and_newest_first() -> None:
    unsigned = build(config(), LAYERS, name="team/app", tag="1")
    assert unsigned.lists_empty_layer
    lines = unsigned.payload.decode().splitlines()
    assert lines[:8] == [
        "{",
        '   "schemaVersion": 1,',
        '   "name": "team/app",',
        '   "tag": "1",',
        '   "architecture": "amd64",',
        '   "fsLayers": [',
        "      {",
        f'         "blobSum": "{EMPTY_LAYER_DIGEST}"',
    ]
    assert lines[-2:] == ["   ]", "}"]
    assert not unsigned.payload.endswith(b"\n")
    empty, layer = EMPTY_LAYER_DIGEST, LAYERS
    read = schema1.parse(unsigned.payload)
    assert list(read.layers) == [empty, layer[2], empty, empty, layer[1], layer[0]]


def test_without_an_empty_entry_no_empty_layer_is_listed() -> None:
    unsigned = build(config([{}, {}, {}]), LAYERS, name="app", tag="1")
    assert not unsigned.lists_empty_layer


def test_the_base_layer_of_windows_is_the_first_entrys_parent() -> None:
    found = [json.loads(text) for text in built(config(rootfs={"base_layer": "windows"}))]
    assert found[0]["id"] == IDS[0]
    assert found[0]["parent"] == hashlib.sha384(b"windows").hexdigest()[:64]
    assert [each["id"] for each in found[:-1]] == IDS


def test_bytes_that_are_no_utf_8_are_replaced_one_by_one_and_hashed_as_they_are() -> None:
    content = config(author="x").replace(b'"x"', b'"\xff\xe2\x82"')
    top = built(content)[-1]
    assert '"author":"\ufffd\ufffd\ufffd"' in top
    hashed = f"{EMPTY_LAYER_DIGEST.hex} {IDS[-1]} ".encode() + content
    assert json.loads(top)["id"] == hashlib.sha256(hashed).hexdigest()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (config([]).replace(json.dumps(HISTORY).encode(), b"[]"), "empty history"),
        (b'{"rootfs": {}}', "empty history"),
        (config(rootfs={"diff_ids": []}), "must match: 3 and 0"),
        (config([{}] * 4), "too many non-empty layers"),
        (config([{}, {"empty_layer": True}]), "the last 2 of 3 layers"),
        (config([{"empty_layer": 1}]), "`empty_layer`"),
        (config([{"created": "yesterday"}] * 3), "`created` is no time: 'yesterday'"),
        (config([{"created": "2023-02-31T00:00:00Z"}] * 3), "`created` is no time"),
        (config([{"created": 5}] * 3), "`created` is no time"),
        (config([{"comment": 5}] * 3), "`comment` is no text"),
        (config(["x"]), "`history` holds 'x'"),
        (config(history={"a": 1}), "`history` is not a list"),
        (b"[]", "not a JSON object"),
        (b"{", "not JSON"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_clause(
    content: bytes, complaint: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        build(content, LAYERS, name="app", tag="1")
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_read_has_the_digest_of_what_was_signed() -> None:
    payload = build(config(), LAYERS, name="team/app", tag="1").payload
    kept = payload.rstrip(b"}\n")
    tail = base64.urlsafe_b64encode(payload[len(kept) :]).decode()
    header = json.dumps({"formatLength": len(kept), "formatTail": tail.rstrip("=")}).encode()
    protected = base64.urlsafe_b64encode(header).decode().rstrip("=")
    signatures = json.dumps([{"protected": protected}]).encode()
    content = kept + b',"signatures":' + signatures + b"}"
    read = schema1.raw(content, media_types.SCHEMA1_SIGNED)
    assert (read.content, read.digest, read.size) == (content, Digest.of(payload), len(payload))


@pytest.mark.parametrize("media_type", [media_types.SCHEMA1_SIGNED, media_types.OCI_MANIFEST])
def test_any_other_manifest_has_the_digest_of_its_bytes(media_type: str) -> None:
    read = schema1.raw(b'{"schemaVersion": 2}', media_type)
    assert read.digest == Digest.of(read.content)
