"""What can go wrong, by who must act.

    TowlineError
     ├── UsageError            the caller: options, impossible combinations
     │    └── InvalidReference     the text of an image name
     ├── SourceError           whoever made the image: missing, torn, inconsistent
     ├── AuthError             whoever holds the credentials: 401, or denied
     ├── RegistryError         the registry: an HTTP answer that is no success
     ├── NetworkError          the way there: name, connect, TLS, proxy, time-out
     ├── TransferCancelled     nobody: it was asked for
     └── PartialFailure        several were asked for and some failed (an ExceptionGroup)

A class says who must act. What a program wants to know beyond that is an attribute (`transient`,
`retry_after`, `side`, `hint`). Exit codes belong to the command. `Cancelled` is internal and never
leaves the library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import towline

Side = Literal["source", "destination"]


class TowlineError(Exception):
    """Anything that towline raises on purpose; `str()` is one sentence for a person."""

    hint: str | None
    """What to do about it, one imperative clause; None where no advice is known."""
    transient: bool
    """Whether the same attempt may succeed a little later."""
    retry_after: float | None
    """Seconds that the other side asked to wait, if it did."""
    another_way: bool = False
    """Whether the next attempt does it differently: it need not wait, and costs no retry."""
    side: Side | None
    """The end of the transfer that failed, where that is known."""
    beside: bool = False
    """Whether a request for a token failed, so that the request proper was never sent."""
    aftermath: str | None = None
    """What a failed write has left behind at the destination, one clause.

    Empty where that was checked and nothing is left; None where no check was needed.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        transient: bool = False,
        retry_after: float | None = None,
        side: Side | None = None,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.transient = transient
        self.retry_after = retry_after
        self.side = side

    @property
    def message(self) -> str:
        """The sentence alone."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[Callable[..., TowlineError], tuple[Any, ...]]:
        # Exception's own way would call __init__ with the message alone and lose the keywords.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    cls: type[TowlineError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> TowlineError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class UsageError(TowlineError):
    """Options that do not exist, do not fit together, or have an impossible value."""


class InvalidReference(UsageError):
    """A text that is no image name; `position` is the index of the character at fault."""

    text: str
    position: int

    def __init__(self, message: str, *, text: str, position: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.text = text
        self.position = position


class SourceError(TowlineError):
    """The image to be pushed is missing, unreadable or inconsistent."""

    def __init__(self, message: str, *, hint: str | None = None, transient: bool = False) -> None:
        super().__init__(message, hint=hint, transient=transient, side="source")


class _AnswerError(TowlineError):
    """An HTTP answer that is no success."""

    status: int | None
    """HTTP status; None when the answer broke off before its status."""
    code: str | None
    """The registry's own code (distribution-spec, "Error Codes"), if it sent one."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        hint: str | None = None,
        transient: bool = False,
        retry_after: float | None = None,
        side: Side | None = None,
    ) -> None:
        super().__init__(
            message, hint=hint, transient=transient, retry_after=retry_after, side=side
        )
        self.status = status
        self.code = code


class AuthError(_AnswerError):
    """401, or denied: the credentials are missing, wrong, expired or not enough."""


class RegistryError(_AnswerError):
    """The registry refused, broke the protocol, or failed after all retries."""


class NetworkError(TowlineError):
    """No HTTP answer: name resolution, connect, TLS, proxy or time-out."""

    hung_up: bool = False
    """The other side closed the connection before the first byte of an answer."""
    stale: bool = False
    """The connection that hung up had been kept from an earlier request.

    Most likely the other side had closed it while it was idle, and never saw this request.
    """
    speaks_tls: bool = False
    """The other side speaks TLS, but the request was plain http."""
    sent: bool = False
    """Part of the request was sent, so the other side may have carried it out."""


class TransferCancelled(TowlineError):
    """The push was cancelled; nothing is written after this.

    If any tag was finished before, `results` has one entry for each tag asked for, in their order:
    its result, the error with which it failed, or None. `references` has their full names in the
    same order. Otherwise both are empty.
    """

    results: tuple[towline.PushResult | TowlineError | None, ...]
    references: tuple[str, ...]

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        results: Sequence[towline.PushResult | TowlineError | None] = (),
        references: Sequence[str] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.results = tuple(results)
        self.references = tuple(references)


class PartialFailure(ExceptionGroup[TowlineError], TowlineError):
    """Several pushes were asked for and at least one failed; each failure is inside.

    `results` has one entry for each push asked for, in their order: its result or its error.
    `references` has their full names in the same order.
    """

    results: tuple[towline.PushResult | towline.PlanResult | TowlineError, ...]
    references: tuple[str, ...]

    def __new__(
        cls,
        message: str,
        errors: Sequence[TowlineError],
        results: Sequence[towline.PushResult | towline.PlanResult | TowlineError] = (),
        references: Sequence[str] = (),
    ) -> Self:
        """Make the group with its errors: ExceptionGroup takes them here, not in `__init__`."""
        del results, references
        return super().__new__(cls, message, errors)

    def __init__(
        self,
        message: str,
        errors: Sequence[TowlineError],
        results: Sequence[towline.PushResult | towline.PlanResult | TowlineError] = (),
        references: Sequence[str] = (),
    ) -> None:
        del errors  # kept by __new__
        TowlineError.__init__(self, message)
        self.results = tuple(results)
        self.references = tuple(references)

    def derive(  # type: ignore[override]  # only ever called with parts of this group
        self, excs: Sequence[TowlineError], /
    ) -> PartialFailure:
        """The same failure with some of its errors; `split` and `subgroup` call this."""
        return PartialFailure(self.message, excs, self.results, self.references)

    def __reduce__(self) -> tuple[Callable[..., TowlineError], tuple[Any, ...]]:
        """Pickle by the arguments: the group's errors are not in `__dict__`."""
        parts = (self.message, list(self.exceptions), self.results, self.references)
        return PartialFailure, parts


class Cancelled(BaseException):
    """Unwinds the threads of a cancelled transfer; internal.

    A BaseException, so that no `except Exception` on the way can swallow it; the public edge
    turns it into `TransferCancelled`.
    """
