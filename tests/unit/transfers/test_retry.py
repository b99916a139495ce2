from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.given_time import GivenTime
from towline.context import Context
from towline.errors import (
    AuthError,
    Cancelled,
    NetworkError,
    RegistryError,
    SourceError,
    TowlineError,
    TransferCancelled,
)
from towline.transfers.retry import Attempts, Gate, Policy, back_off, retry, speaks_of_strain

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "https://registry.example:443"
LONGEST = Policy(jitter=lambda: 1.0)


def reset() -> NetworkError:
    return NetworkError("connection reset by registry.example", transient=True)


def busy(retry_after: float | None = None, status: int = 429) -> RegistryError:
    return RegistryError(
        "too many requests", status=status, transient=True, retry_after=retry_after
    )


def failing(*errors: TowlineError) -> Callable[[], str]:
    """Work that fails so, one after the other, and then succeeds."""
    left = list(errors)

    def work() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return work


class Told:
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.reasons: list[str] = []

    def __call__(self, seconds: float, reason: str) -> None:
        self.seconds.append(seconds)
        self.reasons.append(reason)


def test_the_wait_doubles_up_to_its_cap() -> None:
    assert [LONGEST.pause(n) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_jitter_takes_away_half_of_the_wait_at_most() -> None:
    assert Policy(jitter=lambda: 0.0).pause(3) == 2.0
    assert {2.0 <= Policy().pause(3) <= 4.0 for _ in range(100)} == {True}


def test_any_number_of_retries_can_be_asked_for() -> None:
    assert LONGEST.pause(100_000) == 60.0


@pytest.mark.parametrize(
    ("failures", "retry_after", "pause"),
    [(1, 7.0, 7.0), (1, 0.0, 1.0), (4, 1.0, 8.0), (1, 3600.0, 60.0)],
)
def test_retry_after_is_never_undercut_and_a_minute_at_most(
    failures: int, retry_after: float, pause: float
) -> None:
    assert LONGEST.pause(failures, retry_after) == pause


def test_after_four_retries_the_fifth_error_is_the_result() -> None:
    attempts = Attempts(LONGEST)
    assert [attempts.after(reset()) for _ in range(4)] == [1, 2, 4, 8]
    last = reset()
    with pytest.raises(NetworkError) as raised:
        attempts.after(last)
    assert raised.value is last


def test_without_retries_the_first_error_is_the_result() -> None:
    with pytest.raises(NetworkError):
        Attempts(Policy(retries=0)).after(reset())


@pytest.mark.parametrize(
    "error",
    [
        AuthError("no basic auth credentials", status=401),
        AuthError("denied", status=403, code="DENIED"),
        RegistryError("unsupported", status=400, code="UNSUPPORTED"),
        RegistryError("the repository is not known", status=404, code="NAME_UNKNOWN"),
        RegistryError("an answer that is no JSON", status=403),
        AuthError("the token server sent no token"),
        RegistryError("no space left on device", status=500),
        SourceError("the layer cannot be opened"),
        TransferCancelled("cancelled"),
    ],
    ids=lambda error: error.message,
)
def test_what_cannot_heal_is_not_tried_again(error: TowlineError) -> None:
    told = Told()
    with pytest.raises(type(error)) as raised:
        retry(failing(error), Attempts(LONGEST), Gate(), HOST, GivenTime().context(), told)
    assert raised.value is error
    assert told.seconds == []


def test_newly_acknowledged_bytes_start_the_count_anew() -> None:
    attempts = Attempts(LONGEST)
    waits = [attempts.after(reset(), acknowledged) for acknowledged in (0, 0, 5, 5, 9, 9, 9, 9)]
    assert waits == [1, 2, 1, 2, 1, 2, 4, 8]


def test_bytes_acknowledged_again_are_no_progress() -> None:
    attempts = Attempts(Policy(retries=2))
    attempts.after(reset(), 9)
    attempts.after(reset(), 3)  # the session was lost and begun anew
    with pytest.raises(NetworkError):
        attempts.after(reset(), 9)


def another_way() -> RegistryError:
    error = RegistryError("the body is too large", status=413, transient=True)
    error.another_way = True
    return error


def test_another_way_is_taken_at_once_and_costs_no_retry() -> None:
    attempts = Attempts(Policy(retries=1, jitter=lambda: 1.0))
    assert [attempts.after(another_way()) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert attempts.after(reset()) == 1.0
    assert attempts.after(another_way()) == 0.0
    with pytest.raises(NetworkError):
        attempts.after(reset())


def test_whoever_never_finds_a_way_is_given_up() -> None:
    attempts = Attempts(Policy(retries=0))
    for _ in range(8):
        attempts.after(another_way())
    with pytest.raises(RegistryError):
        attempts.after(another_way())


def test_taking_another_way_is_not_told_as_a_wait() -> None:
    work, told = failing(another_way()), Told()
    attempts = Attempts(Policy(retries=0))
    assert retry(work, attempts, Gate(), HOST, Context(), told) == "done"
    assert told.seconds == []


def test_an_error_of_the_source_is_never_counted_as_the_targets() -> None:
    attempts = Attempts(Policy(retries=1, jitter=lambda: 1.0))
    torn = NetworkError("the source registry went away", transient=True, side="source")
    with pytest.raises(NetworkError) as raised:
        attempts.after(torn)
    assert raised.value is torn
    assert attempts.after(reset()) == 1.0


def test_a_source_has_a_count_of_its_own() -> None:
    attempts = Attempts(LONGEST, side="source")
    torn = NetworkError("the source registry went away", transient=True, side="source")
    assert attempts.after(torn) == 1.0
    with pytest.raises(RegistryError):
        attempts.after(RegistryError("busy", transient=True, side="destination"))


def test_a_failed_attempt_is_told_with_its_reason_and_tried_again() -> None:
    time, told = GivenTime(), Told()
    work = failing(reset(), busy(7.0))
    assert retry(work, Attempts(LONGEST), Gate(time.clock), HOST, time.context(), told) == "done"
    assert told.seconds == [1.0, 7.0]
    assert told.reasons == ["connection reset by registry.example", "too many requests"]
    assert time.waits == [1.0, 7.0]


def test_a_cancelled_call_is_not_tried_again_whatever_its_error() -> None:
    context = GivenTime().context()

    def work() -> None:
        context.cancel.cancel()
        raise reset()

    told = Told()
    with pytest.raises(Cancelled):
        retry(work, Attempts(LONGEST), Gate(), HOST, context, told)
    assert told.seconds == []


def test_cancelling_ends_the_wait_at_once() -> None:
    context = Context()
    timer = threading.Timer(0.02, context.cancel.cancel)
    timer.start()
    slow = Attempts(Policy(base=60.0))
    with pytest.raises(Cancelled):
        retry(failing(reset()), slow, Gate(), HOST, context, Told())
    timer.join()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Cancelled(), RuntimeError("a bug")])
