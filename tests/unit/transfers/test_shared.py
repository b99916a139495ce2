from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from towline.context import Context
from towline.errors import Cancelled, NetworkError
from towline.events import LayerProgress
from towline.transfers.shared import Restart, SharedTransfers
from towline.transfers.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.events import Event
    from towline.transfers.shared import Transfer, Watch

KEY = ("https://registry.example:443", "registry.example/app", "", "sha256:0123")


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
def transfers() -> SharedTransfers[str]:
    return SharedTransfers()


def started(watch: Watch[str]) -> Transfer[str]:
    assert watch.started is not None
    return watch.started


def test_five_that_want_the_same_make_one_transfer(transfers: SharedTransfers[str]) -> None:
    calls: list[int] = []
    may_end = threading.Event()

    def make(context: Context) -> str:
        calls.append(1)
        assert may_end.wait(10)
        return "sha256:abcd"

    watches = [transfers.start(KEY, make, Watcher().context) for _ in range(5)]
    may_end.set()
    assert [watch.result() for watch in watches] == ["sha256:abcd"] * 5
    assert calls == [1]
    assert len(transfers) == 0


def test_other_keys_are_other_transfers(transfers: SharedTransfers[str]) -> None:
    keys = [(host, "app", "", "sha256:0123") for host in ("reg", "reg:5000", "reg:5001")]
    watches = [transfers.join(key, Watcher().context) for key in keys]
    for number, watch in enumerate(watches):
        started(watch).done(str(number))
    assert [watch.result() for watch in watches] == ["0", "1", "2"]


def test_the_same_key_joins_within_one_push_too(transfers: SharedTransfers[str]) -> None:
    watcher = Watcher().context
    first, second = transfers.join(KEY, watcher), transfers.join(KEY, watcher)
    assert second.started is None
    started(first).done("sha256:abcd")
    assert first.result() == second.result() == "sha256:abcd"


def test_a_waiting_watcher_gets_the_result(transfers: SharedTransfers[str]) -> None:
    watch = transfers.join(KEY, Watcher().context)
    timer = threading.Timer(0.02, started(watch).done, ["sha256:abcd"])
    timer.start()
    assert watch.result() == "sha256:abcd"
    timer.join()


def test_every_watcher_gets_the_error(transfers: SharedTransfers[str]) -> None:
    def make(context: Context) -> str:
        raise NetworkError("connection refused")

    go = threading.Event()
    submit = partial(_when, go)
    watches = [transfers.start(KEY, make, Watcher().context, submit) for _ in range(3)]
    go.set()
    for watch in watches:
        with pytest.raises(NetworkError, match="connection refused"):
            watch.result()


def _when(go: threading.Event, work: Callable[[], None]) -> None:
    def run() -> None:
        assert go.wait(10)
        work()

    threading.Thread(target=run).start()


def test_progress_grows_and_ends_at_its_total(transfers: SharedTransfers[str]) -> None:
    watcher = Watcher()

    def make(context: Context) -> str:
        for current in range(1, 11):
            context.emit(progress(current))
        return "sha256:abcd"

    transfers.start(KEY, make, watcher.context).result()
    assert watcher.told == list(range(1, 11))


def test_a_late_watcher_is_told_the_latest_event_first_and_none_twice(
    transfers: SharedTransfers[str],
) -> None:
    early, late = Watcher(), Watcher()
    watch = transfers.join(KEY, early.context)
    context = started(watch).context
    context.emit(progress(1))
    context.emit(progress(2))
    with transfers.join(KEY, late.context) as second:
        context.emit(progress(3))
        started(watch).done("sha256:abcd")
        assert second.result() == "sha256:abcd"
    assert early.told == [1, 2, 3]
    assert late.told == [2, 3]


def test_one_who_has_left_is_told_no_more(transfers: SharedTransfers[str]) -> None:
    gone, stays = Watcher(), Watcher()
    watch = transfers.join(KEY, gone.context)
    with transfers.join(KEY, stays.context):
        watch.leave()
        started(watch).context.emit(progress(1))
    assert gone.told == []
    assert stays.told == [1]


