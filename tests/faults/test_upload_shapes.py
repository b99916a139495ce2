"""Ways of sending that a host, or what stands before it, does not let through."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.pushing import BLOCK, Client, client_of, send
from tests.support.scripted import CUT, HTML, Asked, Reply, Scripted, complaint
from towline.errors import NetworkError, RegistryError
from towline.reference import RepositoryName
from towline.registry.blobs import Confirmed
from towline.registry.upload.upload import Upload
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

MiB = 1 << 20
DATA = os.urandom(3 * MiB)
DIGEST = Digest.of(DATA)
OTHER = Digest.of(b"other")
OTHER_NAMED: dict[str, str] = {"Docker-Content-Digest": OTHER}
PAGE = Reply(400, {"Content-Type": "text/html"}, "<html>invalid verb</html>")
TOO_LARGE = Reply(
    413,
    {"Content-Type": "text/html"},
    "<html><title>413 Request Entity Too Large</title></html>",
    early=100_000,
    reset=True,
)


def limited(size: int, refusal: Reply) -> Callable[[Asked], Reply | None]:
    """Refuse bodies above that many bytes."""
    return lambda asked: refusal if len(asked.body) > size else None


class TestMounts:
    ORIGIN = "library/base"

    def mounted(self, registry: Scripted, client: Client) -> object:
        origin = RepositoryName(registry.host, self.ORIGIN)
        repository = client.repo("team/app", pull_from=(origin,))
        return repository.mount(DIGEST, origin, client.context)

    def test_a_201_is_a_mount(self, registry: Scripted, client: Client) -> None:
        registry.on("POST", "mount=", Reply(201, {"Docker-Content-Digest": "sha256:other"}))
        assert self.mounted(registry, client) == Confirmed()
        (asked,) = registry.asked
        assert asked.query == f"mount={DIGEST}&from=library/base"
        assert asked.header("Content-Length") == "0"

    def test_a_201_that_names_another_blob_is_a_mount_where_ours_is_there(
        self, registry: Scripted, client: Client
    ) -> None:
        registry.blobs[DIGEST] = DATA
        registry.on("POST", "mount=", Reply(201, OTHER_NAMED))
        assert isinstance(self.mounted(registry, client), Confirmed)
        assert [asked.method for asked in registry.asked] == ["POST", "HEAD"]
        assert client.repository.facts.mounts

    @pytest.mark.parametrize("asked", [None, Reply(403), Reply(500), CUT])
    def test_a_201_that_names_another_blob_is_a_refusal_where_ours_is_not_seen(
        self, registry: Scripted, client: Client, asked: Reply | None
    ) -> None:
        registry.on("POST", "mount=", Reply(201, OTHER_NAMED))
        registry.on("HEAD", "blobs", lambda _: asked, forever=True)
        assert self.mounted(registry, client) is None
        assert not client.repository.facts.mounts

    def test_a_202_is_a_session_that_is_used(self, registry: Scripted, client: Client) -> None:
        upload = self.mounted(registry, client)
        assert isinstance(upload, Upload)
        send(upload, DATA)
        assert registry.blobs[DIGEST] == DATA
        assert registry.requests("PATCH", "s0")

    @pytest.mark.parametrize(
        "answer",
        [
            *(Reply(status) for status in (200, 202, 400, 401, 403, 404, 405, 429, 500, 503)),
            Reply(401, {"WWW-Authenticate": ""}),
            complaint(401, "UNAUTHORIZED", "project library not found"),
            HTML,
            Reply(raw=b"junk"),
        ],
        ids=lambda reply: str(reply.raw or reply.status),
    )
    def test_a_refusal_in_any_form_costs_the_one_request_and_the_blob_is_pushed(
        self, registry: Scripted, client: Client, answer: Reply
    ) -> None:
        client.repository.has_blob(DIGEST, client.context)
        registry.on("POST", "mount=", answer, forever=True)
        assert self.mounted(registry, client) is None
        assert client.push(DATA) == 1
        methods = [asked.method for asked in registry.asked]
        assert methods == ["HEAD", "POST", "POST", "PATCH", "PUT"]
        assert registry.blobs[DIGEST] == DATA

    def test_a_mount_that_is_cut_off_costs_no_more_than_one_request_more(
        self, registry: Scripted, client: Client
    ) -> None:
        client.repository.has_blob(DIGEST, client.context)
        registry.on("POST", "mount=", CUT, forever=True)
        assert self.mounted(registry, client) is None
        assert client.push(DATA) == 1
        assert len(registry.requests("POST", "mount=")) <= 2
        assert registry.blobs[DIGEST] == DATA

    def test_a_blob_of_another_registry_is_never_in_scope(self, client: Client) -> None:
        origin = RepositoryName("elsewhere.example", self.ORIGIN)
        repository = client.repo("team/app", pull_from=(origin,))
        assert repository.mount_scopes == ("repository:team/app:pull,push",)


class TestLocations:
    @pytest.mark.parametrize(
        "form",
        [
            "{path}?_state=a%2Bb%3D",
            "{url}{path}?_state=a%2Bb%3D",
            "//{host}{path}?_state=a%2Bb%3D",
            "{host}{path}?_state=a%2Bb%3D",
            "{path}?",
            "/v2/team/app/blobs/upload/s0",
            "s0?x=%2f",
        ],
    )
    @pytest.mark.parametrize("known", [False, True])
    def test_a_location_of_any_form_leads_to_the_session_with_its_query_byte_for_byte(
        self, registry: Scripted, client: Client, form: str, *, known: bool
    ) -> None:
        path = "/v2/team/app/blobs/uploads/s0"
        location = form.format(path=path, url=registry.url, host=registry.host)
        registry.sessions["s0"] = bytearray()
        registry.on("POST", "uploads", Reply(202, {"Location": location}))
        registry.on("PATCH", "", lambda asked: Reply(202))
        registry.on("PUT", "", Reply(201))
        client.push(DATA, known=known)
        for asked in registry.requests("P")[1:]:
            path, _, query = location.partition("?")
            assert asked.path.endswith(path.rpartition("/")[2])
            own = asked.query.partition("digest=")[0].rstrip("&")
            assert own == query

    @pytest.mark.parametrize("chunked", [False, True])
    def test_a_location_that_changes_with_every_answer_is_followed_every_time(
        self, registry: Scripted, *, chunked: bool
    ) -> None:
        """As distribution signs it: what belongs to an earlier offset is refused."""
        wanted = ["/v2/team/app/blobs/uploads/s0?_state=0%3D%3D"]
        registry.sessions["s0"] = bytearray()

        def answered(asked: Asked) -> Reply:
            if asked.method != "POST" and not asked.target.startswith(wanted[-1]):
                return complaint(404, "BLOB_UPLOAD_INVALID", "stale state")
            if asked.method == "PUT":
                return registry.sound(asked)
            registry.sessions["s0"] += asked.body
            wanted.append(f"/v2/team/app/blobs/uploads/s0?_state={len(registry.asked)}%3D%3D")
            return Reply(202, {"Location": wanted[-1]})

        for method in ("POST", "PATCH", "PUT"):
            registry.on(method, "uploads", answered, forever=True)
        with client_of(registry, chunk_size=MiB if chunked else None) as client:
            assert client.push(DATA) == 1
        assert registry.blobs[DIGEST] == DATA
        assert len(wanted) == (5 if chunked else 3)

    def test_a_location_that_is_missing_is_as_before(
        self, registry: Scripted, client: Client
    ) -> None:
        registry.on("POST", "uploads", Reply(202, {"Location": "/one?a"}))
        registry.on("PATCH", "/one", Reply(202))
        registry.on("PUT", "/one", Reply(201))
        client.push(DATA)
        assert [asked.target for asked in registry.requests("P")[1:]] == [
            "/one?a",
            f"/one?a&digest={DIGEST}",
        ]

    @pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "10.0.0.1", "[::1]", "0x7f.1"])
    def test_a_session_in_a_private_network_is_refused_where_the_registry_is_public(
        self, registry: Scripted, address: str
    ) -> None:
        location = {"Location": f"http://{address}:{registry.host.rpartition(':')[2]}/x"}
        registry.on("POST", "uploads", Reply(202, location), forever=True)
        environ = {"http_proxy": f"http://{registry.host}"}
        with (
            client_of("registry.example", environ=environ) as client,
            pytest.raises(NetworkError, match="is an address of a private network"),
        ):
            client.push(DATA)
        assert [asked.method for asked in registry.asked] == ["POST"]

    def test_a_session_without_a_location_is_an_error_that_says_so(
        self, registry: Scripted, client: Client
    ) -> None:
        registry.on("POST", "uploads", Reply(202), forever=True)
        with pytest.raises(RegistryError, match="without the location of a session"):
            client.push(DATA)


@pytest.mark.parametrize(
    "refusal",
    [Reply(405), Reply(501), PAGE, complaint(400, "UNSUPPORTED")],
    ids=["405", "501", "400-html", "400-unsupported"],
)
class TestShapes:
    def test_a_refused_put_goes_as_a_patch(
        self, registry: Scripted, client: Client, refusal: Reply
    ) -> None:
        registry.on("PUT", "uploads", lambda asked: refusal if asked.body else None, forever=True)
        assert client.push(DATA, known=True) == 2
        assert client.push(DATA[:500_000], known=True) == 1, "the host's ways are remembered"
        assert registry.blobs[DIGEST] == DATA

    def test_a_refused_patch_of_a_known_blob_goes_as_a_put(
        self, registry: Scripted, client: Client, refusal: Reply
    ) -> None:
        registry.on("PATCH", "", refusal, forever=True)
        with client_of(registry) as fresh:
            fresh.repository.facts.put_refused = True
            with pytest.raises(RegistryError):
                fresh.push(DATA, known=True)
        client.push(DATA, known=True)
        assert registry.blobs[DIGEST] == DATA

    def test_a_refused_patch_of_a_streamed_blob_goes_as_a_put_where_it_can_be_held(
        self, registry: Scripted, client: Client, refusal: Reply
    ) -> None:
        registry.on("PATCH", "", refusal, forever=True)
        assert client.push(DATA) == 2
        assert registry.blobs[DIGEST] == DATA
        before = len(registry.asked)
        client.push(DATA[1:])
        assert [asked.method for asked in registry.asked[before:]] == ["POST", "PUT"]


BREAKDOWNS = [Reply(500, body="Internal error"), Reply(502), Reply(504), CUT, Reply(raw=b"junk")]


class TestBreakdowns:
    """A way of sending on which the host breaks down each time is given up for another."""

    @pytest.fixture(params=BREAKDOWNS, ids=lambda reply: str(reply.raw or reply.status))
    def broken(self, request: pytest.FixtureRequest) -> Callable[[Asked], Reply | None]:
        return lambda asked: request.param if asked.body else None

    def test_at_bodies_in_a_put(
        self, registry: Scripted, client: Client, broken: Callable[[Asked], Reply | None]
    ) -> None:
        registry.on("PUT", "digest=", broken, forever=True)
        assert client.push(DATA, known=True) == 3
        assert client.push(DATA[1:], known=True) == 1, "what was found out is kept"
        assert DIGEST in registry.blobs

    def test_at_bodies_in_a_put_that_would_be_the_only_chunk(
        self, registry: Scripted, broken: Callable[[Asked], Reply | None]
    ) -> None:
        registry.on("PUT", "digest=", broken, forever=True)
        with client_of(registry, chunk_size=4 * MiB) as client:
            client.push(DATA)
        assert DIGEST in registry.blobs

    @pytest.mark.parametrize("known", [True, False])
    def test_at_bodies_in_a_patch(
        self,
        registry: Scripted,
        client: Client,
        broken: Callable[[Asked], Reply | None],
        *,
        known: bool,
    ) -> None:
        registry.on("PATCH", "uploads", broken, forever=True)
        assert client.push(DATA, known=known) == (1 if known else 3)
        assert DIGEST in registry.blobs

    def test_at_bodies_above_a_size_of_which_it_says_nothing(
        self, registry: Scripted, client: Client
    ) -> None:
        data = os.urandom(18 * MiB)
        for method in ("PUT", "PATCH"):
            registry.on(method, "uploads", limited(17 * MiB, CUT), forever=True)
        client.push(data, known=True)
        assert Digest.of(data) in registry.blobs

    def test_one_failure_changes_nothing(self, registry: Scripted, client: Client) -> None:
        registry.on("PATCH", "uploads", Reply(500))
        assert client.push(DATA) == 2
        assert [len(asked.body) for asked in registry.requests("PUT")] == [0]

    def test_a_host_that_is_only_busy_keeps_its_way(
        self, registry: Scripted, client: Client
    ) -> None:
        registry.on("PATCH", "uploads", *[Reply(503)] * 4)
        assert client.push(DATA) == 5
        assert [len(asked.body) for asked in registry.requests("PUT")] == [0]


def test_a_host_that_wants_a_length_gets_one(registry: Scripted, client: Client) -> None:
    registry.on(
        "PATCH",
        "",
        lambda asked: Reply(411) if asked.header("Transfer-Encoding") else None,
        forever=True,
    )
    assert client.push(DATA) == 2
    assert client.push(DATA[1:]) == 1
    assert registry.blobs[DIGEST] == DATA


@pytest.mark.parametrize("known", [False, True])
def test_a_body_that_is_too_large_goes_in_chunks_and_the_next_layer_at_once(
    registry: Scripted, client: Client, *, known: bool
) -> None:
    small = limited(1 * MiB, Reply(413, {"Content-Type": "text/html"}, "<html>too large</html>"))
    first, second = ("PUT", "PATCH") if known else ("PATCH", "PUT")
    registry.on(first, "", TOO_LARGE, small, forever=True)
    registry.on(second, "", small, forever=True)
    assert client.push(DATA, known=known) <= 3
    assert registry.blobs[DIGEST] == DATA
    before = len(registry.asked)
    other = DATA[1:]
    assert client.push(other, known=known) == 1
    assert registry.blobs[Digest.of(other)] == other
    assert len(registry.asked) - before == 1 + 3 + 1


def test_a_chunk_that_is_too_large_by_its_range_shrinks_to_the_size_that_is_named(
    registry: Scripted,
) -> None:
    words = "request body is too large; the limit is 4.00MiB"
    refusal = complaint(416, "REQUESTED_RANGE_NOT_SATISFIABLE", words)
    registry.on("PATCH", "", limited(4 * MiB, refusal), forever=True)
    data = DATA * 3
    with client_of(registry, chunk_size=8 * MiB) as client:
        assert client.push(data) == 1
    assert registry.blobs[Digest.of(data)] == data
    sizes = [len(asked.body) for asked in registry.requests("PATCH")]
    assert sizes == [8 * MiB, 4 * MiB, 4 * MiB, 1 * MiB]


@pytest.mark.parametrize("held", [0, 100_000, 1 * MiB])
def test_a_refused_chunk_goes_on_where_the_refusal_says(registry: Scripted, held: int) -> None:
    def elsewhere(asked: Asked) -> Reply:
        session = registry.sessions["s0"]
        session += asked.body[:held]
        return Reply(416, {"Location": asked.target, "Range": f"0-{len(session) - 1}"})

    registry.on("PATCH", "", lambda asked: None, elsewhere)
    with client_of(registry, chunk_size=1 * MiB) as client:
        assert client.push(DATA) == 1
    assert registry.blobs[DIGEST] == DATA


def test_a_chunk_is_not_corrected_without_end(registry: Scripted) -> None:
    def elsewhere(asked: Asked) -> Reply:
        return Reply(416, {"Location": asked.target, "Range": f"0-{MiB - 1}"})

    registry.on("PATCH", "", lambda asked: None, elsewhere, forever=True)
    with client_of(registry, chunk_size=1 * MiB) as client, pytest.raises(RegistryError):
        client.push(DATA)
    assert len(registry.requests("PATCH")) < 20


def test_chunks_say_where_they_belong_and_the_last_bytes_go_by_patch_too(
    registry: Scripted,
) -> None:
    with client_of(registry, chunk_size=2 * MiB) as client:
        client.push(DATA)
    spans = [asked.header("Content-Range") for asked in registry.requests("PATCH")]
    assert spans == [f"0-{2 * MiB - 1}", f"{2 * MiB}-{3 * MiB - 1}"]
    assert registry.requests("PUT")[0].header("Content-Length") == "0"
    assert registry.blobs[DIGEST] == DATA


def test_what_fits_into_one_chunk_goes_in_one_put(registry: Scripted) -> None:
    with client_of(registry, chunk_size=4 * MiB) as client:
        client.push(DATA)
    assert [asked.method for asked in registry.asked] == ["POST", "PUT"]
    assert registry.blobs[DIGEST] == DATA


def test_the_least_size_of_a_chunk_that_a_registry_names_is_kept(registry: Scripted) -> None:
    def opened(asked: Asked) -> Reply:
        reply = registry.sound(asked)
        least = ("OCI-Chunk-Min-Length", str(2 * MiB))
        fields = reply.headers.items() if isinstance(reply.headers, dict) else reply.headers
        return Reply(reply.status, (*fields, least))

    registry.on("POST", "uploads", opened)
    with client_of(registry, chunk_size=1 * MiB) as client:
        client.push(DATA)
    assert [len(asked.body) for asked in registry.requests("PATCH")] == [2 * MiB, 1 * MiB]


@pytest.mark.parametrize("least", [17 * MiB, 3 << 30, 10**17])
def test_chunks_that_are_too_large_to_be_held_are_not_sent(registry: Scripted, least: int) -> None:
    def opened(asked: Asked) -> Reply:
        reply = registry.sound(asked)
        fields = dict(reply.headers)
        return Reply(reply.status, {**fields, "OCI-Chunk-Min-Length": str(least)})

    registry.on("POST", "uploads", opened, forever=True)
    with client_of(registry, chunk_size=1 * MiB) as client:
        assert client.push(DATA) == 1
    assert [len(asked.body) for asked in registry.requests("PATCH")] == [len(DATA)]


def test_a_host_to_which_no_part_is_large_enough_gets_one_body(registry: Scripted) -> None:
    refusal = complaint(400, "UNKNOWN", "LayerPartTooSmall")
    registry.on(
        "PATCH",
        "",
        lambda asked: refusal if asked.header("Content-Range") else None,
        forever=True,
    )
    data = os.urandom(6 * MiB)
    with client_of(registry, chunk_size=1 * MiB) as client:
        assert client.push(data) == 3
    assert registry.blobs[Digest.of(data)] == data


def test_a_part_that_is_too_small_makes_the_next_attempt_use_larger_ones(
    registry: Scripted,
) -> None:
    refusal = complaint(400, "UNKNOWN", "LayerPartTooSmall: parts are at least 5 MiB")
    registry.on("PATCH", "", refusal)
    with client_of(registry, chunk_size=1 * MiB) as client:
        assert client.push(DATA) == 2
    assert registry.blobs[DIGEST] == DATA


@pytest.mark.parametrize(
    "told",
    ["0-{last}", "bytes=0-{last}", "0-0", "0--1", "bytes=0--1", None, "0-1048575", "junk", "9-5"],
)
def test_the_right_bytes_arrive_whatever_range_an_answer_names(
    registry: Scripted, told: str | None
) -> None:
    def answered(asked: Asked) -> Reply:
        reply = registry.sound(asked)
        last = len(registry.sessions["s0"]) - 1
        kept = {"Location": dict(reply.headers)["Location"]}
        return Reply(202, {**kept, "Range": told.format(last=last)} if told else kept)

    registry.on("PATCH", "", answered, forever=True)
    registry.on("POST", "", answered)
    with client_of(registry, chunk_size=1 * MiB) as client:
        assert client.push(DATA) == 1
        assert registry.blobs[DIGEST] == DATA
        assert len(registry.requests("PATCH")) == 3


@pytest.mark.parametrize("held", [0, 100_000, 1 * MiB])
def test_a_chunk_whose_answer_is_lost_is_settled_by_asking_the_session(
    registry: Scripted, held: int
) -> None:
    def lost(asked: Asked) -> Reply:
        registry.sessions["s0"] += asked.body[:held]
        return CUT

    registry.on("PATCH", "", lambda asked: None, lost)
    with client_of(registry, chunk_size=1 * MiB) as client:
        assert client.push(DATA) == 1
    assert registry.blobs[DIGEST] == DATA
    assert len(registry.requests("GET")) == 1


def test_a_session_that_keeps_being_elsewhere_is_given_up(registry: Scripted) -> None:
    registry.on("PATCH", "", CUT, forever=True)
    registry.on("GET", "uploads", Reply(204, {"Range": "0-0"}), forever=True)
    with client_of(registry, chunk_size=1 * MiB) as client, pytest.raises(NetworkError):
        client.push(DATA)
    assert len(registry.requests("PATCH")) < 70


class TestResuming:
    def cut(
        self,
        registry: Scripted,
        client: Client,
        held: int,
        told: Reply | None,
        *,
        known: bool = False,
    ) -> Upload:
        """An upload that was cut in the middle of a PATCH; `held` bytes were kept."""

        def kept(asked: Asked) -> Reply:
            registry.sessions["s0"] += asked.body[:held]
            return CUT

        registry.on("PATCH", "", kept)
        if told:
            registry.on("GET", "uploads", told, forever=True)
        descriptor = Descriptor(media_types.OCI_LAYER, DIGEST, len(DATA)) if known else None
        upload = client.repository.start_upload(client.context, descriptor)
        with pytest.raises(NetworkError):
            send_all(upload, DATA)
        return upload

    @pytest.mark.parametrize("held", [100_000, BLOCK, 2 * MiB])
    def test_a_session_that_names_its_offset_is_gone_on_with_from_there(
        self, registry: Scripted, client: Client, held: int
    ) -> None:
        upload = self.cut(registry, client, held, None)
        assert upload.rewind()
        assert upload.acknowledged == held
        send_all(upload, DATA)
        assert upload.resumed
        assert registry.blobs[DIGEST] == DATA
        assert len(registry.requests("PATCH")[1].body) == len(DATA) - held
        assert len(registry.requests("POST")) == 1

    @pytest.mark.parametrize("known", [False, True])
    def test_what_goes_on_says_where_it_belongs(
        self, registry: Scripted, client: Client, *, known: bool
    ) -> None:
        client.repository.facts.put_refused = True
        upload = self.cut(registry, client, 100_000, None, known=known)
        assert upload.rewind()
        send_all(upload, DATA)
        first, second = registry.requests("PATCH")
        assert first.header("Content-Range") is None
        assert second.header("Content-Range") == f"100000-{len(DATA) - 1}"
        assert second.header("Content-Length") == str(len(DATA) - 100_000)
        assert registry.blobs[DIGEST] == DATA

    @pytest.mark.parametrize("status", [200, 202, 204])
    def test_any_success_tells_the_offset(
        self, registry: Scripted, client: Client, status: int
    ) -> None:
        told = Reply(status, {"Range": "0-99999"})
        upload = self.cut(registry, client, 100_000, told)
        assert upload.rewind()
        send_all(upload, DATA)
        assert registry.blobs[DIGEST] == DATA

    def test_quays_offset_is_the_next_byte(self, registry: Scripted, client: Client) -> None:
        told = Reply(204, {"Range": "bytes=0-100000"})
        upload = self.cut(registry, client, 100_000, told)
        assert upload.rewind()
        send_all(upload, DATA)
        assert registry.blobs[DIGEST] == DATA

    @pytest.mark.parametrize(
        "told",
        [
            complaint(404, "BLOB_UPLOAD_INVALID"),
            complaint(404, "BLOB_UPLOAD_UNKNOWN"),
            Reply(405),
            Reply(204),
            Reply(204, {"Range": "0-0"}),
        ],
        ids=["invalid", "unknown", "405", "no-range", "nothing"],
    )
    def test_a_session_that_does_not_say_is_asked_once_and_replaced_by_one_new(
        self, registry: Scripted, client: Client, told: Reply
    ) -> None:
        upload = self.cut(registry, client, 100_000, told)
        assert not upload.rewind()
        send(client.repository.start_upload(client.context), DATA)
        assert registry.blobs[DIGEST] == DATA
        assert len(registry.requests("GET")) == 1
        assert len(registry.requests("POST")) == 2

    @pytest.mark.parametrize(
        "answers",
        [(CUT, CUT), (Reply(503),), (Reply(429),)],  # a kept connection may be cut for once
        ids=["cut", "503", "429"],
    )
    def test_a_question_without_an_answer_is_a_failure_after_which_it_is_asked_once_more(
        self, registry: Scripted, client: Client, answers: tuple[Reply, ...]
    ) -> None:
        upload = self.cut(registry, client, 100_000, None)
        registry.on("GET", "uploads", *answers)
        with pytest.raises((NetworkError, RegistryError)) as caught:
            upload.rewind()
        assert caught.value.transient
        assert caught.value.side == "destination"
        assert upload.rewind()
        send_all(upload, DATA)
        assert upload.resumed
        assert registry.blobs[DIGEST] == DATA

    def test_a_session_that_hangs_up_when_asked_is_replaced_by_one_new(
        self, registry: Scripted, client: Client
    ) -> None:
        upload = self.cut(registry, client, 100_000, CUT)
        with pytest.raises(NetworkError):
            upload.rewind()
        assert not upload.rewind()
        send(client.repository.start_upload(client.context), DATA)
        assert registry.blobs[DIGEST] == DATA
        assert len(registry.requests("POST")) == 2

    def test_what_was_refused_is_not_gone_on_with_and_not_asked_for(
        self, registry: Scripted, client: Client
    ) -> None:
        registry.on("PUT", "uploads", complaint(400, "DIGEST_INVALID"))
        upload = client.repository.start_upload(client.context)
        with pytest.raises(RegistryError):
            send_all(upload, DATA)
        assert not upload.rewind()
        assert not registry.requests("GET")

    def test_a_session_that_was_given_up_is_not_asked_again(
        self, registry: Scripted, client: Client
    ) -> None:
        upload = self.cut(registry, client, 0, Reply(204))
        assert not upload.rewind()
        assert not upload.rewind()
        upload.cancel()
        assert len(registry.requests("GET")) == 1
        assert not registry.requests("DELETE")

    @pytest.mark.parametrize(
        ("size", "told", "resumes"),
        [
            (len(DATA), Reply(204), False),
            (MiB - 1, Reply(204), None),
            (MiB - 1, complaint(404, "BLOB_UPLOAD_UNKNOWN"), False),
        ],
        ids=["much", "little", "gone"],
    )
    def test_a_host_is_said_to_keep_nothing_only_where_it_should_hold_some(
        self, registry: Scripted, client: Client, size: int, told: Reply, resumes: object
    ) -> None:
        registry.on("PATCH", "", CUT)
        registry.on("GET", "uploads", told, forever=True)
        upload = client.repository.start_upload(client.context)
        with pytest.raises(NetworkError):
            send_all(upload, DATA[:size])
        assert not upload.rewind()
        assert client.repository.facts.resumes is resumes

    @pytest.mark.parametrize(("acknowledged", "resumes"), [(0, None), (1, False)])
    def test_of_chunks_a_host_should_hold_those_that_it_has_acknowledged(
        self, registry: Scripted, acknowledged: int, resumes: object
    ) -> None:
        registry.on("PATCH", "", *(acknowledged * [Reply(202)]), Reply(500))
        registry.on("GET", "uploads", Reply(204), forever=True)
        with client_of(registry, chunk_size=MiB) as client:
            upload = client.repository.start_upload(client.context)
            with pytest.raises(RegistryError):
                send_all(upload, DATA)
            assert not upload.rewind()
            assert client.repository.facts.resumes is resumes


def test_bodies_and_empty_bodies_say_what_they_are(registry: Scripted, client: Client) -> None:
    client.push(DATA)
    client.push(DATA[:10], known=True)
    for asked in registry.asked:
        assert asked.header("Accept-Encoding") == "identity"
        assert asked.header("Accept") is None, "Artifactory looks at those of blobs too"
        assert asked.header("Expect") is None
        if asked.method in {"PATCH", "PUT"}:
            assert asked.header("Content-Type") == "application/octet-stream"
        if asked.header("Transfer-Encoding") is None:
            assert asked.header("Content-Length") == str(len(asked.body))


@pytest.mark.parametrize("shape", ["PATCH", "PUT", "chunk"])
@pytest.mark.parametrize(
    "gone",
    [
        complaint(404, "BLOB_UPLOAD_UNKNOWN"),
        complaint(404, "BLOB_UPLOAD_INVALID"),
        complaint(400, "BLOB_UPLOAD_INVALID", "stale state"),
        complaint(416, "BLOB_UPLOAD_INVALID", "first byte is not the next"),
        Reply(404),
    ],
    ids=["unknown", "invalid", "400", "416", "404"],
)
def test_a_session_that_is_gone_is_replaced(registry: Scripted, shape: str, gone: Reply) -> None:
    registry.on("PUT" if shape == "PUT" else "PATCH", "uploads", gone)
    registry.on("GET", "uploads", complaint(404, "BLOB_UPLOAD_UNKNOWN"), forever=True)
    with client_of(registry, chunk_size=MiB if shape == "chunk" else None) as client:
        assert client.push(DATA, known=shape == "PUT") == 2
    assert registry.blobs[DIGEST] == DATA


class TestCommits:
    @pytest.mark.parametrize("answer", [CUT, Reply(500), Reply(502), Reply(404)])
    def test_a_commit_that_came_through_unseen_is_settled_by_asking_for_the_blob(
        self, registry: Scripted, client: Client, answer: Reply
    ) -> None:
        def unseen(asked: Asked) -> Reply:
            registry.sound(asked)
            return answer

        registry.on("PUT", "uploads", unseen)
        assert client.push(DATA) == 1
        assert len(registry.requests("PATCH")) == 1

    @pytest.mark.parametrize("answer", [CUT, Reply(500), Reply(502)])
    def test_a_commit_that_came_to_nothing_is_made_again_in_a_new_session(
        self, registry: Scripted, answer: Reply
    ) -> None:
        # Lost twice: what has no body is sent once more where the connection had been kept.
        registry.on("PUT", "uploads", *(2 if answer is CUT else 1) * [answer])
        with client_of(registry) as client:
            assert client.push(DATA) == 2
        assert registry.blobs[DIGEST] == DATA
        assert len(registry.requests("HEAD", "blobs")) >= 1
        assert len(registry.requests("POST")) == 2

    DISAGREEMENTS = (
        complaint(400, "DIGEST_INVALID", "no match"),
        complaint(400, "BLOB_UPLOAD_INVALID", "None of the provided layer digests match"),
        complaint(400, "BLOB_UPLOAD_INVALID", "Invalid docker content"),
        complaint(400, "SIZE_INVALID", "no match"),
    )

    @pytest.mark.parametrize("known", [False, True])
    @pytest.mark.parametrize("answer", DISAGREEMENTS)
    def test_a_digest_that_does_not_agree_is_sent_once_more(
        self, registry: Scripted, client: Client, answer: Reply, *, known: bool
    ) -> None:
        registry.on("PUT", "uploads", answer)
        assert client.push(DATA, known=known) == 2
        assert registry.blobs[DIGEST] == DATA

    @pytest.mark.parametrize("known", [False, True])
    @pytest.mark.parametrize("answer", DISAGREEMENTS)
    def test_a_digest_that_never_agrees_is_an_error(
        self, registry: Scripted, client: Client, answer: Reply, *, known: bool
    ) -> None:
        registry.on("PUT", "uploads", answer, forever=True)
        with pytest.raises(RegistryError, match=r"_INVALID: (no match|None of|Invalid docker)"):
            client.push(DATA, known=known)
        assert len(registry.requests("PUT")) == 2

    @pytest.mark.parametrize("known", [False, True])
    def test_a_201_that_names_another_blob_is_believed_where_ours_is_there(
        self, registry: Scripted, client: Client, *, known: bool
    ) -> None:
        registry.on(
            "PUT", "uploads", lambda asked: Reply(registry.sound(asked).status, OTHER_NAMED)
        )
        assert client.push(DATA, known=known) == 1
        assert len(registry.requests("HEAD", DIGEST)) == 1

    @pytest.mark.parametrize("known", [False, True])
    @pytest.mark.parametrize(
        "name",
        [str(DIGEST), "", "sha256:other", "sha512:" + 128 * "0"],
        ids=["ours", "none", "no digest", "of another algorithm"],
    )
    def test_a_201_that_names_no_other_blob_costs_no_question(
        self, registry: Scripted, client: Client, name: str, *, known: bool
    ) -> None:
        registry.on("PUT", "uploads", Reply(201, {"Docker-Content-Digest": name}))
        assert client.push(DATA, known=known) == 1
        assert not registry.requests("HEAD")

    @pytest.mark.parametrize("known", [False, True])
    def test_a_201_that_names_another_blob_is_sent_once_more_where_ours_is_missing(
        self, registry: Scripted, client: Client, *, known: bool
    ) -> None:
        registry.on("PUT", "uploads", Reply(201, OTHER_NAMED))
        assert client.push(DATA, known=known) == 2
        assert registry.blobs[DIGEST] == DATA

    @pytest.mark.parametrize("known", [False, True])
    def test_a_201_that_always_names_another_blob_is_an_error_that_names_both(
        self, registry: Scripted, client: Client, *, known: bool
    ) -> None:
        registry.on("PUT", "uploads", Reply(201, OTHER_NAMED), forever=True)
        with pytest.raises(
            RegistryError, match=f"sent as {DIGEST}, but .* names {OTHER}"
        ) as caught:
            client.push(DATA, known=known)
        assert caught.value.status == 201
        assert len(registry.requests("PUT")) == 2


def send_all(upload: Upload, data: bytes) -> None:
    """Write and commit, and leave the session alone when that fails."""
    for at in range(0, len(data), BLOCK):
        upload.write(data[at : at + BLOCK])
    upload.commit(Digest.of(data))
