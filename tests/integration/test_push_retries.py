"""Attempts that fail: told in words, tried again after a while, and nobody kept meanwhile."""

from __future__ import annotations

import email.utils
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support.guards import Tokens
from tests.support.quick import quick
from tests.support.scripted import CUT, HANG, Reply, complaint, scripted
from towline.push.resources import AT_ONCE
from towline.server import Server
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.scripted import Asked, Scripted
    from towline.events import Event
    from towline.testing.image_formats import Made

LOADED = 2.0
"""Seconds that a busy machine may take beside."""
ROOM = bytes(1 << 20)
TOLD = re.compile(r"Retrying in (1 second|\d+ seconds) \((.+)\)")


@pytest.fixture
def registry() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """An image of one layer that is too large to go in one PUT."""
    return make_image(tmp_path / "image.tar", [{"hello": b"hello\n", "room": ROOM}])


class Hearing:
    """A pusher, and the retries that it tells of."""

    def __init__(self, **options: int) -> None:
        self.layers: list[str] = []
        self.others: list[towline.Retrying] = []
        self.pusher = towline.Pusher(cache="none", on_event=self._hear, **options)  # type: ignore[arg-type]  # numbers, all of them

    def _hear(self, event: Event) -> None:
        if isinstance(event, towline.LayerProgress) and event.status.startswith("Retrying"):
            self.layers.append(event.status)
        elif isinstance(event, towline.Retrying):
            self.others.append(event)

    def quick(self) -> Hearing:
        quick(self.pusher)
        return self

    def push(self, made: Made, place: str) -> towline.PushResult:
        with self.pusher:
            return self.pusher.push(made.path, place)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(500), "500"),
        (complaint(503, "UNAVAILABLE", "busy"), "busy"),
        (complaint(429, "TOOMANYREQUESTS", "slow down"), "slow down"),
        (CUT, "connection"),
    ],
    ids=["500", "503", "429", "cut"],
)
def test_a_layer_that_fails_once_says_so_and_is_sent(
    reply: Reply, reason: str, registry: Scripted, made: Made
) -> None:
    registry.on("PATCH", "/uploads/", reply)
    hearing = Hearing(retries=1)
    hearing.push(made, f"{registry.host}/app:1")
    (said,) = hearing.layers
    match = TOLD.fullmatch(said)
    assert match
    assert reason in match[2]
    assert "1" in registry.manifests


def test_a_config_that_fails_once_is_told_as_what_is_no_layer(
    registry: Scripted, made: Made
) -> None:
    def first_config(asked: Asked) -> Reply | None:
        return Reply(502) if asked.body else None

    registry.on("PUT", "digest=", first_config, first_config)
    hearing = Hearing(retries=1)
    hearing.push(made, f"{registry.host}/app:1")
    assert not hearing.layers
    (event,) = hearing.others
    assert "502" in event.reason
    assert event.reference == f"{registry.host}/app:1"


def test_a_token_that_expires_under_a_body_is_renewed(registry: Scripted, made: Made) -> None:
    tokens = Tokens(registry)

    def expire(asked: Asked) -> None:
        tokens.expire()

    registry.on("POST", "/uploads/", expire)
    hearing = Hearing(retries=1)
    result = hearing.push(made, f"{registry.host}/app:1")
    assert result.status == "pushed"
    assert "1" in registry.manifests


def test_a_body_that_goes_another_way_is_no_retry(registry: Scripted, made: Made) -> None:
    registry.on("PATCH", "/uploads/", Reply(405), forever=True)
    hearing = Hearing(retries=0)
    hearing.push(made, f"{registry.host}/app:1")
    assert "1" in registry.manifests
    assert not hearing.layers


@pytest.mark.parametrize("retries", [0, 1])
def test_attempts_are_counted(retries: int, registry: Scripted, made: Made) -> None:
    registry.on("PATCH", "/uploads/", Reply(500), forever=True)
    hearing = Hearing(retries=retries)
    with pytest.raises(towline.RegistryError) as caught:
        hearing.push(made, f"{registry.host}/app:1")
    assert caught.value.status == 500
    assert len(registry.requests("PATCH")) == retries + 1
    assert len(hearing.layers) == retries
    assert not registry.manifests


