"""The embedded registry, asked about manifests, tags, referrers and lists in raw HTTP."""

from __future__ import annotations

import base64
import json
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.support.raw_client import (
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    Answer,
    RawClient,
    descriptor,
    image,
    index,
    location,
    sha256,
    sha512,
)
from towline.server import Limits, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

NONE = sha256(b"never pushed")
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
MiB = 1 << 20


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with Server() as server:
        yield server.host


@pytest.fixture
def client(host: str) -> Iterator[RawClient]:
    with RawClient(host) as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"team/{uuid.uuid4().hex}"


def at(name: str, reference: str) -> str:
    return f"/v2/{name}/manifests/{reference}"


def config_of(client: RawClient, name: str) -> bytes:
    config = b'{"architecture":"amd64","os":"linux"}'
    client.put_blob(name, config)
    return config


def test_a_manifest_is_read_by_tag_and_by_digest_as_it_was_put(
    client: RawClient, name: str
) -> None:
    content = image(config_of(client, name))
    put = client.put_manifest(name, "1.0", content)
    assert (put.status, location(put)) == (201, at(name, sha256(content)))
    assert put.headers["docker-content-digest"] == sha256(content)
    for reference in ("1.0", sha256(content)):
        got = client.ask("GET", at(name, reference))
        assert (got.status, got.body) == (200, content)
        assert got.headers["content-type"] == MANIFEST
        assert got.headers["docker-content-digest"] == sha256(content)
        head = client.ask("HEAD", at(name, reference))
        assert (head.status, head.body, dict(head.headers)) == (200, b"", dict(got.headers))


def test_a_manifest_is_put_under_its_digest_alone(client: RawClient, name: str) -> None:
    content = image(config_of(client, name))
    assert client.put_manifest(name, sha256(content), content).status == 201
    assert client.tags(name) == []
    assert client.ask("GET", at(name, sha256(content))).body == content


def test_sha512_names_a_manifest_as_well(client: RawClient, name: str) -> None:
    content = image(config_of(client, name))
    put = client.put_manifest(name, sha512(content), content)
    assert (put.status, put.headers["docker-content-digest"]) == (201, sha512(content))
    got = client.ask("GET", at(name, sha512(content)))
    assert (got.body, got.headers["docker-content-digest"]) == (content, sha512(content))


@pytest.mark.parametrize("wrong", [sha256(b"other"), sha512(b"other")])
def test_a_manifest_under_anothers_digest_is_refused(
    client: RawClient, name: str, wrong: str
) -> None:
    content = image(config_of(client, name))
    assert client.put_manifest(name, wrong, content).refusal == (400, "DIGEST_INVALID")
    assert client.ask("HEAD", at(name, wrong)).status == 404


def test_tags_are_set_beside_a_digest(client: RawClient, name: str) -> None:
    content = image(config_of(client, name))
    put = client.put_manifest(name, f"{sha256(content)}?tag=a&tag=b", content)
    assert (put.status, put.headers["oci-tag"]) == (201, "a, b")
    assert client.tags(name) == ["a", "b"]
    refused = client.put_manifest(name, f"{sha256(content)}?tag=c&tag=.no", content)
    assert refused.status == 400
    assert client.tags(name) == ["a", "b"]


def test_a_tag_is_moved(client: RawClient, name: str) -> None:
    first = client.put_image(name, "latest", b"one")
    second = client.put_image(name, "latest", b"two")
    assert client.ask("HEAD", at(name, "latest")).headers["docker-content-digest"] == second
    assert client.ask("HEAD", at(name, first)).status == 200


def test_a_manifest_whose_blobs_are_missing_is_refused_and_names_each(
    client: RawClient, name: str
) -> None:
    config, layer = b"{}", b"a layer"
    put = client.put_manifest(name, "1", image(config, [layer]))
    assert put.status == 400
    errors = put.json()["errors"]
    assert {error["code"] for error in errors} == {"MANIFEST_BLOB_UNKNOWN"}
    assert [error["detail"]["digest"] for error in errors] == [sha256(config), sha256(layer)]
    assert client.ask("HEAD", at(name, "1")).status == 404


def test_a_blob_of_another_repository_does_not_count(client: RawClient, name: str) -> None:
    client.put_image(f"{name}/other", "1", b"a layer")
    config = config_of(client, name)
    put = client.put_manifest(name, "1", image(config, [b"a layer"]))
    assert put.refusal == (400, "MANIFEST_BLOB_UNKNOWN")


