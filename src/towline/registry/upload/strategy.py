"""Chooses the shape in which a blob is sent, and learns from a body that was refused.

A blob of known digest and size goes in one PUT, and so does a small one as soon as it is made. Any
other blob goes in one PATCH of open length and an empty PUT. Where bodies are limited it goes in
chunks. Where a host wants the digest first, it is held in memory, or read twice.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from towline.errors import AuthError, RegistryError
from towline.registry import errors
from towline.registry.capabilities import CHUNK, TRIES, HostFacts, Shape
from towline.spec import distribution

if TYPE_CHECKING:
    from towline.registry.upload.session import Session
    from towline.spec.descriptor import Descriptor
    from towline.wire.message import Response

_LARGE = 256 << 20
"""Bytes above which a blob is worth going in chunks where they are known to survive a cut."""
_SMALL = 1 << 20
"""Bytes of a blob that is held until its digest is known: that saves the PATCH."""
_TRIED = 64 << 10
"""Most bytes of the blob with which single POSTs are tried at a host: it may be sent twice."""
_LARGE_AT_STAKE = CHUNK
"""Like `_LARGE`, where the host is known to keep nothing of a cut body: chunks may survive."""
_OTHER_SHAPE = frozenset({400, 405, 501})
"""Statuses by which hosts, or proxies' rules (IIS), refuse a shape of body."""
_OF_CHUNKS = frozenset({404, 409, 412, 415, 416, 422})
"""More statuses by which hosts refuse a blob in several bodies."""
LOST = frozenset({distribution.BLOB_UPLOAD_UNKNOWN, distribution.BLOB_UPLOAD_INVALID})
"""Codes of a session that is gone, in whatever shape the blob went."""
_TOO_SMALL = r"too ?small|minimum (?:part|chunk|size)"


class Expected(NamedTuple):
    """What is known of a blob before it is written."""

    known: Descriptor | None
    about: int
    """Bytes that a blob of unknown size may come to."""

    @property
    def size(self) -> int:
        """Bytes of it, as far as that is known."""
        return self.known.size if self.known else self.about

    def left(self, start: int) -> int | None:
        """Bytes after the first `start`; None: not known."""
        return self.known.size - start if self.known else None


def choose(
    facts: HostFacts, blob: Expected, start: int, chunk_size: int | None
) -> Shape | Literal["held"]:
    """The shape in which to send what comes after the first `start` bytes.

    `chunk_size`: bytes of the largest body that the user wants.
    """
    if _in_chunks(facts, blob, start, chunk_size):
        return "chunk"
    # The rest of a blob goes by PATCH: distribution 3 appends a closing PUT's body unchecked.
    if start:
        return "patch"
    ways: list[Shape | Literal["held"]] = []  # the ways of a whole blob, the best first
    if blob.known and not facts.put_refused:
        ways.append("put")
    # A small blob of unknown digest is made before anything is sent.
    if not blob.known and 0 < blob.about <= _SMALL and not facts.put_refused:
        ways.append("held")
    # Without a size a PATCH has an open length, which nginx before 1.3.9 refuses (411).
    if not facts.patch_refused and (blob.known or not facts.length_wanted):
        ways.append("patch")
    # Held or read twice, which costs most: a PATCH is no way, or PUT may still be one.
    if not (blob.known or "held" in ways) and not (ways and facts.put_refused):
        ways.append("held")
    if not (facts.patch_refused or facts.chunks_refused):
        ways.append("chunk")
    # A way that fails again and again gives way to the next. If all are refused, the refusal of
    # one more PATCH is the error.
    return min(
        ways or ["patch"],
        key=lambda way: facts.failures["put" if way == "held" else way] // TRIES,
    )


def in_one_post(facts: HostFacts, blob: Expected, chunk_size: int | None) -> bool:
    """Whether to send a blob in one POST, without a session.

    Larger blobs go in a session, which can be resumed, and which a registry can refuse to open
    before their bytes are sent.
    """
    offered = facts.offers("posts")
    if offered is False or not 0 < blob.size <= (_SMALL if offered else _TRIED):
        return False
    return choose(facts, blob, 0, chunk_size) in {"put", "held"}


def _in_chunks(facts: HostFacts, blob: Expected, start: int, chunk_size: int | None) -> bool:
    left = blob.left(start)
    # Chunks are PATCHes: where those are refused, only a limit of PUT makes them worth a try.
    if facts.patch_refused and (left is None or facts.body_max is None):
        return False
    if facts.failures["chunk"] >= TRIES or (facts.chunks_refused and facts.body_max is None):
        return False
    limits = [limit for limit in (chunk_size, facts.body_max) if limit is not None]
    if limits and (left is None or left > min(limits)):
        return True
    # Chunks may save much of a large blob, should its upload be cut.
    if facts.bodies_survive is False and facts.chunks_survive is not False:
        worthwhile = blob.size > _LARGE_AT_STAKE
    else:
        worthwhile = facts.chunks_survive is True and blob.size > _LARGE
    # A PATCH that goes on in a session names its range, so its length must be known.
    return worthwhile or (left is None and (start > 0 or facts.length_wanted))


def refusal(
    session: Session, response: Response, *, shape: Shape, size: int | None
) -> AuthError | RegistryError:
    """The error for a refused body of `size` bytes (None: of open length).

    Notes what the host does not take. The error's `transient` says whether another attempt, in this
    shape or another, makes sense.
    """
    access = session.access
    error = errors.no_success(response, session.action)
    if isinstance(error, AuthError):
        error.transient |= access.transport.refused(response, access.scopes, session.context)
    # A page for people with a status of success teaches nothing.
    elif not response.ok and _learned(session.facts, response, error.code, shape=shape, size=size):
        error.transient = error.another_way = True
    elif response.status == 404 or (error.code in LOST and shape != "put"):
        # The session is gone. A missing repository would have refused the POST before.
        error.transient = True
    return access.judged(error, response, session.context)


def _learned(
    facts: HostFacts, response: Response, code: str | None, *, shape: Shape, size: int | None
) -> bool:
    """Note what the refusal says of the host. Returns whether there is another way."""
    status, text = response.status, errors.text(response)
    if is_too_large(response):
        return facts.too_large(shape, size, text)
    if status == 411 and size is None:
        facts.length_wanted = True
        return True
    # ECR: "LayerPartTooSmall".
    if size and re.search(_TOO_SMALL, f"{code} {text}".lower()) and facts.too_small(size):
        return True
    if shape == "chunk":
        refused = status in _OTHER_SHAPE | _OF_CHUNKS and code not in LOST
    else:
        refused = status in _OTHER_SHAPE and code in {None, distribution.UNSUPPORTED}
    return refused and facts.shape_refused(shape)


def is_too_large(response: Response) -> bool:
    """Whether a body was refused for its size."""
    # GHCR says 416 of a chunk above 4 MiB, and "request body is too large".
    status = response.status
    return status == 413 or (status == 416 and "large" in errors.text(response))
