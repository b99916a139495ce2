"""Gets requests let in: sends the header that the authenticator gives, and renews a refused one.

Drives the authenticator under a lock, so that one token is fetched however many wait for it.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from towline.context import acquired
from towline.errors import AuthError, TowlineError
from towline.registry import errors
from towline.registry.auth.authenticator import MARGIN

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from towline.context import Context
    from towline.registry.auth.authenticator import Authenticator
    from towline.registry.auth.docker_config import Credentials
    from towline.registry.auth.token import Scopes
    from towline.wire.message import Request, Response

T = TypeVar("T")

_RENEWALS_MAX = 2
"""For the first challenge, and for one that asks for more scopes."""
_MOMENT = 1.0
"""Seconds after which a token that was too new is good: the times in tokens are whole seconds."""


class Visit(NamedTuple):
    """A request that is to be let in."""

    request: Request
    send: Callable[[Request], Response]
    scopes: Scopes
    context: Context
    optional: bool = False
    """A 401 whose challenge tells nothing new is final: no other token is fetched."""


class Admission:
    """One account at one registry. Safe from any thread."""

    def __init__(
        self,
        auth: Authenticator,
        ask: Callable[[Request, Context], Response],
        again: Callable[[Context], Credentials | None] | None,
    ) -> None:
        self.auth = auth
        self._ask = ask
        self._again = again
        self._lock = threading.Lock()
        self._meeting = threading.Lock()
        self._met = False
        """Whether a first request has been answered, or has failed."""
        self._good: set[str | None] = set()
        """Values of `Authorization` that were let in."""
        self.doubts_clocks = False
        """Whether a token that was just given was refused, and refused again after a moment."""

    def send(self, visit: Visit) -> Response:
        """Send a request with the `Authorization` that it needs, renewed if it is refused.

        Returns the last answer, which may still be a refusal. Raises AuthError, RegistryError and
        NetworkError: of the token service, or of sending.
        """
        with self._first_alone(visit.context):
            try:
                response = self._tried(visit)
            except AuthError:  # of the token service
                if not self._other_credentials(visit.context):
                    raise
                response = self._tried(visit)
            if response.status == 400:
                # ECR Public answers 400 to a token that has expired.
                with acquired(self._lock, visit.context):
                    again = self.auth.forget_aged(visit.scopes)
            else:
                # ECR answers 403 to a login that has expired, and says so in plain text.
                denied = response.status == 403 and "expired" in errors.text(response)
                denied = denied or response.status == 401
                again = denied and self._other_credentials(visit.context)
            if again:
                response = self._tried(visit)
        if response.status not in {401, 403}:
            self.auth.worked = True
        return response

    @contextmanager
    def _first_alone(self, context: Context) -> Iterator[None]:
        """Let the first request go alone.

        Those that start together would all be refused, before the first challenge is known.
        """
        with ExitStack() as stack:
            if not self._met:
                stack.enter_context(acquired(self._meeting, context))
            if self._met:
                stack.close()  # another was first, and is back: nobody waits any longer
            try:
                yield
            finally:
                self._met = True

    def _tried(self, visit: Visit) -> Response:
        """Send the request, and again with a renewed header while that may help."""
        auth, scopes, context = self.auth, visit.scopes, visit.context
        header, renewals = self.header(scopes, context), 0
        while True:
            request = visit.request.authorized(header)
            response = visit.send(request)
            unknown = not (visit.optional or self.doubts_clocks or header in self._good)
            if response.status == 401 and unknown and auth.is_new(scopes, header, response):
                # The registry's clock may be behind its token service's: then a token that was
                # only just given is not good yet.
                context.cancel.wait(_MOMENT)
                response = visit.send(request)
                self.doubts_clocks = response.status == 401
            if response.status != 401:
                self._good.add(header)
                return response
            hopeless = visit.optional and auth.hopeless(scopes, response)
            if renewals == _RENEWALS_MAX or hopeless:
                return response
            if not self.renewed(scopes, response, header, context):
                return response
            before, header = header, auth.header(scopes)
            # The same header once more is for a hiccup (a password that was good), and only once.
            renewals = _RENEWALS_MAX if header == before else renewals + 1

    def header(self, scopes: Scopes, context: Context, *, lasting: float = MARGIN) -> str | None:
        """The `Authorization` to send; fetches a token if one is needed. None: send none.

        `lasting`: seconds that a token should still live. Raises AuthError, RegistryError,
        NetworkError.
        """
        header = self.auth.header(scopes, lasting=lasting)
        if header is None and self.auth.must_ask:
            with acquired(self._lock, context):
                self._drive(self.auth.fetch(scopes), context)
            header = self.auth.header(scopes)
        return header

    def renewed(
        self, scopes: Scopes, response: Response, used: str | None, context: Context
    ) -> bool:
        """After a 401 to the header `used`, learn from it. Whether to send the request again."""
        with acquired(self._lock, context):
            if self.auth.header(scopes) not in {None, used}:
                return True  # another thread has renewed it meanwhile
            return self._drive(self.auth.renew(scopes, response, used), context)

    def _other_credentials(self, context: Context) -> bool:
        """Ask the credential helper once more. Returns whether its answer has changed."""
        with acquired(self._lock, context):
            # Once in a run: a login that stays refused would start the helper for each request.
            again, self._again = self._again, None
            other = again(context) if again is not None else None
            return other is not None and self.auth.replace(other)

    def _drive(self, asking: Generator[Request, Response, T], context: Context) -> T:
        try:
            request = next(asking)
            while True:
                request = asking.send(self._ask(request, context))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # typeshed has Any there
        except TowlineError as error:
            error.beside = True  # the request that was meant has never been sent
            raise
        finally:
            asking.close()