def test_a_size_that_is_not_the_blobs_is_refused(client: RawClient, name: str) -> None:
    config = config_of(client, name)
    wrong = json.loads(image(config))
    wrong["config"]["size"] += 1
    put = client.put_manifest(name, "1", json.dumps(wrong).encode())
    assert put.refusal == (400, "SIZE_INVALID")


@pytest.mark.parametrize("media_type", [FOREIGN, NONDISTRIBUTABLE])
def test_a_foreign_layer_may_be_missing_if_it_says_where_it_is(
    client: RawClient, name: str, media_type: str
) -> None:
    config = config_of(client, name)
    document = json.loads(image(config))
    document["layers"] = [descriptor(b"far away", media_type, urls=["https://far.example/x"])]
    content = json.dumps(document).encode()
    assert client.put_manifest(name, "1", content).status == 201
    assert client.ask("GET", at(name, "1")).body == content
    del document["layers"][0]["urls"]
    put = client.put_manifest(name, "2", json.dumps(document).encode())
    assert put.refusal == (400, "MANIFEST_BLOB_UNKNOWN")


def test_an_index_needs_its_manifests(client: RawClient, name: str) -> None:
    child = image(config_of(client, name))
    content = index(child)
    assert client.put_manifest(name, "1", content).refusal == (400, "MANIFEST_BLOB_UNKNOWN")
    client.put_manifest(name, sha256(child), child)
    assert client.put_manifest(name, "1", content).status == 201
    assert client.ask("GET", at(name, "1")).headers["content-type"] == INDEX
    nested = json.loads(index())
    nested["manifests"] = [descriptor(content, INDEX)]
    assert client.put_manifest(name, "nested", json.dumps(nested).encode()).status == 201
    assert client.put_manifest(name, "empty", index()).status == 201


def test_dockers_types_are_kept_apart_from_ocis(client: RawClient, name: str) -> None:
    config = config_of(client, name)
    document = {**json.loads(image(config)), "mediaType": DOCKER}
    child = json.dumps(document).encode()
    assert client.put_manifest(name, "1", child).status == 201
    assert client.ask("GET", at(name, "1")).headers["content-type"] == DOCKER
    listed = {"schemaVersion": 2, "mediaType": DOCKER_LIST}
    content = json.dumps({**listed, "manifests": [descriptor(child, DOCKER)]}).encode()
    assert client.put_manifest(name, "list", content).status == 201
    assert client.ask("GET", at(name, "list")).headers["content-type"] == DOCKER_LIST


@pytest.mark.parametrize("said", [MANIFEST, DOCKER, "application/json", ""])
def test_a_manifest_without_a_media_type_of_its_own_is_what_the_header_says(
    client: RawClient, name: str, said: str
) -> None:
    document = json.loads(image(config_of(client, name)))
    del document["mediaType"]
    assert client.put_manifest(name, "1", json.dumps(document).encode(), said or " ").status == 201
    expected = said if said in {MANIFEST, DOCKER} else MANIFEST
    assert client.ask("GET", at(name, "1")).headers["content-type"] == expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"schemaVersion":2}',
        b"[" * 200_000,
        b'{"schemaVersion":2,"mediaType":"%b","layers":[]}' % MANIFEST.encode(),
        b'{"schemaVersion":2,"mediaType":"%b","config":1,"layers":[]}' % MANIFEST.encode(),
        b'{"schemaVersion":2,"mediaType":"%b","manifests":{}}' % INDEX.encode(),
        b'{"schemaVersion":2,"mediaType":"%b","manifests":[{}]}' % INDEX.encode(),
        b'{"schemaVersion":3,"mediaType":"%b","manifests":[]}' % INDEX.encode(),
        b'{"schemaVersion":2,"mediaType":"application/json"}',
        b"\xff\xfe{}",
    ],
)
def test_what_is_no_manifest_is_refused(client: RawClient, name: str, content: bytes) -> None:
    for said in (MANIFEST, INDEX, "application/json"):
        put = client.put_manifest(name, "1", content, said)
        assert put.refusal == (400, "MANIFEST_INVALID")
    assert client.ask("GET", f"/v2/{name}/tags/list").refusal == (404, "NAME_UNKNOWN")


def test_a_header_that_contradicts_the_document_is_refused(client: RawClient, name: str) -> None:
    content = image(config_of(client, name))
    assert client.put_manifest(name, "1", content, DOCKER).refusal == (400, "MANIFEST_INVALID")


