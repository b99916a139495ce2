"""What every call about one repository carries: who speaks, for what, in whose context."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from towline.context import Context
    from towline.reference import RepositoryName
    from towline.registry.auth.token import Scopes
    from towline.registry.capabilities import HostFacts
    from towline.registry.requests.blobs import Call
    from towline.registry.transport import Caller
    from towline.wire.exchange import Exchange
    from towline.wire.message import Request, Response

T = TypeVar("T")


class Conversation(NamedTuple):
    """One repository, spoken to with one set of scopes."""

    caller: Caller
    name: RepositoryName
    scopes: Scopes
    context: Context
    facts: HostFacts
    mistaken: set[str]
    """Digests of what was refused for not being what they say: once may be an accident."""
    chunk_size: int | None
    """Bytes of a body that blobs are to go in at most; None: as many as are taken."""

    def call(self, call: Call[T], *, extra: int = 0) -> T:
        """Carry a call out; see `Caller.call`."""
        return self.caller.call(call, self.scopes, self.context, extra=extra)

    def start(self, request: Request) -> Exchange:
        """Begin a request with a streamed body; see `Caller.start`."""
        return self.caller.start(request, self.scopes, self.context)

    def renewed(self, response: Response) -> bool:
        """Whether what a body was refused for has been renewed; see `Caller.refused`."""
        return self.caller.refused(response, self.scopes, self.context)
