"""What a caller of `push` and `plan` gets: a result for one destination, a list for several.

Said once for the methods of `Pusher` and once for the functions, whose keywords are more. The
decorators change nothing but what type checkers and editors see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, cast, overload

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from towline.push.opened import Source
    from towline.push.options import Options, PushOptions

R = TypeVar("R")
Several = list[str] | tuple[str, ...]
"""Several destinations; not any sequence, since a text is one too."""


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


class Function(Protocol[R]):
    """Of the package: the same with a `Pusher`'s keywords too."""

    @overload
    def __call__(
        self,
        source: Source,
        destination: str,
        *,
        all_tags: Literal[False] = False,
        **options: Unpack[Options],
    ) -> R: ...
    @overload
    def __call__(
        self,
        source: Source,
        destination: Several,
        *,
        all_tags: bool = False,
        **options: Unpack[Options],
    ) -> list[R]: ...
    @overload
    def __call__(
        self,
        source: Source,
        destination: str,
        *,
        all_tags: Literal[True],
        **options: Unpack[Options],
    ) -> list[R]: ...
    @overload
    def __call__(
        self,
        source: Source,
        destination: str | Several,
        *,
        all_tags: bool = False,
        **options: Unpack[Options],
    ) -> R | list[R]: ...


def method(called: Callable[..., R | list[R]]) -> Method[R]:
    """Let a method of `Pusher` be seen so."""
    return cast("Method[R]", called)


def function(called: Callable[..., R | list[R]]) -> Function[R]:
    """Let a function of the package be seen so."""
    return cast("Function[R]", called)