def test_four_mebibytes_are_a_manifest_and_more_are_not(client: RawClient, name: str) -> None:
    bare = len(image(config_of(client, name), annotations={"pad": ""}))
    config = config_of(client, name)
    for size, status in ((4 * MiB, 201), (4 * MiB + 1, 413)):
        content = image(config, annotations={"pad": "x" * (size - bare)})
        assert len(content) == size
        assert client.put_manifest(name, "big", content).status == status
        chunks = (content[n : n + MiB] for n in range(0, size, MiB))
        chunked = client.ask("PUT", at(name, "big"), chunks, {"Content-Type": MANIFEST})
        assert chunked.status == status
    assert len(client.ask("GET", at(name, "big")).body) == 4 * MiB


@pytest.mark.parametrize("tag", [".dot", "-dash", "a" * 129, "with space", "t+g", "täg"])
def test_what_is_no_tag_is_refused(client: RawClient, name: str, tag: str) -> None:
    content = image(config_of(client, name))
    for method in ("PUT", "GET", "DELETE"):
        headers = {"Content-Type": MANIFEST}
        body = content if method == "PUT" else None
        answer = client.ask(method, at(name, quote(tag)), body, headers)
        assert answer.status == 400, (method, answer)


# Deleting


def test_a_deleted_tag_leaves_the_manifest_and_its_other_tags(client: RawClient, name: str) -> None:
    digest = client.put_image(name, "a", b"layer")
    client.put_image(name, "b", b"layer")
    assert client.ask("DELETE", at(name, "a")).status == 202
    assert client.ask("GET", at(name, "a")).refusal == (404, "MANIFEST_UNKNOWN")
    assert client.ask("DELETE", at(name, "a")).refusal == (404, "MANIFEST_UNKNOWN")
    assert client.ask("GET", at(name, digest)).status == 200
    assert client.tags(name) == ["b"]


def test_a_deleted_manifest_takes_its_tags_along(client: RawClient, name: str) -> None:
    digest = client.put_image(name, "a", b"layer")
    client.put_image(name, "b", b"layer")
    client.put_image(name, "moved", b"layer")
    kept = client.put_image(name, "moved", b"other")
    assert client.ask("DELETE", at(name, digest)).status == 202
    for reference in ("a", "b", digest):
        assert client.ask("GET", at(name, reference)).refusal == (404, "MANIFEST_UNKNOWN")
    assert client.ask("DELETE", at(name, digest)).refusal == (404, "MANIFEST_UNKNOWN")
    assert client.tags(name) == ["moved"]
    assert client.ask("HEAD", at(name, "moved")).headers["docker-content-digest"] == kept


def test_what_was_deleted_can_be_pushed_again(client: RawClient, name: str) -> None:
    digest = client.put_image(name, "a", b"layer")
    client.ask("DELETE", at(name, digest))
    assert client.put_image(name, "a", b"layer") == digest
    assert client.tags(name) == ["a"]


def test_what_is_not_there_cannot_be_deleted(client: RawClient, name: str) -> None:
    assert client.ask("DELETE", at(name, "a")).refusal == (404, "NAME_UNKNOWN")
    client.put_image(name, "a", b"layer")
    assert client.ask("DELETE", at(name, NONE)).refusal == (404, "MANIFEST_UNKNOWN")


# Referrers


def referrer(client: RawClient, name: str, subject: bytes, **more: Any) -> bytes:
    """A manifest that names another as its subject; put by digest."""
    config = config_of(client, name)
    content = image(config, subject=descriptor(subject, MANIFEST), **more)
    put = client.put_manifest(name, sha256(content), content)
    assert (put.status, put.headers["oci-subject"]) == (201, sha256(subject))
    return content


