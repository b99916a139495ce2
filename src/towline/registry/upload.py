"""One blob on its way: write, commit, cancel (distribution-spec, "Pushing blobs").

A blob of unknown digest goes as one PATCH of open length and an empty PUT; one of known digest and
size as one PUT; what something on the way does not let through in one body goes in chunks. Which
of them a host takes is learned, so that the next attempt does not make the same mistake. Trying
again is `transfers`' work; errors say by `transient` whether it makes sense.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from towline.errors import NetworkError, RegistryError, TowlineError
from towline.registry import answers, requests
from towline.registry.caller import on_side
from towline.registry.chunks import Chunks
from towline.registry.held import Held
from towline.registry.requests import BINARY
from towline.registry.session import Session
from towline.spec import distribution, media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest
from towline.wire.message import Request

if TYPE_CHECKING:
    from towline.registry.conversation import Conversation
    from towline.registry.facts import Shape
    from towline.wire.exchange import Exchange

_LARGE = 256 << 20
"""Bytes above which a blob is worth going in chunks where they are known to survive a cut."""
_TELLING = 1 << 20
"""Bytes of a cut body of which a host that keeps what it has got holds at least some."""
_HUNG_UP = (
    "check that the repository exists: some registries hang up on a push to one that does not"
)
_NOT_FOUND = 404
_MISTAKES = frozenset(
    {
        distribution.DIGEST_INVALID,
        distribution.SIZE_INVALID,
        distribution.RANGE_INVALID,
        distribution.BLOB_UPLOAD_INVALID,
    }
)
"""Codes that say that the bytes, or their number, are not what was announced."""
_SERVER_ERRORS = range(500, 600)


class Upload:
    """Written by one thread at a time, from the blob's first byte to its last."""

    def __init__(
        self,
        talk: Conversation,
        *,
        known: Descriptor | None = None,
        opened: requests.Opened | None = None,
        chunk_size: int | None = None,
        mistaken: set[str] | None = None,
        about: int = 0,
    ) -> None:
        """`about`: bytes that a blob of unknown size may come to."""
        self.sent = 0
        """Bytes of the blob that were written; those that the registry held are none of them."""
        self.resumed = False
        """Whether it goes on where an earlier attempt was cut."""
        self._session = Session(talk, opened)
        self._talk = talk
        self._known = known
        self._chunk_size = chunk_size
        self._about = known.size if known else about
        self._mistaken = mistaken if mistaken is not None else set()
        self._body: _OneBody | Chunks | Held | None = None
        self._unsent = False
        """All was written and nothing sent: it is to be written again, its digest being known."""
        self._spoilt = False
        """What the session holds has been refused: going on with it would be of no use."""
        self._unanswered = False
        """Whether the session was asked what it holds, to no avail."""
        self._skip = 0
        self._written = 0

    def open(self) -> None:
        """Open the session, if it is not. Raises AuthError, RegistryError, NetworkError."""
        with on_side("destination"):
            try:
                _ = self._session.url
            except NetworkError as error:
                if error.hung_up:
                    error.hint = _HUNG_UP
                raise

    def write(self, block: bytes | memoryview) -> None:
        """Send a block. Raises AuthError, RegistryError, NetworkError; see `rewind` for then."""
        view = memoryview(block).cast("B")
        skipped = min(max(0, self._skip - self._written), len(view))
        self._written += len(view)
        view = view[skipped:]
        if not len(view):
            return
        with on_side("destination"):
            if self._body is None:
                self._body = self._begin()
            self.sent += 0 if isinstance(self._body, Held) else len(view)
            self._body.write(view)

    def _begin(self) -> _OneBody | Chunks | Held:
        facts = self._talk.facts
        size = self._known.size if self._known else None
        if self._in_chunks(size):
            return Chunks(self._session, facts.chunk(self._chunk_size), self._skip)
        if size is None and (facts.patch_refused or facts.length_wanted):
            return Held(facts.chunk(None))
        if self._known and not facts.put_refused and not self._skip:
            return _OneBody(self._session, self._known.size, self._known.digest)
        return _OneBody(self._session, size, None, self._skip)

    def _in_chunks(self, size: int | None) -> bool:
        facts = self._talk.facts
        if facts.patch_refused and size is None:
            return False
        if facts.body_max is None and (facts.patch_refused or facts.chunks_refused):
            return False
        limits = [limit for limit in (self._chunk_size, facts.body_max) if limit is not None]
        if limits and (size is None or size - self._skip > min(limits)):
            return True
        if facts.chunks_survive and self._about > _LARGE:
            return True
        if self._skip and size is None:
            return True  # what goes on says from where to where, so its length must be known
        return size is None and facts.length_wanted

    def commit(self, digest: str) -> None:
        """Everything is written: have the registry check and keep the blob.

        An answer that is lost or is a server's failure is settled by asking for the blob. Raises
        AuthError, RegistryError, NetworkError.
        """
        with on_side("destination"):
            if isinstance(self._body, Held) and self._body.whole() is None:
                raise self._again(digest)
            try:
                self._commit(digest)
            except (RegistryError, NetworkError) as error:
                self._judge(error, digest)
                if not (_is_unclear(error) and self._is_there(digest)):
                    raise
        self._session.done()

    def _again(self, digest: str) -> RegistryError:
        """Have it written once more: now it is known what it is."""
        self._known = Descriptor(media_types.OCTET_STREAM, Digest(digest), self._written)
        self._unsent = True
        error = RegistryError(
            f"{self._talk.name.host} takes no blob without its digest: it is read a second time",
            transient=True,
        )
        error.learned = True
        return error

    def _commit(self, digest: str) -> None:
        match self._body:
            case Held() as held if (content := held.whole()) is not None:
                self.sent += len(content)
                self._put(content, digest)
                return
            case _OneBody() as body:
                if body.finish():
                    return
            case Chunks() as chunks:
                whole = chunks.whole()
                if whole is not None and not self._talk.facts.put_refused:
                    self._put(whole, digest)
                    return
                chunks.flush()
        self._session.close(digest, self._written)

    def _put(self, content: memoryview, digest: str) -> None:
        body = _OneBody(self._session, len(content), digest)
        body.write(content)
        body.finish()

    def _judge(self, error: RegistryError | NetworkError, digest: str) -> None:
        """Bytes that do not agree with their digest may have been altered on the way: once."""
        self._spoilt = isinstance(error, RegistryError)
        if not isinstance(error, RegistryError):
            return
        if error.status == _NOT_FOUND:
            error.transient = True  # of the session
        elif error.code in _MISTAKES and digest not in self._mistaken:
            self._mistaken.add(digest)
            error.transient = True

    def _is_there(self, digest: str) -> bool:
        with suppress(TowlineError):
            return self._talk.call(requests.blob_exists(self._talk.name, digest))
        return False

    def rewind(self) -> bool:
        """After a failure: whether the session goes on with what it holds.

        If so, write the same blob again from its first byte: what is held is not sent. If not, it
        is of no more use. Raises RegistryError and NetworkError: ask again later, once.
        """
        self._break_off()
        if self._unsent:
            self._unsent, self._body, self._written = False, None, 0
            return True
        held = self._held()
        if held:
            self._talk.facts.went_on(in_chunks=isinstance(self._body, Chunks))
            self._skip, self._written, self._body = held, 0, None
            self.resumed = True
            return True
        self._session.done()
        return False

    def _held(self) -> int:
        """Bytes that the registry says it holds of the blob; it is asked until it answers, twice.

        Raises what is to be waited out, once: the session may well be there.
        """
        if self._is_useless():
            return 0
        try:
            with on_side("destination"):
                answer = self._session.held()
        except TowlineError as error:
            if error.transient and not self._unanswered:
                self._unanswered = True
                raise
            return 0
        held, certain = answer or (0, False)
        if answer is None or (not certain and self._should_be_held()):
            self._talk.facts.lost()
        return held if certain else 0

    def _should_be_held(self) -> bool:
        """Whether so much went out that a host that holds nothing of it has kept nothing."""
        if isinstance(self._body, Chunks):
            return self._body.acknowledged > self._skip
        return self._written - self._skip >= _TELLING

    def _is_useless(self) -> bool:
        """Whether the session can't be gone on with, whatever it holds."""
        if not self._session.is_open:
            return True
        return self._spoilt or (self._talk.facts.chunks_refused and isinstance(self._body, Chunks))

    @property
    def acknowledged(self) -> int:
        """Bytes that the registry is known to hold of an unfinished blob."""
        chunked = self._body.acknowledged if isinstance(self._body, Chunks) else 0
        return max(self._skip, chunked)

    def cancel(self) -> None:
        """Give the session back, if the registry takes it; never raises, never waits long."""
        self._break_off()
        self._session.give_up()

    def _break_off(self) -> None:
        if isinstance(self._body, _OneBody):
            self._body.close()


