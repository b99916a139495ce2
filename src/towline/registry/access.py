"""How one repository is spoken to: by whom, with which scopes, at which end of a transfer."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline.errors import AuthError, RegistryError, Side, TowlineError
from towline.registry import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from towline.context import Context
    from towline.reference import RepositoryName
    from towline.registry.auth.token import Scopes
    from towline.registry.calls import Call
    from towline.registry.capabilities import HostFacts
    from towline.registry.transport import Transport
    from towline.wire.message import Response


class Access:
    """The way to one repository, shared by all calls about it. Safe from any thread."""

    def __init__(
        self,
        name: RepositoryName,
        find: Callable[[], Transport],
        facts: HostFacts,
        *,
        side: Side,
        pull_from: tuple[RepositoryName, ...] = (),
        chunk_size: int | None = None,
    ) -> None:
        """`find` looks for the credentials, which may take a helper or a caller's function."""
        self.name = name
        self._find = find
        self._found: Transport | None = None
        self.facts = facts
        """What its host takes and does, as far as that is known."""
        self.side: Side = side
        """Which end of a transfer it is: that of every error of a call."""
        self.chunk_size = chunk_size
        """Bytes of the largest body that the user wants; None: as many as the host takes."""
        self._mistaken: set[str] = set()
        """Digests that were refused as damaged once: that may be an accident on the way."""
        self.damaged: dict[str, str] = {}
        """By tag, the digest of what a damaged PUT has left there."""
        # Distribution wants pull and push of a push. Quay gives no token at all where `delete` is
        # asked for beside them.
        actions = "pull,push" if side == "destination" else "pull"
        self.scopes: Scopes = (f"repository:{name.path}:{actions}",)
        # A mount needs `pull` of its origin, even if that is public (distribution, the Hub). The
        # destination's scope is first: some token services grant the first alone. No repository of
        # another registry is in it: the Hub gives no token for a name of three parts.
        origins = dict.fromkeys(origin.path for origin in pull_from if origin.host == name.host)
        self.mount_scopes: Scopes = (
            *self.scopes,
            *(f"repository:{path}:pull" for path in origins if path != name.path),
        )

    @property
    def transport(self) -> Transport:
        """Who speaks. The first time, the credentials are found."""
        if self._found is None:  # two threads that come at once find the same
            self._found = self._find()
        return self._found

    @contextmanager
    def answer(
        self, call: Call, context: Context, scopes: Scopes | None = None
    ) -> Iterator[Response]:
        """Carry a call out. The block reads the answer; an error that it raises is completed.

        `scopes`: those of the repository, unless others are given.
        """
        try:
            transport = self.transport
            response = transport.send(call, self.scopes if scopes is None else scopes, context)
            try:
                yield response
            except (AuthError, RegistryError) as error:
                raise transport.judged(error, response, context) from None
            transport.proven = transport.proven or errors.is_a_registrys(response)
        except TowlineError as error:
            error.side = error.side or self.side
            raise

    def is_first_mistake(self, digest: str) -> bool:
        """Note that these bytes were refused as damaged. Whether to send them once more."""
        known = digest in self._mistaken
        self._mistaken.add(digest)
        return not known
