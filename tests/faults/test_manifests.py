"""Manifests on their way: lost answers, altered bytes, tags that may not be moved, odd HEADs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.scripted import CUT, HTML, Asked, Reply, Scripted, complaint
from towline.errors import AuthError, NetworkError, RegistryError, TowlineError
from towline.knowledge.open import signing_key
from towline.registry.manifests import refuses_type
from towline.spec import media_types
from towline.spec.digest import Digest
from towline.spec.manifest import RawManifest
from towline.spec.schema1 import sign

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pushing import Client

MANIFEST = RawManifest(b'{"schemaVersion":2}', media_types.OCI_MANIFEST)
OTHER = RawManifest(b'{"schemaVersion":2,"other":1}', media_types.OCI_MANIFEST)


def put(client: Client) -> None:
    client.put("1", MANIFEST.content)


def hold(registry: Scripted, manifest: RawManifest, target: str = "1") -> None:
    registry.manifests[target] = (manifest.media_type, manifest.content)


def failing(client: Client) -> TowlineError:
    with pytest.raises(TowlineError) as caught:
        put(client)
    return caught.value


def test_a_manifest_goes_byte_for_byte_with_its_type_alone(
    registry: Scripted, client: Client
) -> None:
    put(client)
    (asked,) = registry.asked
    assert asked.body == MANIFEST.content
    assert asked.header("Content-Type") == media_types.OCI_MANIFEST
    assert asked.header("Content-Length") == str(MANIFEST.size)


@pytest.mark.parametrize("status", [200, 202])
def test_any_success_that_names_the_digest_is_one(
    registry: Scripted, client: Client, status: int
) -> None:
    registry.on("PUT", "manifests", Reply(status, {"Docker-Content-Digest": MANIFEST.digest}))
    put(client)
    assert len(registry.asked) == 1


def stored_unnamed(registry: Scripted) -> None:
    """Have manifests kept, and their digest left out of the answer."""

    def unnamed(asked: Asked) -> Reply:
        registry.sound(asked)
        return Reply(201)

    registry.on("PUT", "manifests", unnamed, forever=True)


def test_a_created_manifest_without_a_digest_in_the_answer_is_looked_at_once(
    registry: Scripted, client: Client
) -> None:
    stored_unnamed(registry)
    put(client)
    assert [asked.method for asked in registry.asked] == ["PUT", "HEAD"]


@pytest.mark.parametrize("before", [None, OTHER], ids=["nothing", "another"])
def test_a_created_manifest_that_is_not_there_is_no_success_and_may_be_put_again(
    registry: Scripted, client: Client, before: RawManifest | None
) -> None:
    if before:
        hold(registry, before)
    registry.on("PUT", "manifests", Reply(201))
    error = failing(client)
    assert isinstance(error, RegistryError)
    assert error.transient
    assert (before.digest if before else "nothing") in str(error)
    assert error.hint
    put(client)
    assert registry.manifests["1"][1] == MANIFEST.content


@pytest.mark.parametrize(
    "mute",
    [Reply(405), Reply(501), Reply(403), Reply(500), Reply(503), CUT, Reply(200), HTML],
    ids=["405", "501", "403", "500", "503", "cut", "bare", "page"],
)
def test_a_created_manifest_that_nobody_can_be_asked_about_is_believed(
    registry: Scripted, client: Client, mute: Reply
) -> None:
    """Some name no digest, and some show a manifest only to those who may pull."""
    stored_unnamed(registry)
    registry.on("HEAD", "manifests", mute, forever=True)
    registry.on("GET", "manifests", complaint(403, "DENIED"), forever=True)
    put(client)
    assert len(registry.requests("PUT")) == 1


@pytest.mark.parametrize("mute", [Reply(405), Reply(403), Reply(200)], ids=["405", "403", "bare"])
@pytest.mark.parametrize("target", ["1", MANIFEST.digest], ids=["tag", "digest"])
def test_where_no_head_tells_what_was_created_its_bytes_do(
    registry: Scripted, client: Client, mute: Reply, target: str
) -> None:
    registry.on("HEAD", "manifests", mute, forever=True)
    hold(registry, OTHER, target)
    registry.on("PUT", "manifests", Reply(201))
    with pytest.raises(RegistryError, match=OTHER.digest) as caught:
        client.put(target, MANIFEST.content)
    assert caught.value.transient
    stored_unnamed(registry)
    client.put(target, MANIFEST.content)


def test_a_registry_that_shows_a_created_manifest_a_little_later_is_believed_then(
    registry: Scripted, client: Client
) -> None:
    stored_unnamed(registry)
    missing = complaint(404, "MANIFEST_UNKNOWN")
    for method in ("HEAD", "GET"):
        registry.on(method, "manifests", missing)
    client.retried(lambda: put(client))
    assert registry.manifests["1"][1] == MANIFEST.content
    assert len(registry.requests("PUT")) == 2


def test_a_head_that_is_late_with_a_created_manifest_is_overruled_by_its_bytes(
    registry: Scripted, client: Client
) -> None:
    stored_unnamed(registry)
    registry.on("HEAD", "manifests", complaint(404, "MANIFEST_UNKNOWN"))
    put(client)
    assert [asked.method for asked in registry.asked] == ["PUT", "HEAD", "GET"]


@pytest.mark.parametrize(
    "answer", [CUT, Reply(500), Reply(503), Reply(raw=b"HTTP/1.1 2"), Reply(307), HTML]
)
def test_a_lost_answer_is_settled_by_looking(
    registry: Scripted, client: Client, answer: Reply
) -> None:
    def unseen(asked: Asked) -> Reply:
        registry.sound(asked)
        return answer

    registry.on("PUT", "manifests", unseen)
    put(client)
    assert [asked.method for asked in registry.asked] == ["PUT", "HEAD"]


@pytest.mark.parametrize("answer", [CUT, Reply(500), Reply(503)])
def test_a_lost_answer_to_what_was_not_carried_out_is_transient(
    registry: Scripted, client: Client, answer: Reply
) -> None:
    hold(registry, OTHER)
    registry.on("PUT", "manifests", answer)
    error = failing(client)
    assert error.transient
    assert isinstance(error, NetworkError | RegistryError)


def test_bytes_that_were_altered_on_the_way_are_noticed_and_may_be_sent_again(
    registry: Scripted, client: Client
) -> None:
    def altered(asked: Asked) -> Reply:
        hold(registry, OTHER)
        return Reply(201, {"Docker-Content-Digest": OTHER.digest})

    registry.on("PUT", "manifests", altered)
    error = failing(client)
    assert error.transient
    assert MANIFEST.digest in str(error)
    assert OTHER.digest in str(error)
    client.retried(lambda: put(client))
    assert registry.manifests["1"][1] == MANIFEST.content


def test_an_answer_that_names_another_digest_than_what_it_holds_is_no_failure(
    registry: Scripted, client: Client
) -> None:
    def mistaken(asked: Asked) -> Reply:
        registry.sound(asked)
        return Reply(201, {"Docker-Content-Digest": OTHER.digest})

    registry.on("PUT", "manifests", mistaken)
    put(client)


def test_a_registry_that_names_wrong_digests_everywhere_is_judged_by_the_bytes(
    registry: Scripted, client: Client
) -> None:
    def mistaken(asked: Asked) -> Reply:
        sound = registry.sound(asked)
        wrong = {**dict(sound.headers), "Docker-Content-Digest": OTHER.digest}
        return replace(sound, headers=wrong)

    for method in ("PUT", "HEAD", "GET"):
        registry.on(method, "manifests", mistaken, forever=True)
    put(client)
    assert [asked.method for asked in registry.asked] == ["PUT", "HEAD", "GET"]


@pytest.mark.parametrize(
    "everything", [HTML, Reply(200), Reply(200, {"Content-Type": "application/json"}, "{}")]
)
def test_a_server_that_says_yes_to_everything_is_no_success(
    registry: Scripted, client: Client, everything: Reply
) -> None:
    for method in ("PUT", "HEAD", "GET"):
        registry.on(method, "", everything, forever=True)
    failing(client)


@pytest.mark.parametrize("answer", [CUT, Reply(500), Reply(408), Reply(307)])
def test_a_lost_answer_that_nobody_can_settle_leaves_the_tag_in_doubt(
    registry: Scripted, client: Client, answer: Reply
) -> None:
    registry.on("PUT", "manifests", answer)
    for method in ("HEAD", "GET"):
        registry.on(method, "manifests", Reply(503), forever=True)
    assert "team/app:1 may have been written" in (failing(client).aftermath or "")


@pytest.mark.parametrize("refusal", [complaint(403, "DENIED"), Reply(429), Reply(413)])
def test_a_refused_manifest_leaves_nothing_in_doubt(
    registry: Scripted, client: Client, refusal: Reply
) -> None:
    registry.on("PUT", "manifests", refusal)
    assert failing(client).aftermath is None
    assert [asked.method for asked in registry.asked] == ["PUT"]


def test_a_manifest_that_was_never_sent_leaves_nothing_in_doubt(
    registry: Scripted, client: Client
) -> None:
    """The service that gives tokens has trouble, before anything goes to the registry."""
    challenge = Reply(401, {"WWW-Authenticate": f'Bearer realm="{registry.url}/token"'})
    registry.guard = lambda _asked: challenge
    for answer in (Reply(500), CUT):
        registry.forget("GET")
        registry.on("GET", "^/token", answer, forever=True)
        assert failing(client).aftermath is None
    registry.stop()
    assert failing(client).aftermath is None


IMMUTABLE = [
    complaint(400, "TAG_INVALID", "tag 1 already exists and is immutable: cannot be overwritten"),
    complaint(412, "PRECONDITION", "configured as immutable"),
    complaint(409, "TAG_IMMUTABLE", "the tag is immutable"),
    complaint(409, "TAG_ALREADY_EXISTS"),
    complaint(403, "DENIED", "tag is immutable"),
]


@pytest.mark.parametrize("refusal", IMMUTABLE)
def test_an_immutable_tag_is_an_error_that_says_so_and_is_not_tried_again(
    registry: Scripted, client: Client, refusal: Reply
) -> None:
    hold(registry, OTHER)
    registry.on("PUT", "manifests", refusal)
    error = failing(client)
    assert isinstance(error, RegistryError)
    assert not error.transient
    assert "immutable" in f"{error} {error.hint}"
    assert not refuses_type(error)


@pytest.mark.parametrize("refusal", IMMUTABLE)
def test_an_immutable_tag_that_holds_the_same_is_done(
    registry: Scripted, client: Client, refusal: Reply
) -> None:
    hold(registry, MANIFEST)
    registry.on("PUT", "manifests", refusal)
    put(client)


@pytest.mark.parametrize(
    "refusal",
    [
        complaint(400, "UNSUPPORTED"),
        complaint(405, "UNSUPPORTED"),
        complaint(400, "MANIFEST_INVALID", "manifest invalid"),
        complaint(415, "MANIFEST_INVALID"),
        complaint(400, "TAG_INVALID", "manifest tag did not match URI"),
        complaint(501, "UNSUPPORTED", "schema version"),
        Reply(415),
        Reply(404, {"Content-Type": "text/html"}, "<html>Not found</html>"),
    ],
)
def test_a_type_that_is_not_taken_has_many_faces(
    registry: Scripted, client: Client, refusal: Reply
) -> None:
    registry.on("PUT", "manifests", refusal, refusal)
    error = failing(client)
    assert refuses_type(error)
    # What is said to be invalid may have been altered on the way: it is sent once more, but for
    # what says itself that it is about the type.
    assert error.transient is (
        "MANIFEST_INVALID" in str(error) and "answered 415" not in str(error)
    )
    assert not failing(client).transient


@pytest.mark.parametrize(
    "refusal",
    [
        complaint(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown", DIGEST := "sha256:" + 64 * "0"),
        complaint(400, "DIGEST_INVALID"),
        complaint(403, "DENIED"),
        complaint(401, "UNAUTHORIZED"),
        complaint(404, "NAME_UNKNOWN"),
        complaint(400, "SIZE_INVALID"),
        complaint(413, "MANIFEST_INVALID", "too large"),
        Reply(429),
        Reply(500),
    ],
)
def test_other_refusals_are_no_matter_of_the_type(
    registry: Scripted, client: Client, refusal: Reply
) -> None:
    registry.on("PUT", "manifests", refusal, refusal)
    assert not refuses_type(failing(client))


def test_a_refusal_for_missing_blobs_names_them(registry: Scripted, client: Client) -> None:
    registry.on("PUT", "manifests", complaint(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown", DIGEST))
    error = failing(client)
    assert isinstance(error, RegistryError)
    assert error.code == "MANIFEST_BLOB_UNKNOWN"
    assert DIGEST in str(error)


class TestLooking:
    def test_a_head_asks_for_each_type_by_name(self, registry: Scripted, client: Client) -> None:
        hold(registry, MANIFEST)
        found = client.repository.head_manifest("1", client.context)
        assert found == MANIFEST.descriptor()
        accepted = registry.asked[0].header("Accept") or ""
        assert set(accepted.split(", ")) == set(media_types.MANIFESTS)

    def test_a_missing_manifest_is_none(self, registry: Scripted, client: Client) -> None:
        assert client.repository.head_manifest("1", client.context) is None
        assert client.repository.get_manifest("1", client.context) is None

    @pytest.mark.parametrize("status", [405, 501, 400])
    def test_a_host_that_knows_no_head_is_asked_by_get_and_the_next_time_at_once(
        self, registry: Scripted, client: Client, status: int
    ) -> None:
        hold(registry, MANIFEST)
        registry.on("HEAD", "manifests", Reply(status), forever=True)
        for _ in range(2):
            found = client.repository.head_manifest("1", client.context)
            assert found == MANIFEST.descriptor()
        assert [asked.method for asked in registry.asked] == ["HEAD", "GET", "GET"]

    @pytest.mark.parametrize("missing", ["Docker-Content-Digest", "Content-Length"])
    def test_an_answer_without_a_digest_or_a_size_is_completed_by_get(
        self, registry: Scripted, client: Client, missing: str
    ) -> None:
        hold(registry, MANIFEST)

        def bare(asked: Asked) -> Reply:
            fields = dict(registry.sound(asked).headers)
            return Reply(200, {**fields, missing: "0" if missing == "Content-Length" else "no"})

        registry.on("HEAD", "manifests", bare)
        assert client.repository.head_manifest("1", client.context) == MANIFEST.descriptor()

    def test_a_forbidden_head_of_a_destination_means_that_there_is_none(
        self, registry: Scripted, client: Client
    ) -> None:
        registry.on("HEAD", "manifests", complaint(403, "UNAUTHORIZED"))
        assert client.repository.head_manifest("1", client.context) is None
        assert [asked.method for asked in registry.asked] == ["HEAD"]

    def test_a_forbidden_head_of_a_source_borrows_its_reason_from_a_get(
        self, registry: Scripted, client: Client
    ) -> None:
        registry.on("HEAD", "manifests", Reply(403))
        registry.on("GET", "manifests", complaint(403, "DENIED", "not for you"))
        source = client.repo("team/app", side="source")
        with pytest.raises(AuthError, match="not for you") as caught:
            source.head_manifest("1", client.context)
        assert caught.value.side == "source"

    def test_a_manifest_by_digest_that_is_another_is_refused(
        self, registry: Scripted, client: Client
    ) -> None:
        hold(registry, OTHER, MANIFEST.digest)
        with pytest.raises(RegistryError, match=OTHER.digest):
            client.repository.get_manifest(MANIFEST.digest, client.context)

    def names(self, registry: Scripted, digest: str, *, times: int = 1) -> None:
        """Have the tag's digest named so."""

        def named(asked: Asked) -> Reply:
            sound = registry.sound(asked)
            return replace(sound, headers={**dict(sound.headers), "Docker-Content-Digest": digest})

        registry.on("GET", "manifests/1$", *[named] * times)

    def test_bytes_under_a_tag_that_are_not_those_of_the_digest_named_are_refused(
        self, registry: Scripted, client: Client
    ) -> None:
        hold(registry, MANIFEST)
        self.names(registry, OTHER.digest)
        with pytest.raises(RegistryError, match=OTHER.digest) as caught:
            client.repository.get_manifest("1", client.context)
        assert MANIFEST.digest in str(caught.value)
        assert caught.value.transient
        assert caught.value.hint

    def test_bytes_that_were_altered_once_are_read_again(
        self, registry: Scripted, client: Client
    ) -> None:
        hold(registry, MANIFEST)
        self.names(registry, OTHER.digest)
        client.retried(lambda: client.repository.get_manifest("1", client.context))
        assert len(registry.requests("GET", "manifests/1$")) == 2

    def test_a_registry_that_has_the_bytes_under_their_own_digest_only_names_them_wrongly(
        self, registry: Scripted, client: Client
    ) -> None:
        client.put("1", MANIFEST.content)
        self.names(registry, OTHER.digest)
        assert client.repository.get_manifest("1", client.context) == MANIFEST

    @pytest.mark.parametrize("name", ["", "no digest", f"sha512:{128 * '0'}"])
    def test_what_is_no_digest_of_that_kind_is_nothing_to_compare_with(
        self, registry: Scripted, client: Client, name: str
    ) -> None:
        hold(registry, MANIFEST)
        self.names(registry, name)
        assert client.repository.get_manifest("1", client.context) == MANIFEST
        assert len(registry.asked) == 1

    def test_schema_1_has_the_digest_of_its_payload_under_any_type(
        self, registry: Scripted, client: Client, tmp_path: Path
    ) -> None:
        payload = b'{"schemaVersion":1,"fsLayers":[{"blobSum":"%s"}],"history":[{}]}'
        key = signing_key({"HOME": str(tmp_path)}, lambda _warning: None)
        signed = sign(payload % DIGEST.encode(), key, "2026-11-29T12:00:00Z")
        hold(registry, RawManifest(signed.content, "application/json"))
        self.names(registry, signed.digest)
        found = client.repository.get_manifest("1", client.context)
        assert found is not None
        assert found.content == signed.content
        assert len(registry.asked) == 1

    def test_the_documents_own_type_counts(self, registry: Scripted, client: Client) -> None:
        content = b'{"mediaType":"%s"}' % media_types.OCI_INDEX.encode()
        registry.manifests["1"] = ("text/plain", content)
        found = client.repository.get_manifest("1", client.context)
        assert found == RawManifest(content, media_types.OCI_INDEX)

    def test_a_manifest_that_is_too_large_is_refused(
        self, registry: Scripted, client: Client
    ) -> None:
        hold(registry, RawManifest(b" " * (17 << 20), media_types.OCI_MANIFEST))
        with pytest.raises(RegistryError, match="larger than"):
            client.repository.get_manifest("1", client.context)