def test_what_is_no_failed_attempt_passes_through(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)):
        retry(work, Attempts(LONGEST), Gate(), HOST, GivenTime().context(), Told())


@pytest.mark.parametrize("error", [busy(5.0), busy(5.0, status=500)])
def test_a_host_that_asks_for_rest_gets_it_from_all_transfers(error: RegistryError) -> None:
    time = GivenTime()
    gate = Gate(time.clock)
    back_off(error, Attempts(LONGEST), gate, HOST)
    retry(failing(), Attempts(LONGEST), gate, HOST, time.context(), Told())
    retry(failing(), Attempts(LONGEST), gate, "another", time.context(), Told())
    assert time.waits == [5.0]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_host_is_left_alone_even_if_it_names_no_time(status: int) -> None:
    gate = Gate(GivenTime().clock)
    assert back_off(busy(status=status), Attempts(LONGEST), gate, HOST) == 1.0
    assert gate.remaining(HOST) == 1.0


def test_one_lost_connection_holds_up_nobody_else() -> None:
    gate = Gate()
    back_off(reset(), Attempts(LONGEST), gate, HOST)
    assert gate.remaining(HOST) == 0.0


def test_a_gate_is_shut_for_the_longest_time_asked_for() -> None:
    time = GivenTime()
    gate = Gate(time.clock)
    gate.close(HOST, 5.0)
    gate.close(HOST, 2.0)
    assert gate.remaining(HOST) == 5.0
    time.now += 4.0
    gate.close(HOST, 3.0)
    assert gate.remaining(HOST) == 3.0
    time.now += 3.0
    assert gate.remaining(HOST) == 0.0
    gate.wait(HOST, time.context().cancel)
    assert time.waits == []


