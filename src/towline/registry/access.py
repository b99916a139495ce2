"""How one repository is spoken to: by whom, with which scopes, at which end of a transfer.

What an answer's error cannot say by itself is added here: the side, the account, false hints.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from towline.errors import AuthError, RegistryError, Side, TowlineError
from towline.registry import errors
from towline.spec import distribution
from towline.wire.message import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from towline.context import Context
    from towline.reference import RepositoryName
    from towline.registry.auth.token import Scopes
    from towline.registry.capabilities import HostFacts
    from towline.registry.transport import Call, Transport

E = TypeVar("E", bound=AuthError | RegistryError)


class Access:
    """The way to one repository, shared by all calls about it. Safe from any thread."""

    def __init__(
        self,
        name: RepositoryName,
        find: Callable[[], Transport],
        facts: HostFacts,
        *,
        side: Side,
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
        self.mount_scopes: Scopes = self.scopes
        """Those for mounts."""

    def pull_from(self, names: Iterable[RepositoryName]) -> None:
        """Have the tokens for mounts ask for `pull` of these repositories, too."""
        # A mount needs it of its origin, even if that is public (distribution, the Hub). The
        # destination's scope is first: some token services grant the first alone. No repository of
        # another registry is in it: the Hub gives no token for a name of three parts.
        origins = {name.path for name in names if name.host == self.name.host} - {self.name.path}
        wanted = [f"repository:{path}:pull" for path in sorted(origins)]
        self.mount_scopes = tuple(dict.fromkeys((*self.mount_scopes, *wanted)))

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
                raise self.judged(error, response, context) from None
            transport.proven = transport.proven or errors.is_a_registrys(response)
        except TowlineError as error:
            error.side = error.side or self.side
            raise

    def check_version(self, context: Context) -> None:
        """After a 404: raise RegistryError if the registry speaks version 1 alone.

        Asks the host only if no answer of it so far was certainly a registry's.
        """
        transport = self.transport
        if transport.proven:
            return
        try:
            base = transport.endpoint.base(context)
            found = transport.ask(base, Request("GET", base), context)
            if found.status != 404 or errors.is_a_registrys(found):
                return
            old = Request("GET", base.at(distribution.VERSION_1_PING))
            ping = transport.ask(base, old, context)
        except TowlineError:
            return
        if ping.ok and not errors.is_page(ping):
            raise RegistryError(
                f"the registry {self.name.host} speaks only version 1 of the protocol, and version "
                "2 is needed",
                status=404,
                side=self.side,
                hint="use a registry that speaks version 2",
            )

    def judged(self, error: E, response: Response, context: Context) -> E:
        """Complete an error with the account that was refused, and drop a hint that is false.

        Raises RegistryError where the registry speaks version 1 alone.
        """
        # A registry of version 1 answers everything with 404.
        if error.status == 404 and not errors.is_a_registrys(response):
            self.check_version(context)
        transport = self.transport
        here = response.url.same_origin(transport.endpoint.base(context))
        speaks = response.status >= 400 and not errors.is_page(response)
        # A known registry has answered with a page, or with neither yes nor no: something on the
        # way, for once. 401, 411 and 413 have remedies of their own, whoever says them.
        if transport.proven and response.status not in {401, 411, 413} and not speaks:
            error.transient = True
        if error.hint == errors.SPEAKS_HTTPS and not (here and transport.endpoint.plain_http):
            error.hint = None
        if isinstance(error, AuthError):
            self._say_account(error, response, context, here=here)
        return error

    def _say_account(
        self, error: AuthError, response: Response, context: Context, *, here: bool
    ) -> None:
        host, transport = self.name.host, self.transport
        who = transport.admission(response.url, context)
        if who is not None and who.credentials is not None:
            said = f"it was asked as {who.credentials}"
        elif here:
            said = transport.keychain.nothing_found(host)
            error.hint = f"towline login {host}, or pass `creds='USER:PASSWORD'`"
        else:
            said = "no credentials are sent there"
            if response.method == "POST":  # an upload was redirected there: it is a registry
                error.hint = f"towline login {response.url.authority}"
            else:
                # The signed address of a storage ends after a while; the registry may name a
                # better one.
                error.transient = True
                error.hint = f"ask whoever runs {host}, which names that place"
        error.args = (f"{error.message}; {said}",)
        if here and error.status == 401 and who and who.doubts_clocks:
            error.hint = errors.CLOCKS

    def is_first_mistake(self, digest: str) -> bool:
        """Note that these bytes were refused as damaged. Whether to send them once more."""
        known = digest in self._mistaken
        self._mistaken.add(digest)
        return not known
