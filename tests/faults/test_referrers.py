"""Manifests with a subject: listed by the registry, or by a tag that many write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support.quick import quick
from tests.support.scripted import CUT, HTML, Asked, Reply, Scripted, complaint
from tests.support.subjects import signature
from towline.cli.main import main
from towline.errors import RegistryError
from towline.registry.listings import ROUNDS_MAX
from towline.server import Server
from towline.spec import media_types
from towline.spec.digest import Digest
from towline.spec.distribution import tag_of
from towline.spec.manifest import RawManifest
from towline.testing import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pushing import Client

SUBJECT = Digest.of(b"the subject")
TAG = f"sha256-{SUBJECT.hex}"
INDEX = {"Content-Type": media_types.OCI_INDEX}
EMPTY = {"mediaType": media_types.OCI_EMPTY, "digest": Digest.of(b"{}"), "size": 2}
SIGNATURE = RawManifest(
    json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "artifactType": "application/vnd.example.signature",
            "config": EMPTY,
            "layers": [],
            "subject": {"mediaType": media_types.OCI_MANIFEST, "digest": SUBJECT, "size": 11},
            "annotations": {"by": "me"},
        }
    ).encode(),
    media_types.OCI_MANIFEST,
)
OTHER = Digest.of(b"another")


def listing(*digests: str) -> str:
    entries = [
        {"mediaType": media_types.OCI_MANIFEST, "digest": digest, "size": 1} for digest in digests
    ]
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
    return json.dumps(document)


def announce(client: Client) -> bool:
    return client.repository.announce_referrer(SIGNATURE, SUBJECT, client.context)


def tagged(registry: Scripted) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(registry.manifests[TAG][1])["manifests"]
    return entries


def test_the_tag_is_named_after_the_subject() -> None:
    assert tag_of(SUBJECT) == TAG
    assert tag_of(Digest("sha512:" + 128 * "a")) == "sha512-" + 64 * "a"


def test_a_registry_that_lists_it_needs_no_tag_whatever_its_headers_say(
    registry: Scripted, client: Client
) -> None:
    registry.on("GET", "referrers", Reply(200, INDEX, listing(OTHER, SIGNATURE.digest)))
    assert announce(client) is False
    assert TAG not in registry.manifests
    assert len(registry.asked) == 1


NO_LIST = [
    Reply(404),
    complaint(400, "UNSUPPORTED"),
    Reply(405),
    HTML,
    Reply(200, {"Content-Type": "application/json"}, listing(SIGNATURE.digest)),
    Reply(200, INDEX, "not json"),
    Reply(200, INDEX, listing(OTHER)),
    Reply(200, INDEX, "{}"),
]


@pytest.mark.parametrize("answer", NO_LIST)
def test_a_registry_that_does_not_list_it_gets_a_tag(
    registry: Scripted, client: Client, answer: Reply
) -> None:
    registry.on("GET", "referrers", answer)
    assert announce(client) is True
    (entry,) = tagged(registry)
    assert entry == {
        "mediaType": media_types.OCI_MANIFEST,
        "digest": SIGNATURE.digest,
        "size": SIGNATURE.size,
        "annotations": {"by": "me"},
        "artifactType": "application/vnd.example.signature",
    }


def found(client: Client) -> list[str]:
    return [each.digest for each in client.repository.referrers(SUBJECT, client.context)]


def test_all_pages_of_a_registrys_list_are_read(registry: Scripted, client: Client) -> None:
    path = f"/v2/team/app/referrers/{SUBJECT}"
    more = {**INDEX, "Link": f'<{path}?last=1>; rel="next"'}
    registry.on("GET", "last=1", Reply(200, INDEX, listing(OTHER)))
    registry.on("GET", "referrers", Reply(200, more, listing(SIGNATURE.digest)))
    assert found(client) == [SIGNATURE.digest, OTHER]


def test_a_tag_that_gives_the_subject_itself_or_no_list_lists_nothing(
    registry: Scripted, client: Client
) -> None:
    subject = listing(OTHER).encode()
    registry.on("GET", "referrers", Reply(404), forever=True)
    for content, kind in [
        (b"the subject", media_types.OCI_MANIFEST),
        (b"not json", media_types.OCI_INDEX),
    ]:
        registry.manifests[TAG] = (kind, content)
        assert found(client) == []
    registry.manifests[TAG] = (media_types.OCI_INDEX, subject)
    itself = Digest.of(subject)
    registry.manifests[f"sha256-{itself.hex}"] = registry.manifests[TAG]
    assert client.repository.referrers(itself, client.context) == ()
    assert found(client) == [OTHER]


def test_what_others_have_listed_is_kept_and_nothing_is_listed_twice(
    registry: Scripted, client: Client
) -> None:
    registry.on("GET", "referrers", Reply(404), forever=True)
    registry.manifests[TAG] = (media_types.OCI_INDEX, listing(OTHER).encode())
    announce(client)
    announce(client)
    assert sorted(entry["digest"] for entry in tagged(registry)) == sorted(
        [OTHER, SIGNATURE.digest]
    )
    assert len(registry.requests("PUT")) == 1


@pytest.mark.parametrize("etag", [True, False])
def test_entries_of_a_writer_in_between_survive(
    registry: Scripted, client: Client, *, etag: bool
) -> None:
    registry.on("GET", "referrers", Reply(404))

    def others_write(asked: Asked) -> Reply:
        if etag:
            assert asked.header("If-Match") == '"one"'
            registry.manifests[TAG] = (media_types.OCI_INDEX, listing(OTHER).encode())
            return Reply(412)
        reply = registry.sound(asked)
        registry.manifests[TAG] = (media_types.OCI_INDEX, listing(OTHER).encode())
        return reply

    if etag:
        first = Reply(200, {**INDEX, "ETag": '"one"'}, listing())
        registry.on("GET", "manifests", first)
    registry.on("PUT", "manifests", others_write)
    assert announce(client) is True
    assert sorted(entry["digest"] for entry in tagged(registry)) == sorted(
        [OTHER, SIGNATURE.digest]
    )


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_list_that_went_into_a_dead_connection_is_read_before_it_is_written_again(
    registry: Scripted, client: Client, *, carried_out: bool
) -> None:
    def dies(asked: Asked) -> Reply:
        if carried_out:
            registry.sound(asked)
        return CUT

    registry.on("GET", "referrers", Reply(404))
    registry.on("PUT", "manifests", dies)
    assert announce(client) is True
    assert [entry["digest"] for entry in tagged(registry)] == [SIGNATURE.digest]
    assert len(registry.requests("PUT")) == (1 if carried_out else 2)
    assert [asked.method for asked in registry.asked][:4] == ["GET", "GET", "PUT", "GET"]


def test_writers_that_never_rest_are_told_of(registry: Scripted, client: Client) -> None:
    registry.on("GET", "referrers", Reply(404))

    def others_write(asked: Asked) -> Reply:
        reply = registry.sound(asked)
        registry.manifests[TAG] = (media_types.OCI_INDEX, listing(OTHER).encode())
        return reply

    registry.on("PUT", "manifests", others_write, forever=True)
    with pytest.raises(RegistryError, match="is not in it") as caught:
        announce(client)
    assert caught.value.transient
    assert len(registry.requests("PUT")) == ROUNDS_MAX


@pytest.mark.parametrize(
    "content",
    [
        b"not json",
        b'{"schemaVersion":2}',
        json.dumps({"mediaType": media_types.OCI_MANIFEST, "config": EMPTY, "layers": []}).encode(),
        json.dumps({"mediaType": media_types.DOCKER_LIST, "manifests": []}).encode(),
    ],
)
def test_a_tag_that_holds_something_else_is_left_alone(
    registry: Scripted, client: Client, content: bytes
) -> None:
    registry.on("GET", "referrers", Reply(404))
    registry.manifests[TAG] = (media_types.OCI_INDEX, content)
    with pytest.raises(RegistryError, match="left as it is") as caught:
        announce(client)
    assert registry.manifests[TAG][1] == content
    assert registry.requests("PUT") == []
    assert not caught.value.transient


def test_an_immutable_tag_is_told_of(registry: Scripted, client: Client) -> None:
    registry.on("GET", "referrers", Reply(404))
    registry.on("PUT", "manifests", complaint(400, "TAG_INVALID", "the tag is immutable"))
    with pytest.raises(RegistryError, match="immutable"):
        announce(client)


class TestPushing:
    """An OCI layout that holds a manifest with a `subject`, pushed whole."""

    @pytest.fixture
    def artifact(self, tmp_path: Path) -> Path:
        signature(tmp_path / "artifact", SUBJECT, 11)
        return tmp_path / "artifact"

    def push(self, registry: Scripted, artifact: Path, *, claimed: bool = False) -> str:
        """Push it to a registry that claims, or not, to have processed the subject."""

        def put(asked: Asked) -> Reply:
            reply = registry.sound(asked)
            fields = dict(reply.headers)
            return Reply(201, {**fields, "OCI-Subject": SUBJECT} if claimed else fields)

        registry.on("PUT", "manifests/sig", put)
        result = towline.push(artifact, f"{registry.host}/team/app:sig", cache="none", retries=0)
        assert isinstance(result, towline.PushResult)
        assert registry.manifests["sig"][1]
        return result.digest

    @pytest.mark.parametrize("claimed", [True, False])
    def test_a_registry_without_the_api_gets_the_tag_whatever_its_headers_claim(
        self, registry: Scripted, artifact: Path, *, claimed: bool
    ) -> None:
        registry.on("GET", "referrers", Reply(404), forever=True)
        digest = self.push(registry, artifact, claimed=claimed)
        assert [entry["digest"] for entry in tagged(registry)] == [digest]
        assert tagged(registry)[0]["artifactType"] == "application/vnd.example.signature"

    @pytest.mark.parametrize("claimed", [True, False])
    def test_a_registry_that_lists_it_gets_no_tag_whether_its_headers_say_so_or_not(
        self, registry: Scripted, artifact: Path, *, claimed: bool
    ) -> None:
        def listed(asked: Asked) -> Reply:
            return Reply(200, INDEX, listing(Digest.of(registry.manifests["sig"][1])))

        registry.on("GET", "referrers", listed, forever=True)
        self.push(registry, artifact, claimed=claimed)
        assert TAG not in registry.manifests
        assert len(registry.requests("PUT", "manifests")) == 1

    def test_a_tag_that_holds_something_else_is_an_error_and_untouched(
        self, registry: Scripted, artifact: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        registry.on("GET", "referrers", Reply(404), forever=True)
        other = json.dumps({"mediaType": media_types.OCI_MANIFEST, "config": EMPTY, "layers": []})
        registry.manifests[TAG] = (media_types.OCI_MANIFEST, other.encode())
        assert main(["push", str(artifact), f"{registry.host}/team/app:sig", "-q"]) == 5
        assert "left as it is" in capsys.readouterr().err
        assert registry.manifests[TAG] == (media_types.OCI_MANIFEST, other.encode())

    def test_the_entry_of_a_writer_in_between_survives(
        self, registry: Scripted, artifact: Path
    ) -> None:
        def other_writes_too(asked: Asked) -> Reply:
            reply = registry.sound(asked)
            registry.manifests[TAG] = (media_types.OCI_INDEX, listing(OTHER).encode())
            return reply

        registry.on("GET", "referrers", Reply(404), forever=True)
        registry.on("PUT", f"manifests/{TAG}", other_writes_too)
        digest = self.push(registry, artifact)
        assert sorted(entry["digest"] for entry in tagged(registry)) == sorted([OTHER, digest])


def test_a_referrer_of_what_the_registry_does_not_find_for_a_moment_is_put_again(
    registry: Scripted, tmp_path: Path
) -> None:
    """Distribution puts what is there already anew, in place: others find it empty meanwhile.

    The manifest may miss a blob then, and the list a manifest that another copy puts.
    """
    both = [
        {"code": "DIGEST_INVALID", "message": "provided digest did not match uploaded content"},
        {"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry"},
    ]
    refusal = Reply(400, {"Content-Type": "application/json"}, json.dumps({"errors": both}))
    registry.on("GET", "referrers", Reply(404), forever=True)
    with Server() as server, quick(towline.Pusher(cache="none")) as pusher:
        source = server.url.partition("//")[2] + "/app"
        image = pusher.push(make_image(tmp_path / "image.tar").path, f"{source}:1")
        signature(tmp_path / "signature", subject := Digest(image.digest), image.size)
        signed = pusher.push(tmp_path / "signature", source, by_digest=True)
        registry.on("PUT", f"manifests/{signed.digest}", refusal)
        registry.on("PUT", f"manifests/{tag_of(subject)}", refusal)
        pusher.copy(f"{source}:1", f"{registry.host}/team/app:1", referrers=True)
    entries = json.loads(registry.manifests[tag_of(subject)][1])["manifests"]
    assert [entry["digest"] for entry in entries] == [signed.digest]
