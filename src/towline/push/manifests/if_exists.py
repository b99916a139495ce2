"""Tags that exist already: the manifest under them, and whether it stays (`--if-exists`).

A tag is looked at before anything is sent, so that an unwanted push costs nothing, and again right
before it is written, because others push too. Between that look and the writing a race remains: no
registry offers to compare and write at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.errors import RegistryError
from towline.events import Note
from towline.push.image import Image
from towline.push.manifests import build
from towline.spec import manifest as manifests
from towline.spec import media_types

if TYPE_CHECKING:
    from towline.push.image import Tree
    from towline.push.interface.options import IfExists
    from towline.push.manifests.build import Documents
    from towline.push.target import Tag, Target
    from towline.reference import Reference
    from towline.spec.descriptor import Descriptor
    from towline.spec.media_types import Format


def kept(target: Target) -> dict[Reference, Descriptor | RegistryError]:
    """Before anything is sent: the tags that stay, each with the manifest under it.

    Its value is an error where the push of that tag ends. Raises AuthError and NetworkError, which
    would end the other tags as well.
    """
    found: dict[Reference, Descriptor | RegistryError] = {}
    for reference, tree in target.tags:
        try:
            if standing := _before(target, reference, tree):
                found[reference] = standing
        except RegistryError as error:
            found[reference] = error
    return found


def _before(target: Target, reference: Reference, tree: Tree) -> Descriptor | None:
    rule = target.wish.if_exists
    if rule == "overwrite" or reference.tag is None:
        return None
    if (found := target.look(reference.tag)) is None:
        return None
    if rule == "same":
        if _is_another(target, tree, found):
            raise _refusal(reference, found, rule)
        return None  # `TaggedImage.kept` decides, once our digest is known
    return stays(target, reference, found, rule)


def stays(
    target: Target, reference: Reference, found: Descriptor, rule: IfExists
) -> Descriptor | None:
    """Tell of a tag that is left as it is. Raises RegistryError with the rule `fail`."""
    if rule == "fail":
        raise _refusal(reference, found, rule)
    message = f"{reference} exists already and is left as it is"
    target.context.emit(Note(reference=target.reference, message=message))
    return found


def _refusal(reference: Reference, found: Descriptor, rule: IfExists) -> RegistryError:
    other = "another image" if rule == "same" else "an image"
    return RegistryError(
        f"{reference} exists already and holds {other}, {found.digest}: "
        f"`if_exists='{rule}'` leaves it as it is",
        side="destination",
        hint="choose another tag, or replace it with `if_exists='overwrite'`",
    )


def _is_another(target: Target, tree: Tree, found: Descriptor) -> bool:
    """Whether the manifest under the tag cannot be our image, however ours will be compressed."""
    # The config tells: it is the same whatever the format and the compression of the layers.
    if not isinstance(tree, Image):
        return False
    if (raw := target.get_manifest(found.digest)) is None:
        return False
    try:
        parsed = manifests.parse(raw.content, raw.media_type)
    except ValueError:
        return False
    return not isinstance(parsed, manifests.Manifest) or (
        parsed.config.digest != tree.config.identity
    )


class TaggedImage:
    """The image of a tag, in the form that is wanted or in one that the registry takes.

    A registry that was seen to refuse a family of formats may hold the image in the other form.
    That counts as the same image, so that the same push is not refused and converted each time.
    """

    def __init__(self, tag: Tag) -> None:
        self.tag = tag
        self.documents = build.documents(tag.tree, tag.made, tag.target.wish.format)
        """In the form that is wanted."""

    @property
    def family(self) -> Format:
        """The family of formats that is wanted."""
        return media_types.family(self.documents.top.media_type)

    def standing(self) -> Documents | None:
        """The documents under the tag, if they are the image's, as this push has first seen it.

        Raises AuthError, RegistryError, NetworkError.
        """
        # Should the tag have been moved since, this push counts as before that.
        digest = self.tag.target.first_seen(self.tag.reference.tag or self.documents.top.digest)
        return self._form_of(digest) if digest else None

    def kept(self) -> tuple[Documents, Descriptor] | None:
        """The documents under the tag and their descriptor, where the tag is not written again.

        Looks right before the tag is written. With `--if-exists skip` the descriptor may be of any
        image. Raises RegistryError where the tag may not be written; AuthError, NetworkError.
        """
        target, reference, rule = (
            self.tag.target,
            self.tag.reference,
            self.tag.target.wish.if_exists,
        )
        if (name := reference.tag) is None:
            return None
        # A tag that holds our image is not written again: it may be immutable (ECR refuses even the
        # same content). Without having seen that, `overwrite` needs no second look.
        stood = target.seen.get(name)
        if rule == "overwrite" and (stood is None or not self._form_of(stood)):
            return None
        if (found := target.look(name)) is None:
            return None
        right = self._form_of(found.digest)
        if rule in {"skip", "fail"}:
            stays(target, reference, found, rule)
        elif rule == "same" and not right:
            raise _refusal(reference, found, rule)
        elif not right:
            return None
        return right or self.documents, found

    def _form_of(self, digest: str) -> Documents | None:
        """The image's documents with that digest; None: it is another image's."""
        if self.documents.top.digest == digest:
            return self.documents
        if not self.tag.target.repository.facts.refuses(self.family):
            return None
        from towline.push.manifests.put import Fallback  # most pushes need none

        return Fallback(self.tag).standing(self.documents, digest)