def test_a_watcher_that_fails_to_listen_fails_alone(transfers: SharedTransfers[str]) -> None:
    calls: list[int] = []

    def broken(event: Event) -> None:
        calls.append(1)
        raise OSError("the pipe is closed")

    healthy = Watcher()
    watch = transfers.join(KEY, Context(emit=broken))
    with transfers.join(KEY, healthy.context):
        for current in (1, 2):
            started(watch).context.emit(progress(current))
    assert calls == [1]
    assert healthy.told == [1, 2]
    started(watch).done("sha256:abcd")
    assert watch.result() == "sha256:abcd"


def test_a_transfer_counts_for_its_starter_under_a_switch_of_its_own(
    transfers: SharedTransfers[str],
) -> None:
    starter, other = Watcher(), Watcher()
    watch = transfers.join(KEY, starter.context)
    transfers.join(KEY, other.context)
    context = started(watch).context
    assert context.meter is starter.context.meter
    assert context.clock is starter.context.clock
    assert context.cancel is not starter.context.cancel


def test_one_leaving_cancels_nobody_the_last_one_does_at_once(
    transfers: SharedTransfers[str],
) -> None:
    watches = [transfers.join(KEY, Watcher().context) for _ in range(5)]
    transfer = started(watches[0])
    for watch in watches[:-1]:
        watch.leave()
        watch.leave()  # leaving twice is leaving once
        assert not transfer.context.cancel.cancelled
    watches[-1].leave()
    assert transfer.context.cancel.cancelled
    assert len(transfers) == 1  # it has been told to stop; it has not said that it did
    transfer.failed(Cancelled())
    assert len(transfers) == 0


def test_a_watcher_whose_switch_is_thrown_leaves_by_itself(transfers: SharedTransfers[str]) -> None:
    one, two = Watcher(), Watcher()
    transfer = started(transfers.join(KEY, one.context))
    transfers.join(KEY, two.context)
    one.context.cancel.cancel()
    assert not transfer.context.cancel.cancelled
    two.context.cancel.cancel()
    assert transfer.context.cancel.cancelled


