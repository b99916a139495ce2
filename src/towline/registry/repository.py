"""One repository of a registry: each question and each change is a method.

A method makes one attempt. It settles by itself only what nobody else can know: where an answer
was lost, or contradicts what was sent, it asks once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.registry import errors
from towline.registry.blobs import Blobs, Confirmed, Opened
from towline.registry.listings import Listings
from towline.registry.transport import Call
from towline.spec import distribution
from towline.wire.message import parse_url

if TYPE_CHECKING:
    from towline.context import Context
    from towline.reference import RepositoryName
    from towline.registry.upload.upload import Upload
    from towline.spec.descriptor import Descriptor


class Repository(Blobs, Listings):
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
        answer = self.link(digest, origin, context, size)
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

    def ask_base(self, context: Context) -> bool:
        """Ask the registry itself whether this account is let in (end-1).

        False: it has asked for no login, and lets in everybody.
        """
        action = f"log in to {self.name.host}"
        with self.answer(Call("GET", distribution.BASE, action), context, ()) as response:
            errors.check_success(response, action)
        return self.transport.home(context).challenge is not None