def listed(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200
    assert answer.headers["content-type"] == INDEX
    document = answer.json()
    assert (document["schemaVersion"], document["mediaType"]) == (2, INDEX)
    found: list[dict[str, Any]] = document["manifests"]
    return found


def test_referrers_are_listed_with_what_tells_them_apart(client: RawClient, name: str) -> None:
    subject = image(config_of(client, name))
    asked = f"/v2/{name}/referrers/{sha256(subject)}"
    assert listed(client.ask("GET", asked)) == []
    signature = referrer(
        client, name, subject, artifactType="application/x.sig", annotations={"by": "me"}
    )
    plain = referrer(client, name, subject)
    found = {entry["digest"]: entry for entry in listed(client.ask("GET", asked))}
    assert found == {
        sha256(signature): descriptor(
            signature, MANIFEST, artifactType="application/x.sig", annotations={"by": "me"}
        ),
        sha256(plain): descriptor(plain, MANIFEST, artifactType=CONFIG),
    }
    client.put_manifest(name, "later", subject)
    assert len(listed(client.ask("GET", asked))) == 2, "the subject came later"


def test_referrers_are_filtered_by_artifact_type(client: RawClient, name: str) -> None:
    subject = image(config_of(client, name))
    one = referrer(client, name, subject, artifactType="application/x+one")
    referrer(client, name, subject, artifactType="application/two")
    asked = f"/v2/{name}/referrers/{sha256(subject)}"
    for written in ("application/x+one", "application%2Fx%2Bone"):
        answer = client.ask("GET", f"{asked}?artifactType={written}")
        assert [entry["digest"] for entry in listed(answer)] == [sha256(one)]
        assert answer.headers["oci-filters-applied"] == "artifactType"
    none = client.ask("GET", f"{asked}?artifactType=none")
    assert (listed(none), none.headers["oci-filters-applied"]) == ([], "artifactType")
    assert "oci-filters-applied" not in client.ask("GET", asked).headers


def test_an_index_refers_too(client: RawClient, name: str) -> None:
    subject = image(config_of(client, name))
    content = index(subject=descriptor(subject, MANIFEST), artifactType="application/set")
    assert client.put_manifest(name, "set", content).headers["oci-subject"] == sha256(subject)
    found = listed(client.ask("GET", f"/v2/{name}/referrers/{sha256(subject)}"))
    assert found == [descriptor(content, INDEX, artifactType="application/set")]


def test_a_deleted_referrer_is_no_longer_listed(client: RawClient, name: str) -> None:
    subject = image(config_of(client, name))
    content = referrer(client, name, subject)
    assert client.ask("DELETE", at(name, sha256(content))).status == 202
    assert listed(client.ask("GET", f"/v2/{name}/referrers/{sha256(subject)}")) == []


def test_many_referrers_come_in_pages(name: str) -> None:
    with Server(limits=Limits(page=3)) as server, RawClient(server.host) as client:
        subject = image(config_of(client, name))
        pushed = {
            sha256(
                referrer(
                    client, name, subject, artifactType="application/a+b", annotations={"n": str(n)}
                )
            )
            for n in range(8)
        }
        path, found, pages = (
            f"/v2/{name}/referrers/{sha256(subject)}?artifactType=application/a%2Bb",
            [],
            0,
        )
        while path:
            answer = client.ask("GET", path)
            found += [entry["digest"] for entry in listed(answer)]
            assert answer.headers["oci-filters-applied"] == "artifactType"
            path, pages = next_page(answer), pages + 1
        assert (pages, len(found), set(found)) == (3, 8, pushed)


@pytest.mark.parametrize("query", ["", "?artifactType=application/x"])
def test_a_page_of_referrers_is_bounded_in_bytes_too(
    client: RawClient, name: str, query: str
) -> None:
    subject = image(config_of(client, name))
    pushed = {
        sha256(
            referrer(
                client,
                name,
                subject,
                artifactType="application/x" if n != 2 else "application/other",
                annotations={"n": str(n), "large": "x" * (MiB + n)},
            )
        )
        for n in range(6)
    }
    path, found, pages = f"/v2/{name}/referrers/{sha256(subject)}{query}", [], 0
    while path:
        answer = client.ask("GET", path)
        assert len(answer.body) <= 4 * MiB
        found += [entry["digest"] for entry in listed(answer)]
        path, pages = next_page(answer), pages + 1
    assert len(found) == len(set(found)) == (5 if query else 6)
    assert set(found) <= pushed
    assert pages >= 2


def test_a_referrer_larger_than_a_page_has_one_of_its_own(name: str) -> None:
    with Server(limits=Limits(page_bytes=1000)) as server, RawClient(server.host) as client:
        subject = image(config_of(client, name))
        pushed = {
            sha256(referrer(client, name, subject, annotations={"n": str(n), "x": "x" * size}))
            for n, size in enumerate((5000, 10, 5000, 10))
        }
        path, found = f"/v2/{name}/referrers/{sha256(subject)}", []
        while path:
            answer = client.ask("GET", path)
            found += [entry["digest"] for entry in listed(answer)]
            path = next_page(answer)
        assert (len(found), set(found)) == (4, pushed)


def test_without_a_list_of_referrers_clients_keep_one_under_a_tag(name: str) -> None:
    with Server(referrers=False) as server, RawClient(server.host) as client:
        subject = image(config_of(client, name))
        content = image(config_of(client, name), subject=descriptor(subject, MANIFEST))
        put = client.put_manifest(name, sha256(content), content)
        assert (put.status, "oci-subject" in put.headers) == (201, False)
        asked = client.ask("GET", f"/v2/{name}/referrers/{sha256(subject)}")
        assert asked.refusal == (404, "UNSUPPORTED")
        tag, kept = sha256(subject).replace(":", "-"), index(content)
        assert client.ask("GET", at(name, tag)).refusal == (404, "MANIFEST_UNKNOWN")
        assert client.put_manifest(name, tag, kept).status == 201
        assert client.ask("GET", at(name, tag)).body == kept


def next_page(answer: Answer) -> str:
    link = answer.headers.get("link", "")
    if not link:
        return ""
    path, _, rest = link.removeprefix("<").partition(">")
    assert rest == '; rel="next"'
    return path


# Lists


def test_tags_are_listed_in_the_order_of_their_bytes(client: RawClient, name: str) -> None:
    tags = ["b", "a", "B", "_", "10", "9", "a.b", "a-b", "A"]
    content = image(config_of(client, name))
    for tag in tags:
        client.put_manifest(name, tag, content)
    answer = client.ask("GET", f"/v2/{name}/tags/list")
    assert answer.json() == {"name": name, "tags": sorted(tags)}
    assert "link" not in answer.headers


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 100])
def test_tags_are_listed_in_pages(client: RawClient, name: str, size: int) -> None:
    content = image(config_of(client, name))
    tags = sorted(f"v{n}" for n in range(7))
    for tag in tags:
        client.put_manifest(name, tag, content)
    path, found = f"/v2/{name}/tags/list?n={size}", []
    while path:
        answer = client.ask("GET", path)
        page = answer.json()["tags"]
        assert 0 < len(page) <= size
        found += page
        path = next_page(answer)
    assert found == tags


