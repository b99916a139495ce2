"""The endpoints of blobs: read in whole or in part, deleted, and uploaded in sessions.

See distribution-spec, end-2 and end-10; "Pushing blobs", end-4 to 6, 11, 13, 14.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from towline.server.http import FilePart, Response
from towline.server.refusals import Refused, digest_of
from towline.server.repository import Repository
from towline.server.storage import is_no_room
from towline.spec import distribution, media_types
from towline.spec.digest import HEX_LENGTHS, Digest

if TYPE_CHECKING:
    from pathlib import Path

    from towline.server.call import Call
    from towline.server.sessions import Session

_CONTENT_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def read(call: Call) -> Response:
    """GET or HEAD of a blob."""
    digest = digest_of(call.last)
    repository = call.repository
    # A HEAD may be of a push that relies on the answer: it keeps the blob from being collected.
    ask = repository.ask_blob if call.request.method == "HEAD" else repository.blob
    size = ask(digest)
    if size is None:
        raise Refused(distribution.BLOB_UNKNOWN, digest=digest)
    path = call.registry.storage.path(digest)
    return content(call, path, digest, size, media_types.OCTET_STREAM)


def delete(call: Call) -> Response:
    """DELETE of a blob: this repository no longer holds it."""
    digest = digest_of(call.last)
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
    if call.request.method == "HEAD":  # a Range counts for GET alone (RFC 9110, section 14.2)
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


# Upload sessions.


def start(call: Call) -> Response:
    """POST: open a session, mount a blob, or take a whole blob at once."""
    mount, digest = call.parameter("mount"), call.parameter("digest")
    if mount is not None and _mounted(call, digest_of(mount)):
        return _created(call, digest_of(mount))
    wanted = digest_of(digest) if digest is not None else None
    algorithm = call.parameter("digest-algorithm")
    if algorithm and algorithm not in HEX_LENGTHS:
        message = f"the algorithm {algorithm[:50]!r} is not known here"
        raise Refused(distribution.DIGEST_INVALID, message)
    session = call.registry.sessions.start(call.name)
    if session is None:
        message, headers = "too many uploads are open", {"Retry-After": "10"}
        raise Refused(distribution.TOOMANYREQUESTS, message, headers=headers)
    if wanted is None:
        return Response(202, _session_headers(call, session))
    # A POST with a digest has the whole blob as its body (end-4b).
    with session.taken(call.request.body):
        return _finish(call, session, wanted)


def _mounted(call: Call, digest: Digest) -> bool:
    """Link a blob that another repository holds into this one. False: none holds it."""
    storage, origin = call.registry.storage, call.parameter("from")
    apart = call.registry.limits.mounts_apart
    if apart and (origin or "").partition("/")[0] != call.name.partition("/")[0]:
        return False
    with storage.unswept():
        if origin is None:  # a mount from any repository (end-11)
            found = storage.keep(digest) is not None
        elif distribution.NAME.fullmatch(origin):
            found = Repository(storage, origin).ask_blob(digest) is not None
        else:
            found = False
        if found:
            call.repository.link_blob(digest)
        return found


def status(call: Call) -> Response:
    """GET: the bytes that a session holds."""
    return Response(204, _session_headers(call, _session(call)))


def append(call: Call) -> Response:
    """PATCH: append a chunk, or a body of unknown length."""
    session = _session(call)
    with session.taken(call.request.body) as uncertain:
        _take(call, session, uncertain=uncertain)
        return Response(202, _session_headers(call, session))


def finish(call: Call) -> Response:
    """PUT: append the rest, and make the whole a blob if its digest is right."""
    wanted = digest_of(call.parameter("digest") or "")
    session = _session(call)
    with session.taken(call.request.body) as uncertain:
        return _finish(call, session, wanted, uncertain=uncertain)


def cancel(call: Call) -> Response:
    """DELETE: cancel a session."""
    session = _session(call)
    with session.taken(call.request.body):
        call.registry.sessions.close(session)
    return Response(204)


def _session(call: Call) -> Session:
    session = call.registry.sessions.find(call.name, call.last)
    if session is None:
        raise Refused(distribution.BLOB_UPLOAD_UNKNOWN, upload=call.last[:100])
    return session


def _take(call: Call, session: Session, *, uncertain: bool) -> None:
    """Append the request's body at the right place, or refuse it and keep the session.

    `uncertain`: this request has interrupted another, and its client cannot know how far that came.
    """
    if session.closed:
        raise Refused(distribution.BLOB_UPLOAD_UNKNOWN, upload=session.id)
    wrong = None
    told = call.request.headers.get("content-range")
    if told is not None:
        match = _CONTENT_RANGE.fullmatch(told.removeprefix("bytes ").partition("/")[0])
        if not match:
            message = "the Content-Range is malformed: expected START-END"
            raise Refused(distribution.BLOB_UPLOAD_INVALID, message)
        first, last = int(match[1]), int(match[2])
        if first != session.offset:
            wrong = f"the next byte is {session.offset}, not {first}"
        elif call.request.body.length not in {None, last - first + 1}:
            message = "Content-Range and Content-Length do not agree"
            raise Refused(distribution.SIZE_INVALID, message)
    elif uncertain and call.request.body.length != 0:
        wrong = "another request of this session was under way"
    if wrong:  # the session stays, and its `Range` says where to go on
        headers = _session_headers(call, session)
        raise Refused(distribution.BLOB_UPLOAD_INVALID, wrong, status=416, headers=headers)
    try:
        session.append(call.request.body)
    except OSError as error:
        if is_no_room(error):
            call.registry.sessions.close(session)  # its bytes are part of what fills the disk
        raise


def _finish(call: Call, session: Session, wanted: Digest, *, uncertain: bool = False) -> Response:
    _take(call, session, uncertain=uncertain)
    storage = call.registry.storage
    try:
        found = session.digest(wanted.algorithm)
        if found != wanted:
            message = f"the content has another digest: {found}"
            raise Refused(distribution.DIGEST_INVALID, message, digest=wanted)
        storage.sync(session.path)
        with storage.unswept():
            storage.adopt(session.path, wanted)
            call.repository.link_blob(wanted)
    finally:
        call.registry.sessions.close(session)
    return _created(call, wanted)


def _created(call: Call, digest: Digest) -> Response:
    headers = {
        "Location": distribution.blob_path(call.name, digest),
        distribution.DOCKER_CONTENT_DIGEST: digest,
    }
    return Response(201, headers)


def _session_headers(call: Call, session: Session) -> dict[str, str]:
    return {
        "Location": distribution.uploads_path(call.name) + session.id,
        # `0-0` for nothing, too, as for one byte: the specification has no form for an empty
        # session.
        "Range": f"0-{max(0, session.offset - 1)}",
        distribution.DOCKER_UPLOAD_UUID: session.id,
    }