@pytest.mark.parametrize(
    "reply",
    [
        complaint(404, "NAME_UNKNOWN"),
        complaint(403, "DENIED"),
        complaint(400, "NAME_INVALID"),
        complaint(401, "UNAUTHORIZED"),
        complaint(400, "UNSUPPORTED"),
        complaint(500, "UNKNOWN", "unknown error", "write /data: no space left on device"),
        Reply(507),
    ],
    ids=[
        "unknown name",
        "denied",
        "invalid name",
        "unauthorized",
        "unsupported",
        "disk full",
        "507",
    ],
)
def test_what_cannot_heal_is_not_tried_again(reply: Reply, registry: Scripted, made: Made) -> None:
    registry.on("POST", "/uploads/", reply, forever=True)
    hearing = Hearing()
    with pytest.raises(towline.TowlineError):
        hearing.push(made, f"{registry.host}/app:1")
    assert not hearing.layers
    assert not registry.manifests


def test_a_question_that_fails_for_good_is_taken_as_no_and_leaves_all_attempts_to_the_sending(
    registry: Scripted, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "layout", [{"hello": b"hello\n"}], format="oci")
    registry.on("HEAD", "/blobs/", Reply(500), forever=True)
    registry.on("POST", "/uploads/", Reply(500))
    hearing = Hearing(retries=1).quick()
    hearing.push(made, f"{registry.host}/app:1")
    assert "1" in registry.manifests
    assert len(registry.requests("HEAD", "/blobs/")) == 4, "twice for the layer, twice the config"


