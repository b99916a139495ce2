"""What a trace says bounded a push, of spans that are given."""

from __future__ import annotations

import pytest

from towline.tracing.page import length, merged, shares
from towline.tracing.recording import Recording, Span
from towline.transfers.threads import processors

BLOB = ("layer", "registry/app")


def recording(*spans: tuple[str, int, float, float, float], cpu: float = 0.0) -> Recording:
    """Ten seconds; a span is its step, thread, beginning, end, and seconds at work."""
    made = Recording()
    made.began, made.ended = 100.0, 110.0
    made.own_cpu = made.all_cpu = cpu
    worked: dict[int, float] = {}
    for step, thread, began, ended, work in spans:
        before = worked.get(thread, 0.0)
        worked[thread] = before + work
        moments = (100.0 + began, 100.0 + ended, before, worked[thread])
        made.spans.append(Span(step, BLOB, thread, *moments, 0))
        made.threads[thread] = f"thread-{thread}"
    return made


@pytest.mark.parametrize(
    ("name", "share", "made"),
    [
        ("the link", 0.8, recording(("read", 1, 0, 1, 0.5), ("sent", 1, 1, 9, 0.1))),
        ("the registry", 0.7, recording(("sent", 1, 0, 2, 2), ("confirmed", 1, 2, 9, 0))),
        ("one thread", 0.9, recording(("read", 1, 0, 5, 4), ("sent", 1, 5, 10, 5), cpu=9.0)),
        ("the processor", 0.9, recording(("encoded", 1, 0, 4, 4), cpu=9.0 * processors())),
    ],
)
def test_what_was_in_the_way_for_longest_has_bounded_a_push(
    name: str, share: float, made: Recording
) -> None:
    first = shares(made)[0]
    assert first.name == name
    assert first.of_time == pytest.approx(share)


def test_an_answer_that_comes_while_there_is_work_is_not_waited_for() -> None:
    made = recording(("confirmed", 1, 0, 10, 0), ("encoded", 2, 0, 9, 9))
    assert {share.name: share.of_time for share in shares(made)}["the registry"] == (
        pytest.approx(0.1)
    )


def test_several_uploads_that_stand_still_at_once_count_once() -> None:
    made = recording(("sent", 1, 0, 6, 0), ("sent", 2, 2, 8, 0))
    assert shares(made)[0].of_time == pytest.approx(0.8)


def test_a_push_of_no_span_is_bounded_by_something() -> None:
    assert len(shares(recording())) == 4


def test_what_goes_on_after_the_end_changes_nothing_of_it() -> None:
    made = recording(("sent", 1, 0, 6, 0))
    over = made.end()
    with made.span("sent", BLOB):
        pass
    assert len(made.spans) == 2
    assert len(over.spans) == 1
    assert len(over.threads) == 1


def test_intervals_that_touch_are_one() -> None:
    assert merged([(3, 4), (0, 1), (0.5, 2)]) == [(0, 2), (3, 4)]
    assert merged([(0, 1), (1.5, 2)], gap=0.5) == [(0, 2)]
    assert length([(0, 1), (0, 1), (2, 3)]) == 2