class _OneBody:
    """A PATCH, or with a digest a PUT, written block by block; `skip` bytes are there already."""

    def __init__(
        self, session: Session, size: int | None, digest: str | None, skip: int = 0
    ) -> None:
        self._session = session
        self._length = length = size - skip if size is not None else None
        self._shape: Shape = "put" if digest else "patch"
        url = session.url.with_query("digest", digest) if digest else session.url
        # Every PATCH after a session's first one must say where it belongs: Gitea refuses it
        # otherwise, and Quay takes it for the beginning.
        span = (requests.content_range(skip, length),) if skip and length else ()
        headers = (BINARY, *span)
        request = Request(self._shape.upper(), url, headers, streamed=True, length=length)
        self._exchange: Exchange = session.talk.start(request)

    def write(self, block: memoryview) -> None:
        refused = self._exchange.write(block)
        if refused is not None:
            self.close()
            raise self._session.refusal(refused, shape=self._shape, size=self._length)

    def finish(self) -> bool:
        """End the body; whether that has closed the session too."""
        response = self._exchange.finish()
        if not response.ok or answers.is_page(response):
            raise self._session.refusal(response, shape=self._shape, size=self._length)
        if self._shape == "patch":
            self._session.moved(response)
        return self._shape == "put"

    def close(self) -> None:
        self._exchange.close()


def _is_unclear(error: RegistryError | NetworkError) -> bool:
    """Whether the blob may be there although the answer does not say so."""
    if isinstance(error, NetworkError):
        return True
    return error.status is None or error.status in _SERVER_ERRORS or error.status == _NOT_FOUND
