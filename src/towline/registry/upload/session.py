"""An upload session: its address, which changes with every answer, and the bytes that it holds.

not open ── open ─▶ open
     │ ──── post ─▶ over                   the registry keeps the blob
     │                open                 it does not take blobs so
open ── close ─▶ over                      the registry keeps the blob
  │ ── give_up ─▶ over                     cancelled
  │ ── resume: it says what it holds       open, and the upload goes on from there
  │            it does not say, or is gone of no more use
  │            no answer                   open, and may be asked once more, later
  └─── spoil: what it holds was refused    of no more use, and never asked
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from towline.context import Cancel
from towline.errors import AuthError, Cancelled, NetworkError, RegistryError, TowlineError
from towline.registry import errors
from towline.registry.blobs import Confirmed, Opened, opened, session_url
from towline.registry.transport import Call
from towline.spec import distribution, media_types
from towline.wire.message import Request, Response

if TYPE_CHECKING:
    from towline.context import Context
    from towline.registry.access import Access
    from towline.spec.digest import Digest

BINARY = ("Content-Type", media_types.OCTET_STREAM)
CANCEL_SECONDS = 2.0
"""Seconds for cancelling a session."""
_CANCEL_SECONDS_LATE = 0.4
"""The same when the push itself is cancelled, which has to end within a second."""
_QUESTIONS_MAX = 2
"""Failed questions of what a session holds before the upload begins anew."""
_SESSION = r"s?/[A-Za-z0-9_=~-][A-Za-z0-9._=~-]*"
_RANGE = r"(bytes[= ])?0-(-?[0-9]{1,18})"


class Session:
    """One session of one repository."""

    def __init__(
        self, access: Access, context: Context, found: Opened | None, acknowledged: int = 0
    ) -> None:
        self.access = access
        self.context = context
        self.facts = access.facts
        self.action = f"push a blob to {access.name}"
        """Completes "cannot …" in errors."""
        base = access.transport.endpoint.base(context)
        self.url = base.at(distribution.uploads_path(access.name.path))
        """The address of its next request."""
        self.acknowledged = acknowledged
        """Bytes of the blob that the registry has said it holds."""
        self.sent = 0
        """Bytes of the blob that were sent to it, whatever became of them."""
        self.kept_instead: Digest | None = None
        """The digest that the registry names for the blob, if it is another than ours."""
        self.is_open = False
        """False, too, once it is closed, or left to itself."""
        self._questions = _QUESTIONS_MAX
        """Failed questions of what the session holds that are still allowed."""
        if found:
            self._begin(found)

    def _begin(self, found: Opened) -> None:
        self.url, self.is_open = found.location, True
        if found.chunk_min:
            self.facts.wants_chunks_of(found.chunk_min)

    def open(self) -> None:
        """Have the registry open it (distribution-spec, end-4a)."""
        action = f"start an upload to {self.access.name}"
        path = distribution.uploads_path(self.access.name.path)
        try:
            with self.access.answer(Call("POST", path, action, moves=True), self.context) as answer:
                if answer.status not in {201, 202}:
                    raise errors.no_success(answer, action)
                found = opened(answer, action)
            self._begin(found)
        except NetworkError as error:
            if error.hung_up:  # ECR did so where the repository was missing
                error.hint = (
                    "check that the repository exists: some registries hang up on a push to one "
                    "that does not"
                )
            raise

    def count(self, size: int) -> None:
        """Count bytes of the blob as put on the wire: those of the push are those of its blobs."""
        self.sent += size
        self.context.meter.add(sent_bytes=size)

    def post(self, content: memoryview, digest: str) -> bool:
        """Send all of a blob in the request that opens a session; whether the blob is kept by it.

        Where the registry does not keep it, the session is open as by `open`. Raises what `open`
        raises; a failure of this request alone is no error, since it only saves another one.
        """
        facts, refused = self.facts, False
        if facts.offers("posts") is False:  # another blob has found that out meanwhile
            self.open()
            return False
        # Until the answer is there, no other blob tries: each would be sent twice if it fails.
        facts.tried.add("posts")
        self.count(len(content))
        answer: Confirmed | Opened | None = None
        try:
            answer = self._post(content, digest)
        except NetworkError as error:
            # Nothing was sent, so nothing was found out. Otherwise the request itself may be what
            # the registry, or a proxy before it, hangs up on: go on by the usual way.
            if not error.sent:
                facts.tried.discard("posts")
                raise
        except (AuthError, RegistryError) as error:
            if error.status in {429, 503}:  # the host is busy: another request would make it worse
                raise
            # A server's failure says nothing of the way, be it passing or a full disk.
            refused = not error.transient and (error.status or 0) not in {500, 507}
        if isinstance(answer, Confirmed):
            facts.posts, self.kept_instead = True, answer.instead
            return True
        if answer:
            self._begin(answer)
        else:
            self.open()
        # Only now: a refusal may be of the repository or the account, and then this POST has
        # failed as well.
        if answer or refused:
            facts.posts = False
        return False

    def _post(self, content: memoryview, digest: str) -> Confirmed | Opened:
        """Send all of a blob in one POST (end-4b); the registry may open a session instead."""
        path = f"{distribution.uploads_path(self.access.name.path)}?digest={digest}"
        call = Call("POST", path, self.action, (BINARY,), content, moves=True)
        with self.access.answer(call, self.context) as answer:
            # Some registries answer 201 to the session that they open instead, so the answer has to
            # name the blob: in its header, or in its location as zot does.
            location = answer.headers.get("Location") or ""
            named = errors.named(answer) or digest.partition(":")[2] in location
            if answer.status == 201 and named:
                return Confirmed(errors.named_instead(answer, digest))
            if answer.status not in {201, 202}:
                raise errors.no_success(answer, self.action)
            return opened(answer, self.action)

    @property
    def is_at_home(self) -> bool:
        """Whether its URL has the form of a session of this repository, at the registry itself.

        A URL from the cache may be anybody's, and no other address gets our credentials. Nor is
        another one written to the cache: a storage's is signed, and opens to whoever knows it.
        """
        base = self.access.transport.endpoint.base(self.context)
        path = self.url.target.partition("?")[0]
        home = re.escape(f"{base.target}{self.access.name.path}/blobs/upload")
        # GHCR: `upload`, where all others have `uploads`.
        return self.url.same_origin(base) and bool(re.fullmatch(home + _SESSION, path))

    def moved(self, response: Response) -> None:
        """Take the session's new URL from an answer; without one the last URL stays."""
        self.url = session_url(response, self.action, self.url)

    def held(self) -> int | None:
        """Bytes that the registry says it holds (distribution-spec, end-13); 0: it does not say.

        None: the session is gone, or cannot be asked. Ask once only: distribution 2 drops a session
        whose body was cut when it is asked.
        """
        with self.access.answer(Call("GET", self.url, self.action), self.context) as answer:
            # ECR and older Gitea answer 404 to every such question, Artifactory has answered 405.
            # Distribution 2 answers 404 once a body was cut.
            if not answer.ok:
                refusal = errors.refusal(answer, self.action)
                # Those 404s say BLOB_UPLOAD_INVALID, transient elsewhere: a new session helps.
                if refusal.transient and answer.status != 404:
                    raise refusal
                return None
        self.moved(answer)
        return range_end(answer)

    def resume(self, *, telling: bool, in_chunks: bool) -> bool:
        """After a failure, ask the session what it holds; whether the upload goes on from there.

        `acknowledged` is then the bytes that it holds. `telling`: so much was sent that an empty
        session shows that the host keeps nothing of a cut body. Raises once, where
        asking again later makes sense.
        """
        if not (self.is_open and self._questions):
            return False
        try:
            held = self.held()
        except TowlineError as error:
            self._questions -= 1
            if error.transient and self._questions:
                raise
            return False
        if held or held is None or telling:
            self.facts.note_cut(in_chunks=in_chunks, went_on=bool(held))
        self.acknowledged = held or self.acknowledged
        return bool(held)

    def spoil(self) -> None:
        """Never ask the session again: what it holds was refused."""
        self._questions = 0

    def close(self, digest: str, sent: int) -> None:
        """Have the registry check and keep the blob (end-6); `sent`: bytes that it has to hash."""
        url = self.url.with_query("digest", digest)
        # No body: distribution 3 appends one without a look at its range.
        call = Call("PUT", url, self.action, (BINARY,), extra=sent)
        with self.access.answer(call, self.context) as answer:
            errors.check_success(answer, self.action)
            self.kept_instead = errors.named_instead(answer, digest)

    def give_up(self) -> None:
        """Cancel the session, if the registry lets us. Never raises, never waits long."""
        if not self.is_open:
            return
        self.is_open = False
        late = self.context.cancel.cancelled
        # A switch of its own: that of a cancelled push would end this request at once. Distribution
        # refuses it (401) to a token without `delete`, which a push does not ask for.
        context = self.context.but(cancel=Cancel())
        seconds = _CANCEL_SECONDS_LATE if late else CANCEL_SECONDS
        with suppress(Cancelled):
            access = self.access
            access.transport.quietly(Request("DELETE", self.url), access.scopes, context, seconds)


def range_end(response: Response) -> int:
    """Bytes held, by the `Range` of an answer; 0: it does not say, or is ambiguous.

    `0-0` means one byte or none (distribution, zot, Gitea), `0--1` none (older Gitea).
    """
    match = re.fullmatch(_RANGE, (response.headers.get("Range") or "").strip())
    if match is None or int(match[2]) <= 0:
        return 0
    # Quay writes `bytes=` and the number of the next byte; all others that of the last byte.
    return int(match[2]) if match[1] else int(match[2]) + 1