def test_tags_are_listed_from_any_place(client: RawClient, name: str) -> None:
    content = image(config_of(client, name))
    for tag in ("a", "c", "e"):
        client.put_manifest(name, tag, content)
    asked = f"/v2/{name}/tags/list"
    assert client.ask("GET", f"{asked}?last=b").json()["tags"] == ["c", "e"]
    assert client.ask("GET", f"{asked}?n=1&last=c").json()["tags"] == ["e"]
    nothing = client.ask("GET", f"{asked}?n=0")
    assert (nothing.json()["tags"], nothing.headers.get("link")) == ([], None)
    for wrong in ("-1", "x", "1.5"):
        assert client.ask("GET", f"{asked}?n={wrong}").status == 400


def test_the_tags_of_what_was_never_pushed_are_404(client: RawClient, name: str) -> None:
    assert client.ask("GET", f"/v2/{name}/tags/list").refusal == (404, "NAME_UNKNOWN")
    client.open_upload(name)
    assert client.ask("GET", f"/v2/{name}/tags/list").refusal == (404, "NAME_UNKNOWN")
    assert client.ask("GET", at(name, "1")).refusal == (404, "NAME_UNKNOWN")


def test_the_catalog_lists_repositories_in_pages(name: str) -> None:
    with Server(limits=Limits(page=4)) as server, RawClient(server.host) as client:
        names = sorted([f"b/{n}" for n in range(5)] + ["a", "a/b", "a/b/c", "c-d", "c/d"])
        for repository in names:
            client.put_image(repository, "1")
        path, found = "/v2/_catalog", []
        while path:
            answer = client.ask("GET", path)
            assert len(answer.json()["repositories"]) <= 4
            found += answer.json()["repositories"]
            path = next_page(answer)
        assert found == names
        assert client.ask("GET", "/v2/_catalog?n=2").json()["repositories"] == names[:2]


def test_a_name_may_hold_the_words_of_the_api(client: RawClient, name: str) -> None:
    for word in ("blobs", "manifests/x", "tags/list", "blobs/uploads", "referrers", "v2"):
        digest = client.put_image(f"{name}/{word}/z", "1", b"layer")
        assert client.tags(f"{name}/{word}/z") == ["1"]
        assert client.ask("HEAD", at(f"{name}/{word}/z", digest)).status == 200


# Schema 1


