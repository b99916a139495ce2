"""A seat: who may write to a session, and who gives it back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from towline.context import Cancel, Context
from towline.errors import Cancelled, NetworkError
from towline.push.seat import Seat

if TYPE_CHECKING:
    from collections.abc import Callable


class Session:
    """A session that keeps a list of what is done to it."""

    def __init__(self, during: Callable[[Context], None], context: Context) -> None:
        self.sent = 0
        self.resumed = False
        self.acknowledged = 0
        self.done: list[str] = []
        self.holds = True
        self._during = during
        self._context = context

    def write(self, block: bytes | memoryview) -> None:
        self._during(self._context)
        self.sent += len(block)
        self.done.append("write")

    def commit(self, digest: str) -> None:
        self.done.append(f"commit {digest}")

    def rewind(self) -> bool:
        self.done.append("rewind")
        return self.holds

    def cancel(self) -> None:
        self.done.append("cancel")


class Made:
    """A seat, and the sessions that were opened for it."""

    def __init__(self, during: Callable[[Context], None] = lambda _: None) -> None:
        self.transfer = Context(cancel=Cancel())
        self.sessions: list[Session] = []
        self.wrote = 0
        self.seat = Seat(self.transfer, lambda context: self._open(during, context), self._count)

    def _open(self, during: Callable[[Context], None], context: Context) -> Session:
        self.sessions.append(Session(during, context))
        return self.sessions[-1]

    def _count(self) -> None:
        self.wrote += 1


def test_the_first_write_opens_the_session() -> None:
    made = Made()
    assert not made.sessions
    made.seat.write(b"one")
    made.seat.write(b"two")
    made.seat.commit("digest")
    (session,) = made.sessions
    assert session.done == ["write", "write", "commit digest"]
    assert (made.seat.sent, made.wrote) == (6, 2)


def test_an_empty_blob_is_committed_to_a_session_of_its_own() -> None:
    made = Made()
    made.seat.commit("digest")
    assert made.sessions[0].done == ["commit digest"]


def test_a_closed_seat_gives_its_session_back_once_and_takes_nothing() -> None:
    made = Made()
    made.seat.write(b"one")
    made.seat.close()
    made.seat.close()
    with pytest.raises(Cancelled):
        made.seat.write(b"two")
    assert made.sessions[0].done == ["write", "cancel"]


def test_closing_wakes_who_is_inside_and_leaves_the_giving_back_to_him() -> None:
    inside, out = threading.Event(), threading.Event()

    def hang(context: Context) -> None:
        inside.set()
        try:
            context.cancel.wait(60)
        finally:
            assert "cancel" not in made.sessions[0].done
            out.set()

    made = Made(hang)
    errors: list[BaseException] = []

    def write() -> None:
        try:
            made.seat.write(b"one")
        except Cancelled as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    assert inside.wait(10)
    made.seat.close()
    writer.join(10)
    assert out.is_set()
    assert errors
    assert made.sessions[0].done == ["cancel"]
    assert not made.transfer.cancel.cancelled, "the transfer goes on, in another seat"


def test_cancelling_the_transfer_wakes_who_is_inside() -> None:
    made = Made(lambda context: context.cancel.wait(60))
    threading.Timer(0.05, made.transfer.cancel.cancel).start()
    with pytest.raises(Cancelled):
        made.seat.write(b"one")


@pytest.mark.parametrize("holds", [True, False])
def test_only_a_session_that_has_failed_is_rewound(holds: bool) -> None:  # noqa: FBT001 - a value
    failing = [NetworkError("cut")]

    def fail(_: Context) -> None:
        if failing:
            raise failing.pop()

    made = Made(fail)
    assert made.seat.rewind()
    with pytest.raises(NetworkError):
        made.seat.write(b"one")
    made.sessions[0].holds = holds
    assert made.seat.rewind() == holds
    assert made.sessions[0].done == ["rewind"]
