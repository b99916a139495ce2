from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import until
from towline.errors import TowlineError
from towline.transfers.threads import Threads, not_begun, processors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def make() -> Iterator[Callable[[int], Threads]]:
    """Threads that have ended when the test has."""
    made: list[Threads] = []

    def threads(count: int) -> Threads:
        made.append(Threads(count, "test"))
        return made[-1]

    yield threads
    for some in made:
        some.close()
        some.join()


def name() -> str:
    return threading.current_thread().name


def test_a_thread_is_made_only_when_there_is_work_and_ends_with_the_rest(
    make: Callable[[int], Threads],
) -> None:
    before = threading.active_count()
    threads = make(5)
    assert threading.active_count() == before
    assert threads.submit(name).result(10) == "test-1"
    assert threading.active_count() == before + 1
    threads.close()
    threads.join()
    assert threading.active_count() == before


def test_work_runs_side_by_side_up_to_the_count(make: Callable[[int], Threads]) -> None:
    two, both = make(2), threading.Barrier(2)

    def work() -> str:
        both.wait(10)
        return name()

    done = [two.submit(work) for _ in range(6)]
    assert {future.result(10) for future in done} == {"test-1", "test-2"}


def test_an_idle_thread_is_used_again(make: Callable[[int], Threads]) -> None:
    threads, names = make(5), set()
    for _ in range(3):
        names.add(threads.submit(name).result(10))
        time.sleep(0.05)  # it has told its result, and is on its way to the queue
    assert names == {"test-1"}


def test_threads_without_work_end_and_others_are_made_when_there_is_some(
    make: Callable[[int], Threads],
) -> None:
    before, both = threading.active_count(), threading.Barrier(2)
    threads = make(2)
    for _ in range(2):
        done = [threads.submit(both.wait) for _ in range(2)]
        assert {future.result(10) for future in done} == {0, 1}
        until(lambda: threading.active_count() == before)


def test_work_is_done_in_its_order(make: Callable[[int], Threads]) -> None:
    one, go, ran = make(1), threading.Event(), list[int]()
    one.submit(lambda: go.wait(10))
    done = [one.submit(partial(ran.append, number)) for number in range(20)]
    go.set()
    done[-1].result(10)
    assert ran == list(range(20))


def test_what_is_cancelled_in_the_queue_is_never_begun(make: Callable[[int], Threads]) -> None:
    one, go, ran = make(1), threading.Event(), list[str]()
    one.submit(lambda: go.wait(10))
    dropped = one.submit(lambda: ran.append("dropped"))
    last = one.submit(lambda: ran.append("last"))
    assert dropped.cancel()
    go.set()
    last.result(10)
    assert ran == ["last"]
    assert not_begun(dropped) is None, "it was queued, as far as that goes"


@pytest.mark.parametrize("error", [OSError("torn"), KeyboardInterrupt(), SystemExit(3)])
def test_what_work_raises_is_for_who_waits_for_it_and_costs_no_thread(
    error: BaseException, make: Callable[[int], Threads]
) -> None:
    one = make(1)

    def work() -> None:
        raise error

    assert one.submit(work).exception(10) is error
    assert one.submit(name).result(10) == "test-1"


def test_closing_lets_what_was_submitted_be_done(make: Callable[[int], Threads]) -> None:
    one, go, ran = make(1), threading.Event(), list[int]()
    one.submit(lambda: go.wait(10))
    for number in range(3):
        one.submit(partial(ran.append, number))
    one.close()
    go.set()
    one.join()
    assert ran == [0, 1, 2]


def test_work_may_close_its_own_threads(make: Callable[[int], Threads]) -> None:
    one = make(1)

    def work() -> str:
        one.close()
        one.join()
        return "closed"

    assert one.submit(work).result(10) == "closed"


def test_closed_threads_take_no_more_work_and_say_so(make: Callable[[int], Threads]) -> None:
    one = make(1)
    one.close()
    future = one.submit(name)
    error = not_begun(future)
    assert isinstance(error, TowlineError)
    assert "closed" in error.message
    assert future.exception() is error


def test_work_that_is_over_is_not_kept(make: Callable[[int], Threads]) -> None:
    """A thread that has nothing to do must not hold what the last push has read from."""

    class Source:
        def read(self) -> str:
            return "read"

    one, source = make(1), Source()
    gone = weakref.ref(source)
    assert one.submit(source.read).result(10) == "read"
    del source
    deadline = time.monotonic() + 10
    while gone():
        assert time.monotonic() < deadline
        gc.collect()
        time.sleep(0.01)


def test_work_is_taken_where_a_thread_is_free_to_begin_it(make: Callable[[int], Threads]) -> None:
    threads, over = make(2), threading.Event()

    def wait() -> None:
        over.wait(10)

    assert threads.offer(wait)
    assert threads.offer(wait)
    assert not threads.offer(lambda: None)
    over.set()
    until(lambda: threads.offer(lambda: None))
    threads.close()
    assert not threads.offer(lambda: None)


def test_processors_are_those_that_we_may_use() -> None:
    assert processors() == len(os.sched_getaffinity(0))
