"""One repository of a registry: each question and each change is a method.

A method makes one attempt. It settles by itself only what nobody else can know: where an answer
was lost, or contradicts what was sent, it asks once.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from typing import TYPE_CHECKING

from towline.errors import RegistryError
from towline.registry import blobs, errors, manifests
from towline.registry.access import Access
from towline.registry.blobs import Confirmed, Opened
from towline.registry.calls import Call
from towline.spec import distribution
from towline.wire.message import parse_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.context import Context
    from towline.layers.reader import Reader
    from towline.reference import RepositoryName
    from towline.registry.upload.upload import Upload
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest


_PIECE = 64 << 10
"""Bytes read at once of a small blob."""


class Repository(Access):
    """Safe from any thread. Made by `RegistryClient.repository`."""

    def find_login(self) -> None:
        """Find the credentials now: else the first call does. Raises as `RegistryClient` says."""
        self.transport  # noqa: B018 - looked for where it is first wanted

    @property
    def may_teach(self) -> bool:
        """Whether what the registry says of layers may be remembered.

        Only if nobody on the way can have said it: over verified TLS, or on this machine.
        """
        endpoint = self.transport.endpoint
        return endpoint.is_verified or endpoint.is_bound

    @property
    def account(self) -> str:
        """A name of the credentials in use, without any secret; empty: none are used."""
        credentials = self.transport.credentials
        return credentials.account if credentials else ""

    def account_mac(self, key: bytes, digest: str) -> str:
        """The account in the form that is kept in records (hex): only who has the key knows it."""
        if not self.account:
            return ""
        import hmac

        message = f"{self.account}\n{digest}".encode("utf-8", "surrogateescape")
        return hmac.digest(key, message, "sha256").hex()

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
        seen = blobs.head_blob(self, digest, context, in_storage=in_storage)
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

    def mount(
        self,
        digest: str,
        origin: RepositoryName,
        context: Context,
        *,
        size: int | None = None,
        known: Descriptor | None = None,
        about: int = 0,
    ) -> Confirmed | Upload | None:
        """Link a blob of another repository (distribution-spec, end-11).

        Returns an Upload where the registry opens a session instead; `known` and `about` are for
        that, as in `start_upload`. None: refused in whatever way, or linked with another size than
        `size`; that says nothing of the blob. Raises no TowlineError: a mount only saves work.
        """
        answer = blobs.mount(self, digest, origin, context, size)
        if not isinstance(answer, Opened):
            return answer
        from towline.registry.upload.upload import Upload

        # From here on it is an upload like any other, with the destination's scope alone.
        return Upload(self, context, answer, known, about)

    def start_upload(
        self, context: Context, known: Descriptor | None = None, about: int = 0
    ) -> Upload:
        """Begin an upload (distribution-spec, end-4a; end-4b for small blobs, without a session).

        `known`: the blob's digest and size, where they are known: that saves a request. `about`:
        the bytes that a blob of unknown size may come to.
        """
        from towline.registry.upload.upload import Upload  # an unchanged push needs none

        upload = Upload(self, context, None, known, about)
        upload.open()
        return upload

    def resume_upload(
        self,
        context: Context,
        url: str,
        acknowledged: int,
        known: Descriptor | None = None,
        about: int = 0,
        *,
        telling: bool = False,
    ) -> Upload | None:
        """The session that an earlier process has left at this URL. Call `rewind` before use.

        `acknowledged`: bytes that the registry had acknowledged. `known` and `about` are as in
        `start_upload`. `telling`: so much was sent that the session should hold some of it. None
        where the URL is not that of a session of this repository: it comes from a cache, which may
        be shared.
        """
        from towline.registry.upload.upload import Upload

        try:
            opened = Opened(parse_url(url))
        except ValueError:
            return None
        upload = Upload(
            self, context, opened, known, about, acknowledged=acknowledged, telling=telling
        )
        return upload if upload.session.is_at_home else None

    def put_manifest(self, target: str, manifest: RawManifest, context: Context) -> None:
        """Put a manifest under a tag or its digest (distribution-spec, end-7).

        Where the answer is lost, or names no digest or another one, the tag is looked at. An
        error's `aftermath` says what was left under the tag.
        """
        manifests.Putting(self, context, target, manifest).carry_out()

    def put_tags(
        self, manifest: RawManifest, tags: Sequence[str], context: Context
    ) -> frozenset[str]:
        """Put a manifest under several tags by one request; those that are said to be set."""
        return manifests.put_tags(self, manifest, tags, context)

    def announce_referrer(self, manifest: RawManifest, subject: Digest, context: Context) -> bool:
        """Make sure that a manifest is listed under its subject; see `listings.announce`."""
        from towline.registry import listings

        return listings.announce(self, manifest, subject, context)

    def referrers(self, subject: Digest, context: Context) -> tuple[Descriptor, ...]:
        """What is listed as referring to a manifest; see `listings.listed`."""
        from towline.registry import listings

        return listings.listed(self, subject, context)

    def head_manifest(self, target: str, context: Context) -> Descriptor | None:
        """What lies under a tag or digest; None: nothing."""
        found = manifests.look_at(self, target, context)
        if not isinstance(found, manifests.Unclear):
            return found
        if found.status == 403 and self.side == "destination":
            return None  # Artifactory says so of a tag that is not there
        manifest = self.get_manifest(target, context)
        return manifest.descriptor() if manifest else None

    def get_manifest(self, target: str, context: Context) -> RawManifest | None:
        """A manifest or index whose bytes agree with its digest; None: there is none."""
        found = manifests.get(self, target, context)
        return found.manifest if found else None

    def read_blob(self, digest: str, context: Context, limit: int) -> bytes:
        """A small blob, its digest checked. Raises RegistryError above `limit` bytes, too."""
        with errors.on_side(self.side):
            return self.open_blob(digest, context).read_all(limit)

    def open_blob(self, digest: str, context: Context) -> BlobReader:
        """A reader of a blob, which checks the digest at the end. The caller closes it."""
        unread, _ = self.blob_from(digest, 0, context)
        return BlobReader(digest, self.name.host, unread)

    def blob_from(self, digest: str, start: int, context: Context) -> tuple[Reader, int]:
        """See `blobs.open_blob`."""
        return blobs.open_blob(self, digest, start, context)

    def check_version(self, context: Context) -> None:
        """After a 404: raise RegistryError if the registry speaks only version 1."""
        with errors.on_side(self.side):
            self.transport.check_version(context)

    def ask_base(self, context: Context) -> bool:
        """Ask the registry itself whether this account is let in (end-1).

        False: it has asked for no login, and lets in everybody.
        """
        action = f"log in to {self.name.host}"
        with self.answer(Call("GET", distribution.BASE, action), context, ()) as response:
            errors.check_success(response, action)
        return self.transport.asks_for_login

    def some_tags(self, context: Context) -> Sequence[str]:
        """The first page of tags, up to 1000; empty where the registry refuses so many at once."""
        from towline.registry.listings import first_page, tags_page

        page = tags_page(self, first_page(self.name), context)
        return page.tags if page else ()

    def tags(self, context: Context, *, pages: int | None = None) -> list[str]:
        """Every tag, in the registry's order. Raises RegistryError if they take more pages."""
        from towline.registry.listings import TAGS_PAGES_MAX, every_tag

        return every_tag(self, context, pages or TAGS_PAGES_MAX)


class BlobReader:
    """A `layers.reader.Reader` of a blob; its last read raises RegistryError for a wrong digest."""

    def __init__(self, digest: str, where: str, content: Reader) -> None:
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
