"""One tag of one target: the manifest under it, and the form in which the image is put there.

A registry that was seen to refuse a family of formats may hold the image in the other form. That
counts as the same image, so that the same push is not refused and converted each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.errors import RegistryError
from towline.push.manifests import build, if_exists
from towline.push.manifests.put import put, put_together, wants_foreign
from towline.registry.manifests import refuses_type
from towline.spec import media_types

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from towline.push.image import Blob
    from towline.push.manifests.build import Documents
    from towline.push.manifests.fallback import Fallback
    from towline.push.target import Tag
    from towline.reference import Reference
    from towline.spec.descriptor import Descriptor
    from towline.spec.media_types import Format


class Tagging:
    """The documents of a tag, in the form that is wanted or in one that the registry takes."""

    def __init__(self, tag: Tag) -> None:
        self._tag = tag
        self.documents = build.documents(tag.tree, tag.made, tag.wish.format)
        """In the form that is wanted."""

    def standing(self) -> Documents | None:
        """The documents under the tag, if they are the image's, as this push has first seen it.

        Raises AuthError, RegistryError, NetworkError.
        """
        # Should the tag have been moved since, this push counts as before that.
        where = self._tag.reference.tag or self.documents.top.digest
        digest = if_exists.seen(self._tag.target, where)
        return self._form_of(digest) if digest else None

    def kept(self) -> tuple[Documents, Descriptor] | None:
        """The documents under the tag and their descriptor, where the tag is not written again.

        With `--if-exists skip` the descriptor may be of any image. Raises RegistryError where the
        tag may not be written; AuthError, NetworkError.
        """
        tag, rule = self._tag, self._tag.wish.if_exists
        found = if_exists.at_last(tag.target, tag.reference, self._is_image, rule)
        return (self._form_of(found.digest) or self.documents, found) if found else None

    def _is_image(self, digest: str) -> bool:
        return self._form_of(digest) is not None

    def _form_of(self, digest: str) -> Documents | None:
        """The image's documents with that digest; None: it is another image's."""
        if self.documents.top.digest == digest:
            return self.documents
        if not self._tag.target.repository.facts.refuses(self._family):
            return None
        return self._fallback().standing(self.documents, digest)

    @property
    def _family(self) -> Format:
        return media_types.family(self.documents.top.media_type)

    def put(self, send: Callable[[Blob], None]) -> Documents:
        """Put the documents; where their type is refused, convert them and put those.

        Returns the documents that were put. `send` uploads a blob that is not in the tree. Raises
        the error of the last attempt, and Cancelled.
        """
        placed = self.documents
        try:
            put(self._tag.target, self._tag.reference, placed)
        except RegistryError as refusal:
            if not refuses_type(refusal):
                raise
            placed = self._fallback().put(placed, refusal, send)
        refused = placed.top.media_type != self.documents.top.media_type
        self._tag.target.repository.facts.note_format(self._family, refused=refused)
        return placed

    def put_together(self, references: Sequence[Reference]) -> None:
        """Put the image under several tags by one request; see `put.put_together`.

        But for tags that were seen to hold it: they may be immutable.
        """
        target, digest = self._tag.target, self.documents.top.digest
        due = [tag for tag in references if target.seen.get(str(tag.tag)) != digest]
        due = [tag for tag in due if tag not in target.written]
        if due and not target.repository.facts.refuses(self._family):
            put_together(target, due, self.documents)

    def wants_foreign(self, error: RegistryError) -> bool:
        """Whether the documents were refused for foreign layers, which are never sent."""
        all_of_it = (*self.documents.children, self.documents.top)
        return any(wants_foreign(error, manifest) for manifest in all_of_it)

    def _fallback(self) -> Fallback:
        from towline.push.manifests.fallback import Fallback  # most pushes need none

        return Fallback(self._tag)
