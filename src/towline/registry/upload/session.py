"""What a registry holds of an upload: at an address that changes with every answer, some bytes.

open ── close ─▶ over                   the blob is kept
  │ ── give_up ─▶ over                  given back
  │ ── resume: it says what it holds    open, to be gone on with from there
  │            it does not, or is gone  of no more use
  │            no answer                open, to be asked once more, later
  └─── spoil: what it holds was refused of no more use, and not asked
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from towline.context import Cancel
from towline.errors import Cancelled, TowlineError
from towline.registry.blobs import ask_upload, close_upload, session_url
from towline.registry.errors import on_side
from towline.wire.message import Request

if TYPE_CHECKING:
    from towline.registry.blobs import Opened
    from towline.registry.transport import Conversation
    from towline.spec.digest import Digest
    from towline.wire.message import Response

CANCEL_SECONDS = 2.0
"""For giving a session back; when the push itself is cancelled, much less."""
_CANCEL_SECONDS_LATE = 0.4
_QUESTIONS_MAX = 2
_SESSION = r"s?/[A-Za-z0-9_=~-][A-Za-z0-9._=~-]*"
_RANGE = r"(bytes[= ])?0-(-?[0-9]{1,18})"


class Session:
    """One session of one repository."""

    def __init__(self, talk: Conversation, opened: Opened, acknowledged: int = 0) -> None:
        self.talk = talk
        self.url = opened.location
        """Where it goes on."""
        self.acknowledged = acknowledged
        """Bytes of the blob that the registry has said it holds."""
        self.sent = 0
        """Bytes of the blob that were sent to it, whatever became of them."""
        self.kept_instead: Digest | None = None
        """Another blob that the registry names as what it has kept."""
        self._is_open = True
        self._questions = _QUESTIONS_MAX
        """Times that it may still be asked what it holds."""
        if opened.chunk_min:
            talk.facts.wants_chunks_of(opened.chunk_min)

    @property
    def action(self) -> str:
        """Completes "cannot …" in errors."""
        return f"push a blob to {self.talk.name}"

    @property
    def is_at_home(self) -> bool:
        """Whether its URL is where registries have the sessions of this repository.

        Somebody else may have said so: no other address is shown our credentials, and none that
        is signed for whoever knows it (a storage's) is written down.
        """
        base = self.talk.transport.endpoint.base(self.talk.context)
        path = self.url.target.partition("?")[0]
        home = re.escape(f"{base.target}{self.talk.name.path}/blobs/upload")
        # GHCR: `upload`, where all others have `uploads`.
        return self.url.origin == base.origin and bool(re.fullmatch(home + _SESSION, path))

    def moved(self, response: Response) -> None:
        """Take the session's new URL from an answer, if it names one."""
        self.url = session_url(response, self.action, self.url)

    def held(self) -> int | None:
        """Bytes that the registry says it holds (spec: "Resuming an upload"); 0: it does not say.

        None: the session is gone, or cannot be asked. Ask once: some destroy a session for the
        asking.
        """
        response = self.talk.call(ask_upload(self.url, self.action))
        if response is None:
            return None
        self.moved(response)
        return range_end(response)

    def resume(self, *, telling: bool, in_chunks: bool) -> bool:
        """After a failure: whether the session goes on, after `acknowledged` bytes.

        `telling`: so much was sent that an empty session means that the host keeps nothing of what
        goes so. Raises a transient failure of the question once: it may be asked again.
        """
        if not (self._is_open and self._questions):
            return False
        try:
            with on_side("destination"):
                held = self.held()
        except TowlineError as error:
            self._questions -= 1
            if error.transient and self._questions:
                raise
            return False
        if held:
            self.acknowledged = held
            self.talk.facts.went_on(in_chunks=in_chunks)
        elif held is None or telling:
            self.talk.facts.lost(in_chunks=in_chunks)
        return bool(held)

    def spoil(self) -> None:
        """Never ask the session again: what it holds was refused."""
        self._questions = 0

    def close(self, digest: str, sent: int) -> None:
        """Have the registry check and keep the blob; `sent`: bytes that it has to check."""
        call = close_upload(self.url, digest, self.action)
        self.kept_instead = self.talk.call(call, extra=sent)

    def give_up(self) -> None:
        """Give it back, if the registry takes it; never raises, never waits long."""
        if not self._is_open:
            return
        self.over()
        talk = self.talk
        late = talk.context.cancel.cancelled
        context = talk.context.but(cancel=Cancel())
        seconds = _CANCEL_SECONDS_LATE if late else CANCEL_SECONDS
        with suppress(Cancelled):
            talk.transport.quietly(Request("DELETE", self.url), talk.scopes, context, seconds)

    def over(self) -> None:
        """Note that it is closed, or left to itself."""
        self._is_open = False


def range_end(response: Response) -> int:
    """Bytes held by the `Range` of an answer; 0: it does not say, or leaves it open.

    `0-0` is said for one byte and for none (distribution, zot, Gitea), `0--1` for none.
    """
    match = re.fullmatch(_RANGE, (response.headers.get("Range") or "").strip())
    if match is None or int(match[2]) <= 0:
        return 0
    # Quay says `bytes=` and names the next byte, where all others name the last.
    return int(match[2]) if match[1] else int(match[2]) + 1
