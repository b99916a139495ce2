"""A source at a registry that breaks, expires, lies, or has no idea of ranges."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.quick import quick
from tests.support.raw_client import sha256
from tests.support.scripted import Asked, Reply, Scripted, scripted
from towline.spec import media_types

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.testing import TestRegistry

LAYER = os.urandom(600_000)
CUT = 150_000


def descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}


def fill(registry: Scripted, layer: bytes = LAYER) -> str:
    """Put an artifact of one layer under `app:1`; its digest."""
    config = b"{}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor("application/vnd.example", config),
        "layers": [descriptor("application/vnd.example.layer", layer)],
    }
    content = json.dumps(manifest).encode()
    digest = sha256(content)
    registry.blobs |= {sha256(config): config, sha256(layer): layer}
    registry.manifests |= dict.fromkeys(("1", digest), (media_types.OCI_MANIFEST, content))
    return digest


@pytest.fixture
def source() -> Iterator[Scripted]:
    with scripted() as registry:
        yield registry


def copied(source: Scripted, to: TestRegistry) -> towline.PushResult:
    with quick(towline.Pusher()) as pusher:
        return pusher.copy(f"{source.host}/app:1", f"{to.name('app')}:1")


def cut_at(asked: Asked, content: bytes, *, ranges: bool) -> Reply:
    """An answer that breaks off after so many bytes of the blob."""
    span = asked.header("Range") if ranges else None
    start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
    status = f"206 Partial\r\nContent-Range: bytes {start}-{len(content) - 1}/{len(content)}"
    head = f"HTTP/1.1 {status if span else '200 OK'}\r\nContent-Length: {len(content) - start}"
    return Reply(raw=head.encode() + b"\r\n\r\n" + content[start : start + CUT])


def test_a_read_goes_on_by_range_and_no_byte_comes_twice(
    source: Scripted, oci_registry: TestRegistry
) -> None:
    digest = fill(source)
    blob = f"blobs/{sha256(LAYER)}"
    source.on("GET", blob, lambda asked: cut_at(asked, LAYER, ranges=True), forever=True)
    result = copied(source, oci_registry)
    assert (result.digest, result.sent_bytes) == (digest, len(LAYER) + 2)
    starts = [one.header("Range") for one in source.requests("GET", blob)]
    assert starts == [None, *(f"bytes={at}-" for at in range(CUT, len(LAYER), CUT))]
    assert oci_registry.blob(sha256(LAYER)) == LAYER


def test_where_ranges_are_not_known_the_beginning_is_passed_over(
    source: Scripted, oci_registry: TestRegistry
) -> None:
    fill(source)
    blob = f"blobs/{sha256(LAYER)}"
    cut = cut_at(Asked("GET", "", (), b"", 0), LAYER, ranges=False)
    source.on("GET", blob, cut, Reply(200, (), LAYER), forever=True)
    assert copied(source, oci_registry).sent_bytes == len(LAYER) + 2
    assert oci_registry.blob(sha256(LAYER)) == LAYER
    assert len(source.requests("GET", blob)) == 2


def test_an_address_of_the_storage_that_has_expired_is_asked_for_anew(
    source: Scripted, oci_registry: TestRegistry
) -> None:
    fill(source)
    signed: list[str] = []
    with scripted() as storage:

        def sent_on(asked: Asked) -> Reply:
            signed.append(f"/stored?signature={len(signed)}")
            return Reply(307, {"Location": storage.url + signed[-1]})

        def stored(asked: Asked) -> Reply:
            if asked.target != signed[-1] or len(signed) == 2:
                return Reply(403, (), "the signature has expired")
            return cut_at(asked, LAYER, ranges=True)

        source.on("GET", f"blobs/{sha256(LAYER)}", sent_on, forever=True)
        storage.on("GET", "/stored", stored, forever=True)
        assert copied(source, oci_registry).status == "pushed"
    assert oci_registry.blob(sha256(LAYER)) == LAYER
    assert len(signed) > len(LAYER) // CUT


@pytest.mark.parametrize(
    "given",
    [LAYER[:-1] + b"!", LAYER[:-9], b"", LAYER + b"more"],
    ids=["other", "less", "none", "more"],
)
def test_bytes_that_are_not_what_the_manifest_says_end_the_copy_before_any_tag(
    source: Scripted, oci_registry: TestRegistry, given: bytes
) -> None:
    fill(source)

    def answer(asked: Asked) -> Reply:
        span = asked.header("Range")
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        if start >= len(given):
            return Reply(416)
        last = len(given) - 1
        headers = {"Content-Range": f"bytes {start}-{last}/{len(given)}"}
        return Reply(206 if span else 200, headers, given[start:])

    source.on("GET", f"blobs/{sha256(LAYER)}", answer, forever=True)
    if given.startswith(LAYER):
        assert copied(source, oci_registry).status == "pushed"
        assert oci_registry.blob(sha256(LAYER)) == LAYER
        return
    with pytest.raises(towline.SourceError):
        copied(source, oci_registry)
    assert oci_registry.tags(oci_registry.name("app")) == []


def test_a_source_that_fails_for_good_is_not_the_destinations_failure(
    source: Scripted, oci_registry: TestRegistry
) -> None:
    fill(source)
    blob = f"blobs/{sha256(LAYER)}"
    source.on("GET", blob, Reply(500), forever=True)
    with pytest.raises(towline.RegistryError, match=r"^at the source: cannot read blob"):
        copied(source, oci_registry)
    assert len(source.requests("GET", blob)) == 5
    assert not [
        one for one in oci_registry.requests if "/manifests/" in one.path and one.method == "PUT"
    ]


def test_a_tag_that_is_moved_meanwhile_changes_nothing(
    source: Scripted, oci_registry: TestRegistry
) -> None:
    digest = fill(source)
    looked = Reply(
        200,
        {
            "Content-Type": media_types.OCI_MANIFEST,
            "Docker-Content-Digest": digest,
            "Content-Length": str(len(source.manifests["1"][1])),
        },
    )
    source.on("HEAD", "manifests/1", looked)
    source.manifests["1"] = (media_types.OCI_MANIFEST, b'{"an":"older one"}')
    assert copied(source, oci_registry).digest == digest


def test_a_cancel_ends_a_read_that_hangs(source: Scripted, oci_registry: TestRegistry) -> None:
    fill(source)
    source.on("GET", f"blobs/{sha256(LAYER)}", Reply(hang=True), forever=True)
    cancel = towline.Cancel()
    threading.Timer(0.5, cancel.cancel).start()
    began = time.monotonic()
    with pytest.raises(towline.TransferCancelled):
        towline.copy(f"{source.host}/app:1", f"{oci_registry.name('app')}:1", cancel=cancel)
    assert time.monotonic() - began < 5
