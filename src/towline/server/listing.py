"""Lists: tags, repositories, referrers (distribution-spec, "Content Discovery"; end-8, end-12)."""

from __future__ import annotations

import heapq
import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from towline.server import refusals
from towline.server.http import Response
from towline.spec import distribution, media_types

if TYPE_CHECKING:
    from collections.abc import Iterable

    from towline.server.context import Call

_NUMBER = re.compile(r"[0-9]{1,9}")


def tags(call: Call) -> Response:
    """A repository's tags in the order of their bytes, all of them or a page."""
    if not call.repository.exists:
        raise refusals.name_unknown(call.name)
    page, headers = _page(call, call.repository.tags(), _asked(call))
    return _json({"name": call.name, "tags": page}, headers)


def catalog(call: Call) -> Response:
    """The names of all repositories, by pages (an endpoint of docker's, `_catalog`)."""
    limit = call.registry.limits.page
    asked = _asked(call)
    names = call.registry.storage.names()
    page, headers = _page(call, names, limit if asked is None else min(asked, limit))
    return _json({"repositories": page}, headers)


def referrers(call: Call) -> Response:
    """The manifests whose subject is a digest; an empty list where there are none."""
    found: Iterable[dict[str, Any]] = call.repository.referrers(call.digest())
    headers = {}
    # A plus sign that was not encoded arrives as a space.
    wanted = (call.parameter("artifactType") or "").replace(" ", "+")
    if wanted:
        found = (entry for entry in found if entry.get("artifactType") == wanted)
        headers[distribution.OCI_FILTERS_APPLIED] = "artifactType"
    after = call.parameter("last") or ""
    found = (entry for entry in found if entry["digest"] > after)
    limit = call.registry.limits.page
    page = list(islice(found, limit + 1))
    if len(page) > limit:
        del page[limit:]
        extra = f"&artifactType={quote(wanted, safe='')}" if wanted else ""
        headers["Link"] = _link(call, f"last={quote(page[-1]['digest'], safe='')}{extra}")
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": page}
    return _json(index, headers, media_types.OCI_INDEX)


def _asked(call: Call) -> int | None:
    """How many entries were asked for; None for all."""
    text = call.parameter("n")
    if text is None or text == "":
        return None
    if not _NUMBER.fullmatch(text):
        raise refusals.Refused(400, distribution.UNSUPPORTED, "n is no number")
    return int(text)


def _page(
    call: Call, entries: Iterable[str], wanted: int | None
) -> tuple[list[str], dict[str, str]]:
    """The first `wanted` entries after the one named, and where the rest is."""
    after = call.parameter("last") or ""
    entries = (entry for entry in entries if entry > after)
    if wanted is None:
        return sorted(entries), {}
    page = heapq.nsmallest(wanted + 1, entries)
    if not wanted or len(page) <= wanted:
        return page[:wanted], {}
    del page[wanted:]
    return page, {"Link": _link(call, f"n={wanted}&last={quote(page[-1], safe='')}")}


def _link(call: Call, query: str) -> str:
    return f'<{quote(call.request.path)}?{query}>; rel="next"'


def _json(value: object, headers: dict[str, str], media_type: str = "application/json") -> Response:
    return Response(200, {"Content-Type": media_type} | headers, json.dumps(value).encode())
