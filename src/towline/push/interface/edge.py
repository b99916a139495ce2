"""The edge of the library: what a method's caller gets, and no secrets in any word of it.

`method` says once what a caller of `Pusher.push`, `copy` and `plan` gets, a result for one
destination and a list for several; `index_method` says it of `index`. They change nothing but what
type checkers and editors see. `api` says the same of the functions, whose keywords are more.

Secrets are taken out of events, lines of the log, warnings, and errors with all that they keep.
Data of images and registries (names, tags, configs) stays as it is. The caller's own functions are
called here; the push goes on whatever they raise.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, Unpack, cast, overload

from towline.errors import Cancelled, PartialFailure, TowlineError, TransferCancelled
from towline.results import Shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from towline.events import Event
    from towline.findings import PlanResult
    from towline.push.interface.options import PushOptions, Several, Source
    from towline.reference import Reference
    from towline.results import PushResult
    from towline.wire.secrets import Secrets

R = TypeVar("R")
T = TypeVar("T")
Told = TypeVar("Told", bound="PushResult | PlanResult")
"""A caller's result of a tag."""

_WORDS = ("message", "status", "what", "reason")
"""The fields of events that are words; the others are data."""
_DATA = frozenset({"references", "side"})
"""Fields of an error that are no words."""


class Edge:
    """The edge of one `Pusher`, with the secrets of its run."""

    def __init__(self, secrets: Secrets) -> None:
        self.secrets = secrets

    @contextmanager
    def crossed(self, pushed: Sequence[Reference] = ()) -> Iterator[None]:
        """Take the secrets out of errors that leave the block.

        `Cancelled`, which is internal, becomes `TransferCancelled`.
        """
        try:
            yield
        except Cancelled as inside:
            self._clear(inside)  # the new error still has it as its context
            names = ", ".join(str(reference) for reference in pushed)
            what = f"the push to {names}" if names else "it"
            raise TransferCancelled(f"{what} was cancelled") from None
        except Exception as error:
            self._clear(error)
            raise

    def event(self, event: Event) -> Event:
        """An event without secrets in its words."""
        said = {name: getattr(event, name) for name in _WORDS if hasattr(event, name)}
        fit: dict[str, Any] = {name: self.secrets.redact(words) for name, words in said.items()}
        return event if fit == said else replace(event, **fit)

    def outcome(self, outcome: T) -> T:
        """A result or an error, without secrets in its words."""
        if isinstance(outcome, BaseException):
            self._clear(outcome)
        elif warnings := getattr(outcome, "warnings", ()):  # of a push or a plan
            fit = tuple(map(self.secrets.redact, warnings))
            return outcome if fit == warnings else replace(cast("Any", outcome), warnings=fit)
        return outcome

    def _clear(self, error: BaseException) -> None:
        """Take the secrets out of an error, its causes, and all that it keeps."""
        todo, seen = [error], set()
        while todo:
            one = todo.pop()
            if id(one) in seen:
                continue
            seen.add(id(one))
            for name in _kept(one):
                # Set only if it changes: an error of the interpreter's own may say more once an
                # attribute of it was set, even to the same value.
                before = getattr(one, name, None)
                if (after := self._fit(before, todo)) is not before:
                    setattr(one, name, after)
            if one.__suppress_context__:
                one.__context__ = None  # `from None`: it is not to be shown
            todo += filter(None, (one.__cause__, one.__context__))
            todo += getattr(one, "exceptions", ())

    def _fit(self, value: Any, errors: list[BaseException]) -> Any:  # noqa: ANN401 - whatever an error keeps
        """The value without secrets, or itself if it has none. Errors in it go into `errors`."""
        match value:
            case str():
                said = self.secrets.redact(value)
                return value if said == value else said
            case bytes() | bytearray():  # as in a UnicodeDecodeError
                text = value.decode("latin-1")
                return value if self.secrets.redact(text) == text else b""
            case BaseException():
                errors.append(value)
            case Shown():
                return self.outcome(value)
            case dict():
                items = tuple(value.items())
                fit = self._fit(items, errors)
                return value if fit is items else dict(fit)
            case tuple() | list() | set() | frozenset():
                parts = [self._fit(part, errors) for part in value]
                if any(part is not before for part, before in zip(parts, value, strict=True)):
                    make = getattr(value, "_make", type(value))  # of a named tuple
                    return make(parts)
        return value


