"""Annotations that are asked for (`--annotation`), and which documents of a tree are to have them.

Docker's formats have none, so a document that gets one is made in OCI's (`build`). No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import UsageError
from towline.push.image import Index, images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.push.image import Tree

_HINT = "write KEY=VALUE, manifest:KEY=VALUE or index:KEY=VALUE"


class Annotations(NamedTuple):
    """What is to be added, by the documents that it goes into."""

    top: Mapping[str, str]
    """The one under the tag, whichever that is."""
    images: Mapping[str, str]
    """The manifest of each image."""
    indexes: Mapping[str, str]


def parse(given: str | Sequence[str] | Mapping[str, str]) -> Annotations:
    """Read `[manifest:|index:]K=V`, one or several, or a mapping. Raises UsageError."""
    if not isinstance(given, Mapping):
        given = dict(map(_pair, (given,) if isinstance(given, str) else given))
    found: dict[str, dict[str, str]] = {"": {}, "manifest": {}, "index": {}}
    for name, value in given.items():
        where, colon, key = name.partition(":")
        if not colon or not where.startswith(("manifest", "index")):
            where, key = "", name
        # Buildx's `manifest-descriptor:` and `manifest[PLATFORM]:` are none of ours, and no keys.
        if where not in found or not key:
            raise UsageError(f"{name!r} is no annotation's key", hint=_HINT)
        found[where][key] = value
    return Annotations(found[""], found["manifest"], found["index"])


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"`annotation` needs a key and a value, not {text!r}", hint=_HINT)
    return name, value


def mark(tree: Tree, wanted: Annotations) -> None:
    """Note in each part of a tree what its document is to have.

    Raises UsageError where an index is to be annotated, and there is none.
    """
    if not isinstance(tree, Index):
        if wanted.indexes:
            raise UsageError(
                "there is no index to annotate: what is pushed is one image",
                hint="leave `index:` out",
            )
        tree.annotations = {**wanted.images, **wanted.top}
        return
    tree.annotations = {**wanted.indexes, **wanted.top}
    for image in images(tree):
        if image.source.platform.known:  # what stands beside an image says what it is itself
            image.annotations = wanted.images