class TestTags:
    def test_pages_are_followed_with_path_and_query_alone(
        self, registry: Scripted, client: Client
    ) -> None:
        link = "http://internal.example:1/v2/team/app/tags/list?last=b&n=2"
        registry.on(
            "GET",
            "tags",
            Reply(200, {"Link": f"<{link}>; rel=next"}, '{"tags":["a","b"]}'),
            Reply(200, {"Link": '</v2/x>; title="a"; rel="next"'}, '{"tags":["c"]}'),
        )
        registry.on("GET", "/v2/x", Reply(200, (), '{"tags":null}'))
        assert client.repository.tags(client.context) == ["a", "b", "c"]
        assert [asked.target for asked in registry.asked] == [
            "/v2/team/app/tags/list?n=1000",
            "/v2/team/app/tags/list?last=b&n=2",
            "/v2/x",
        ]

    def test_a_page_that_names_itself_is_the_last(self, registry: Scripted, client: Client) -> None:
        again = Reply(200, {"Link": '</v2/x>; rel="next"'}, '{"tags":["a"]}')
        registry.on("GET", "", again, forever=True)
        assert client.repository.tags(client.context) == ["a"]
        assert len(registry.asked) <= 3

    def test_what_is_no_tag_is_left_out(self, registry: Scripted, client: Client) -> None:
        body = '{"tags":["a",null,"sha256:%s",7,"-x"],"child":[]}' % (64 * "0")
        registry.on("GET", "tags", Reply(200, (), body))
        assert client.repository.tags(client.context) == ["a"]

    @pytest.mark.parametrize("body", ["{}", '{"tags":"a"}', '{"errors":[]}', "[]", "null", "a"])
    def test_an_answer_that_lists_nothing_is_not_taken_for_no_tags(
        self, registry: Scripted, client: Client, body: str
    ) -> None:
        registry.on("GET", "tags", Reply(200, {"Content-Type": "application/json"}, body))
        with pytest.raises(RegistryError, match=r"cannot list the tags of .* instead of"):
            client.repository.tags(client.context)

    def test_a_size_of_page_that_is_refused_is_left_to_the_registry(
        self, registry: Scripted, client: Client
    ) -> None:
        registry.on("GET", r"n=1000", Reply(400))
        registry.manifests["a"] = ("x", b"")
        assert client.repository.tags(client.context) == ["a"]

    def test_a_missing_repository_is_an_error(self, registry: Scripted, client: Client) -> None:
        registry.on("GET", "tags", complaint(404, "NAME_UNKNOWN", "repository name not known"))
        with pytest.raises(RegistryError, match="NAME_UNKNOWN") as caught:
            client.repository.tags(client.context)
        assert caught.value.hint is not None


