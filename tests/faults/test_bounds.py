"""Answers without end and without bottom: none is read further than it is of use."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from tests.support.guards import PASSWORD, USER, Tokens
from tests.support.pushing import Client, client_of
from tests.support.scripted import CUT, Reply, Scripted
from towline.cli.main import main
from towline.errors import RegistryError, TowlineError
from towline.registry.auth import token as tokens
from towline.registry.listings import TAGS_READ_MAX
from towline.registry.manifests import MANIFEST_READ_MAX
from towline.spec import media_types
from towline.spec.digest import Digest
from towline.spec.manifest import RawManifest
from towline.testing.images import make_image
from towline.wire.message import ANSWER_MAX

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.scripted import Asked

DIGEST = Digest.of(b"")
CONFIG = {"mediaType": media_types.OCI_EMPTY, "digest": Digest.of(b"{}"), "size": 2}
MANIFEST = RawManifest(
    json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": []}).encode(),
    media_types.OCI_MANIFEST,
)
JSON = "application/json"


def endless(status: int, limit: int, media_type: str = JSON) -> Reply:
    """Begins a body of a terabyte, says a little more than the limit of it, and hangs up.

    Who reads on finds that it is torn.
    """
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {media_type}\r\nContent-Length: {10**12}\r\n\r\n"
    return Reply(raw=head.encode() + b"x" * (limit + (1 << 18)))


Call = tuple["Callable[[Client], object]", str, str]
CALLS: dict[str, Call] = {
    "a question": (lambda c: c.push(b"x"), "POST", "uploads"),
    "a body": (lambda c: c.push(b"x"), "PATCH", "uploads"),
    "a commit": (lambda c: c.push(b"x"), "PUT", "uploads"),
    "a manifest": (lambda c: c.put("1", MANIFEST.content), "PUT", "manifests"),
    "tags": (lambda c: c.repository.tags(c.context), "GET", "tags"),
    "a tag": (lambda c: c.repository.get_manifest("1", c.context), "GET", "manifests"),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_refusal_without_end_is_the_refusal_that_it_is(
    registry: Scripted, client: Client, what: str
) -> None:
    call, method, pattern = CALLS[what]
    limit = {"tags": TAGS_READ_MAX, "a tag": MANIFEST_READ_MAX}.get(what, ANSWER_MAX)
    registry.on(method, pattern, endless(409, limit), forever=True)
    with pytest.raises(RegistryError, match=r"409 X: xxx") as caught:
        call(client)
    assert len(str(caught.value)) < 600


def test_a_manifest_without_end_is_too_large(registry: Scripted, client: Client) -> None:
    registry.on("GET", "manifests", endless(200, MANIFEST_READ_MAX))
    with pytest.raises(RegistryError, match="larger than"):
        client.repository.get_manifest("1", client.context)


def test_a_list_of_tags_without_end_is_none(registry: Scripted, client: Client) -> None:
    registry.on("GET", "tags", endless(200, TAGS_READ_MAX))
    with pytest.raises(RegistryError):
        client.repository.tags(client.context)


def test_a_token_without_end_is_none(registry: Scripted) -> None:
    Tokens(registry)
    registry._rules.clear()
    registry.on("GET", "^/token", endless(200, tokens.ANSWER_MAX), forever=True)
    with (
        client_of(registry, creds=(USER, PASSWORD)) as client,
        pytest.raises(TowlineError, match="answered without one"),
    ):
        client.push(b"x")


def test_a_list_of_referrers_without_end_is_none(registry: Scripted, client: Client) -> None:
    registry.on("GET", "referrers", endless(200, MANIFEST_READ_MAX, media_types.OCI_INDEX))
    assert client.repository.announce_referrer(MANIFEST, DIGEST, client.context)


@pytest.mark.parametrize("deep", ["[", '{"a":'])
@pytest.mark.parametrize("what", ["tags", "manifests", "referrers", "token"])
def test_json_without_bottom_is_none(registry: Scripted, what: str, deep: str) -> None:
    tokens = Tokens(registry)
    bottomless = Reply(200, {"Content-Type": media_types.OCI_INDEX}, deep * 100_000)
    answer: Reply | Callable[[Asked], Reply] = bottomless if what == "token" else tokens.grant
    registry._rules.clear()
    registry.on("GET", "^/token", answer, forever=True)
    registry.on("GET", f"/{what}/", bottomless, forever=True)
    with client_of(registry) as client:
        asking: dict[str, Callable[[], object]] = {
            "tags": lambda: client.repository.tags(client.context),
            "manifests": lambda: client.repository.announce_referrer(
                MANIFEST, DIGEST, client.context
            ),
            "token": lambda: client.push(b"x"),
        }
        if what == "referrers":
            client.repository.announce_referrer(MANIFEST, DIGEST, client.context)
            assert registry.manifests[f"sha256-{DIGEST.hex}"]
        else:
            with pytest.raises(TowlineError):
                asking[what]()


NINES = {"3 GB": "3221225472", **{f"{digits} digits": "9" * digits for digits in (19, 400, 5000)}}
"""More than memory is for, than any number has, than a float holds, and than Python reads."""
LONG = [name for name in NINES if "digits" in name]


def adding(registry: Scripted, name: str, value: str) -> Callable[[Asked], Reply]:
    def answer(asked: Asked) -> Reply:
        reply = registry.sound(asked)
        fields = [(n, v) for n, v in dict(reply.headers).items() if n != name]
        return Reply(reply.status, (*fields, (name, value)), reply.body)

    return answer


def with_field(method: str, pattern: str, name: str, value: str) -> Callable[[Scripted, str], None]:
    def set_up(registry: Scripted, nines: str) -> None:
        answer = adding(registry, name, value.format(nines))
        registry.on(method, pattern, answer, forever=True)

    return set_up


def with_range(status: int) -> Callable[[Scripted, str], None]:
    """Refuse a chunk, or hang up on it and say what is held when asked for that."""

    def set_up(registry: Scripted, nines: str) -> None:
        said = {"Range": f"bytes=0-{nines}", "Location": "/v2/team/app/blobs/uploads/s0"}
        registry.on("PATCH", "uploads", Reply(status, said) if status else CUT, forever=True)
        registry.on("GET", "uploads", Reply(204, said), forever=True)

    return set_up


def answering(method: str, pattern: str, status: int, body: str) -> Callable[[Scripted, str], None]:
    def set_up(registry: Scripted, nines: str) -> None:
        reply = Reply(status, {"Content-Type": JSON}, body.replace("9", nines))
        registry.on(method, pattern, reply, reply, reply, Reply(404))

    return set_up


def in_a_tokens_answer(registry: Scripted, nines: str) -> None:
    tokens = Tokens(registry)
    tokens.valid["good"] = []
    registry._rules.clear()
    answer = f'{{"token":"good","expires_in":{nines},"issued_at":{nines}}}'
    registry.on("GET", "^/token", Reply(200, {"Content-Type": JSON}, answer), forever=True)


def in_a_realm(registry: Scripted, nines: str) -> None:
    challenge = f'Bearer realm="http://127.0.0.1:{nines}/token"'
    registry.guard = lambda _: Reply(401, {"WWW-Authenticate": challenge})


def in_a_redirect(registry: Scripted, nines: str) -> None:
    link = f"http://127.0.0.1:{nines}/x"
    registry.on("POST", "uploads", Reply(307, {"Location": link}), forever=True)


def in_a_manifest(registry: Scripted, nines: str) -> None:
    content = json.dumps({**json.loads(MANIFEST.content), "layers": [{**CONFIG, "size": 9}]})
    registry.manifests["latest"] = MANIFEST.media_type, content.replace("9}", nines + "}").encode()


NUMBERS: dict[str, Callable[[Scripted, str], None]] = {
    "the least chunk": with_field("POST", "uploads", "OCI-Chunk-Min-Length", "{}"),
    "a range": with_field("PATCH", "uploads", "Range", "0-{}"),
    "a range of what was refused": with_range(416),
    "a range of what is held": with_range(0),
    "a session's port": with_field("POST", "uploads", "Location", "http://127.0.0.1:{}/x"),
    "a manifest's length": lambda registry, nines: registry.on(
        "HEAD",
        "manifests",
        Reply(200, {"Docker-Content-Digest": DIGEST, "Content-Length": nines}),
        forever=True,
    ),
    "a blob's length": lambda registry, nines: registry.on(
        "HEAD", "blobs", Reply(200, {"Content-Length": nines}), forever=True
    ),
    "an answer's length": with_field("POST", "uploads", "Content-Length", "{}"),
    "a wait": lambda registry, nines: registry.on(
        "HEAD", "blobs", Reply(400, {"Retry-After": nines}), forever=True
    ),
    "a wait until": lambda registry, nines: registry.on(
        "HEAD", "blobs", Reply(400, {"Retry-After": f"Mon, {nines} Jan {nines} {nines}:1:1 +1"})
    ),
    "a token's life": in_a_tokens_answer,
    "a realm's port": in_a_realm,
    "a redirect's port": in_a_redirect,
    "a size": in_a_manifest,
    "a detail": answering("POST", "uploads", 400, '{"errors":[{"detail":{"a":9}}]}'),
    "a code": answering("POST", "uploads", 400, '{"errors":[{"code":9,"message":9}]}'),
    "a limit": answering("PATCH", "uploads", 413, '{"message":"too large, limit is 9 MiB"}'),
    "a limit in one body": answering("PUT", "uploads", 413, '{"message":"exceeds 9k"}'),
}


@pytest.mark.parametrize("digits", NINES)
@pytest.mark.parametrize("place", NUMBERS)
def test_a_number_without_end_ends_in_a_sentence_or_is_passed_over(
    registry: Scripted,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    place: str,
    digits: str,
) -> None:
    NUMBERS[place](registry, NINES[digits])
    image = make_image(tmp_path / "image.tar", [{"a": b"a" * 10_000}]).path
    words = ["--retries=0", "--timeout=3", "--chunk-size=4K", "--cache", str(tmp_path / "cache")]
    tracemalloc.start()
    try:
        code = main(["push", str(image), f"{registry.host}/team/app:1", *words])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    err = capsys.readouterr().err
    assert code in {0, 4, 5, 6}, err
    assert peak < 64 << 20
    assert "should not have happened" not in err
    assert "Exceeds the limit" not in err
    assert all(len(line) < 1000 for line in err.splitlines())


@pytest.mark.parametrize("digits", LONG)
def test_a_manifest_with_a_size_without_end_is_refused_by_that(
    registry: Scripted, capsys: pytest.CaptureFixture[str], digits: str
) -> None:
    in_a_manifest(registry, NINES[digits])
    assert main(["inspect", f"docker://{registry.host}/team/app:latest"]) in {3, 5}
    assert "the size of a descriptor is a number of bytes" in capsys.readouterr().err


@pytest.mark.parametrize("deep", [200, 400, 900, 100_000])
def test_a_config_of_any_depth_is_shown_or_left_out(
    registry: Scripted, capsys: pytest.CaptureFixture[str], deep: int
) -> None:
    config = b'{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]},"x":'
    config += b"[" * deep + b"]" * deep + b"}"
    digest = Digest.of(config)
    described = {"mediaType": media_types.OCI_CONFIG, "digest": digest, "size": len(config)}
    document = {"schemaVersion": 2, "config": described, "layers": []}
    registry.manifests["latest"] = media_types.OCI_MANIFEST, json.dumps(document).encode()
    registry.blobs[digest] = config
    words = ["inspect", f"docker://{registry.host}/team/app:latest", "--output=json"]
    code = main(words)
    assert code in {0, 5}
    assert "should not have happened" not in capsys.readouterr().err


@pytest.mark.parametrize("deep", [200, 900, 980, 100_000])
def test_a_refusal_of_any_depth_is_the_refusal_that_it_is(
    registry: Scripted, client: Client, deep: int
) -> None:
    for error in ("[" * deep + "]" * deep, '{"detail":' + "[" * deep + "]" * deep + "}"):
        body = f'{{"errors":[{error}]}}'
        registry.on("POST", "uploads", Reply(409, {"Content-Type": JSON}, body))
        with pytest.raises(RegistryError, match="409"):
            client.push(b"x")


def test_tags_on_pages_without_end_are_refused(registry: Scripted, client: Client) -> None:
    def page(asked: Asked) -> Reply:
        number = len(registry.asked)
        link = f'<{asked.path}?last={number}>; rel="next"'
        return Reply(200, {"Content-Type": JSON, "Link": link}, f'{{"tags":["{number}"]}}')

    registry.on("GET", "tags", page, forever=True)
    with pytest.raises(RegistryError, match="more than 2000 pages"):
        client.repository.tags(client.context)


def test_tags_of_too_many_bytes_are_refused(registry: Scripted, client: Client) -> None:
    def page(asked: Asked) -> Reply:
        number = len(registry.asked)
        link = f'<{asked.path}?last={number}>; rel="next"'
        body = f'{{"tags":["{number}"]}}' + " " * (TAGS_READ_MAX - 100)
        return Reply(200, {"Content-Type": JSON, "Link": link}, body)

    registry.on("GET", "tags", page, forever=True)
    with pytest.raises(RegistryError, match="more than 67108864 bytes"):
        client.repository.tags(client.context)
    assert len(registry.asked) < 10


def test_a_page_of_tags_that_is_too_large_says_so(registry: Scripted, client: Client) -> None:
    registry.on("GET", "tags", Reply(200, {"Content-Type": JSON}, " " * (TAGS_READ_MAX + 1)))
    with pytest.raises(RegistryError, match="a page of them is larger than"):
        client.repository.tags(client.context)


@pytest.mark.parametrize("least", ["16777217", "3221225472"])
def test_a_host_whose_least_chunk_is_more_than_is_held_is_sent_whole_bodies(
    registry: Scripted, least: str
) -> None:
    said = with_field("POST", "uploads", "OCI-Chunk-Min-Length", "{}")
    said(registry, least)
    data = b"x" * 10_000
    with client_of(registry, chunk_size=4096) as client:
        assert client.push(data) == 1
        assert client.repository.facts.limits() == [
            "no blob in chunks: every layer goes in one body"
        ]
    assert [len(one.body) for one in registry.requests("P", "uploads")] == [0, 10_000, 0]