def signed(name: str, layers: list[bytes], key: str = "k") -> tuple[bytes, bytes]:
    """A signed manifest of schema 1, and the payload that its digest is of."""
    document = {
        "schemaVersion": 1,
        "name": name,
        "tag": "1",
        "architecture": "amd64",
        "fsLayers": [{"blobSum": sha256(layer)} for layer in layers],
        "history": [{"v1Compatibility": '{"id":"x"}'} for _ in layers],
    }
    payload = json.dumps(document, indent=3).encode()
    kept = payload.rstrip(b"}\n")
    protected = {"formatLength": len(kept), "formatTail": encoded(payload[len(kept) :])}
    signature = {
        "header": {"jwk": {"kid": key}, "alg": "ES256"},
        "signature": encoded(b"signature"),
        "protected": encoded(json.dumps(protected).encode()),
    }
    whole = kept + b',\n   "signatures": ' + json.dumps([signature]).encode() + b"\n}"
    assert json.loads(whole)["signatures"]
    return whole, payload


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.fixture(scope="module")
def old_host() -> Iterator[str]:
    with Server(schema1=True) as server:
        yield server.host


@pytest.fixture
def old(old_host: str) -> Iterator[RawClient]:
    with RawClient(old_host) as client:
        yield client


@pytest.mark.parametrize("said", [SIGNED, SCHEMA1, "application/json"])
def test_schema_1_is_refused_unless_asked_for(client: RawClient, name: str, said: str) -> None:
    client.put_blob(name, b"layer")
    content, _ = signed(name, [b"layer"])
    put = client.put_manifest(name, "1", content, said)
    assert put.refusal == (400, "MANIFEST_INVALID")
    assert "--schema1" in put.json()["errors"][0]["message"]
    assert client.tags(name) == []


@pytest.mark.parametrize("said", [SIGNED, SCHEMA1, "application/json"])
def test_schema_1_is_stored_under_the_digest_of_what_was_signed(
    old: RawClient, name: str, said: str
) -> None:
    old.put_blob(name, b"layer")
    content, payload = signed(name, [b"layer", b"layer"])
    put = old.put_manifest(name, "1", content, said)
    assert (put.status, put.headers["docker-content-digest"]) == (201, sha256(payload))
    for reference in ("1", sha256(payload)):
        got = old.ask("GET", at(name, reference))
        assert (got.body, got.headers["content-type"]) == (content, SIGNED)
        assert got.headers["docker-content-digest"] == sha256(payload)
    assert old.put_manifest(name, sha256(payload), content, said).status == 201
    refused = old.put_manifest(name, sha256(content), content, said)
    assert refused.refusal == (400, "DIGEST_INVALID")
    assert old.ask("DELETE", at(name, sha256(payload))).status == 202
    assert old.tags(name) == []


def test_schema_1_without_signatures_is_stored_as_it_is(old: RawClient, name: str) -> None:
    old.put_blob(name, b"layer")
    _, payload = signed(name, [b"layer"])
    assert old.put_manifest(name, "1", payload, SCHEMA1).status == 201
    got = old.ask("GET", at(name, "1"))
    assert (got.body, got.headers["content-type"]) == (payload, SCHEMA1)


def test_schema_1_needs_its_layers(old: RawClient, name: str) -> None:
    content, _ = signed(name, [b"layer of " + name.encode()])
    assert old.put_manifest(name, "1", content, SIGNED).refusal == (400, "MANIFEST_BLOB_UNKNOWN")


def test_schema_1_whose_signature_is_of_something_else_is_refused(
    old: RawClient, name: str
) -> None:
    old.put_blob(name, b"layer")
    content, _ = signed(name, [b"layer"])
    broken = [
        content[:-1] + b', "name": "other"}',
        content.replace(b'"protected": "', b'"protected": "!'),
        json.dumps({**json.loads(content), "signatures": [{}]}).encode(),
        json.dumps({**json.loads(content), "signatures": 1}).encode(),
        json.dumps({**json.loads(content), "history": []}).encode(),
        json.dumps({**json.loads(content), "fsLayers": [{"blobSum": "x"}]}).encode(),
        b'{"schemaVersion":1}',
    ]
    for one in broken:
        assert old.put_manifest(name, "1", one, SIGNED).refusal == (400, "MANIFEST_INVALID"), one


def test_schema_2_is_served_where_schema_1_is_taken(old: RawClient, name: str) -> None:
    digest = old.put_image(name, "1", b"layer")
    assert old.ask("HEAD", at(name, "1")).headers["docker-content-digest"] == digest
    assert LAYER in old.ask("GET", at(name, "1")).body.decode()