def test_cancelling_returns_at_once_without_waiting_for_the_work_to_stop(
    transfers: SharedTransfers[str],
) -> None:
    watcher = Watcher()
    watch = transfers.join(KEY, watcher.context)
    timer = threading.Timer(0.001, watcher.context.cancel.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        watch.result()
    timer.join()
    assert len(transfers) == 1


def test_others_get_their_result_when_the_starter_has_left(transfers: SharedTransfers[str]) -> None:
    starter, other = Watcher(), Watcher()
    go = threading.Event()

    def make(context: Context) -> str:
        assert go.wait(10)
        context.cancel.check()
        return "sha256:abcd"

    first = transfers.start(KEY, make, starter.context)
    second = transfers.start(KEY, make, other.context)
    starter.context.cancel.cancel()
    with pytest.raises(Cancelled):
        first.result()
    go.set()
    assert second.result() == "sha256:abcd"


def test_work_under_way_is_told_to_stop_when_the_last_one_leaves(
    transfers: SharedTransfers[str],
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def make(context: Context) -> str:
        begun.set()
        try:
            context.cancel.wait(10)
        finally:
            ended.set()
        return "never"

    watch = transfers.start(KEY, make, Watcher().context)
    assert begun.wait(10)
    watch.leave()
    assert ended.wait(10)


def test_nobody_joins_with_a_thrown_switch(transfers: SharedTransfers[str]) -> None:
    watcher = Watcher()
    watcher.context.cancel.cancel()
    with pytest.raises(Cancelled):
        transfers.join(KEY, watcher.context)
    assert len(transfers) == 0


def test_a_switch_thrown_during_the_joining_is_heeded(transfers: SharedTransfers[str]) -> None:
    started(transfers.join(KEY, Watcher().context)).context.emit(progress(1))
    late = Watcher()
    # Being told the latest event is the last thing before the watcher's switch is looked at.
    hasty = replace(late.context, emit=lambda _: late.context.cancel.cancel())
    watch = transfers.join(KEY, hasty)
    with pytest.raises(Cancelled):
        watch.result()


def test_a_newcomer_waits_for_a_dying_transfer_and_starts_anew(
    transfers: SharedTransfers[str],
) -> None:
    dying = transfers.join(KEY, Watcher().context)
    dying.leave()
    watches: list[Watch[str]] = []
    newcomers = [
        threading.Thread(target=lambda: watches.append(transfers.join(KEY, Watcher().context)))
        for _ in range(2)
    ]
    for thread in newcomers:
        thread.start()
        thread.join(0.02)
    assert watches == []
    started(dying).done("too late, and nobody's")
    for thread in newcomers:
        thread.join(10)
    fresh = [watch for watch in watches if watch.started]
    assert len(watches) == 2
    assert len(fresh) == 1
    started(fresh[0]).done("sha256:abcd")
    assert [watch.result() for watch in watches] == ["sha256:abcd"] * 2


def test_waiting_for_a_dying_transfer_can_be_cancelled(transfers: SharedTransfers[str]) -> None:
    transfers.join(KEY, Watcher().context).leave()
    newcomer = Watcher()
    timer = threading.Timer(0.02, newcomer.context.cancel.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        transfers.join(KEY, newcomer.context)
    timer.join()


def test_somebody_elses_cancellation_is_never_handed_on(transfers: SharedTransfers[str]) -> None:
    watch = transfers.join(KEY, Watcher().context)
    started(watch).failed(Cancelled())
    with pytest.raises(Restart):
        watch.result()
    assert transfers.join(KEY, Watcher().context).started is not None


def test_a_cancelled_one_in_the_queue_leaves_without_running(
    transfers: SharedTransfers[str],
) -> None:
    workers, busy = Workers(1, "test"), threading.Event()
    calls: list[str] = []

    def make(name: str, context: Context) -> str:
        calls.append(name)
        return name

    def hold() -> None:
        busy.wait(10)

    workers.submit(hold)
    submit: Callable[[Callable[[], None]], object] = workers.submit
    watcher = Watcher()
    transfers.start(KEY, partial(make, "cancelled"), watcher.context, submit)
    watcher.context.cancel.cancel()
    assert len(transfers) == 0  # at once: the queue has not moved
    next_one = transfers.start(KEY, partial(make, "next"), Watcher().context, submit)
    busy.set()
    assert next_one.result() == "next"
    assert calls == ["next"]
    workers.close()


def test_a_transfer_that_nobody_takes_on_fails(transfers: SharedTransfers[str]) -> None:
    workers = Workers(1, "test")
    workers.close()
    with pytest.raises(RuntimeError, match="closed"):
        transfers.start(KEY, lambda _: "", Watcher().context, workers.submit)
    assert len(transfers) == 0


def test_a_finished_transfer_may_still_be_watched(transfers: SharedTransfers[str]) -> None:
    watch = transfers.join(KEY, Watcher().context)
    transfer = started(watch)
    transfer.done("sha256:abcd")
    ended: list[int] = []
    watch.on_done(lambda: ended.append(1))
    assert ended == [1]
    assert watch.result() == watch.result() == "sha256:abcd"
    watch.leave()
    assert not transfer.context.cancel.cancelled


def test_the_end_is_told_once_to_whoever_asked(transfers: SharedTransfers[str]) -> None:
    watch = transfers.join(KEY, Watcher().context)
    ended: list[int] = []
    watch.on_done(lambda: ended.append(1))
    assert ended == []
    started(watch).done("sha256:abcd")
    assert ended == [1]


def test_a_transfer_ends_once(transfers: SharedTransfers[str]) -> None:
    transfer = started(transfers.join(KEY, Watcher().context))
    transfer.done("sha256:abcd")
    with pytest.raises(RuntimeError, match="has ended already"):
        transfer.failed(Cancelled())


def test_who_was_cancelled_wants_nothing_though_he_has_not_left_yet(
    transfers: SharedTransfers[str],
) -> None:
    first, second = Context(), Context()
    seen: list[bool] = []
    with first.cancel.on_cancel(lambda: seen.append(transfer.wanted)):  # before it has him leave
        transfer = started(transfers.join(KEY, first))
        other = transfers.join(KEY, second)
        seen.append(transfer.wanted)
        other.leave()
        first.cancel.cancel()
    assert seen == [True, False]
    transfer.failed(Cancelled())
