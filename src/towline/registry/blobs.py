"""Blobs at a registry (distribution-spec, end-2 and end-11): ask for, read and mount them.

What opens an upload session is read here, too.
"""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

import hashlib
import re
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from towline.context import Context
from towline.errors import RegistryError, TowlineError
from towline.reference import RepositoryName
from towline.registry import errors
from towline.registry.access import Access
from towline.registry.transport import REDIRECTS, Call, still_secure
from towline.spec import distribution
from towline.spec.digest import Digest
from towline.wire.message import Response, Url, quote

if TYPE_CHECKING:
    from towline.layers.reader import Reader
    from towline.registry.auth.token import Scopes

# `int` refuses texts of thousands of digits, and no blob needs more than 18.
_CONTENT_RANGE = r"bytes ([0-9]{1,18})-"

_PIECE = 64 << 10
"""Bytes read at once of a small blob."""


class Seen(NamedTuple):
    """What a HEAD says of a blob."""

    there: bool | None
    """None: it does not say; ask in another way."""
    size: int | None = None
    """Bytes, as far as it says."""

    def has(self, size: int | None) -> bool:
        """Whether the blob is there. Where both sizes are known, they must be equal."""
        return self.there is True and (None in {size, self.size} or size == self.size)


class Confirmed(NamedTuple):
    """The registry has the blob: sent whole in one POST, or linked from another repository."""

    instead: Digest | None = None
    """The digest that the answer names, where it is not the blob's."""


class Opened(NamedTuple):
    """An upload session."""

    location: Url
    chunk_min: int = 0
    """Least bytes of a chunk, but for the last (`OCI-Chunk-Min-Length`)."""


class Blobs(Access):
    """What a repository does with blobs, but for uploads."""

    def has_blob(
        self,
        digest: str,
        context: Context,
        *,
        size: int | None = None,
        in_storage: bool = False,
    ) -> bool:
        """Whether the blob is there. One with another size than `size` (bytes) counts as absent.

        `in_storage`: ask the storage, too, to which the registry redirects.
        """
        seen = self.head_blob(digest, context, in_storage=in_storage)
        if seen.there is not None or not in_storage:
            return seen.has(size)
        # The HEAD says nothing (405, 501): a GET is begun, and broken off before its body.
        try:
            self.open_blob(digest, context).close()
        except RegistryError as error:
            if error.status != 404:
                raise
            return False
        return True

    def head_blob(
        self,
        digest: str,
        context: Context,
        scopes: "Scopes | None" = None,
        *,
        in_storage: bool = False,
    ) -> Seen:
        """end-2 by HEAD. `in_storage`: follow to the storage behind the registry, too.

        The storage may have lost a blob that the registry still lists.
        """
        action = f"check blob {_short(digest)} in {self.name}"
        path = distribution.blob_path(self.name.path, digest)
        call = Call("HEAD", path, action, follow=in_storage)
        with self.answer(call, context, scopes) as response:
            # Cloud Run leaves the length out, GoDoxy and NORA say 0, what is encoded has another.
            encoded = "Content-Encoding" in response.headers or not response.ok
            size = None if encoded else response.headers.number("Content-Length") or None
            if response.status in REDIRECTS:  # to storage: the blob is there
                return Seen(there=True)
            if response.url.target != path:
                # Storage refuses a HEAD for many a reason (S3 signs for one method), but says 404.
                return Seen(response.status not in {404, 410}, size)
            if response.status == 404 or errors.says_nothing(response):
                return Seen(there=False if response.status == 404 else None)
            errors.check_success(response, action)
            return Seen(there=True, size=size)

    def read_blob(self, digest: str, context: Context, limit: int) -> bytes:
        """A small blob, its digest checked. Raises RegistryError above `limit` bytes, too."""
        with errors.on_side(self.side):
            return self.open_blob(digest, context).read_all(limit)

    def open_blob(self, digest: str, context: Context) -> "BlobReader":
        """A reader of a blob, which checks the digest at the end. The caller closes it."""
        unread, _ = self.blob_from(digest, 0, context)
        return BlobReader(digest, self.name.host, unread)

    def blob_from(self, digest: str, start: int, context: Context) -> "tuple[Reader, int]":
        """end-2: a blob from byte number `start` on, and the number of the byte that comes first.

        That is an earlier one (0) where the registry ignores `Range`.
        """
        action = f"read blob {_short(digest)} of {self.name}"
        path = distribution.blob_path(self.name.path, digest)
        span = (("Range", f"bytes={start}-"),) if start else ()
        call = Call("GET", path, action, span, follow=True, in_pieces=True)
        with self.answer(call, context) as response:
            unread, first = response.unread, _starts_at(response)
            if unread and response.status in {200, 206} and first is not None and first <= start:
                return unread, first
            if unread:
                unread.close()
            raise errors.refusal(response, action)

    def link(
        self, digest: str, origin: RepositoryName, context: Context, size: int | None
    ) -> Confirmed | Opened | None:
        """end-11. None: refused, in whatever way, or linked with another size than `size`.

        That says nothing of the blob: only the upload's own error counts.
        """
        action = f"mount blob {_short(digest)} from {origin.path} to {self.name}"
        # Always with `from`: without it distribution and Harbor mount nothing, and Quay of old said
        # 400. Never with `origin`, as crane does: it has broken the Hub and old Harbor.
        path = distribution.uploads_path(self.name.path)
        target = f"{path}?mount={digest}&from={quote(origin.path)}"
        call = Call("POST", target, action, moves=True, optional=True)
        scopes = self.mount_scopes
        try:
            # Without `pull` of the origin distribution answers 401: that request is saved.
            if not self.transport.home(context).grants(scopes, context):
                return None
            with self.answer(call, context, scopes) as response:
                # 202 is the specification's way to decline. It opens a session, which saves a POST.
                if response.status == 202 and response.headers.get("Location"):
                    return opened(response, action)
                # ECR and Quay say no by 202, Harbor by 401 for a project that it does not have,
                # Quay of old by 400, ECR Public by an error.
                if response.status != 201:
                    return None
            mounted = Confirmed(errors.named_instead(response, digest))
            if not self._is_meant(digest, context, mounted, size):
                return None
        except TowlineError:
            return None
        self.facts.mounts = True
        return mounted

    def _is_meant(
        self, digest: str, context: Context, mounted: Confirmed, size: int | None
    ) -> bool:
        """Whether it was our blob that was linked, with that size."""
        scopes = self.mount_scopes
        # Something on the way may have rewritten the header: only a HEAD tells whether it is ours.
        if mounted.instead and not self.head_blob(digest, context, scopes).there:
            return False
        if size is None:
            return True
        return self.head_blob(digest, context, scopes, in_storage=True).size in {None, size}


