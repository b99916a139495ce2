"""For users' tests of code that pushes images: a real registry, and real small images.

pytest loads `plugin` by itself (its entry point is `pytest11`); the rest works without pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from towline.testing.images import make_image, make_images
    from towline.testing.registry import TestRegistry, oci_registry

__all__ = ["TestRegistry", "make_image", "make_images", "oci_registry"]

_HOMES = {
    "TestRegistry": "towline.testing.registry",
    "make_image": "towline.testing.images",
    "make_images": "towline.testing.images",
    "oci_registry": "towline.testing.registry",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - type checkers read the imports above
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
