"""One upload session: write, commit, cancel (distribution-spec, "Pushing blobs").

A blob of unknown digest goes as one PATCH of open length and an empty PUT; one of known digest and
size as one PUT. Which of the two a host refuses is learned, so that the next attempt takes the
other. Trying again is `transfers`' work; errors say by `transient` whether it makes sense.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from towline.context import Cancel
from towline.errors import AuthError, Cancelled, NetworkError, RegistryError, TowlineError
from towline.registry import answers, requests
from towline.registry.caller import on_side
from towline.registry.requests import BINARY
from towline.spec import distribution
from towline.wire.message import Request

if TYPE_CHECKING:
    from towline.context import Context
    from towline.reference import RepositoryName
    from towline.registry.auth import Scopes
    from towline.registry.caller import Caller
    from towline.registry.facts import HostFacts
    from towline.spec.descriptor import Descriptor
    from towline.wire.exchange import Exchange
    from towline.wire.message import Response
    from towline.wire.url import Url

CANCEL_SECONDS = 2.0
"""For giving a session back; when the push itself is cancelled, much less."""
_CANCEL_SECONDS_LATE = 0.5

_NOT_FOUND = 404
_SERVER_ERRORS = range(500, 600)
_OTHER_SHAPE = frozenset({400, 405, 411, 501})
"""Answers of hosts, or of rules before them, that do not take a body in this way."""
_RANGE = re.compile(r"(bytes[= ])?0-(-?\d+)")


class Upload:
    """One session. Written by one thread at a time; opened by the first write if not before."""

    def __init__(
        self,
        caller: Caller,
        name: RepositoryName,
        scopes: Scopes,
        context: Context,
        facts: HostFacts,
        *,
        known: Descriptor | None = None,
        location: Url | None = None,
    ) -> None:
        self.sent = 0
        """Bytes of the blob that were written."""
        self._caller = caller
        self._name = name
        self._scopes = scopes
        self._context = context
        self._facts = facts
        self._known = known
        self._location = location
        self._exchange: Exchange | None = None
        self._in_one_put = known is not None and not facts.put_refused
        self._done = False

    def open(self) -> None:
        """Open the session, if it is not. Raises AuthError, RegistryError, NetworkError."""
        if self._location is None:
            with on_side("destination"):
                call = requests.open_upload(self._name)
                opened = self._caller.call(call, self._scopes, self._context)
            self._location = opened.location

    def use(self, opened: requests.Opened | None) -> None:
        """Take over a session that a mount was answered with."""
        if opened is not None:
            self._location = opened.location

    @property
    def _session(self) -> Url:
        self.open()
        assert self._location is not None  # noqa: S101 - `open` has set it or raised
        return self._location

    def write(self, block: bytes | memoryview) -> None:
        """Send a block. Raises AuthError, RegistryError, NetworkError; then it is of no use."""
        if not len(block):
            return
        with on_side("destination"):
            if self._exchange is None:
                self._exchange = self._begin()
            refused = self._exchange.write(block)
            self.sent += len(block)
            if refused is not None:
                raise self._refusal(refused)

    def _begin(self) -> Exchange:
        url = self._session
        length = self._known.size if self._known else None
        if self._in_one_put and self._known:
            url = url.with_query("digest", self._known.digest)
            request = Request("PUT", url, (BINARY,), streamed=True, length=length)
        else:
            request = Request("PATCH", url, (BINARY,), streamed=True, length=length)
        return self._caller.start(request, self._scopes, self._context)

    def commit(self, digest: str) -> None:
        """Everything is written: have the registry check and keep the blob.

        An answer that is lost or is a server's failure is settled by asking for the blob. Raises
        AuthError, RegistryError, NetworkError.
        """
        with on_side("destination"):
            try:
                self._commit(digest)
            except (RegistryError, NetworkError) as error:
                if not (_is_unclear(error) and self._is_there(digest)):
                    raise
        self._done = True

    def _commit(self, digest: str) -> None:
        if self._exchange is not None:
            response = self._exchange.finish()
            if not response.ok or answers.is_page(response):
                raise self._refusal(response)
            if self._in_one_put:
                return
            self._location = requests.session(response, self._action, self._session)
        call = requests.close_upload(self._session, digest, self._action)
        self._caller.call(call, self._scopes, self._context, extra=self.sent)

    def _is_there(self, digest: str) -> bool:
        with suppress(TowlineError):
            call = requests.blob_exists(self._name, digest)
            return self._caller.call(call, self._scopes, self._context)
        return False

    def _refusal(self, response: Response) -> AuthError | RegistryError:
        """The error for a body that was not taken; notes what the host cannot do."""
        self._close()
        if response.ok:
            return answers.no_registry(response, self._action)
        error = answers.refusal(response, self._action)
        if self._caller.refused(response, self._scopes, self._context):
            # The body is gone, but the next attempt is let in.
            error.transient = True
        elif response.status in _OTHER_SHAPE and error.code in {None, distribution.UNSUPPORTED}:
            # A rule against this way of sending; the other way may be open.
            error.transient |= self._facts.shape_refused(in_one_put=self._in_one_put)
        elif response.status == _NOT_FOUND and error.code != distribution.NAME_UNKNOWN:
            error.transient = True  # the session is gone, not the repository
        return error

    @property
    def _action(self) -> str:
        return f"push a blob to {self._name}"

    def offset(self, context: Context) -> int:
        """Bytes the registry holds of this session (spec: "Resuming an upload").

        0 where it has dropped the session or does not say.
        """
        if self._location is None:
            return 0
        call = requests.ask_upload(self._location, self._action)
        with on_side("destination"):
            response = self._caller.call(call, self._scopes, context)
        if response is None:
            return 0
        self._location = requests.session(response, self._action, self._location)
        match = _RANGE.fullmatch((response.headers.get("Range") or "").strip())
        if match is None:
            return 0
        end = int(match[2])
        # Quay names the next byte where all others name the last, and says `bytes=`.
        return max(0, end if match[1] else end + 1) if end else 0

    def cancel(self) -> None:
        """Give the session back, if the registry takes it; never raises, never waits long."""
        self._close()
        location, self._location = self._location, None
        if location is None or self._done:
            return
        self._done = True
        late = self._context.cancel.cancelled
        context = self._context.with_cancel(Cancel())
        seconds = _CANCEL_SECONDS_LATE if late else CANCEL_SECONDS
        with suppress(Cancelled):
            self._caller.quietly(Request("DELETE", location), self._scopes, context, seconds)

    def _close(self) -> None:
        if self._exchange is not None:
            self._exchange.close()


def _is_unclear(error: RegistryError | NetworkError) -> bool:
    """Whether the blob may be there although the answer does not say so."""
    if isinstance(error, NetworkError):
        return True
    return error.status is None or error.status in _SERVER_ERRORS or error.status == _NOT_FOUND