class BlobReader:
    """A `layers.reader.Reader` of a blob; its last read raises RegistryError for a wrong digest."""

    def __init__(self, digest: str, where: str, content: "Reader") -> None:
        self._digest = digest
        self._where = where
        self._content = content
        self._hash = hashlib.new(digest.partition(":")[0])

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer from the front; 0 at the end. Raises RegistryError, NetworkError."""
        filled = 0
        while filled < len(buffer) and (count := self._content.readinto(buffer[filled:])):
            self._hash.update(buffer[filled : filled + count])
            filled += count
        if filled < len(buffer) and self._hash.hexdigest() != self._digest.partition(":")[2]:
            raise RegistryError(
                f"{self._where} gave other bytes for blob {self._digest}", transient=True
            )
        return filled

    def read_all(self, limit: int) -> bytes:
        """All of a small blob, and close it. Raises RegistryError above `limit` bytes, too."""
        content = bytearray()
        # In pieces: few of those who may be that large are, and many are read at once.
        room = memoryview(bytearray(_PIECE))
        with closing(self):
            while count := self.readinto(room):
                content += room[:count]
                if len(content) > limit:
                    raise RegistryError(
                        f"blob {self._digest} of {self._where} is larger than {limit} bytes"
                    )
        return bytes(content)

    def close(self) -> None:
        """Break off, if the blob was not read to its end."""
        self._content.close()


def _starts_at(response: Response) -> int | None:
    """The number of the byte with which an answer begins; None: it does not say."""
    if response.status != 206:  # `Range` was ignored, as it may be: the whole blob comes
        return 0
    match = re.match(_CONTENT_RANGE, response.headers.get("Content-Range") or "")
    return int(match[1]) if match else None


def opened(response: Response, action: str) -> Opened:
    """The session that an answer opens. Raises as `session_url` does."""
    least = response.headers.number(distribution.OCI_CHUNK_MIN_LENGTH) or 0
    return Opened(session_url(response, action), least)


def session_url(response: Response, action: str, before: Url | None = None) -> Url:
    """The URL at which the session goes on; `before` where the answer names none.

    Raises RegistryError, transient, where there is no such URL.
    """
    # It is taken as it comes: distribution signs the offset into its query, anew in each answer,
    # and GHCR's path is not the specification's.
    location = response.headers.get("Location")
    if not location and before is not None:
        return before
    if not location:
        if errors.is_page(response):
            raise errors.no_success(response, action)
        raise RegistryError(
            f"cannot {action}: {response.url.authority} answered {response.status} without the "
            "location of a session",
            status=response.status,
            transient=True,
        )
    try:
        return still_secure(response.url.join(location), response.url)
    except ValueError as error:
        raise RegistryError(
            f"cannot {action}: {error}", status=response.status, transient=True
        ) from None


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12] or digest
