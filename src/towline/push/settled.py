"""Settles tags before the image is read, by a HEAD at the source and one at the destination.

Where both name the same digest, or the destination has a tag that stays, nothing else is requested:
at Docker Hub a GET of a manifest counts as a pull.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.errors import RegistryError, TowlineError
from towline.push import reporting
from towline.push.interface.result import PushResult
from towline.push.manifests import if_exists
from towline.push.target import Costs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.push.content.source_images import Wanted
    from towline.push.interface.options import Wish
    from towline.push.interface.result import TagOutcome
    from towline.push.target import Target
    from towline.reference import Reference
    from towline.spec.descriptor import Descriptor


def settled(
    target: Target, tags: Sequence[Reference], wanted: Wanted, wish: Wish
) -> dict[Reference, TagOutcome]:
    """The outcomes of those tags of a target that need nothing more."""
    costs = target.costs = target.costs or Costs(target.context)
    digests = {tag: wanted[tag].known for tag in tags}  # of images at a registry
    looked = if_exists.look_at_all(
        target, {tag: tag.tag or (known.digest if known else "") for tag, known in digests.items()}
    )
    found: dict[Reference, TagOutcome] = {}
    for tag in tags:
        entry = wanted[tag]
        standing = looked[tag]
        if isinstance(standing, TowlineError):
            found[tag] = standing
        elif standing and entry.known:
            try:
                left = _left(target, tag, entry.known, standing, wish)
            except RegistryError as error:
                found[tag] = error
                continue
            if left:
                found[tag] = reporting.as_it_stands(target, tag, standing, left, costs.share())
    if target.layout and target.layout.whole and len(found) < len(tags):
        return {}  # an archive is written with all of its tags
    telling = reporting.Telling(target)
    if len(found) == len(tags):
        telling.announce()
    for outcome in found.values():
        if isinstance(outcome, PushResult):
            telling.ended(outcome, 0)
    return found


def _left(
    target: Target, tag: Reference, known: Descriptor, standing: Descriptor, wish: Wish
) -> reporting.Left | None:
    """The status of a tag that is left as it is; None: it is not.

    Raises RegistryError where `--if-exists` ends the tag's push.
    """
    rule = wish.if_exists
    if tag.tag and rule in {"skip", "fail"} and if_exists.stays(target, tag, standing, rule):
        return "skipped"
    return "unchanged" if wish.as_it_is and standing.digest == known.digest else None
