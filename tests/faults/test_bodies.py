"""What happens to a body on its way: refused early, cut, stalled, answered in odd ways."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from tests.support.pushing import TIMEOUT, Client, client_of, send
from tests.support.scripted import CUT, HANG, HTML, Reply, Scripted, complaint
from towline.context import Cancel, Context
from towline.errors import AuthError, Cancelled, NetworkError, RegistryError
from towline.push_events import nowhere
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest
from towline.wire.channel import Channel, Kept
from towline.wire.exchange import Exchange, Manner
from towline.wire.message import Request, parse_url
from towline.wire.secrets import Secrets

DATA = os.urandom(3 << 20)
DIGEST = Digest.of(DATA)
KNOWN = Descriptor(media_types.OCI_LAYER, DIGEST, len(DATA))


def test_a_streamed_blob_goes_as_one_patch_without_content_range_and_an_empty_put(
    registry: Scripted, client: Client
) -> None:
    assert client.push(DATA) == 1
    (patch,) = registry.requests("PATCH")
    (put,) = registry.requests("PUT")
    assert patch.header("Content-Range") is None
    assert patch.header("Transfer-Encoding") == "chunked"
    assert patch.body == DATA
    assert put.header("Content-Length") == "0"
    assert registry.blobs[DIGEST] == DATA


def test_a_known_blob_goes_as_one_put_with_its_length(registry: Scripted, client: Client) -> None:
    client.push(DATA, known=True)
    assert [one.method for one in registry.asked] == ["POST", "PUT"]
    assert registry.asked[1].header("Content-Length") == str(len(DATA))
    assert registry.blobs[DIGEST] == DATA


@pytest.mark.parametrize("known", [False, True])
def test_an_empty_blob_goes_without_a_body(
    registry: Scripted, client: Client, *, known: bool
) -> None:
    client.push(b"", known=known)
    assert [one.method for one in registry.asked] == ["POST", "PUT"]
    assert registry.blobs[Digest.of(b"")] == b""


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_patch_may_be_answered_by_any_success(
    registry: Scripted, client: Client, status: int
) -> None:
    def patched(asked: object) -> Reply:
        session = registry.sessions["s0"]
        session += DATA
        return Reply(status, {"Location": "/v2/team/app/blobs/uploads/s0"})

    registry.on("PATCH", "uploads", patched)
    client.push(DATA)
    assert registry.blobs[DIGEST] == DATA


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_commit_may_be_answered_by_any_success(
    registry: Scripted, client: Client, status: int
) -> None:
    registry.on("PUT", "uploads", Reply(status))
    client.push(DATA)
    assert len(registry.requests("PUT")) == 1


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("reset", [False, True])
def test_a_refusal_in_the_middle_of_a_body_is_read_though_the_connection_is_reset(
    registry: Scripted, client: Client, *, known: bool, reset: bool
) -> None:
    words = '{"message":"not here, please"}'
    refusal = Reply(409, (), words, early=100_000, reset=reset)
    registry.on("PUT" if known else "PATCH", "uploads", refusal, forever=True)
    with pytest.raises(RegistryError, match=r"409.*not here, please") as caught:
        client.push(DATA, known=known)
    assert caught.value.status == 409
    assert len(registry.requests("P", "uploads/")) == 2


@pytest.mark.parametrize("known", [False, True])
def test_a_refusal_in_the_middle_of_a_body_counts_though_it_breaks_off(
    registry: Scripted, client: Client, *, known: bool
) -> None:
    torn = Reply(raw=b"HTTP/1.1 409 Conflict\r\nContent-Length: 99\r\n\r\nnot", early=100_000)
    registry.on("PUT" if known else "PATCH", "uploads", torn, forever=True)
    with pytest.raises(RegistryError, match="409") as caught:
        client.push(DATA, known=known)
    assert caught.value.status == 409


def test_a_401_in_the_middle_of_a_body_is_an_auth_error(registry: Scripted, client: Client) -> None:
    registry.on("PATCH", "uploads", complaint(401, "UNAUTHORIZED", "go away"), forever=True)
    with pytest.raises(AuthError, match="go away"):
        client.push(DATA)


@pytest.mark.parametrize("known", [False, True])
def test_a_blob_whose_connection_is_cut_in_the_middle_is_sent_again(
    registry: Scripted, client: Client, *, known: bool
) -> None:
    cut = Reply(raw=b"", early=100_000, reset=True)
    registry.on("PUT" if known else "PATCH", "uploads", cut)
    assert client.push(DATA, known=known) == 2
    assert registry.blobs[DIGEST] == DATA


@pytest.mark.parametrize("reset", [False, True])
def test_a_registry_that_hangs_up_on_an_upload_is_hinted_at_with_the_repository(
    registry: Scripted, client: Client, *, reset: bool
) -> None:
    registry.on("POST", "uploads", Reply(raw=b"", reset=reset), forever=True)
    with pytest.raises(NetworkError) as caught:
        client.push(DATA)
    assert "check that the repository exists" in str(caught.value.hint)


def test_a_commit_whose_answer_is_lost_is_settled_by_asking(
    registry: Scripted, client: Client
) -> None:
    def lost(asked: object) -> Reply:
        registry.blobs[DIGEST] = DATA
        return CUT

    registry.on("PUT", "uploads", lost)
    assert client.push(DATA) == 1
    assert len(registry.requests("PATCH")) == 1


def test_a_commit_answered_500_is_sent_again_when_the_blob_is_not_there(
    registry: Scripted, client: Client
) -> None:
    registry.on("PUT", "uploads", Reply(500))
    assert client.push(DATA) == 2
    assert registry.blobs[DIGEST] == DATA


def test_a_registry_that_takes_no_byte_is_a_time_out(registry: Scripted) -> None:
    registry.on("PATCH", "uploads", Reply(early=1000, hang=True), forever=True)
    with client_of(registry, timeout=0.3) as client:
        upload = client.repository.start_upload(client.context)
        with pytest.raises(NetworkError, match=r"took no byte for 0.3 s") as caught:
            send(upload, os.urandom(40 << 20))
    assert caught.value.transient
    assert caught.value.side == "destination"


def test_a_registry_that_never_answers_is_a_time_out(registry: Scripted) -> None:
    registry.on("HEAD", "blobs", HANG)
    with client_of(registry, timeout=0.3) as client:
        began = time.monotonic()
        with pytest.raises(NetworkError, match=r"sent no byte for 0.3 s"):
            client.repository.has_blob(DIGEST, client.context)
        assert time.monotonic() - began < 2


def test_the_answer_to_a_body_may_take_longer_than_a_byte(registry: Scripted) -> None:
    def slow(asked: object) -> Reply:
        time.sleep(0.8)
        registry.sessions["s0"] += DATA
        return Reply(202)

    registry.on("PATCH", "uploads", slow)
    with client_of(registry, timeout=0.3) as client:
        assert client.push(DATA) == 1


@pytest.mark.parametrize(
    ("timeout", "sent", "allowed"),
    [
        (30.0, 0, 60.0),
        (1.0, 8 << 20, 60.0),
        (70.0, 8 << 20, 70.0),
        (30.0, 10 << 20, 300.5),
        (30.0, 20 << 20, 301.0),
        (1.0, 1 << 30, 300 + 51.2),
        (400.0, 40 << 20, 402.0),
    ],
)
def test_a_small_body_is_answered_within_a_minute_and_a_larger_one_has_five_and_more(
    timeout: float, sent: int, allowed: float
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours, Cancel(), timeout)
        request = Request("PATCH", parse_url("http://registry.example/x"), streamed=True)
        assert exchange_of(channel, request).patience(sent) == allowed
        closing = Request("PUT", parse_url("http://registry.example/x"))
        assert exchange_of(channel, closing).patience(0) == timeout
        assert exchange_of(channel, closing).patience(max(1, sent)) == pytest.approx(allowed)


def exchange_of(channel: Channel, request: Request) -> Exchange:
    return Exchange(channel, request, Context(), Manner(nowhere, Secrets(), Kept()), fresh=True)


@pytest.mark.parametrize(
    ("method", "known"), [("PATCH", False), ("PUT", False), ("PUT", True)], ids=str
)
def test_an_answer_to_a_body_that_never_comes_is_a_time_out(
    registry: Scripted, method: str, *, known: bool
) -> None:
    registry.on(method, "uploads", HANG)
    with client_of(registry, timeout=0.2, answer_timeouts=(0.5, 9.0)) as client:
        upload = client.repository.start_upload(client.context, KNOWN if known else None)
        with pytest.raises(NetworkError, match=r"sent no byte for 0\.5 ") as caught:
            send(upload, DATA)
    assert caught.value.transient


@pytest.mark.parametrize("known", [False, True])
def test_a_layer_that_is_slow_to_read_takes_as_long_as_it_takes(
    registry: Scripted, *, known: bool
) -> None:
    """The time-out is for the other side's silence, not for how long an upload lasts."""
    with client_of(registry, timeout=0.5) as client:
        upload = client.repository.start_upload(client.context, KNOWN if known else None)
        for part in (DATA[: 1 << 20], DATA[1 << 20 :]):
            time.sleep(0.7)
            upload.write(part)
        upload.commit(DIGEST)
    assert registry.blobs[DIGEST] == DATA


