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
    from towline.events import Event, Failed, Hinted, Note, Retrying, Verified, Warned, Working
    from towline.findings import (
        InspectedLayer,
        InspectResult,
        ManifestResult,
        PlannedLayer,
        PlanResult,
        Verification,
    )
    from towline.push.interface.options import PusherOptions, PushOptions
    from towline.push.pusher import Pusher
    from towline.push_events import LayerProgress, PushStarted, Summary, TagPushed
    from towline.results import LayerResult, PushResult

_HOMES = {
    "towline.api": "copy digest index inspect plan push tag tags",
    "towline.context": "Cancel",
    "towline.errors": "AuthError InvalidReference NetworkError PartialFailure RegistryError "
    "SourceError TowlineError TransferCancelled UsageError",
    "towline.events": "Event Failed Hinted Note Retrying Verified Warned Working",
    "towline.findings": "InspectResult InspectedLayer ManifestResult PlanResult PlannedLayer "
    "Verification",
    "towline.push.interface.options": "PushOptions PusherOptions",
    "towline.results": "LayerResult PushResult",
    "towline.push.pusher": "Pusher",
    "towline.push_events": "LayerProgress PushStarted Summary TagPushed",
}
"""The public names of each module."""

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
    home = next((home for home, names in _HOMES.items() if name in names.split()), None)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    __import__(home)  # not by `importlib`, of whose imports `-X importtime` does not tell
    globals()[name] = getattr(sys.modules[home], name)
    return globals()[name]


def __dir__() -> list[str]:
    return __all__


class _Package(type(sys)):  # type: ignore[misc]  # types.ModuleType, without importing types
    """Keeps `towline.push` the function: importing the package of that name would replace it."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "push" or not isinstance(value, type(sys)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
