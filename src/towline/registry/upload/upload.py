"""One blob's upload: write, commit, cancel (distribution-spec, "Pushing blobs").

A session at the registry (`session`), and in it a body under way, in a shape that the host takes
(`strategy`); a small blob may go in the request that else opens the session:

    nothing written ── write ─▶ a body is under way ── commit ─▶ the blob is kept
           ▲                              │ failure
           └─── rewind: the session ──────┴──▶ rewind: of no more use
                goes on, or nothing was sent

What a failure teaches of the host is noted, so that the next attempt does not repeat the mistake.
Trying again is `transfers`' work; an error's `transient` says whether that makes sense.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from towline.errors import NetworkError, RegistryError, TowlineError
from towline.registry import errors
from towline.registry.errors import on_side
from towline.registry.upload.bodies import Chunks, Held, OneBody
from towline.registry.upload.session import Session
from towline.registry.upload.strategy import Expected, choose, in_one_post
from towline.spec import distribution, media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from towline.context import Context
    from towline.registry.blobs import Blobs, Opened

_TELLING = 1 << 20
"""Bytes of a cut body. A host that then holds none of them keeps nothing of a cut body."""
_MISTAKES = frozenset(
    {
        distribution.DIGEST_INVALID,
        distribution.SIZE_INVALID,
        distribution.RANGE_INVALID,
        distribution.BLOB_UPLOAD_INVALID,
    }
)
"""Codes for bytes, or a number of bytes, that are not what was announced."""
_NOT_KEPT = frozenset({400, 404, 409, 416, 422})
"""Statuses of a closing PUT at hosts that may have lost some of a blob's chunks."""


