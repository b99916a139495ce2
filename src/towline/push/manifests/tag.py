"""One tag of one target: what stands under it, and in which form the image is put there.

A registry that was seen to refuse a family of formats may hold the image in another form already:
that counts as the same image, so that nothing is refused and converted again and again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.errors import RegistryError
from towline.push.manifests import build, if_exists
from towline.push.manifests.put import put, wants_foreign
from towline.registry.manifests import refuses_type
from towline.spec import media_types

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.push.image import Blob
    from towline.push.manifests.build import Documents
    from towline.push.manifests.fallback import Fallback
    from towline.push.target import Tag
    from towline.spec.descriptor import Descriptor
    from towline.spec.media_types import Format


class Tagging:
    """The documents of a tag: as they are to be, or as the registry takes them."""

    def __init__(self, tag: Tag) -> None:
        self._tag = tag
        self.documents = build.documents(tag.tree, tag.made, tag.wish.format)
        """As they are to be."""

    def standing(self) -> Documents | None:
        """What stands under the tag, if it is the image; as this push has seen it.

        Should it have been moved meanwhile, the push was before that. Raises what the asking
        raises.
        """
        where = self._tag.reference.tag or self.documents.top.digest
        digest = if_exists.seen(self._tag.target, where)
        return self._form_of(digest) if digest else None

    def kept(self) -> tuple[Documents, Descriptor] | None:
        """What stands there and is not to be written again, as `--if-exists` has it.

        With `skip` that is whatever stands there. Raises RegistryError where the tag may not be
        written, and what the asking raises.
        """
        tag, rule = self._tag, self._tag.wish.if_exists
        found = if_exists.at_last(tag.target, tag.reference, self._is_image, rule)
        return (self._form_of(found.digest) or self.documents, found) if found else None

    def _is_image(self, digest: str) -> bool:
        return self._form_of(digest) is not None

    def _form_of(self, digest: str) -> Documents | None:
        """The image in the form that has this digest, if it may stand there in that form."""
        if self.documents.top.digest == digest:
            return self.documents
        if self._family not in self._tag.target.repository.formats_refused:
            return None
        return self._fallback().standing(self.documents, digest)

    @property
    def _family(self) -> Format:
        return media_types.family(self.documents.top.media_type)

    def put(self, send: Callable[[Blob], None]) -> Documents:
        """Put them, or what they are converted to where their type is refused.

        `send` sees to a blob that the tree does not have. Raises what the last attempt raised.
        """
        placed = self.documents
        try:
            put(self._tag.target, self._tag.reference, placed)
        except RegistryError as refusal:
            if not refuses_type(refusal):
                raise
            placed = self._fallback().put(placed, refusal, send)
        refused = placed.top.media_type != self.documents.top.media_type
        self._tag.target.repository.note_format(self._family, refused=refused)
        return placed

    def wants_foreign(self, error: RegistryError) -> bool:
        """Whether it is refused for layers that are never sent."""
        all_of_it = (*self.documents.children, self.documents.top)
        return any(wants_foreign(error, manifest) for manifest in all_of_it)

    def _fallback(self) -> Fallback:
        from towline.push.manifests.fallback import Fallback  # of which most pushes have no need

        return Fallback(self._tag)
