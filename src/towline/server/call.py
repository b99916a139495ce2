"""The arguments of every endpoint: the registry's parts, and a request taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from towline.server.refusals import digest_of
from towline.server.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.server.auth import Guard
    from towline.server.http import Body, Request
    from towline.server.limits import Limits
    from towline.server.sessions import Sessions
    from towline.server.storage import Storage
    from towline.spec.digest import Digest


@dataclass(frozen=True, slots=True)
class Registry:
    """One registry: its parts and options."""

    storage: Storage
    sessions: Sessions
    limits: Limits
    guard: Guard | None
    read_only: bool
    schema1: bool
    """Whether manifests of schema 1 are accepted."""
    referrers: bool
    """Whether it lists referrers; if not, clients keep the list under a tag."""
    report: Callable[[BaseException], None]
    """Is told of the registry's own faults."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one endpoint."""

    registry: Registry
    request: Request
    name: str
    """The repository's name, which matches the grammar; empty for an endpoint without one."""
    last: str
    """The last part of the path: a digest, a tag, a session's id, or empty."""
    interrupt: Callable[[], None]
    """Ends the reading of this request's body, from another thread."""

    @property
    def head(self) -> bool:
        """Whether only the headers are wanted."""
        return self.request.method == "HEAD"

    @property
    def body(self) -> Body:
        """The request's body."""
        return self.request.body

    @property
    def repository(self) -> Repository:
        """The repository, which need not exist."""
        return Repository(self.registry.storage, self.name)

    def digest(self) -> Digest:
        """The last part of the path as a digest. Raises Refused for another form."""
        return digest_of(self.last)

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter."""
        values = self.request.query.get(name)
        return values[0] if values else None
