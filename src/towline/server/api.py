"""Finds the endpoint of a request, and gives every answer what all answers have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from towline.server import blobs, listing, manifests
from towline.server.call import Call, Registry
from towline.server.http import BadRequest, Cut, Request, Response
from towline.server.refusals import Refused, no_endpoint
from towline.server.storage import is_no_room
from towline.spec import distribution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Endpoint = Callable[[Call], Response]

_READS = ("GET", "HEAD")


def _version(call: Call) -> Response:
    del call
    return Response(200, {"Content-Type": "application/json"}, b"{}")


# A repository's name may hold these words itself, as in `a/blobs/b`: the last ones count.
_ROUTES: tuple[tuple[re.Pattern[str], Mapping[str, Endpoint]], ...] = (
    (re.compile(r"/v2/?()()"), dict.fromkeys(_READS, _version)),
    (re.compile(r"/v2/_catalog()()"), dict.fromkeys(_READS, listing.catalog)),
    (re.compile(r"/v2/(.+)/tags/list()"), dict.fromkeys(_READS, listing.tags)),
    (re.compile(r"/v2/(.+)/referrers/([^/]*)"), dict.fromkeys(_READS, listing.referrers)),
    (
        re.compile(r"/v2/(.+)/manifests/([^/]*)"),
        {
            **dict.fromkeys(_READS, manifests.read),
            "PUT": manifests.put,
            "DELETE": manifests.delete,
        },
    ),
    (re.compile(r"/v2/(.+)/blobs/uploads/?()"), {"POST": blobs.start}),
    (
        re.compile(r"/v2/(.+)/blobs/uploads/([^/]+)"),
        {
            **dict.fromkeys(_READS, blobs.status),
            "PATCH": blobs.append,
            "PUT": blobs.finish,
            "DELETE": blobs.cancel,
        },
    ),
    (
        re.compile(r"/v2/(.+)/blobs/([^/]*)"),
        {**dict.fromkeys(_READS, blobs.read), "DELETE": blobs.delete},
    ),
)


def answer(registry: Registry, request: Request) -> Response:
    """The answer to a request.

    Raises BadRequest and Cut, after which the connection cannot go on.
    """
    try:
        response = _do(registry, request)
    except Refused as refused:
        response = refused.response()
    except (BadRequest, Cut):
        raise
    except Exception as error:  # noqa: BLE001 - one request's fault must not end the server
        status, message = 500, "the registry failed; its log says more"
        if isinstance(error, OSError) and is_no_room(error):
            status, message = 507, "no room left on the registry's disk"
        else:
            registry.report(error)
        response = Refused(distribution.UNKNOWN, message, status=status).response()
    response.headers.setdefault(distribution.API_VERSION, "registry/2.0")
    return response


def _do(registry: Registry, request: Request) -> Response:
    """Find the endpoint, and let it answer. Raises Refused."""
    if registry.guard and not registry.guard.admits(request.headers.get("authorization", "")):
        headers = {"WWW-Authenticate": 'Basic realm="towline"'}
        message = "user name and password are required"
        raise Refused(distribution.UNAUTHORIZED, message, headers=headers)
    for pattern, endpoints in _ROUTES:  # noqa: B007 - those of the pattern that matched
        if match := pattern.fullmatch(request.path):
            break
    else:
        raise no_endpoint(request.path)
    endpoint = endpoints.get(request.method)
    if endpoint is None:
        raise _not_allowed(f"{request.method} is not done here", sorted(endpoints))
    if registry.read_only and request.method not in _READS:
        raise _not_allowed("this registry is read-only", _READS)
    name, last = match[1], match[2]
    if name and not (distribution.NAME.fullmatch(name) and len(name) <= distribution.NAME_MAX):
        raise Refused(distribution.NAME_INVALID, f"{name[:100]!r} is no repository name")
    return endpoint(Call(registry, request, name, last))


def _not_allowed(message: str, methods: Iterable[str]) -> Refused:
    headers = {"Allow": ", ".join(methods)}
    return Refused(distribution.UNSUPPORTED, message, status=405, headers=headers)
