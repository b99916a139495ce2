"""Lets a push go on when its store fails: one warning, and then as if there were no store."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from towline.knowledge.base import KnowledgeError
from towline.knowledge.store import Knowledge

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")

DEADLINE = 2.0
"""Seconds after which a remote store is given up, even while its name is being looked up."""
QUICK = 0.25
"""Seconds that a call may take without counting as slow."""
BUDGET = 2.0
"""Seconds that slow calls may cost a push in all, each beyond `QUICK`."""


class SafeKnowledge(Knowledge):
    """A `Knowledge` that never raises KnowledgeError. It connects at its first use.

    Its methods are made below this class, one for each method of `Knowledge`. With a `deadline`
    (seconds) the store is asked in another thread, so that it cannot hold a push for longer,
    whatever it waits for. `warn` is called once at most, in the thread that asked.
    """

    def __init__(
        self,
        connect: Callable[[], Knowledge],
        warn: Callable[[str], None],
        *,
        deadline: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._warn = warn
        self._deadline = deadline
        self._budget = BUDGET
        self._clock = clock
        self._connecting = threading.Lock()
        self._lock = threading.Lock()
        self._store: Knowledge | None = None
        self._nothing = Knowledge()

    def beat(self, owner: str) -> None:
        """Pass the sign of life on. No thread of the push waits for it: it costs no budget."""
        self._ask(lambda store: store.beat(owner), budgeted=False)

    def _ask(self, question: Callable[[Knowledge], R], *, budgeted: bool = True) -> R:
        if self._store is self._nothing:
            return question(self._nothing)
        begun = self._clock()
        try:
            answer = self._answer(question)
        except KnowledgeError as error:
            self._end(str(error))
            return question(self._nothing)
        with self._lock:
            self._budget -= max(0.0, self._clock() - begun - QUICK) * budgeted
            spent = self._budget < 0
        if spent:
            self._end("the cache is too slow")
        return answer

    def _open(self) -> Knowledge:
        # Two locks: `close` must not wait for a connection that may take seconds.
        with self._connecting:
            if self._store is None:
                store = self._connect()
                with self._lock:
                    if self._store is None:
                        self._store = store
                if self._store is not store:  # it was given up or closed meanwhile
                    store.close()
            return self._store

    def _answer(self, question: Callable[[Knowledge], R]) -> R:
        if self._deadline is None:
            return question(self._open())
        answers: list[R] = []
        errors: list[KnowledgeError] = []

        def ask() -> None:
            try:
                answers.append(question(self._open()))
            except KnowledgeError as error:
                errors.append(error)

        thread = threading.Thread(target=ask, name="knowledge", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise KnowledgeError(f"the cache cannot be asked: {error}") from None
        thread.join(self._deadline)
        if not answers:
            raise errors[0] if errors else KnowledgeError("the cache did not answer in time")
        return answers[0]

    def _end(self, failure: str = "") -> None:
        """Close the store, and put the one that knows nothing in its place."""
        with self._lock:
            store, self._store = self._store, self._nothing
        if failure and store is not self._nothing:
            self._warn(f"{failure}; going on without it")
        if store is not None:
            with suppress(KnowledgeError):
                store.close()

    def close(self) -> None:
        """Close the store, if it was ever opened."""
        self._end()


def _safely(question: Callable[..., R]) -> Callable[..., R]:
    """A method that asks the store or, where that fails, the one that knows nothing."""

    @wraps(question)
    def ask(self: SafeKnowledge, *about: Any, **named: Any) -> R:  # noqa: ANN401 - as it has them
        def asked(store: Knowledge) -> R:
            answer: R = getattr(store, question.__name__)(*about, **named)
            return answer

        return self._ask(asked)

    return ask


for _name, _question in vars(Knowledge).items():
    if not _name.startswith("_") and _name not in vars(SafeKnowledge):
        setattr(SafeKnowledge, _name, _safely(_question))
