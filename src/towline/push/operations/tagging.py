"""Sets further tags to a manifest that a repository holds: no blob moves."""

from __future__ import annotations

from contextlib import suppress
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
    looked = if_exists.look_at_all(target, {place: str(place.tag) for place in places})
    due = [
        place
        for place, found in looked.items()
        if not isinstance(found, TowlineError) and (not found or found.digest != known.digest)
    ]
    outcomes: dict[Reference, TagOutcome] = {}
    try:
        # By digest: a tag may have moved since the HEAD, and all places get one manifest.
        exactly = reference._replace(digest=known.digest)
        documents = Documents(inspect.manifest(exactly, target)) if due else None
        if documents:
            _put_together(target, due, documents)
        for place, found in looked.items():
            if isinstance(found, TowlineError):
                outcomes[place] = found
                continue
            try:
                if documents and place in due:
                    put.put(target, place, documents)
            except TowlineError as error:
                outcomes[place] = error
                continue
            status: Status = "pushed" if place in due else "unchanged"
            outcomes[place] = result = reporting.as_it_stands(
                target, place, known, status, costs.share()
            )
            reporting.Telling(target).ended(result, 0)
    except Cancelled:
        reporting.check_untouched(places, [target], outcomes)
        raise
    return list(outcomes.values())


def _put_together(target: Target, due: Sequence[Reference], documents: Documents) -> None:
    """Put what is due by few requests, where the registry takes that. Raises Cancelled.

    What they have not written is to be put by itself.
    """
    for at in range(0, len(due), put.TOGETHER):
        together = target.registry.facts.offers("tags_together")
        # To find out costs a request, which pays for three tags or more.
        if together is not False and len(due) >= (2 if together else 3):
            with suppress(TowlineError):
                put.put_together(target, due[at : at + put.TOGETHER], documents)
