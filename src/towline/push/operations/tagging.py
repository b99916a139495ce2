"""Sets further tags to a manifest that a repository holds: no blob moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline import reference as references
from towline.errors import Cancelled, TowlineError, UsageError
from towline.push import reporting
from towline.push.manifests import if_exists, put
from towline.push.manifests.build import Documents
from towline.push.operations import inspect
from towline.push.target import Costs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.push.interface.result import Status, TagOutcome
    from towline.push.target import Target
    from towline.reference import Reference
    from towline.spec.manifest import RawManifest


def places(reference: Reference, tags: Sequence[str]) -> list[Reference]:
    """Each tag once, as a reference. Raises UsageError for a text that is no tag."""
    if not tags:
        raise UsageError("no tag is given", hint=f"towline tag {reference} TAG")
    for tag in tags:
        if "/" in tag or ":" in tag:
            alone = tag.rpartition(":")[2]
            hint = None if "/" in alone else f"give the tag alone: towline tag {reference} {alone}"
            raise UsageError(f"{tag} is no tag: tags are set beside {reference}", hint=hint)
    named = [references.parse(f"{reference.repository}:{tag}") for tag in tags]
    return list(dict.fromkeys(named))


def tag(target: Target, reference: Reference, places: Sequence[Reference]) -> list[TagOutcome]:
    """Set each of the tags to the manifest under the reference. Returns their outcomes, in order.

    Raises RegistryError if there is none; AuthError, NetworkError.
    """
    costs = Costs(target.context)
    known = inspect.head(reference, target)
    raw: RawManifest | None = None
    outcomes: dict[Reference, TagOutcome] = {}
    for place in places:
        try:
            standing = if_exists.look(target, str(place.tag))
            same = standing is not None and standing.digest == known.digest
            if not same:
                # By digest: a tag may have moved since the HEAD, and all places get one manifest.
                raw = raw or inspect.manifest(reference._replace(digest=known.digest), target)
                put.put(target, place, Documents(raw))
        except TowlineError as error:
            outcomes[place] = error
            continue
        except Cancelled:
            reporting.check_untouched(places, [target], outcomes)
            raise
        status: Status = "unchanged" if same else "pushed"
        result = reporting.as_it_stands(target, place, known, status, costs.share())
        reporting.Telling(target).ended(result, 0)
        outcomes[place] = result
    return list(outcomes.values())
