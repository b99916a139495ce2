"""Which endpoint a request is for, and what every answer has in common."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from towline.server import blobs, listing, manifests, refusals, uploads
from towline.server.context import Call, Registry
from towline.server.files import is_no_room
from towline.server.framing import BadRequest, Cut
from towline.server.http import Response
from towline.spec import distribution

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from towline.server.auth import Guard
    from towline.server.http import Request

    Endpoint = Callable[[Call], Response]

_READS = frozenset({"GET", "HEAD"})


def _version(call: Call) -> Response:
    del call
    return Response(200, {"Content-Type": "application/json"}, b"{}")


_UPLOAD: Mapping[str, Endpoint] = {
    "GET": uploads.status,
    "HEAD": uploads.status,
    "PATCH": uploads.append,
    "PUT": uploads.finish,
    "DELETE": uploads.cancel,
}
_MANIFEST: Mapping[str, Endpoint] = {
    "GET": manifests.read,
    "HEAD": manifests.read,
    "PUT": manifests.put,
    "DELETE": manifests.delete,
}
_BLOB: Mapping[str, Endpoint] = {"GET": blobs.read, "HEAD": blobs.read, "DELETE": blobs.delete}


def _reading(endpoint: Endpoint) -> Mapping[str, Endpoint]:
    return {"GET": endpoint, "HEAD": endpoint}


# The name may hold any of these words itself: the last ones of the path decide.
_ROUTES: tuple[tuple[re.Pattern[str], Mapping[str, Endpoint]], ...] = (
    (re.compile(r"/v2/?()()"), _reading(_version)),
    (re.compile(r"/v2/_catalog()()"), _reading(listing.catalog)),
    (re.compile(r"/v2/(.+)/tags/list()"), _reading(listing.tags)),
    (re.compile(r"/v2/(.+)/referrers/([^/]*)"), _reading(listing.referrers)),
    (re.compile(r"/v2/(.+)/manifests/([^/]*)"), _MANIFEST),
    (re.compile(r"/v2/(.+)/blobs/uploads/?()"), {"POST": uploads.start}),
    (re.compile(r"/v2/(.+)/blobs/uploads/([^/]+)"), _UPLOAD),
    (re.compile(r"/v2/(.+)/blobs/([^/]*)"), _BLOB),
)


@dataclass(frozen=True, slots=True)
class Api:
    """All endpoints of one registry."""

    registry: Registry
    guard: Guard | None = None
    read_only: bool = False
    report: Callable[[BaseException], None] = field(default=lambda _error: None)
    """Told of faults of the registry's own."""

    def answer(self, request: Request, interrupt: Callable[[], None]) -> Response:
        """Do what a request asks. Raises BadRequest and Cut: the connection cannot go on."""
        try:
            response = self._do(request, interrupt)
        except refusals.Refused as refused:
            response = refused.response()
        except (BadRequest, Cut):
            raise
        except Exception as error:  # noqa: BLE001 - one request's fault must not end the server
            if isinstance(error, OSError) and is_no_room(error):
                response = refusals.no_room().response()
            else:
                self.report(error)
                response = refusals.failed().response()
        response.headers.setdefault(distribution.API_VERSION, "registry/2.0")
        return response

    def _do(self, request: Request, interrupt: Callable[[], None]) -> Response:
        if self.guard and not self.guard.admits(request.headers.get("authorization", "")):
            raise refusals.unauthorized()
        for pattern, endpoints in _ROUTES:  # noqa: B007 - those of the pattern that matched
            if match := pattern.fullmatch(request.path):
                break
        else:
            raise refusals.not_a_page(request.path)
        endpoint = endpoints.get(request.method)
        if endpoint is None:
            raise refusals.method_not_allowed(request.method, endpoints)
        if self.read_only and request.method not in _READS:
            raise refusals.read_only()
        name, last = match[1], match[2]
        if name and not (distribution.NAME.fullmatch(name) and len(name) <= distribution.NAME_MAX):
            raise refusals.name_invalid(name)
        return endpoint(Call(self.registry, request, name, last, interrupt))
