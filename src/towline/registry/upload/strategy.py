"""In which shape a blob goes over, and what a body that was refused teaches of that.

A blob of known digest and size goes as one PUT, and so does a small one, once it is made; another
of unknown digest as one PATCH of open length and an empty PUT; what something on the way does not
let through in one body goes in chunks; and what a host takes only with its digest is held, or read
twice.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from towline.errors import AuthError
from towline.registry import errors
from towline.registry.capabilities import CHUNK, TRIES
from towline.spec import distribution

if TYPE_CHECKING:
    from towline.errors import RegistryError
    from towline.registry.capabilities import HostFacts, Shape
    from towline.registry.upload.session import Session
    from towline.spec.descriptor import Descriptor
    from towline.wire.message import Response

_LARGE = 256 << 20
"""Bytes above which a blob is worth going in chunks where they are known to survive a cut."""
_SMALL = 1 << 20
"""Bytes of a blob that is rather held until its digest is known: that saves a round trip."""
_LARGE_AT_STAKE = CHUNK
"""The same where nothing of a body that is cut is kept, as chunks may be."""
_OTHER_SHAPE = frozenset({400, 405, 501})
"""Answers of hosts, or of rules before them, that do not take a body in this way."""
_OF_CHUNKS = frozenset({404, 409, 412, 415, 416, 422})
"""Beside these, answers of hosts that do not take a blob in several bodies."""
LOST = frozenset({distribution.BLOB_UPLOAD_UNKNOWN, distribution.BLOB_UPLOAD_INVALID})
"""Codes of a session that is gone, in whatever shape the blob went."""
_TOO_SMALL = r"too ?small|minimum (?:part|chunk|size)"


class Expected(NamedTuple):
    """What is known of a blob before it is written."""

    known: Descriptor | None
    about: int
    """Bytes that one of unknown size may come to."""

    def left(self, start: int) -> int | None:
        """Bytes after the first `start`; None: not known."""
        return self.known.size - start if self.known else None

    def better_in_chunks(self, facts: HostFacts) -> bool:
        """Whether it is worth being able to resume it, and chunks may be what can be resumed."""
        size = self.known.size if self.known else self.about
        if facts.bodies_survive is False and facts.chunks_survive is not False:
            return size > _LARGE_AT_STAKE
        return facts.chunks_survive is True and size > _LARGE

    @property
    def is_small(self) -> bool:
        """Whether its digest is soon known: it is made before anything of it is sent."""
        return self.known is None and 0 < self.about <= _SMALL


def choose(
    facts: HostFacts, blob: Expected, start: int, chunk_size: int | None
) -> Shape | Literal["held"]:
    """The shape in which to send what comes after the first `start` bytes.

    `chunk_size`: bytes of the largest body that the user wants.
    """
    if _in_chunks(facts, blob, start, chunk_size):
        return "chunk"
    if start:
        return "patch"
    ways: list[Shape | Literal["held"]] = []  # of a whole blob, the best first
    if blob.known and not facts.put_refused:
        ways.append("put")
    if blob.is_small and not facts.put_refused:
        ways.append("held")
    if not facts.patch_refused and (blob.known or not facts.length_wanted):
        ways.append("patch")
    if not (blob.known or "held" in ways) and not (ways and facts.put_refused):
        ways.append("held")
    if not (facts.patch_refused or facts.chunks_refused):
        ways.append("chunk")
    # What fails again and again gives way to the next.
    return min(
        ways or ["patch"],
        key=lambda way: facts.failures["put" if way == "held" else way] // TRIES,
    )


def _in_chunks(facts: HostFacts, blob: Expected, start: int, chunk_size: int | None) -> bool:
    left = blob.left(start)
    if facts.patch_refused and (left is None or facts.body_max is None):
        return False
    if facts.failures["chunk"] >= TRIES or (facts.chunks_refused and facts.body_max is None):
        return False
    limits = [limit for limit in (chunk_size, facts.body_max) if limit is not None]
    if limits and (left is None or left > min(limits)):
        return True
    if blob.better_in_chunks(facts):
        return True
    # What goes on says from where to where, so its length must be known.
    return left is None and (start > 0 or facts.length_wanted)


def refusal(
    session: Session, response: Response, *, shape: Shape, size: int | None
) -> AuthError | RegistryError:
    """The error for a body of `size` bytes that was not taken; notes what the host cannot do.

    `transient` in it says whether another attempt, in this way or another, makes sense.
    """
    talk = session.talk
    error = errors.no_success(response, session.action)
    if response.ok:
        return talk.transport.judged(error, response)  # a page
    if isinstance(error, AuthError):
        error.transient |= talk.transport.refused(response, talk.scopes, talk.context)
    elif _learned(talk.facts, response, error.code, shape=shape, size=size):
        error.transient = error.another_way = True
    elif response.status == 404 or (error.code in LOST and shape != "put"):
        # What is gone is the session: a repository that is missing was missed before.
        error.transient = True
    return talk.transport.judged(error, response)


def _learned(
    facts: HostFacts, response: Response, code: str | None, *, shape: Shape, size: int | None
) -> bool:
    """Note what the refusal says of the host; whether there is another way."""
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
