"""Where an upload stands at the registry: an address that changes with every answer.

Opens it, follows it, asks it how many bytes it holds, closes it under a digest, gives it back.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from towline.context import Cancel
from towline.errors import AuthError, Cancelled, RegistryError
from towline.registry import answers, requests
from towline.spec import distribution
from towline.wire.message import Request

if TYPE_CHECKING:
    from towline.registry.conversation import Conversation
    from towline.registry.facts import Shape
    from towline.wire.message import Response
    from towline.wire.url import Url

CANCEL_SECONDS = 2.0
"""For giving a session back; when the push itself is cancelled, much less."""
_CANCEL_SECONDS_LATE = 0.4

_NOT_FOUND, _TOO_LARGE, _RANGE_REFUSED, _LENGTH_REQUIRED = 404, 413, 416, 411
_OTHER_SHAPE = frozenset({400, 405, 501})
"""Answers of hosts, or of rules before them, that do not take a body in this way."""
_OF_CHUNKS = frozenset({404, 409, 412, 415, 416, 422})
"""Beside these, answers of hosts that do not take a blob in several bodies."""
_LOST = frozenset({distribution.BLOB_UPLOAD_UNKNOWN, distribution.BLOB_UPLOAD_INVALID})
"""Codes of a session that is gone, in whatever shape the blob went."""
_RANGE = re.compile(r"(bytes[= ])?0-(-?\d+)")
_SMALL = re.compile(r"too ?small|minimum (?:part|chunk|size)")


class Session:
    """One session of one repository; opened when its address is first wanted."""

    def __init__(self, talk: Conversation, opened: requests.Opened | None = None) -> None:
        self.talk = talk
        self.action = f"push a blob to {talk.name}"
        self._location: Url | None = None
        if opened is not None:
            self._take(opened)

    def _take(self, opened: requests.Opened) -> Url:
        self._location = opened.location
        if opened.chunk_min:
            self.talk.facts.too_small(opened.chunk_min)
        return opened.location

    @property
    def url(self) -> Url:
        """Its address now; opening it raises AuthError, RegistryError, NetworkError."""
        return self._location or self._take(self.talk.call(requests.open_upload(self.talk.name)))

    @property
    def is_open(self) -> bool:
        """Whether the registry knows of it."""
        return self._location is not None

    def moved(self, response: Response) -> None:
        """Go on where an answer says; where it says nothing, as before."""
        self._location = requests.session(response, self.action, self._location)

    def held(self) -> tuple[int, bool] | None:
        """Bytes that the registry says it holds (spec: "Resuming an upload"), and whether to rely.

        None: the session is gone, or cannot be asked. It is asked once: some destroy a session
        for the asking.
        """
        if self._location is None:
            return None
        response = self.talk.call(requests.ask_upload(self._location, self.action))
        if response is None:
            return None
        self.moved(response)
        return range_end(response)

    def close(self, digest: str, sent: int) -> None:
        """Have the registry check and keep the blob; `sent` bytes are what it has to check."""
        self.talk.call(requests.close_upload(self.url, digest, self.action), extra=sent)

    def give_up(self) -> None:
        """Give it back, if the registry takes it; never raises, never waits long."""
        location, self._location = self._location, None
        if location is None:
            return
        talk = self.talk
        late = talk.context.cancel.cancelled
        context = talk.context.with_cancel(Cancel())
        seconds = _CANCEL_SECONDS_LATE if late else CANCEL_SECONDS
        with suppress(Cancelled):
            talk.caller.quietly(Request("DELETE", location), talk.scopes, context, seconds)

    def done(self) -> None:
        """The registry has closed it."""
        self._location = None

    def refusal(
        self, response: Response, *, shape: Shape, size: int | None
    ) -> AuthError | RegistryError:
        """The error for a body that was not taken; notes what the host cannot do.

        `transient` in it says whether another attempt, in this way or another, makes sense.
        """
        if response.ok:
            return self.talk.caller.judged(answers.no_registry(response, self.action), response)
        error = answers.refusal(response, self.action)
        if isinstance(error, AuthError):
            error.transient |= self.talk.renewed(response)
        elif self._learned(response, error.code, shape=shape, size=size):
            error.transient = error.learned = True
        elif response.status == _NOT_FOUND or (error.code in _LOST and shape != "put"):
            # What is gone is the session: a repository that is missing was missed before.
            error.transient = True
        return self.talk.caller.judged(error, response)

    def _learned(
        self, response: Response, code: str | None, *, shape: Shape, size: int | None
    ) -> bool:
        """Note what the host cannot do; whether there is another way."""
        facts, status = self.talk.facts, response.status
        if status == _TOO_LARGE or is_too_large(response):
            return facts.too_large(size, answers.text(response))
        if status == _LENGTH_REQUIRED and size is None:
            facts.length_wanted = True
            return True
        if _SMALL.search(f"{code} {answers.text(response)}".lower()):
            facts.too_small()
            return True
        if shape == "chunk":
            refused = status in _OTHER_SHAPE | _OF_CHUNKS and code not in _LOST
        else:
            refused = status in _OTHER_SHAPE and code in {None, distribution.UNSUPPORTED}
        return refused and facts.shape_refused(shape)


def is_too_large(response: Response) -> bool:
    """416 is also what some say to a body that is too large (GHCR)."""
    return response.status == _RANGE_REFUSED and "large" in answers.text(response)


def range_end(response: Response) -> tuple[int, bool]:
    """Bytes held by the `Range` of an answer, and whether that is certain.

    `0-0` is said for one byte and for none. Quay says `bytes=` and names the next byte, where all
    others name the last.
    """
    match = _RANGE.fullmatch((response.headers.get("Range") or "").strip())
    if match is None:
        return 0, False
    end = max(0, int(match[2]))
    if not end:
        return 0, False
    return (end, True) if match[1] else (end + 1, True)
