"""The outcomes of the tags of one target: a result or an error for each, told once it is final."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import RegistryError
from towline.push import reporting
from towline.push.interface.result import PushResult
from towline.push.target import Costs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from towline.errors import TowlineError
    from towline.layers.profile import Profile
    from towline.push.image import Tree
    from towline.push.interface.result import Status, TagOutcome, Verification
    from towline.push.manifests.build import Documents
    from towline.push.plan import Delivered
    from towline.push.target import Target
    from towline.reference import Reference
    from towline.spec.descriptor import Descriptor


class Placed(NamedTuple):
    """The manifests that are under a tag in the end."""

    documents: Documents
    status: Status
    verified: Verification | None = None


class Outcomes:
    """The outcomes of one target. Each tag is charged the costs since the tag before it."""

    def __init__(self, target: Target, profile: Profile) -> None:
        self.by_tag: dict[Reference, TagOutcome] = {}
        """The outcomes of tags whose push has ended."""
        self.costs = target.costs or Costs(target.context)
        self._target = target
        self._profile = profile
        self._telling = reporting.Telling(target)
        self._untold: dict[Reference, int] = {}
        """Tags that are in place and not told yet, with the bytes of their blobs."""

    def left_alone(self, reference: Reference, standing: Descriptor | RegistryError) -> TagOutcome:
        """Note a tag that is left alone: `standing` is under it, or is the error of its push."""
        outcome: TagOutcome
        if isinstance(standing, RegistryError):
            outcome = standing
        else:
            cost = self.costs.share()
            outcome = reporting.as_it_stands(self._target, reference, standing, "skipped", cost)
            self._telling.ended(outcome, 0)
        self.by_tag[reference] = outcome
        return outcome

    def failed(self, references: Iterable[Reference], error: TowlineError) -> None:
        """Note the error of these tags."""
        self.by_tag |= dict.fromkeys(references, error)

    def placed(
        self, reference: Reference, tree: Tree, placed: Placed, delivered: Mapping[str, Delivered]
    ) -> None:
        """Note a tag that holds the image."""
        documents, status, verified = placed
        if verified:
            self._telling.verified(reference, verified)
        cost = self.costs.share()
        self.by_tag[reference] = replace(
            reporting.as_it_stands(self._target, reference, documents.top, status, cost),
            layers=reporting.layers(tree, delivered, self.costs.layers),
            manifests=reporting.manifests(tree, documents),
            digest_differs=documents.differs,
            learned_from=reporting.learned_from(self._target, tree, delivered),
            verified=verified,
        )
        self._telling.reused(reference, tree, delivered, self._profile)
        self._untold[reference] = reporting.total_bytes(tree, delivered)
        layout = self._target.layout
        # Referrers follow, and an archive is still to be written: until then it is not final.
        if not self._target.referrers and not (layout and layout.begun):
            self.tell()

    def charge(self, reference: Reference) -> None:
        """Add the costs since the last tag to this one."""
        result, cost = self.by_tag[reference], self.costs.share()
        if isinstance(result, PushResult):
            self.by_tag[reference] = replace(
                result,
                sent_bytes=result.sent_bytes + cost.sent_bytes,
                requests=result.requests + cost.requests,
                seconds=result.seconds + cost.seconds,
            )

    def tell(self) -> None:
        """Tell the tags that are in place."""
        for reference, total_bytes in self._untold.items():
            if isinstance(outcome := self.by_tag[reference], PushResult):
                self._telling.ended(outcome, total_bytes)
        self._untold.clear()
