"""Tags that exist already: the manifest under them, and whether it stays (`--if-exists`).

A tag is looked at before anything is sent, so that an unwanted push costs nothing, and again right
before it is written, because others push too. Between that look and the writing a race remains: no
registry offers to compare and write at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from towline.errors import RegistryError, TowlineError
from towline.events import Note
from towline.push.image import Image
from towline.spec import manifest as manifests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from towline.push.image import Tree
    from towline.push.interface.signatures import IfExists
    from towline.push.target import Target
    from towline.reference import Reference
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest


def kept(target: Target, rule: IfExists) -> dict[Reference, Descriptor | RegistryError]:
    """Before anything is sent: the tags that stay, each with the manifest under it.

    Its value is an error where the push of that tag ends. Raises AuthError and NetworkError, which
    would end the other tags as well.
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
        return None  # `at_last` decides, once our digest is known
    return stays(target, reference, found, rule)


def at_last(
    target: Target, reference: Reference, is_right: Callable[[str], bool], rule: IfExists
) -> Descriptor | None:
    """Right before the tag is written: the manifest under it, if that stays or is right already.

    `is_right` says whether a digest is that of our image. Raises RegistryError where the tag may
    not be written; AuthError, NetworkError.
    """
    if (tag := reference.tag) is None:
        return None
    # A tag that holds our image is not written again: it may be immutable (ECR refuses even the
    # same content). Without having seen that, `overwrite` needs no second look.
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
    """HEAD a tag, and note its digest. Raises AuthError, RegistryError, NetworkError."""
    found = target.head_manifest(tag)
    target.seen[tag] = found.digest if found else None
    return found


def look_at_all(
    target: Target, where: Mapping[Reference, str]
) -> dict[Reference, Descriptor | TowlineError | None]:
    """The manifest at each place, or the error of asking for it; None: there is none.

    `where`: the tag or digest of each place. Raises Cancelled.
    """

    def found(place: Reference) -> Descriptor | TowlineError | None:
        try:
            return look(target, where[place])
        except TowlineError as error:
            return error

    first, *others = where
    one = found(first)
    # The first alone: a host that is down, or lets nobody in, is not asked for all of them.
    if isinstance(one, TowlineError) and not isinstance(one, RegistryError):
        return dict.fromkeys(where, one)
    threads = target.resources.host_threads(target.repository.name.host)
    rest = {place: threads.submit(partial(found, place)) for place in others}
    return {first: one} | {place: future.result() for place, future in rest.items()}


def seen(target: Target, tag: str) -> Digest | None:
    """The digest under a tag when this push first looked. Raises as `look` does."""
    if tag not in target.seen:
        look(target, tag)
    return target.seen[tag]


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
