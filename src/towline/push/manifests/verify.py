"""Verifies a push: whether everything is at the registry, and has the bytes of its digest."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from towline.errors import RegistryError, SourceError, TowlineError
from towline.events import Working
from towline.layers.blobstream import BlobStream
from towline.push.image import tree_blobs
from towline.push.interface.result import Verification

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.layers import blobstream
    from towline.push.image import Blob
    from towline.push.interface.options import Verify
    from towline.push.manifests.build import Documents
    from towline.push.plan import Made
    from towline.push.target import Tag, Target
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


def verify(tag: Tag, documents: Documents, how: Verify) -> Verification:
    """Ask for the manifests and every blob or, with `full`, read them back and hash them.

    Raises RegistryError naming the first one that is missing or wrong; AuthError, NetworkError.
    """
    target, made = tag.target, tag.made
    children = list(dict.fromkeys(documents.children))
    blobs = tree_blobs([tag.tree])
    try:
        _manifest(target, tag.reference.tag or documents.top.digest, documents.top, how)
        for child in children:
            _manifest(target, child.digest, child, how)
        for blob in blobs:
            if how == "full":
                _read(target, blob, made[blob.key])
            else:
                _ask(target, blob, made[blob.key])
    except TowlineError as error:  # it is told what has failed: the image was pushed before that
        error.args = (f"verification of {target.reference} failed: {error.message}",)
        raise
    read = blobs if how == "full" else ()
    return Verification(
        manifests=1 + len(children),
        blobs=len(blobs),
        diff_ids=sum(blob.diff_id is not None for blob in read),
        bytes=sum(made[blob.key].size for blob in read),
    )


def _manifest(target: Target, reference: str, manifest: RawManifest, how: Verify) -> None:
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
        raise _wrong(_missing(made))


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
    except SourceError as error:  # its digest is right, but it cannot be decompressed
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


def _counted(target: Target, blob: Blob, made: Made) -> blobstream.Blob:
    reader = target.repository.open_blob(made.digest, target.context)
    stream = BlobStream(
        reader,
        None,
        target.resources.encoders,
        target.context.cancel,
        diff_id_of=made.compression,
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
