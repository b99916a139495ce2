"""A call to a registry as a value: what is asked, and how the answer is read (jib's way).

Nothing touches a socket; tests feed answers in. `action` completes "cannot …" in errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from towline.wire.message import ANSWER_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.wire.message import Response
    from towline.wire.url import Url

T = TypeVar("T")


class Call(NamedTuple, Generic[T]):
    """One request, and the meaning of its answer."""

    method: str
    target: str | Url
    """A path of the API, or the whole URL of an upload session."""
    action: str
    read: Callable[[Response], T]
    """Raises AuthError or RegistryError for an answer that is no success."""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | memoryview | None = None
    limit: int = ANSWER_MAX
    """Bytes of the answer that are of use."""
    follow: bool = False
    """Go where a redirect points (GET and HEAD alone)."""
    moves: bool = False
    """Go to another host, too, where a 307 or 308 points; other writes go to no other."""
    optional: bool = False
    """It only saves work: a refusal that nothing can be learned from is not questioned."""
    fresh: bool = False
    """On a new connection: the kept ones have turned out dead."""


class Unclear(NamedTuple):
    """The answer does not say; ask in another way."""

    status: int


def says_nothing(response: Response) -> bool:
    """Whether a refused HEAD leaves open what was asked for.

    Most refusals are of a rule or of a proxy: 405, 501, 400 "invalid verb" (IIS), 403 for a tag
    that is not there (Artifactory).
    """
    status = response.status
    return status == 501 or (400 <= status < 500 and status not in {401, 404, 408, 429, 499})