@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
def test_cancelling_ends_a_call_that_hangs_within_a_moment(
    registry: Scripted, client: Client, method: str
) -> None:
    registry.on(method, "uploads", HANG)
    timer = client.cancel_after(0.2)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        client.push(DATA)
    assert time.monotonic() - began < TIMEOUT / 2
    assert len(registry.requests("DELETE")) <= 1
    timer.join()


def test_cancelling_ends_a_body_that_nobody_reads(registry: Scripted, client: Client) -> None:
    registry.on("PATCH", "uploads", Reply(early=1000, hang=True))
    timer = client.cancel_after(0.2)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        client.push(os.urandom(40 << 20))
    assert time.monotonic() - began < TIMEOUT / 2
    timer.join()


@pytest.mark.parametrize(
    "answer",
    [*(Reply(status) for status in (202, 204, 401, 404, 405, 500)), CUT, HTML],
    ids=lambda reply: str(reply.raw or reply.status),
)
def test_whatever_is_answered_to_a_session_that_is_given_back_it_is_given_back_once(
    registry: Scripted, client: Client, answer: Reply
) -> None:
    registry.on("DELETE", "uploads", answer)
    upload = client.repository.start_upload(client.context)
    upload.write(DATA)
    upload.cancel()
    upload.cancel()
    # A connection that was kept and dies is replaced once.
    assert len(registry.requests("DELETE")) <= 1 + (answer is CUT)
    assert client.push(DATA) == 1