class TestBlobs:
    @pytest.mark.parametrize("status", [404, 405, 403, 501, 400])
    def test_a_check_that_says_no_or_nothing_means_not_there(
        self, registry: Scripted, client: Client, status: int
    ) -> None:
        registry.on("HEAD", "blobs", Reply(status))
        assert client.repository.has_blob(DIGEST, client.context) is False

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_redirect_to_storage_means_there(
        self, registry: Scripted, client: Client, status: int
    ) -> None:
        registry.on("HEAD", "blobs", Reply(status, {"Location": "http://127.0.0.1:1/x"}))
        assert client.repository.has_blob(DIGEST, client.context) is True

    @pytest.mark.parametrize("length", ["0", None])
    def test_the_length_that_a_check_names_does_not_matter(
        self, registry: Scripted, client: Client, length: str | None
    ) -> None:
        fields = f"Content-Length: {length}\r\n" if length else ""
        registry.on("HEAD", "blobs", Reply(raw=f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode()))
        assert client.repository.has_blob(DIGEST, client.context) is True

    def test_a_blob_is_read_whole_and_checked(self, registry: Scripted, client: Client) -> None:
        digest = Digest.of(b"hello")
        registry.blobs[digest] = b"hello"
        assert client.repository.read_blob(digest, client.context, 5) == b"hello"
        with pytest.raises(RegistryError, match="larger than 4 bytes"):
            client.repository.read_blob(digest, client.context, 4)
        registry.blobs[digest] = b"other"
        with pytest.raises(RegistryError, match="gave other bytes"):
            client.repository.read_blob(digest, client.context, 9)
        with pytest.raises(RegistryError, match="404"):
            client.repository.read_blob(DIGEST, client.context, 9)

    def test_a_blob_that_is_cut_short_is_an_error(self, registry: Scripted, client: Client) -> None:
        registry.on("GET", "blobs", Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhe"))
        with pytest.raises(NetworkError, match="in the middle of its answer"):
            client.repository.read_blob(DIGEST, client.context, 9)
