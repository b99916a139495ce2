"""Blobs by digest: read in whole or in part, and deleted (distribution-spec, end-2, end-10)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from towline.server.http import FilePart, Response
from towline.server.refusals import Refused
from towline.spec import distribution, media_types

if TYPE_CHECKING:
    from pathlib import Path

    from towline.server.call import Call
    from towline.spec.digest import Digest

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def read(call: Call) -> Response:
    """GET or HEAD of a blob."""
    digest = call.digest()
    repository = call.repository
    # A HEAD may be of a push that relies on the answer: it keeps the blob from being collected.
    size = repository.ask_blob(digest) if call.head else repository.blob(digest)
    if size is None:
        raise Refused(distribution.BLOB_UNKNOWN, digest=digest)
    path = call.registry.storage.path(digest)
    return content(call, path, digest, size, media_types.OCTET_STREAM)


def delete(call: Call) -> Response:
    """DELETE of a blob: this repository no longer holds it."""
    digest = call.digest()
    if not call.repository.unlink_blob(digest):
        raise Refused(distribution.BLOB_UNKNOWN, digest=digest)
    return Response(202)


def content(call: Call, path: Path, digest: Digest, size: int, media_type: str) -> Response:
    """The answer that carries a file, or the part of it that was asked for."""
    etag = f'"{digest}"'
    headers = {
        "Content-Type": media_type,
        distribution.DOCKER_CONTENT_DIGEST: digest,
        "ETag": etag,
        "Accept-Ranges": "bytes",
        # A proxy may keep a blob, but has to ask each time: blobs can be deleted.
        "Cache-Control": "no-cache",
    }
    # There may be several tags, and weak ones (`W/`): a digest in any of them is this content.
    if etag in call.request.headers.get("if-none-match", ""):
        return Response(304, headers)
    if call.head:  # a Range counts for GET alone (RFC 9110, section 14.2)
        return Response(200, headers, length=size)
    status, first, length = 200, 0, size
    if part := _part(call, size, etag):
        status, (first, length) = 206, part
        if length <= 0:
            return Response(416, {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{size}"
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:  # collected since it was looked for
        raise Refused(distribution.BLOB_UNKNOWN, digest=call.last) from None
    return Response(status, headers, FilePart(file, first, length))


def _part(call: Call, size: int, etag: str) -> tuple[int, int] | None:
    """Offset and length of the part that was asked for; None: the whole.

    Length 0 or less: there is no such part (RFC 9110, section 15.5.17). That is so behind the end,
    and for a range that ends before it begins.
    """
    wanted = _RANGE.fullmatch(call.request.headers.get("range", "").replace(" ", ""))
    # Several ranges, and other units, may be answered with the whole (RFC 9110, section 14.2).
    if not wanted or wanted[0] == "bytes=-":
        return None
    if call.request.headers.get("if-range", etag) != etag:
        return None
    if not wanted[1]:
        length = min(int(wanted[2]), size)
        return size - length, length
    first = int(wanted[1])
    last = min(int(wanted[2]), size - 1) if wanted[2] else size - 1
    return first, last - first + 1
