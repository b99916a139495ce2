"""Push container images to OCI and Docker registries without a daemon.

    import towline
    result = towline.push("image.tar", "registry.example/team/app:1.2")

Public names are loaded on first use: the command imports this page first, so it sets the start-up.
"""

from __future__ import annotations

import sys

from towline._version import __version__

# Type checkers take this for true; `typing` would double the start-up of `towline --version`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from towline.api import copy, digest, index, inspect, plan, push, tag, tags
    from towline.context import Cancel
    from towline.errors import (
        AuthError,
        InvalidReference,
        NetworkError,
        PartialFailure,
        RegistryError,
        SourceError,
        TowlineError,
        TransferCancelled,
        UsageError,
    )
    from towline.events import (
        Event,
        Failed,
        Hinted,
        LayerProgress,
        Note,
        PushStarted,
        Retrying,
        Summary,
        TagPushed,
        Verified,
        Warned,
        Working,
    )
    from towline.push.interface.options import PusherOptions, PushOptions
    from towline.push.interface.result import (
        InspectedLayer,
        InspectResult,
        LayerResult,
        ManifestResult,
        PlannedLayer,
        PlanResult,
        PushResult,
        Verification,
    )
    from towline.push.pusher import Pusher

_HOMES = (
    "towline.errors",
    "towline.events",
    "towline.context",
    "towline.push.interface.result",
    "towline.push.interface.options",
    "towline.push.pusher",
    "towline.api",
)
"""The modules of the public names: each imports only ones before it, so none is loaded in vain."""

__all__ = [
    "AuthError",
    "Cancel",
    "Event",
    "Failed",
    "Hinted",
    "InspectResult",
    "InspectedLayer",
    "InvalidReference",
    "LayerProgress",
    "LayerResult",
    "ManifestResult",
    "NetworkError",
    "Note",
    "PartialFailure",
    "PlanResult",
    "PlannedLayer",
    "PushOptions",
    "PushResult",
    "PushStarted",
    "Pusher",
    "PusherOptions",
    "RegistryError",
    "Retrying",
    "SourceError",
    "Summary",
    "TagPushed",
    "TowlineError",
    "TransferCancelled",
    "UsageError",
    "Verification",
    "Verified",
    "Warned",
    "Working",
    "__version__",
    "copy",
    "digest",
    "index",
    "inspect",
    "plan",
    "push",
    "tag",
    "tags",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - type checkers read the imports above
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    for home in _HOMES:
        __import__(home)  # not by `importlib`, of whose imports `-X importtime` does not tell
        if name in vars(sys.modules[home]):
            globals()[name] = vars(sys.modules[home])[name]
            break
    return globals()[name]


def __dir__() -> list[str]:
    return __all__


class _Package(type(sys)):  # type: ignore[misc]  # types.ModuleType, without importing types
    """Keeps `towline.push` the function: importing the package of that name would replace it."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "push" or not isinstance(value, type(sys)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