def test_a_session_that_is_silent_when_asked_what_it_holds_is_told_and_asked_again(
    registry: Scripted, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", [{"noise": os.urandom(3 << 20)}])

    def cut(asked: Asked) -> Reply:
        registry.sessions[asked.path.rpartition("/")[2]] += asked.body[: 1 << 20]
        return CUT

    registry.on("PATCH", "/uploads/", cut)
    registry.on("GET", "/uploads/", HANG)
    hearing = Hearing(timeout=1, retries=2).quick()
    result = hearing.push(made, f"{registry.host}/app:1")
    (layer,) = result.layers
    assert layer.outcome == "resumed"
    assert len(registry.requests("PATCH")[1].body) + (1 << 20) == layer.size
    assert ["sent no byte" in said for said in hearing.layers] == [False, True]


@pytest.mark.parametrize("options", [{}, {"chunk_size": "1M"}], ids=["one body", "chunks"])
def test_what_is_sent_again_counts_for_the_layer_and_for_the_push(
    options: dict[str, Any], tmp_path: Path
) -> None:
    size = 4 << 20
    made = make_image(tmp_path / "image.tar", [{"noise": os.urandom(size)}])
    with Server() as server, towline.Pusher(cache="none", **options) as pusher:
        server.faults.cut(after_bytes=size // 8)
        result = pusher.push(made.path, f"{server.host}/app:1")
    (layer,) = result.layers
    assert size < layer.sent_bytes <= layer.size + size
    config = 20_000
    assert layer.sent_bytes < result.sent_bytes < layer.sent_bytes + config


def test_a_host_that_answers_no_question_is_not_sent_to(registry: Scripted, tmp_path: Path) -> None:
    made = make_image(tmp_path / "layout", [{"hello": b"hello\n"}], format="oci")
    registry.on("HEAD", "/blobs/", HANG, forever=True)
    with pytest.raises(towline.NetworkError):
        Hearing(retries=0, timeout=1).push(made, f"{registry.host}/app:1")
    assert not registry.requests("POST")


def test_no_slot_is_held_while_one_backs_off(registry: Scripted, tmp_path: Path) -> None:
    layers = [{"large": bytes(range(256)) * 9999}, {"smaller": ROOM}]
    made = make_image(tmp_path / "image.tar", layers)
    registry.on("PATCH", "/uploads/", Reply(500))
    hearing = Hearing(jobs=1, retries=1)
    hearing.push(made, f"{registry.host}/app:1")
    sizes = [len(one.body) for one in registry.requests("PATCH")]
    assert len(sizes) == 3
    assert sizes[0] == sizes[2] != sizes[1], "the other one went while that one waited"


def _date(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


PAUSES: dict[str, tuple[Callable[[], dict[str, str]], float, float]] = {
    "seconds": (lambda: {"Retry-After": "2"}, 2.0, 2.5),
    "date": (lambda: {"Retry-After": _date(3)}, 2.0, 3.5),  # a date has whole seconds
    "past date": (lambda: {"Retry-After": _date(-100)}, 0.5, 1.5),
    "absent": (dict, 0.5, 1.5),
    "nonsense": (lambda: {"Retry-After": "soon"}, 0.5, 1.5),
}


@pytest.mark.parametrize("status", [429, 503])
def test_a_pause_is_as_long_as_was_asked_for_in_any_form(status: int, made: Made) -> None:
    def pause(name: str) -> tuple[str, float]:
        times: list[float] = []

        def busy(_: Asked) -> Reply | None:
            times.append(time.monotonic())
            return Reply(status, PAUSES[name][0]()) if len(times) == 1 else None

        with scripted() as registry:
            registry.on("PATCH", "/uploads/", busy, forever=True)
            Hearing(retries=1).push(made, f"{registry.host}/app:1")
            assert "1" in registry.manifests
        return name, times[1] - times[0]

    with ThreadPoolExecutor() as threads:
        waited = dict(threads.map(pause, PAUSES))
    for name, (_, least, most) in PAUSES.items():
        assert least <= waited[name] < most + LOADED, name


@pytest.mark.parametrize("status", [429, 503])
def test_a_host_that_asks_for_a_pause_gets_it_from_all(
    status: int, registry: Scripted, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", [{f"f{n}": bytes([n])} for n in range(6)])
    times: list[float] = []

    def busy(asked: Asked) -> Reply | None:
        times.append(time.monotonic())
        return Reply(status, {"Retry-After": "1"}) if len(times) == 1 else None

    registry.on("POST", "/uploads/", busy, forever=True)
    Hearing(jobs=1, retries=1).push(made, f"{registry.host}/app:1")
    assert "1" in registry.manifests
    assert times[1] - times[0] >= 1
    assert times[-1] - times[1] < 1


def test_in_a_pause_that_a_host_asks_for_the_processor_rests(
    registry: Scripted, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", [{f"f{n}": bytes([n])} for n in range(6)])
    registry.on("POST", "/uploads/", Reply(503, {"Retry-After": "3"}))
    before = time.process_time()
    Hearing(jobs=1, retries=1).push(made, f"{registry.host}/app:1")
    assert "1" in registry.manifests
    assert time.process_time() - before < 1.5, "half of the pause"


def test_questions_wait_too_where_a_host_asks_for_a_pause(
    registry: Scripted, tmp_path: Path
) -> None:
    layers = [{f"f{n}": bytes([n])} for n in range(24)]
    made = make_image(tmp_path / "layout", layers, format="oci")
    times: list[float] = []

    def busy(asked: Asked) -> Reply:
        times.append(time.monotonic())
        if len(times) == 1:
            return Reply(503, {"Retry-After": "2"})
        return Reply(404, wait=0.5)

    registry.on("HEAD", "/blobs/", busy, forever=True)
    Hearing(retries=1).push(made, f"{registry.host}/app:1")
    assert "1" in registry.manifests
    assert len(times) > len(layers)
    in_the_pause = [moment for moment in times if moment - times[0] < 2.0]
    assert len(in_the_pause) <= AT_ONCE, "those that were under way"


class Strained:
    """Fails every upload that is not alone, until one has been."""

    def __init__(self, failure: Reply) -> None:
        self.failures = 0
        self.most_afterwards = 0
        self._failure = failure
        self._lock = threading.Lock()
        self._open = 0
        self._begun = 0
        self._sound = False

    def __call__(self, asked: Asked) -> Reply | None:
        if not asked.body:
            return None
        with self._lock:
            self._open += 1
            self._begun += 1
            begun, others = self._begun, self._open - 1
        time.sleep(0.2)
        with self._lock:
            self._open -= 1
            self._sound |= not others and self._begun == begun
            if self._sound:
                self.most_afterwards = max(self.most_afterwards, self._open + 1)
                return None
            self.failures += 1
            return self._failure


@pytest.mark.parametrize("failure", [Reply(500), Reply(429), CUT], ids=["500", "429", "cut"])
def test_a_host_that_keeps_failing_gets_fewer_uploads_at_once_until_it_does_better(
    failure: Reply, registry: Scripted, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", [{f"f{n}": ROOM} for n in range(40)])
    strained = Strained(failure)
    for method in ("PATCH", "PUT"):  # after two failures a blob goes in another way
        registry.on(method, "/uploads/", strained, forever=True)
    Hearing(jobs=8).quick().push(made, f"{registry.host}/app:1")
    assert "1" in registry.manifests
    well = 2  # the closing of an upload that goes well may win a slot back too early
    assert strained.failures <= 8 + 4 + 2 + well, "at most so many at once, then one"
    assert strained.most_afterwards in {8, 9}, "all of them again, and the small config beside them"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
def test_a_question_that_is_refused_is_taken_as_no(
    status: int, registry: Scripted, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "layout", [{"hello": b"hello\n"}], format="oci")
    registry.on("HEAD", "/blobs/", complaint(status, "DENIED"), forever=True)
    hearing = Hearing()
    result = hearing.push(made, f"{registry.host}/app:1")
    assert {layer.outcome for layer in result.layers} == {"pushed"}
    assert not hearing.layers
    assert not hearing.others


BASIC = Reply(401, {"WWW-Authenticate": 'Basic realm="here"'})
HOPELESS: list[tuple[str, Reply]] = [
    ("401 with a code", complaint(401, "UNAUTHORIZED", "wrong password")),
    ("401 without", Reply(401)),
    ("403 that is a page", Reply(403, {"Content-Type": "text/html"}, "<title>no</title>")),
    ("no token", Reply(200, {"Content-Type": "application/json"}, "{}")),
]


@pytest.mark.parametrize("answer", [reply for _, reply in HOPELESS], ids=[n for n, _ in HOPELESS])
def test_what_a_token_server_refuses_is_not_asked_again(
    answer: Reply, registry: Scripted, made: Made
) -> None:
    registry.on("GET", "^/token", answer, forever=True)  # before the sound one
    Tokens(registry)
    hearing = Hearing()
    with pytest.raises(towline.TowlineError) as caught:
        hearing.push(made, f"{registry.host}/app:1")
    assert isinstance(caught.value, towline.AuthError | towline.RegistryError)
    assert not hearing.layers
    assert not hearing.others
    assert len(registry.requests("GET", "^/token")) <= 2


def test_missing_credentials_are_told_at_once(registry: Scripted, made: Made) -> None:
    registry.guard = lambda _: BASIC
    hearing = Hearing()
    with pytest.raises(towline.AuthError):
        hearing.push(made, f"{registry.host}/app:1")
    assert not hearing.layers
    assert not hearing.others


@pytest.mark.parametrize("status", [500, 429])
def test_a_token_server_that_is_busy_is_asked_again(
    status: int, registry: Scripted, made: Made
) -> None:
    registry.on("GET", "^/token", Reply(status))
    Tokens(registry)
    hearing = Hearing(retries=1)
    hearing.push(made, f"{registry.host}/app:1")
    assert hearing.others
    assert str(status) in hearing.others[0].reason
    assert "1" in registry.manifests
