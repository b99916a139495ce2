"""Puts the documents of a tag in place: children first, the tag last.

Called when every blob that they list is confirmed, and never before.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from towline.errors import Cancelled, TransferCancelled

if TYPE_CHECKING:
    from towline.push.build import Documents
    from towline.push.target import Target
    from towline.reference import Reference
    from towline.spec.manifest import RawManifest


def put(target: Target, reference: Reference, documents: Documents) -> None:
    """Put all documents, each with retries. Raises what the last attempt raised.

    Raises TransferCancelled where the tag was being written as the cancel came.
    """
    for child in dict.fromkeys(documents.children):
        _put(target, child.digest, child)
    target.context.cancel.check()
    try:
        _put(target, str(reference.tag), documents.top)
    except Cancelled:
        raise TransferCancelled(
            f"the push was cancelled; {reference} may have been written"
        ) from None


def _put(target: Target, reference: str, manifest: RawManifest) -> None:
    put_manifest = target.repository.put_manifest
    target.retry(
        reference,
        partial(put_manifest, reference, manifest, target.context),
    )


def is_there(target: Target, tag: str, manifest: RawManifest) -> bool:
    """Whether the tag holds that manifest already, so that nothing is left to do."""
    head_manifest = target.repository.head_manifest
    found = target.retry(tag, partial(head_manifest, tag, target.context))
    return found is not None and found.digest == manifest.digest
