"""HTTP messages as values: requests and responses (RFC 9110)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from towline.spec import reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from towline.wire.url import Url

ANSWER_MAX = 64 << 10
"""Bytes of an answer's body that are read, unless the caller asks for more."""


Shunned = Literal["this machine", "a private network", "another machine"]
"""Addresses that a request must not reach. A private network includes this machine."""


class Headers:
    """Header fields in their order; names are compared without case."""

    __slots__ = ("_fields", "_values")

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields = tuple(fields)
        self._values: dict[str, list[str]] = {}
        for name, value in self._fields:
            self._values.setdefault(name.lower(), []).append(value)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values

    def get(self, name: str) -> str | None:
        """The first value of that name."""
        values = self.all(name)
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """Every value of that name."""
        return self._values.get(name.lower(), [])

    def number(self, name: str) -> int | None:
        """The first value as a whole number; None when it is missing or something else."""
        text = self.get(name)
        return reading.number(text) if text is not None else None

    def tokens(self, name: str) -> list[str]:
        """The parts between commas of all values, lower case (`Connection`)."""
        return [part.strip().lower() for value in self.all(name) for part in value.split(",")]


class Request(NamedTuple):
    """A request.

    Its body is either whole here, or `streamed`: whoever starts the exchange writes it block by
    block. With `length` it goes under a Content-Length, without in chunked encoding.
    """

    method: str
    url: Url
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | memoryview | None = None
    streamed: bool = False
    length: int | None = None
    """Bytes of a streamed body, where known."""
    shuns: Shunned | None = None
    """Addresses to which it must not be sent, wherever the name may lead."""

    def __repr__(self) -> str:
        # Its headers and its body may hold secrets.
        return f"<Request {self.method} {self.url.redacted}>"

    def authorized(self, header: str | None) -> Request:
        """The request with this Authorization header; unchanged where it is None or empty."""
        if not header:
            return self
        return self._replace(headers=(*self.headers, ("Authorization", header)))

    @property
    def has_body(self) -> bool:
        """Whether bytes follow the head."""
        return self.streamed or bool(self.body)


class Response(NamedTuple):
    """An answer; redirects and refusals are answers too."""

    status: int
    reason: str
    headers: Headers
    url: Url
    """The URL of the request."""
    method: str = "GET"
    body: bytes = b""
    truncated: bool = False
    """The body was longer than the caller's limit."""

    def __repr__(self) -> str:
        return f"<Response {self.status} to {self.method} {self.url.redacted}>"

    @property
    def ok(self) -> bool:
        """Any 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the class of success

    @property
    def media_type(self) -> str:
        """`Content-Type` without parameters, lower case; empty when it is missing."""
        return (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
