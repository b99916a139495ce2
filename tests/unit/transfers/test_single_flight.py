from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from towline.context import Context
from towline.errors import Cancelled, NetworkError
from towline.push_events import LayerProgress
from towline.transfers.single_flight import Restart, SingleFlight, Watch

if TYPE_CHECKING:
    from towline.events import Event

KEY = ("registry.example:443/app", "", "sha256:0123")


def progress(current: int) -> LayerProgress:
    return LayerProgress(reference="", id="0123", status="Pushing", current=current, total=10)


class Watcher:
    """A caller with a switch of its own, who writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[int | None] = []
        self.context = Context(emit=self._hear)

    def _hear(self, event: Event) -> None:
        assert isinstance(event, LayerProgress)
        self.told.append(event.current)


@pytest.fixture
def flights() -> SingleFlight[str]:
    return SingleFlight()


def join(flights: SingleFlight[str], count: int) -> list[Watch[str]]:
    return [flights.join(KEY, Context()) for _ in range(count)]


def test_of_all_who_want_the_same_the_first_leads_and_everyone_gets_the_result(
    flights: SingleFlight[str],
) -> None:
    watches = join(flights, 5)
    assert [watch.leads for watch in watches] == [True, False, False, False, False]
    watches[0].flight.done("sha256:abcd")
    assert [watch.result() for watch in watches] == ["sha256:abcd"] * 5
    assert len(flights) == 0
    assert join(flights, 1)[0].leads, "what is over is not joined"


def test_one_caller_that_wants_the_same_twice_joins_itself(flights: SingleFlight[str]) -> None:
    context = Context()
    first, second = flights.join(KEY, context), flights.join(KEY, context)
    assert not second.leads
    first.flight.done("sha256:abcd")
    assert first.result() == second.result() == "sha256:abcd"


def test_other_keys_are_other_flights(flights: SingleFlight[str]) -> None:
    keys = [(host, "", "sha256:0123") for host in ("reg/app", "reg:5000/app", "reg:5001/app")]
    watches = [flights.join(key, Context()) for key in keys]
    for number, watch in enumerate(watches):
        watch.flight.done(str(number))
    assert [watch.result() for watch in watches] == ["0", "1", "2"]


def test_who_waits_gets_the_end_whenever_it_comes(flights: SingleFlight[str]) -> None:
    first, second = join(flights, 2)
    threading.Timer(0.02, first.flight.done, ["sha256:abcd"]).start()
    assert second.result() == first.result() == "sha256:abcd"


def test_every_watcher_gets_the_error(flights: SingleFlight[str]) -> None:
    watches = join(flights, 3)
    watches[0].flight.failed(NetworkError("connection refused"))
    for watch in watches:
        with pytest.raises(NetworkError, match="connection refused"):
            watch.result()
    assert len(flights) == 0


def test_a_late_watcher_is_told_the_latest_event_first_and_none_twice(
    flights: SingleFlight[str],
) -> None:
    early, late = Watcher(), Watcher()
    flight = flights.join(KEY, early.context).flight
    flight.context.emit(progress(1))
    flight.context.emit(progress(2))
    flights.join(KEY, late.context)
    flight.context.emit(progress(3))
    assert (early.told, late.told) == ([1, 2, 3], [2, 3])


def test_who_has_left_is_told_no_more(flights: SingleFlight[str]) -> None:
    gone, stays = Watcher(), Watcher()
    watch = flights.join(KEY, gone.context)
    flights.join(KEY, stays.context)
    watch.leave()
    watch.flight.context.emit(progress(1))
    assert (gone.told, stays.told) == ([], [1])


@pytest.mark.parametrize("error", [OSError("the pipe is closed"), SystemExit(3)])
def test_a_watcher_that_fails_at_listening_fails_alone(
    error: BaseException, flights: SingleFlight[str]
) -> None:
    calls: list[int] = []

    def broken(event: object) -> None:
        calls.append(1)
        raise error

    healthy = Watcher()
    watch = flights.join(KEY, Context(emit=broken))
    flights.join(KEY, healthy.context)
    for current in (1, 2):
        watch.flight.context.emit(progress(current))
    assert (calls, healthy.told) == ([1], [1, 2])
    watch.flight.done("sha256:abcd")
    assert watch.result() == "sha256:abcd"


def test_the_work_counts_for_its_leader_under_a_switch_of_its_own(
    flights: SingleFlight[str],
) -> None:
    leader, other = Context(), Context()
    context = flights.join(KEY, leader).flight.context
    flights.join(KEY, other)
    assert context.meter is leader.meter
    assert context.clock is leader.clock
    assert context.cancel not in {leader.cancel, other.cancel}


def test_one_who_leaves_cancels_nobody_and_the_last_one_does_at_once(
    flights: SingleFlight[str],
) -> None:
    watches = join(flights, 5)
    flight = watches[0].flight
    for watch in watches[:-1]:
        watch.leave()
        watch.leave()  # leaving twice is leaving once
        flight.context.cancel.check()
    watches[-1].leave()
    assert flight.context.cancel.cancelled
    assert len(flights) == 1, "it has been told to stop; it has not said that it did"
    flight.failed(Cancelled())
    assert len(flights) == 0


def test_who_is_cancelled_leaves_by_itself_and_waits_no_longer(
    flights: SingleFlight[str],
) -> None:
    one, two = Context(), Context()
    watch, other = flights.join(KEY, one), flights.join(KEY, two)
    threading.Timer(0.02, one.cancel.cancel).start()
    with pytest.raises(Cancelled):
        watch.result()
    watch.flight.context.cancel.check()
    two.cancel.cancel()
    assert watch.flight.context.cancel.cancelled
    with pytest.raises(Cancelled):
        other.result()


def test_others_get_their_result_when_the_leader_has_left(flights: SingleFlight[str]) -> None:
    leader = Context()
    first, second = flights.join(KEY, leader), flights.join(KEY, Context())
    leader.cancel.cancel()
    with pytest.raises(Cancelled):
        first.result()
    first.flight.context.cancel.check()
    first.flight.done("sha256:abcd")
    assert second.result() == "sha256:abcd"


def test_nobody_joins_with_a_thrown_switch(flights: SingleFlight[str]) -> None:
    watcher = Context()
    watcher.cancel.cancel()
    with pytest.raises(Cancelled):
        flights.join(KEY, watcher)
    assert len(flights) == 0


def test_a_switch_thrown_during_the_joining_is_heeded(flights: SingleFlight[str]) -> None:
    flight = join(flights, 1)[0].flight
    flight.context.emit(progress(1))
    late = Context()
    # Being told the latest event is the last thing before the watcher's switch is looked at.
    watch = flights.join(KEY, late.but(emit=lambda _: late.cancel.cancel()))
    with pytest.raises(Cancelled):
        watch.result()
    assert len(flight.watches) == 1


def test_who_comes_to_a_dying_flight_waits_for_its_end_and_begins_anew(
    flights: SingleFlight[str],
) -> None:
    (dying,) = join(flights, 1)
    dying.leave()
    watches: list[Watch[str]] = []
    newcomers = [
        threading.Thread(target=lambda: watches.extend(join(flights, 1))) for _ in range(2)
    ]
    for thread in newcomers:
        thread.start()
        thread.join(0.02)
    assert watches == []
    dying.flight.done("too late, and nobody's")
    for thread in newcomers:
        thread.join(10)
    assert sorted(watch.leads for watch in watches) == [False, True]
    watches[0].flight.done("sha256:abcd")
    assert [watch.result() for watch in watches] == ["sha256:abcd"] * 2


def test_waiting_for_a_dying_flight_can_be_cancelled(flights: SingleFlight[str]) -> None:
    join(flights, 1)[0].leave()
    newcomer = Context()
    threading.Timer(0.02, newcomer.cancel.cancel).start()
    with pytest.raises(Cancelled):
        flights.join(KEY, newcomer)


def test_somebody_elses_cancelling_is_never_handed_on(flights: SingleFlight[str]) -> None:
    (watch,) = join(flights, 1)
    watch.flight.failed(Cancelled())
    with pytest.raises(Restart):
        watch.result()
    assert join(flights, 1)[0].leads


def test_a_flight_that_is_over_may_still_be_looked_at(flights: SingleFlight[str]) -> None:
    (watch,) = join(flights, 1)
    watch.flight.done("sha256:abcd")
    assert watch.result() == watch.result() == "sha256:abcd"
    watch.leave()
    assert not watch.flight.context.cancel.cancelled


def test_who_was_cancelled_wants_nothing_though_he_has_not_left_yet(
    flights: SingleFlight[str],
) -> None:
    first, seen = Context(), list[bool]()
    with first.cancel.on_cancel(lambda: seen.append(flight.wanted)):  # before it has him leave
        flight = flights.join(KEY, first).flight
        (other,) = join(flights, 1)
        seen.append(flight.wanted)
        other.leave()
        first.cancel.cancel()
    assert seen == [True, False]
