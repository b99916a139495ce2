"""Tags that exist already: what stands there, and whether it is to stay (`--if-exists`).

Asked before anything is sent, so that a push that is not wanted costs nothing, and once more right
before the tag is written, because others push too. Between that and the writing nothing can be
done: no registry offers it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from towline.errors import RegistryError
from towline.events import Note
from towline.push.image import Image
from towline.spec import manifest as manifests

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.push.image import Tree
    from towline.push.interface.signatures import IfExists
    from towline.push.target import Target
    from towline.reference import Reference
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest


def kept(target: Target, rule: IfExists) -> dict[Reference, Descriptor | RegistryError]:
    """Before anything is sent: tags that are not to be written, with what stands there.

    An error where that, or the asking for it, ends the push of a tag. Raises AuthError and
    NetworkError: then the other tags have no hope either.
    """
    found: dict[Reference, Descriptor | RegistryError] = {}
    for reference, tree in target.tags:
        try:
            if standing := _before(target, reference, tree, rule):
                found[reference] = standing
        except RegistryError as error:
            found[reference] = error
    return found


def _before(target: Target, reference: Reference, tree: Tree, rule: IfExists) -> Descriptor | None:
    if rule == "overwrite" or reference.tag is None:
        return None
    if (found := look(target, reference.tag)) is None:
        return None
    if rule == "same":
        if _is_another(target, tree, found):
            raise _refusal(reference, found, rule)
        return None  # its digest will tell
    return stays(target, reference, found, rule)


def at_last(
    target: Target, reference: Reference, is_right: Callable[[str], bool], rule: IfExists
) -> Descriptor | None:
    """Right before the tag is written: what stands there, if it is to stay or is right already.

    A tag that was seen to hold a digest that is right is not written again: it may be immutable.
    Raises RegistryError where the tag may not be written, and what the asking raises.
    """
    if (tag := reference.tag) is None:
        return None
    stood = target.seen.get(tag)
    if rule == "overwrite" and (stood is None or not is_right(stood)):
        return None
    if (found := look(target, tag)) is None:
        return None
    if rule in {"skip", "fail"}:
        return stays(target, reference, found, rule)
    if is_right(found.digest):
        return found
    if rule == "same":
        raise _refusal(reference, found, rule)
    return None


def look(target: Target, tag: str) -> Descriptor | None:
    """What stands under a tag. Raises what the asking raises."""
    found = target.retry(
        "the manifest", partial(target.repository.head_manifest, tag, target.context)
    )
    target.seen[tag] = found.digest if found else None
    return found


def seen(target: Target, tag: str) -> Digest | None:
    """The digest that stands under a tag, or did when this push looked. Raises as `look` does."""
    if tag not in target.seen:
        look(target, tag)
    return target.seen[tag]


def stays(
    target: Target, reference: Reference, found: Descriptor, rule: IfExists
) -> Descriptor | None:
    """A tag that exists and is left alone. Raises RegistryError where that ends its push."""
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
    """Whether what stands there cannot be our image, however ours will be compressed.

    Whatever its layers and its format, an image has one config.
    """
    if not isinstance(tree, Image):
        return False
    get_manifest = target.repository.get_manifest
    raw = target.retry("the manifest", partial(get_manifest, found.digest, target.context))
    if raw is None:
        return False
    try:
        parsed = manifests.parse(raw.content, raw.media_type)
    except ValueError:
        return False
    return not isinstance(parsed, manifests.Manifest) or (
        parsed.config.digest != tree.config.identity
    )
