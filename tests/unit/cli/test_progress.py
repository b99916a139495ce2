from __future__ import annotations

import io
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from towline.cli.progress import Logged, Progress, Quiet
from towline.cli.progress.json import Objects
from towline.cli.progress.plain import Lines
from towline.cli.progress.tty import Bars
from towline.events import Hinted, Note, Retrying, Verified, Warned, Working
from towline.push_events import LayerProgress, PushStarted, Summary, TagPushed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.events import Event

REFERENCE = "registry.example/team/app:1"
DIGEST = "sha256:" + "cd" * 32
MB = 1_000_000


def layer(
    name: str,
    status: str,
    current: int | None = None,
    total: int | None = None,
    *,
    reference: str = REFERENCE,
    sent: int | None = None,
) -> LayerProgress:
    return LayerProgress(
        reference=reference, id=name, status=status, current=current, total=total, sent=sent
    )


STORY: list[Event] = [
    PushStarted(reference=REFERENCE, repository="registry.example/team/app"),
    layer("5f70bf18a086", "Preparing", total=4 * MB),
    layer("a3ed95caeb02", "Preparing", total=8 * MB),
    layer("5f70bf18a086", "Pushing", 1 * MB),
    layer("5f70bf18a086", "Pushing", 2 * MB),
    layer("a3ed95caeb02", "Layer already exists"),
    layer("5f70bf18a086", "Retrying in 2 seconds (the registry answered 503)"),
    layer("5f70bf18a086", "Pushing", 4 * MB),
    layer("5f70bf18a086", "Pushed"),
    Retrying(reference=REFERENCE, what="a manifest", seconds=1, reason="time-out"),
    TagPushed(reference=REFERENCE, tag="1", digest=DIGEST, size=1576),
    Summary(
        reference=REFERENCE, sent_bytes=2_345_678, total_bytes=12 * MB, requests=17, seconds=1.23
    ),
]


@dataclass
class Slow:
    """A face that is held up until it is let go, and keeps what it was given."""

    reset: str = ""
    go: threading.Event = field(default_factory=threading.Event)
    batches: list[list[Event | Logged]] = field(default_factory=list)

    def show(self, told: Sequence[Event | Logged]) -> str:
        self.batches.append(list(told))
        self.go.wait(10)
        return ""

    def end(self) -> str:
        return "end\n"


class Faulty:
    reset = "<reset>"

    def __init__(self) -> None:
        self.calls = 0

    def show(self, told: Sequence[Event | Logged]) -> str:
        del told
        self.calls += 1
        msg = "a bug"
        raise ZeroDivisionError(msg)

    def end(self) -> str:
        raise AssertionError


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        del text
        raise BrokenPipeError


def test_plain_progress_uses_dockers_words_and_a_line_only_when_the_word_changes() -> None:
    assert Lines().show(STORY).splitlines() == [
        "The push refers to repository [registry.example/team/app]",
        "5f70bf18a086: Preparing",
        "a3ed95caeb02: Preparing",
        "5f70bf18a086: Pushing",
        "a3ed95caeb02: Layer already exists",
        "5f70bf18a086: Retrying in 2 seconds (the registry answered 503)",
        "5f70bf18a086: Pushing",
        "5f70bf18a086: Pushed",
        "a manifest: Retrying in 1 second (time-out)",
        f"1: digest: {DIGEST} size: 1576",
        "sent 2.35 MB of 12 MB, 17 requests, 1.2 s",
    ]


def test_a_push_that_sends_nothing_says_so() -> None:
    summary = Summary(reference="", sent_bytes=0, total_bytes=12 * MB, requests=1, seconds=0.04)
    assert Lines().show([summary]) == "nothing sent of 12 MB, 1 request, 0.0 s\n"


