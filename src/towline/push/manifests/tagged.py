"""What is under a tag: whether it stays (`--if-exists`), whether all of it is there (`--verify`).

A tag is looked at before anything is sent, so that an unwanted push costs nothing, and again right
before it is written, because others push too. Between that look and the writing a race remains: no
registry offers to compare and write at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from towline.errors import RegistryError, SourceError, TowlineError
from towline.push.image import Blob, Image, Tree, tree_blobs
from towline.spec import manifest as manifests

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.findings import Verification
    from towline.layers import blobstream
    from towline.push.interface.options import IfExists, Verify
    from towline.push.manifests.build import Documents
    from towline.push.manifests.put import TaggedImage
    from towline.push.plan import Made
    from towline.push.target import Target, TargetPush
    from towline.reference import Reference
    from towline.spec.descriptor import Descriptor
    from towline.spec.manifest import RawManifest

T = TypeVar("T")

_NOT_FOUND = 404
_LOOKS_AGAIN = 2
"""Times that something missing is asked for again."""
_REGISTRY_HINT = (
    "push again with `verify=True`; if it stays so, the registry has lost or changed what it "
    "confirmed"
)
_SOURCE_HINT = "make the image again: it does not hold what its manifest and config list"
_CACHE_HINT = (
    "it was taken for that layer on somebody's word: run `towline cache clear`, then push again "
    "with `no_learn=True`"
)


def staying(target: TargetPush) -> dict[Reference, Descriptor | RegistryError]:
    """Before anything is sent: the tags that stay, each with the manifest under it.

    Its value is an error where the push of that tag ends. Raises AuthError and NetworkError, which
    would end the other tags as well.
    """
    found: dict[Reference, Descriptor | RegistryError] = {}
    rule = target.wish.if_exists
    for reference, tree in target.tags if rule != "overwrite" else ():
        try:
            if not (reference.tag and (standing := target.look(reference.tag))):
                continue
            if rule != "same":
                found[reference] = stays(target, reference, standing, rule)
            # Else `standing` decides, once our digest is known.
            elif _is_another(target, tree, standing):
                found[reference] = _refusal(reference, standing, rule)
        except RegistryError as error:
            found[reference] = error
    return found


def stays(
    target: TargetPush, reference: Reference, found: Descriptor, rule: IfExists
) -> Descriptor:
    """Tell of a tag that is left as it is. Raises RegistryError with the rule `fail`."""
    if rule == "fail":
        raise _refusal(reference, found, rule)
    target.note(f"{reference} exists already and is left as it is")
    return found


def _refusal(reference: Reference, found: Descriptor, rule: IfExists) -> RegistryError:
    other = "another image" if rule == "same" else "an image"
    return RegistryError(
        f"{reference} exists already and holds {other}, {found.digest}: "
        f"`if_exists='{rule}'` leaves it as it is",
        side="destination",
        hint="choose another tag, or replace it with `if_exists='overwrite'`",
    )


def _is_another(target: TargetPush, tree: Tree, found: Descriptor) -> bool:
    """Whether the manifest under the tag cannot be our image, however ours will be compressed."""
    # The config tells: it is the same whatever the format and the compression of the layers.
    if not isinstance(tree, Image) or (raw := target.get_manifest(found.digest)) is None:
        return False
    try:
        parsed = manifests.parse(raw.content, raw.media_type)
    except ValueError:
        return False
    return not isinstance(parsed, manifests.Manifest) or (
        parsed.config.digest != tree.config.identity
    )


def first_standing(image: TaggedImage) -> Documents | None:
    """The documents under a tag, if they are the image's, as this push has first seen it.

    Raises AuthError, RegistryError, NetworkError.
    """
    # Should the tag have been moved since, this push counts as before that.
    digest = image.target.first_seen(image.reference.tag or image.documents.top.digest)
    return image.form_of(digest) if digest else None


def standing(image: TaggedImage) -> Documents | Descriptor | None:
    """The documents under a tag, where it is not written again; None: it is to be.

    Looks right before the tag is written. With `--if-exists skip` it is the descriptor of whatever
    is there. Raises RegistryError where the tag may not be written; AuthError, NetworkError.
    """
    target, reference = image.target, image.reference
    rule = target.wish.if_exists
    if (name := reference.tag) is None:
        return None
    # A tag that holds our image is not written again: it may be immutable (ECR refuses even the
    # same content). Without having seen that, `overwrite` needs no second look.
    stood = target.seen.get(name)
    if rule == "overwrite" and (stood is None or not image.form_of(stood)):
        return None
    if (found := target.look(name)) is None:
        return None
    if rule in {"skip", "fail"}:
        return stays(target, reference, found, rule)
    right = image.form_of(found.digest)
    if rule == "same" and not right:
        raise _refusal(reference, found, rule)
    return right


def verify(image: TaggedImage, documents: Documents, how: Verify) -> Verification:
    """Ask for the manifests and every blob or, with `full`, read them back and hash them.

    Raises RegistryError naming the first one that is missing or wrong; AuthError, NetworkError.
    """
    target, made = image.target, image.made
    children = list(dict.fromkeys(documents.children))
    blobs = tree_blobs([image.tree])
    try:
        _manifest(target, image.reference.tag or documents.top.digest, documents.top, how)
        for child in children:
            _manifest(target, child.digest, child, how)
        for blob in blobs:
            if how == "full":
                _read(target, blob, made[blob.key])
            else:
                _ask(target, blob, made[blob.key])
    except TowlineError as error:  # it is told what has failed: the image was pushed before that
        error.args = (f"verification of {target.reference} failed: {error.message}",)
        if target.layout and isinstance(error, RegistryError):
            file = target.layout.name.file
            what = file if target.layout.whole else f"its file below {file}/blobs"
            error.hint = f"remove {what}, then copy again: what is there is not fetched anew"
        raise
    from towline.findings import Verification  # which most have no need of

    read = blobs if how == "full" else ()
    return Verification(
        manifests=1 + len(children),
        blobs=len(blobs),
        diff_ids=sum(blob.diff_id is not None for blob in read),
        bytes=sum(made[blob.key].size for blob in read),
    )


def _manifest(target: TargetPush, reference: str, manifest: RawManifest, how: Verify) -> None:
    def look(*, full: bool) -> str | None:
        ask = target.get_manifest if full else target.head_manifest
        found = ask(reference)
        return found.digest if found else None

    found = _seen(target, partial(look, full=how == "full"), expected=manifest.digest)
    if found != manifest.digest and how != "full":
        found = look(full=True)  # a HEAD may name a wrong digest: the bytes decide
    if found != manifest.digest:
        named = reference if reference == manifest.digest else f"the tag {reference}"
        raise _wrong(f"{named} holds {found or 'nothing'} instead of {manifest.digest}")


def _ask(target: Target, blob: Blob, made: Made) -> None:
    has_blob = partial(target.repository.has_blob, made.digest, target.context, in_storage=True)
    if not _seen(target, partial(target.retry, blob.id, has_blob), expected=True):
        raise _wrong(f"blob {made.digest} is missing")


def _seen(target: Target, look: Callable[[], T], *, expected: object) -> T:
    """The last answer of `look`, which is asked again while it is not the expected one."""
    # Harbor and load-balanced caches may show what they have confirmed only a little later.
    for pause in target.resources.look_again[:_LOOKS_AGAIN]:
        if (found := look()) == expected:
            return found
        target.context.cancel.wait(pause)
    return look()


def _read(target: Target, blob: Blob, made: Made) -> None:
    hint = _SOURCE_HINT if blob.stored else _CACHE_HINT
    try:
        found = target.retry(blob.id, _counted, target, blob, made)
    except SourceError as error:  # it cannot be decompressed
        _check_digest(target, blob, made)
        raise _wrong(error.message, hint) from error
    except RegistryError as error:
        missing = error.status == _NOT_FOUND
        raise _wrong(_missing(made) if missing else error.message) from error
    if blob.diff_id and found.diff_id != blob.diff_id:
        what = f"layer {made.digest} unpacks to {found.diff_id}, the config lists {blob.diff_id}"
        raise _wrong(what, hint)
    if found.size != made.size:
        what = f"blob {made.digest} has {found.size} bytes, its manifest lists {made.size}"
        raise _wrong(what, hint)


def _check_digest(target: Target, blob: Blob, made: Made) -> None:
    """Raise RegistryError if the registry gives other bytes than the digest says."""
    try:
        target.retry(blob.id, partial(_counted, unpacked=False), target, blob, made)
    except RegistryError as error:
        raise _wrong(error.message) from error


def _counted(target: Target, blob: Blob, made: Made, *, unpacked: bool = True) -> blobstream.Blob:
    # Most pushes read nothing back.
    from towline.events import Working
    from towline.layers.blobstream import BlobStream

    reader = target.repository.open_blob(made.digest, target.context)
    stream = BlobStream(
        reader,
        None,
        target.resources.encoders,
        target.context.cancel,
        diff_id_of=made.compression if unpacked else None,
        name=f"layer {made.digest}",
    )
    what = f"reading back {blob.id}"
    for _ in stream:
        target.context.emit(
            Working(reference=target.reference, what=what, current=stream.position, total=made.size)
        )
    return stream.blob


def _missing(made: Made) -> str:
    return f"blob {made.digest} is missing"


def _wrong(what: str, hint: str = _REGISTRY_HINT) -> RegistryError:
    return RegistryError(what, side="destination", hint=hint)
