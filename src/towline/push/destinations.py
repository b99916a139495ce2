"""The words that say where to push."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline import reference
from towline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.reference import Reference


def parse(destination: str | Sequence[str]) -> list[Reference]:
    """Each destination once, in the order given; without a tag it is `latest`.

    Raises InvalidReference, and UsageError for a digest.
    """
    texts = [destination] if isinstance(destination, str) else list(destination)
    if not texts:
        raise UsageError("no destination was given", hint="name one: REGISTRY/REPOSITORY:TAG")
    parsed = [reference.parse(text) for text in texts]
    for found in parsed:
        if found.digest is not None:
            raise UsageError(
                "cannot push a digest reference", hint=f"push to a tag: {found.with_tag('TAG')}"
            )
    return list(dict.fromkeys(found.with_tag(found.tag or reference.LATEST) for found in parsed))


def repository(text: str) -> Reference:
    """A repository's name. Raises InvalidReference, and UsageError for a tag or digest."""
    parsed = reference.parse(text)
    if parsed.tag or parsed.digest:
        raise UsageError(
            f"a repository has no tag or digest: {text}", hint=f"use {parsed.repository}"
        )
    return parsed