def test_cancelling_does_not_wait_for_the_answer_to_giving_the_session_back(
    registry: Scripted, client: Client
) -> None:
    registry.on("PATCH", "uploads", HANG)
    registry.on("DELETE", "uploads", HANG)
    timer = client.cancel_after(0.1)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        client.push(DATA)
    assert time.monotonic() - began < TIMEOUT / 2
    timer.join()


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT", "GET"])
def test_a_server_that_answers_every_call_with_a_page_is_no_registry(
    registry: Scripted, client: Client, method: str
) -> None:
    registry.on(method, "", HTML, forever=True)
    asking = {
        "HEAD": lambda: client.repository.has_blob(DIGEST, client.context),
        "GET": lambda: client.repository.get_manifest("1", client.context),
    }
    with pytest.raises(RegistryError, match="a page instead of what a registry says") as caught:
        asking.get(method, lambda: client.push(DATA))()
    # Where a registry has answered before, a page is a hiccup, but not for ever.
    assert caught.value.transient is (method in {"PATCH", "PUT"})
    assert "does not look like" in str(caught.value.hint)


def test_interim_answers_in_the_middle_of_a_body_are_passed_over(
    registry: Scripted, client: Client
) -> None:
    def patched(asked: object) -> Reply:
        registry.sessions["s0"] += DATA
        head = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n"
        location = b"Location: /v2/team/app/blobs/uploads/s0\r\n\r\n"
        return Reply(
            raw=b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nA: b\r\n\r\n" + head + location
        )

    registry.on("PATCH", "uploads", patched)
    client.push(DATA)
    assert registry.blobs[DIGEST] == DATA


def test_the_meter_counts_requests_and_blob_bytes(registry: Scripted, client: Client) -> None:
    client.push(DATA)
    assert client.context.meter.requests == 3
    assert client.context.meter.sent_bytes == len(DATA)


def test_a_kept_connection_that_has_died_is_replaced_and_nobody_hears_of_it(
    registry: Scripted, client: Client
) -> None:
    client.repository.has_blob(DIGEST, client.context)
    registry.on("HEAD", "blobs", CUT)
    assert client.repository.has_blob(DIGEST, client.context) is False
    assert [one.connection for one in registry.asked] == [0, 0, 1]


def test_a_connection_serves_one_request_after_another(registry: Scripted, client: Client) -> None:
    client.push(DATA)
    client.put()
    assert {one.connection for one in registry.asked} == {0}


@pytest.mark.parametrize("options", [{}, {"chunk_size": 64 << 10}])
def test_all_uploads_together_keep_to_the_rate(registry: Scripted, options: dict[str, int]) -> None:
    data = [os.urandom(150_000) for _ in range(2)]
    with client_of(registry, limit_rate=500_000, **options) as client:
        began = time.monotonic()
        threads = [threading.Thread(target=client.push, args=(one,)) for one in data]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - began
    assert all(registry.blobs[Digest.of(one)] == one for one in data)
    assert 0.5 < took < 3