class Upload:
    """One blob on its way, written by one thread at a time from its first byte to its last."""

    def __init__(
        self,
        repository: Blobs,
        context: Context,
        opened: Opened | None,
        known: Descriptor | None = None,
        about: int = 0,
        *,
        acknowledged: int = 0,
        telling: bool = False,
    ) -> None:
        """`known`: the blob's digest and size. `about`: bytes that an unknown size may come to.

        `opened`: None if `open` comes next.
        `acknowledged`: bytes of a session that an earlier process has left; call `rewind` first.
        `telling`: so much was sent to it that the registry should hold some of it.
        """
        self._repository = repository
        self.session = Session(repository, context, opened, acknowledged)
        self._telling = telling
        self._blob = Expected(known, about)
        self._body: OneBody | Chunks | Held | None = None
        """The body under way; begun with the first byte that the registry does not hold."""
        self._start = 0
        """Bytes that the registry held already when this attempt began: they are not sent."""
        self._written = 0
        """Bytes of the blob that were written in this attempt, with those that are not sent."""

    def open(self) -> None:
        """Open a session if there is none, unless the blob is to go in one POST."""
        repository, session = self._repository, self.session
        posted = in_one_post(repository.facts, self._blob, repository.chunk_size)
        # No blob is sent, uninvited, to a host that has not yet answered as a registry does.
        if not (session.is_open or (posted and repository.transport.proven)):
            session.open()

    @property
    def sent(self) -> int:
        """Bytes of the blob that were sent, whatever became of them."""
        return self.session.sent

    @property
    def acknowledged(self) -> int:
        """Bytes that the registry is known to hold of an unfinished blob."""
        return self.session.acknowledged

    @property
    def resumed(self) -> bool:
        """Whether it goes on where an earlier attempt was cut."""
        return self._start > 0

    def write(self, block: bytes | memoryview) -> None:
        """Send a block. After an error call `rewind`."""
        view = memoryview(block).cast("B")
        held = min(max(0, self._start - self._written), len(view))
        self._written += len(view)
        if held == len(view):
            return
        with on_side("destination"):
            if self._body is None:
                self._body = self._new_body()
            self._body.write(view[held:])

    def _new_body(self) -> OneBody | Chunks | Held:
        session, blob, facts = self.session, self._blob, self._repository.facts
        self.open()
        if not session.is_open:
            return Held(session, facts.chunk(None))
        shape = choose(facts, blob, self._start, self._repository.chunk_size)
        if shape == "chunk":
            return Chunks(session, facts.chunk(self._repository.chunk_size))
        if shape == "held":
            return Held(session, facts.chunk(None))
        digest = blob.known.digest if blob.known and shape == "put" else None
        return OneBody(session, blob.left(self._start), digest)

    def commit(self, digest: str) -> None:
        """After the last byte: have the registry check and keep the blob.

        Where the answer is lost, is a server's failure or names another digest, the registry is
        asked whether it has the blob.
        """
        with on_side("destination"):
            if self._is_unsent:
                # Digest and size are known now: the second time it can go in one PUT.
                known = Descriptor(media_types.OCTET_STREAM, Digest(digest), self._written)
                self._blob = self._blob._replace(known=known)
                error: RegistryError | NetworkError = RegistryError(
                    f"{self._repository.name.host} takes no blob without its digest: it is read a "
                    "second time",
                    transient=True,
                )
                error.another_way = True
                raise error
            try:
                if self._body is None or not self._body.finish(digest):
                    self.session.close(digest, self._written)
            except (RegistryError, NetworkError) as error:
                self._judge(error, digest)
                # The blob may be there although the answer does not say so: 5xx of something on
                # the way, or 404 to a second PUT of a session that the first has closed.
                if isinstance(error, NetworkError):
                    unclear = error.sent
                else:
                    unclear = error.status is None or error.status >= 500 or error.status == 404
                if not (unclear and self._is_there(digest)):
                    raise
            self._check_name(digest)
        in_chunks = isinstance(self._body, Chunks) and self._body.several
        chunk = self._repository.facts.chunk(self._repository.chunk_size)
        self._repository.facts.kept(self._written - self._start, chunk, in_chunks=in_chunks)
        self.session.is_open = False

    @property
    def _is_unsent(self) -> bool:
        """Whether the blob was too large to be held, so that it must be written again."""
        return isinstance(self._body, Held) and self._body.overflown

    def _judge(self, error: RegistryError | NetworkError, digest: str) -> None:
        """Note what a failed commit teaches. Bytes that were altered are sent again, once."""
        if not isinstance(error, RegistryError):
            return
        self.session.spoil()
        chunks = self._body if isinstance(self._body, Chunks) and self._body.several else None
        if chunks and error.status in _NOT_KEPT and not error.another_way:
            # ECR Public takes each chunk, and refuses the digest at the end (400).
            chunks.came_to_nothing(error)
        if error.another_way:
            return
        if error.status == 404:  # the session is gone: a new one may do
            error.transient = True
        elif error.code in _MISTAKES:
            error.transient |= self._repository.is_first_mistake(digest)

    def _check_name(self, digest: str) -> None:
        """If the registry names another digest, make sure that our blob is there."""
        other, repository = self.session.kept_instead, self._repository
        if other is None or self._is_there(digest):
            return
        self.session.spoil()
        raise RegistryError(
            f"a blob of {repository.name} was sent as {digest}, but {repository.name.host} names "
            f"{other} and has no such blob",
            status=201,
            transient=repository.is_first_mistake(digest),
            hint=errors.ALTERED,
        )

    def _is_there(self, digest: str) -> bool:
        with suppress(TowlineError):
            return self._repository.head_blob(digest, self.session.context).has(None)
        return False

    def rewind(self) -> bool:
        """After a failure: whether the session can be resumed.

        If so, write the same blob again from its first byte; what the registry holds is not sent.
        If not, drop this upload. After an error call it again later, once.
        """
        self._break_off()
        session = self.session
        # Only chunks are acknowledged, so that tells how an earlier process has sent it.
        in_chunks = isinstance(self._body, Chunks) if self._body else session.acknowledged > 0
        telling = self._telling or self._written - self._start >= _TELLING
        if in_chunks:
            telling = session.acknowledged > self._start
        lost = in_chunks and not self._repository.facts.takes_chunks
        goes_on = self._is_unsent or (
            not lost and session.resume(telling=telling, in_chunks=in_chunks)
        )
        if not goes_on:
            session.is_open = False
            return False
        self._body, self._start, self._written = None, session.acknowledged, 0
        return True

    def cancel(self) -> None:
        """Cancel the session at the registry. Never raises, never waits long."""
        self._break_off()
        self.session.give_up()

    def abandon(self) -> None:
        """Leave the session as it is, to a later process that resumes it."""
        self._break_off()
        self.session.is_open = False

    def _break_off(self) -> None:
        if isinstance(self._body, OneBody):
            self._body.close()