def _kept(error: BaseException) -> set[str]:
    """The names of an error's attributes, those in slots of the interpreter's classes too."""
    slots = {
        name
        for cls in type(error).__mro__
        for name, kind in vars(cls).items()
        if isinstance(kind, MemberDescriptorType) and not name.startswith("__")
    }
    return {"args", *vars(error), *slots} - _DATA


class Listener(Generic[T]):
    """Calls a caller's function, from any thread. One that raises is called no more."""

    def __init__(self, name: str, hear: Callable[[T], object], fit: Callable[[T], T]) -> None:
        """`hear`: the caller's function; `fit` takes secrets out of its argument."""
        self._name = name
        self._hear = hear
        self._fit = fit
        self.fault: str | None = None
        """A warning about what it has raised; None: it has not."""

    def __call__(self, told: T) -> None:
        """Call the function."""
        if self.fault is not None:
            return
        fit = self._fit(told)
        try:
            self._hear(fit)
        except Exception as error:  # noqa: BLE001 - it is not ours, and decides nothing
            said = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
            self.fault = f"{self._name} raised {said}, and is told no more"


def answer(
    references: Iterable[Reference], outcomes: Sequence[Told | TowlineError], *, several: bool
) -> Told | list[Told]:
    """The caller's result, or a list of them if several were asked for.

    Raises the error of the only tag, or PartialFailure.
    """
    errors = [outcome for outcome in outcomes if isinstance(outcome, TowlineError)]
    if errors and not several:
        raise errors[0]
    if errors:
        failed = "; ".join(error.message for error in errors)
        raise PartialFailure(
            f"{len(errors)} of {len(outcomes)} pushes failed: {failed}",
            errors,
            outcomes,
            [str(reference) for reference in references],
        )
    results = [outcome for outcome in outcomes if not isinstance(outcome, TowlineError)]
    return results if several else results[0]


if TYPE_CHECKING:

    class Method(Protocol[R]):
        """Of a `Pusher`."""

        @overload
        def __call__(
            self,
            source: Source,
            destination: str,
            *,
            all_tags: Literal[False] = False,
            **wishes: Unpack[PushOptions],
        ) -> R: ...
        @overload
        def __call__(
            self,
            source: Source,
            destination: Several,
            *,
            all_tags: bool = False,
            **wishes: Unpack[PushOptions],
        ) -> list[R]: ...
        @overload
        def __call__(
            self,
            source: Source,
            destination: str,
            *,
            all_tags: Literal[True],
            **wishes: Unpack[PushOptions],
        ) -> list[R]: ...
        @overload
        def __call__(
            self,
            source: Source,
            destination: str | Several,
            *,
            all_tags: bool = False,
            **wishes: Unpack[PushOptions],
        ) -> R | list[R]: ...

    class IndexMethod(Protocol[R]):
        """`Pusher.index`."""

        @overload
        def __call__(
            self,
            sources: Source | Sequence[Source],
            destination: str,
            **wishes: Unpack[PushOptions],
        ) -> R: ...
        @overload
        def __call__(
            self,
            sources: Source | Sequence[Source],
            destination: Several,
            **wishes: Unpack[PushOptions],
        ) -> list[R]: ...
        @overload
        def __call__(
            self,
            sources: Source | Sequence[Source],
            destination: str | Several,
            **wishes: Unpack[PushOptions],
        ) -> R | list[R]: ...


def method(called: Callable[..., R | list[R]]) -> Method[R]:
    """Let a method of `Pusher` be seen so."""
    return cast("Method[R]", called)


def index_method(called: Callable[..., R | list[R]]) -> IndexMethod[R]:
    """Let `Pusher.index` be seen so."""
    return cast("IndexMethod[R]", called)