def waits(gate: Gate, time: GivenTime, count: int) -> list[float]:
    """How long each of so many attempts, one after the other, waits at the gate."""
    before = len(time.waits)
    for _ in range(count):
        gate.wait(HOST, time.context().cancel)
    return time.waits[before:]


def test_after_too_many_requests_they_pass_one_by_one_and_more_of_them_as_time_goes_by() -> None:
    time = GivenTime()
    gate = Gate(time.clock)
    assert waits(gate, time, 3) == []
    for _ in range(3):  # refused together: it counts once
        gate.close(HOST, 1.0, too_many=True)
    assert waits(gate, time, 4) == pytest.approx([1.0, 0.05, 0.05, 0.05])
    gate.close(HOST, 1.0, too_many=True)
    assert waits(gate, time, 3) == pytest.approx([1.0, 0.1, 0.1])
    time.now += 20.0
    assert waits(gate, time, 3) == pytest.approx([0.05, 0.05])
    time.now += 100.0
    assert waits(gate, time, 3) == []
    assert gate.remaining("another") == 0.0


def test_what_a_host_takes_yet_is_spread_over_the_time_that_it_says() -> None:
    time = GivenTime()
    gate = Gate(time.clock)
    gate.follow(HOST, 10, 5.0)
    assert waits(gate, time, 3) == pytest.approx([0.5, 0.5])
    gate.follow(HOST, 0, 60.0)
    assert waits(gate, time, 3)[-1] == 5.0


def test_a_shut_gate_is_left_at_once_when_cancelled() -> None:
    gate, context = Gate(), Context()
    gate.close(HOST, 60.0)
    timer = threading.Timer(0.02, context.cancel.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        gate.wait(HOST, context.cancel)
    timer.join()


def test_a_cancelled_attempt_is_not_even_begun() -> None:
    context = Context()
    context.cancel.cancel()
    with pytest.raises(Cancelled):
        retry(failing(), Attempts(LONGEST), Gate(), HOST, context, Told())


@pytest.mark.parametrize("status", [408, 429, 499, 500, 502, 503, 504, 522])
def test_a_failure_that_may_heal_with_less_at_once_speaks_of_strain(status: int) -> None:
    assert speaks_of_strain(busy(status=status))
    assert speaks_of_strain(reset())
    assert speaks_of_strain(RegistryError("no HTTP answer", transient=True))


def learned() -> RegistryError:
    error = busy(status=500)
    error.another_way = True
    return error


@pytest.mark.parametrize(
    "error",
    [
        NetworkError("the name cannot be resolved"),
        RegistryError("not implemented", status=501),
        RegistryError("the session is gone", status=404, transient=True),
        RegistryError("the digest is another", status=400, transient=True),
        AuthError("the token has expired", status=401, transient=True),
        NetworkError("it was read from a registry", transient=True, side="source"),
        SourceError("it broke off", transient=True),
        learned(),
    ],
    ids=lambda error: error.message,
)
def test_a_failure_with_another_cause_does_not(error: TowlineError) -> None:
    assert not speaks_of_strain(error)