def test_a_total_line_comes_every_ten_seconds_at_most() -> None:
    now = 0.0
    lines = Lines(lambda: now)
    lines.show([layer("a", "Pushing", 0, 100 * MB), layer("b", "Waiting", total=100 * MB)])
    totals = []
    for tenth in range(1, 301):
        now = tenth / 10
        told = lines.show([layer("a", "Pushing", tenth * MB // 5, sent=tenth * MB // 10)])
        totals += [(now, line) for line in told.splitlines()]
    assert [when for when, _ in totals] == [10.0, 20.0, 30.0]
    assert totals[1][1] == "40 MB of 200 MB (20%), 20 MB sent, 1 MB/s, 1 min 20 s left"


def test_no_end_is_foretold_when_all_is_read_and_not_all_of_it_sent() -> None:
    now = 0.0
    lines = Lines(lambda: now)
    lines.show([layer("a", "Pushing", 0, 4 * MB)])
    lines.show([layer("a", "Pushing", 4 * MB, sent=MB)])
    now = 10.0
    told = lines.show([layer("a", "Pushing", 4 * MB, sent=2 * MB)])
    assert told == "4 MB of 4 MB (100%), 2 MB sent, 200 kB/s\n"


def test_what_was_verified_is_one_line() -> None:
    asked = Verified(reference=REFERENCE, manifests=1, blobs=7, diff_ids=0, bytes=0)
    read = Verified(reference=REFERENCE, manifests=3, blobs=7, diff_ids=6, bytes=12 * MB)
    assert Lines().show([asked, read]).splitlines() == [
        "verified: 1 manifest and 7 blobs are there",
        "verified: 3 manifests and 7 blobs read back (12 MB), 6 DiffIDs computed",
    ]


def test_a_spool_is_told_of_in_total_lines() -> None:
    now = 0.0
    lines = Lines(lambda: now)
    spooled = Working(reference="", what="spooling standard input", current=3 * MB)
    assert lines.show([spooled]) == ""
    now = 11.0
    assert lines.show([spooled]) == "spooling standard input: 3 MB\n"


def test_no_total_line_comes_while_nothing_is_under_way() -> None:
    now = 0.0
    lines = Lines(lambda: now)
    lines.show([layer("a", "Pushed", 1, 1)])
    now = 60.0
    assert lines.show([]) == ""


def test_a_push_that_fails_leaves_whole_lines_behind() -> None:
    lines = Lines()
    told = lines.show(
        [layer("a", "Pushing", 1, 4), layer("b", "Pushing", 4, 4), layer("b", "Pushed")]
    )
    assert f"{told}{lines.end()}" == "a: Pushing\nb: Pushing\nb: Pushed\n"


def test_lines_of_several_destinations_stand_under_their_repository() -> None:
    one, two = "one.example:5000/app", "two.example/app"
    lines = Lines()
    begun = [PushStarted(reference=f"{name}:1", repository=name) for name in (one, two)]
    assert lines.show([begun[0], layer("a", "Preparing", reference=f"{one}:1"), begun[1]]) == (
        f"The push refers to repository [{one}]\n"
        "a: Preparing\n"
        f"The push refers to repository [{two}]\n"
    )
    told = [
        layer(name, word, reference=f"{repository}:1")
        for name, word in (("a", "Pushing"), ("a", "Pushed"))
        for repository in (one, two)
    ]
    pushed = TagPushed(reference=f"{one}:1", tag="1", digest=DIGEST, size=1576)
    warned = Warned(reference=f"{two}:1", message="w")
    assert lines.show([*told, warned, pushed]).splitlines() == [
        "a: Pushing",
        "a: Pushed",
        f"[{one}]",
        "a: Pushing",
        "a: Pushed",
        "towline: warning: w",
        f"1: digest: {DIGEST} size: 1576",
    ]
    assert lines.show([layer("a", "Pushed", reference=f"{two}:1")]) == ""


@pytest.mark.parametrize(
    ("repository", "reference"),
    [("two.example/app", f"two.example/app@{DIGEST}"), ("oci:out/x", "oci:out/x:team/app:1")],
    ids=["a digest", "a tag of a layout"],
)
def test_a_repository_is_told_from_what_is_named_in_it(repository: str, reference: str) -> None:
    lines = Lines()
    names = (repository, "one.example/app")
    lines.show([PushStarted(reference=name, repository=name) for name in names])
    told = TagPushed(reference=reference, tag=None, digest=DIGEST, size=1576)
    assert lines.show([told]) == f"[{repository}]\ndigest: {DIGEST} size: 1576\n"


def test_two_tags_of_one_repository_name_it_once() -> None:
    told = [
        PushStarted(reference=f"reg.example/app:{tag}", repository="reg.example/app")
        for tag in "12"
    ]
    assert Lines().show(told) == "The push refers to repository [reg.example/app]\n"


def test_json_progress_is_one_object_a_line_with_event_reference_and_time() -> None:
    objects = [json.loads(line) for line in Objects().show(STORY).splitlines()]
    assert len(objects) == len(STORY)
    assert all({"event", "reference", "time"} <= set(shown) for shown in objects)
    assert objects[3]["event"] == "layer"
    assert (objects[3]["status"], objects[3]["current"]) == ("Pushing", MB)
    assert objects[-2]["aux"] == {"Tag": "1", "Digest": DIGEST, "Size": 1576}


def test_json_progress_tells_warnings_hints_and_debug_lines_as_objects() -> None:
    told: list[Event | Logged] = [
        Warned(reference="", message="w"),
        Hinted(reference="", message="h"),
        Logged("GET /v2/"),
    ]
    objects = [json.loads(line) for line in Objects().show(told).splitlines()]
    assert [shown["event"] for shown in objects] == ["warning", "hint", "debug"]
    assert objects[2]["message"] == "GET /v2/"


def test_what_others_say_moves_no_cursor() -> None:
    told: list[Event | Logged] = [
        Warned(reference="", message="a \x1b[2Jplatform\nof two lines"),
        layer("a", "Retrying in 1 second (\x1b]0;title\x07)"),
    ]
    assert Lines().show(told).splitlines() == [
        "towline: warning: a \ufffd[2Jplatform of two lines",
        "a: Retrying in 1 second (\ufffd]0;title\ufffd)",
    ]
    shown = Bars(lambda: (80, 24)).show([*told, Logged("<   Server: \x1b[2Jx")])
    assert "Server: \ufffd[2Jx" in shown
    assert not any(code in shown for code in ("\x1b[2J", "\x1b]0", "\x07"))


def test_quiet_keeps_warnings_and_nothing_else() -> None:
    told = [*STORY, Note(reference="", message="n"), Warned(reference="", message="w")]
    assert Quiet().show(told) == "towline: warning: w\n"


def test_byte_counts_are_coalesced_and_no_word_is_lost() -> None:
    slow = Slow()
    with Progress(slow, io.StringIO(), interval=0.01) as shown:
        shown.emit(STORY[0])
        while not slow.batches:
            time.sleep(0.001)
        for count in range(1000):
            shown.emit(layer("a", "Pushing", count))
        shown.emit(layer("b", "Pushing", 7))
        shown.emit(layer("a", "Pushed"))
        slow.go.set()
    told = [event for batch in slow.batches[1:] for event in batch]
    layers = [event for event in told if isinstance(event, LayerProgress)]
    assert [(event.id, event.status, event.current) for event in layers] == [
        ("a", "Pushing", 999),
        ("b", "Pushing", 7),
        ("a", "Pushed", None),
    ]


def test_a_stream_that_is_not_read_holds_nobody_up() -> None:
    slow = Slow()
    with Progress(slow, io.StringIO()) as shown:
        started = time.monotonic()
        for count in range(1000):
            shown.emit(layer("a", "Pushing", count))
        assert time.monotonic() - started < 1
        slow.go.set()


@pytest.mark.parametrize("stream", [io.StringIO(), Gone(), None])
def test_a_renderer_that_raises_is_switched_off_and_the_push_goes_on(
    stream: io.StringIO | None,
) -> None:
    faulty = Faulty()
    with Progress(faulty, stream, interval=0.001) as shown:
        for count in range(50):
            shown.emit(layer("a", "Pushing", count))
            time.sleep(0.001)
        shown.emit(Warned(reference="", message="the cache cannot be opened"))
    assert faulty.calls == (0 if stream is None else 1)
    if type(stream) is io.StringIO:
        assert stream.getvalue() == "<reset>towline: warning: the cache cannot be opened\n"


def test_all_that_was_told_is_shown_when_progress_ends() -> None:
    stream = io.StringIO()
    with Progress(Lines(), stream, interval=60) as shown:
        for event in STORY:
            shown.emit(event)
    assert stream.getvalue() == Lines().show(STORY)


def test_what_is_told_after_the_end_is_shown_to_nobody_and_does_no_harm() -> None:
    stream = io.StringIO()
    with Progress(Lines(), stream) as shown:
        shown.emit(STORY[0])
    stream.close()
    for event in STORY:
        shown.emit(event)
    shown.log("GET /v2/")
