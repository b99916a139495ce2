from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from towline.context import Cancel
from towline.errors import Cancelled
from towline.transfers.slots import Slots

if TYPE_CHECKING:
    from towline.transfers.slots import Claim


def granted(*claims: Claim) -> list[bool]:
    return [claim.granted.is_set() for claim in claims]


def fail(slots: Slots) -> None:
    """An upload takes a slot of host a, and fails."""
    claim = slots.claim(["a"], 1)
    slots.fewer("a", claim.granted_at)
    slots.give_back(claim)


def free(slots: Slots, host: str = "a") -> int:
    """How many slots of a host can be taken now; they are given back."""
    claims = [slots.claim([host], 1)]
    while claims[-1].granted.is_set():
        claims.append(slots.claim([host], 1))
    for claim in reversed(claims):
        slots.give_back(claim)
    return len(claims) - 1


def test_so_many_are_given_for_each_host_and_no_more() -> None:
    slots = Slots(2)
    claims = [slots.claim([host], 1) for host in ("reg", "reg", "reg", "reg:5000")]
    assert granted(*claims) == [True, True, False, True]
    slots.give_back(claims[0])
    assert granted(claims[2]) == [True]


def test_the_largest_that_waits_is_next_and_of_like_ones_the_first() -> None:
    slots = Slots(1)
    running = slots.claim(["a"], 1)
    waiting = [slots.claim(["a"], size) for size in (2, 9, 5, 9)]
    order = []
    for _ in waiting:
        slots.give_back(running)
        (running,) = [claim for claim in waiting if claim.granted.is_set() and claim.held]
        order.append(waiting.index(running))
    assert order == [1, 3, 2, 0]


def test_several_hosts_are_taken_together_or_not_at_all() -> None:
    slots = Slots(1)
    first = slots.claim(["a"], 1)
    both = slots.claim(["a", "b"], 9)
    smaller = slots.claim(["b"], 1)
    assert granted(first, both, smaller) == [True, False, True], "who waits for a holds none of b"
    slots.give_back(first)
    assert granted(both) == [False]
    slots.give_back(smaller)
    assert granted(both) == [True]
    assert slots.full(["a", "b", "c"]) == {"a", "b"}


def test_a_smaller_one_does_not_go_before_a_larger_one_at_the_host_that_both_wait_for() -> None:
    slots = Slots(1)
    one, other = slots.claim(["a"], 1), slots.claim(["b"], 1)
    both = slots.claim(["a", "b"], 9)
    smaller = slots.claim(["a"], 1)
    slots.give_back(other)
    assert granted(both, smaller) == [False, False]
    slots.give_back(one)
    assert granted(both, smaller) == [True, False]


def test_each_host_of_a_claim_is_given_back_by_itself() -> None:
    slots = Slots(1)
    both = slots.claim(["a", "b"], 1)
    slots.give_back(both, "a")
    assert slots.full(["a", "b"]) == {"b"}
    assert both.held == {"b"}
    other = slots.claim(["a"], 1)
    slots.give_back(both, "a")
    assert slots.full(["a"]) == {"a"}, "what is given back twice is somebody else's"
    slots.give_back(both)
    slots.give_back(other)
    assert (free(slots, "a"), free(slots, "b")) == (1, 1)


def test_who_gives_up_waiting_stands_in_nobodys_way() -> None:
    slots = Slots(1)
    running = slots.claim(["a"], 1)
    larger, smaller = slots.claim(["a"], 9), slots.claim(["a"], 5)
    slots.give_back(larger)
    slots.give_back(running)
    assert granted(larger, smaller) == [False, True]


def test_waiting_ends_with_the_slot() -> None:
    slots = Slots(1)
    running, next_one = slots.claim(["a"], 1), slots.claim(["a"], 1)
    threading.Timer(0.02, slots.give_back, [running]).start()
    slots.wait(next_one, Cancel())
    assert next_one.held == {"a"}


@pytest.mark.parametrize("moment", ["before", "while it waits", "with the slot"])
def test_who_is_cancelled_waits_no_longer_and_leaves_no_slot_taken(moment: str) -> None:
    slots, cancel = Slots(1), Cancel()
    running, mine = slots.claim(["a"], 1), slots.claim(["a"], 1)

    def throw() -> None:
        if moment == "with the slot":
            slots.give_back(running)
        cancel.cancel()

    if moment == "before":
        throw()
    else:
        threading.Timer(0.02, throw).start()
    with pytest.raises(Cancelled):
        slots.wait(mine, cancel)
    slots.give_back(mine)
    slots.give_back(running)
    assert free(slots) == 1


def test_a_host_that_keeps_failing_has_half_as_many_slots_each_time_and_never_none() -> None:
    slots, left = Slots(9), []
    for _ in range(5):
        fail(slots)
        left.append(free(slots))
    assert left == [4, 2, 1, 1, 1]
    assert free(slots, "b") == 9, "one host's failures take nothing from another"


def test_uploads_that_fail_together_halve_the_slots_once() -> None:
    slots = Slots(8)
    together = [slots.claim(["a"], 1) for _ in range(4)]
    for claim in together:
        slots.fewer("a", claim.granted_at)
        slots.give_back(claim)
    assert free(slots) == 4
    fail(slots)
    assert free(slots) == 2, "this one has begun since"


def test_a_host_that_does_better_gets_its_slots_back_one_by_one() -> None:
    slots, left = Slots(4), []
    for _ in range(3):
        fail(slots)
    for _ in range(5):
        slots.more("a")
        left.append(free(slots))
    assert left == [2, 3, 4, 4, 4]


def test_a_host_with_more_taken_than_it_still_has_is_full_until_enough_is_given_back() -> None:
    slots = Slots(4)
    running = [slots.claim(["a"], 1) for _ in range(4)]
    slots.fewer("a", running[0].granted_at)
    waiting = slots.claim(["a"], 1)
    for claim in running[:2]:
        slots.give_back(claim)
        assert granted(waiting) == [False]
        assert slots.full(["a"]) == {"a"}
    slots.give_back(running[2])
    assert granted(waiting) == [True]


def test_a_slot_won_back_goes_to_who_waits() -> None:
    slots = Slots(2)
    fail(slots)
    running, waiting = slots.claim(["a"], 1), slots.claim(["a"], 1)
    assert granted(running, waiting) == [True, False]
    slots.more("a")
    assert granted(waiting) == [True]


def test_no_slots_at_all_make_no_sense() -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        Slots(0)
