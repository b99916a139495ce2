"""What came of the tags of one target: a result or an error for each, told once it is final."""

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
    """What stands under a tag in the end."""

    documents: Documents
    status: Status
    verified: Verification | None = None


class Outcomes:
    """Of one target; its tags share what its push costs, each what came since the one before it."""

    def __init__(self, target: Target, profile: Profile) -> None:
        self.by_tag: dict[Reference, TagOutcome] = {}
        """Of the tags whose push has come to its end."""
        self.costs = target.costs or Costs(target.context)
        self._target = target
        self._profile = profile
        self._telling = reporting.Telling(target)
        self._untold: dict[Reference, int] = {}
        """Tags that are in place and not told of yet, with the bytes of their blobs."""

    def left_alone(self, reference: Reference, standing: Descriptor | RegistryError) -> TagOutcome:
        """A tag is not to be written: what stands there, or why that ends its push."""
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
        """Why these tags are not as they are to be."""
        self.by_tag |= dict.fromkeys(references, error)

    def placed(
        self, reference: Reference, tree: Tree, placed: Placed, delivered: Mapping[str, Delivered]
    ) -> None:
        """A tag holds the image."""
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
        if not self._target.referrers and not (layout and layout.begun):  # else more follows
            self.tell()

    def charge(self, reference: Reference) -> None:
        """What came since the last tag was for this one."""
        result, cost = self.by_tag[reference], self.costs.share()
        if isinstance(result, PushResult):
            self.by_tag[reference] = replace(
                result,
                sent_bytes=result.sent_bytes + cost.sent_bytes,
                requests=result.requests + cost.requests,
                seconds=result.seconds + cost.seconds,
            )

    def tell(self) -> None:
        """Tell of the tags that are as they are to be."""
        for reference, total_bytes in self._untold.items():
            if isinstance(outcome := self.by_tag[reference], PushResult):
                self._telling.ended(outcome, total_bytes)
        self._untold.clear()
