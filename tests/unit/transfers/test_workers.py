from __future__ import annotations

import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from towline.context import Cancel
from towline.transfers.workers import Workers, encoder_pool, processors

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def two() -> Iterator[Workers]:
    workers = Workers(2, "test")
    yield workers
    workers.close()


@pytest.fixture
def one() -> Iterator[Workers]:
    workers = Workers(1, "test")
    yield workers
    workers.close()


def test_a_thread_is_made_only_when_there_is_work() -> None:
    before = threading.active_count()
    workers = Workers(5, "test")
    assert threading.active_count() == before
    ran = threading.Event()
    workers.submit(ran.set)
    assert ran.wait(10)
    assert threading.active_count() == before + 1
    workers.close()
    assert threading.active_count() == before


def test_jobs_run_beside_each_other_up_to_the_count(two: Workers) -> None:
    both = threading.Barrier(2)
    names: set[str] = set()
    left = threading.Semaphore(0)

    def job() -> None:
        names.add(threading.current_thread().name)
        both.wait(10)
        left.release()

    for _ in range(6):
        two.submit(job)
    for _ in range(6):
        assert left.acquire(timeout=10)
    assert names == {"test-1", "test-2"}


def test_an_idle_thread_is_used_again(two: Workers) -> None:
    names: list[str] = []

    def job(ran: threading.Event) -> None:
        names.append(threading.current_thread().name)
        ran.set()

    for _ in range(3):
        ran = threading.Event()
        two.submit(partial(job, ran))
        assert ran.wait(10)
        time.sleep(0.1)
    assert names == ["test-1"] * 3


def test_a_job_that_backs_off_keeps_no_thread_asleep(one: Workers) -> None:
    ran: list[str] = []
    both = threading.Semaphore(0)

    def job(name: str) -> None:
        ran.append(name)
        both.release()

    one.submit(partial(job, "later"), due_in=0.3)
    one.submit(partial(job, "now"))
    assert both.acquire(timeout=10)
    assert both.acquire(timeout=10)
    assert ran == ["now", "later"]


def test_jobs_of_one_moment_run_in_their_order(one: Workers) -> None:
    ran: list[int] = []
    go, end = threading.Event(), threading.Event()

    def hold() -> None:
        go.wait(10)

    one.submit(hold)
    for number in range(20):
        one.submit(partial(ran.append, number))
    one.submit(end.set)
    go.set()
    assert end.wait(10)
    assert ran == list(range(20))


def test_a_cancelled_job_is_due_at_once(one: Workers) -> None:
    cancel, ran = Cancel(), threading.Event()
    one.submit(ran.set, due_in=60, cancel=cancel)
    assert not ran.wait(0.02)
    cancel.cancel()
    assert ran.wait(10)


def test_a_job_cancelled_before_is_due_at_once(one: Workers) -> None:
    cancel, ran = Cancel(), threading.Event()
    cancel.cancel()
    one.submit(ran.set, due_in=60, cancel=cancel)
    assert ran.wait(10)


def test_a_job_that_ran_is_forgotten_by_its_switch(one: Workers) -> None:
    cancel, ran = Cancel(), threading.Event()
    one.submit(ran.set, due_in=0.001, cancel=cancel)
    assert ran.wait(10)
    cancel.cancel()


def test_closing_drops_what_has_not_begun_and_waits_for_the_rest() -> None:
    workers = Workers(1, "test")
    begun, ended, never = threading.Event(), threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        time.sleep(0.02)
        ended.set()

    workers.submit(job)
    assert begun.wait(10)
    workers.submit(never.set)
    workers.submit(never.set, due_in=60, cancel=Cancel())
    workers.close()
    assert ended.is_set()
    assert not never.is_set()


def test_a_job_may_close_its_own_workers() -> None:
    workers = Workers(1, "test")
    closed = threading.Event()

    def job() -> None:
        workers.close()
        closed.set()

    workers.submit(job)
    assert closed.wait(10)


def test_closed_workers_take_no_more_work() -> None:
    workers = Workers(1, "test")
    workers.close()
    cancel = Cancel()
    with pytest.raises(RuntimeError, match="the test workers are closed"):
        workers.submit(lambda: None, due_in=1, cancel=cancel)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_job_that_raises_costs_its_thread_and_nothing_else(one: Workers) -> None:
    ran, go = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def broken() -> None:
        threads.append(threading.current_thread())
        go.wait(10)
        raise RuntimeError("a bug")

    one.submit(broken)
    one.submit(ran.set)
    go.set()
    assert ran.wait(10)
    threads[0].join(10)


def test_there_is_an_encoder_for_each_processor_we_may_use() -> None:
    assert processors() == len(os.sched_getaffinity(0))
    with encoder_pool() as pool:
        assert pool.submit(lambda: threading.current_thread().name).result().startswith("encoder")
