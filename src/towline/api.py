"""The library's functions: one method of `Pusher` each, with a pusher made for the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast, overload

from towline.push.options import PusherOptions, PushOptions
from towline.push.pusher import Pusher

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    from towline.context import Cancel
    from towline.push.opened import Source
    from towline.push.pusher import Several
    from towline.push.result import InspectResult, PlanResult, PushResult


class Options(PusherOptions, PushOptions, total=False):
    """Keywords of `push` and `digest`: those of a `Pusher`, and those of one push."""


@overload
def push(
    source: Source,
    destination: str,
    *,
    all_tags: Literal[False] = False,
    **options: Unpack[Options],
) -> PushResult: ...


@overload
def push(
    source: Source,
    destination: Several,
    *,
    all_tags: bool = False,
    **options: Unpack[Options],
) -> list[PushResult]: ...


@overload
def push(
    source: Source,
    destination: str,
    *,
    all_tags: Literal[True],
    **options: Unpack[Options],
) -> list[PushResult]: ...


@overload
def push(
    source: Source,
    destination: str | Several,
    *,
    all_tags: bool = False,
    **options: Unpack[Options],
) -> PushResult | list[PushResult]: ...


def push(
    source: Source,
    destination: str | Several,
    *,
    all_tags: bool = False,
    **options: Unpack[Options],
) -> PushResult | list[PushResult]:
    """Push an image; see `Pusher.push` for what it does and raises."""
    settings, wishes = _apart(options)
    with Pusher(**settings) as pusher:
        return pusher.push(source, destination, all_tags=all_tags, **wishes)


@overload
def plan(
    source: Source,
    destination: str,
    *,
    all_tags: Literal[False] = False,
    check_push: bool = False,
    **options: Unpack[Options],
) -> PlanResult: ...


@overload
def plan(
    source: Source,
    destination: Several,
    *,
    all_tags: bool = False,
    check_push: bool = False,
    **options: Unpack[Options],
) -> list[PlanResult]: ...


@overload
def plan(
    source: Source,
    destination: str,
    *,
    all_tags: Literal[True],
    check_push: bool = False,
    **options: Unpack[Options],
) -> list[PlanResult]: ...


@overload
def plan(
    source: Source,
    destination: str | Several,
    *,
    all_tags: bool = False,
    check_push: bool = False,
    **options: Unpack[Options],
) -> PlanResult | list[PlanResult]: ...


def plan(
    source: Source,
    destination: str | Several,
    *,
    all_tags: bool = False,
    check_push: bool = False,
    **options: Unpack[Options],
) -> PlanResult | list[PlanResult]:
    """What a push would do, with nothing written; see `Pusher.plan`."""
    settings, wishes = _apart(options)
    with Pusher(**settings) as pusher:
        return pusher.plan(source, destination, all_tags=all_tags, check_push=check_push, **wishes)


def inspect(
    source: Source, *, cancel: Cancel | None = None, **options: Unpack[PusherOptions]
) -> InspectResult:
    """What an image or index is, wherever it lies; see `Pusher.inspect`."""
    with Pusher(**options) as pusher:
        return pusher.inspect(source, cancel=cancel)


def tags(
    repository: str, *, cancel: Cancel | None = None, **options: Unpack[PusherOptions]
) -> list[str]:
    """The tags of a repository; see `Pusher.tags`."""
    with Pusher(**options) as pusher:
        return pusher.tags(repository, cancel=cancel)


def digest(source: Source, **options: Unpack[Options]) -> str:
    """The digest an image has, or would have; see `Pusher.digest`."""
    settings, wishes = _apart(options)
    with Pusher(**settings) as pusher:
        return pusher.digest(source, **wishes)


def _apart(options: Mapping[str, Any]) -> tuple[PusherOptions, PushOptions]:
    """The keywords of a pusher, and those of a push, which refuses any other."""
    settings = {key: options[key] for key in options if key in PusherOptions.__annotations__}
    wishes = {key: options[key] for key in options if key not in settings}
    return cast("PusherOptions", settings), cast("PushOptions", wishes)
