"""Lists: tags, repositories, referrers (distribution-spec, "Content Discovery"; end-8, end-12)."""

from __future__ import annotations

import heapq
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from towline.server.http import Response
from towline.server.refusals import Refused, digest_of, no_endpoint
from towline.spec import distribution, media_types

if TYPE_CHECKING:
    from collections.abc import Iterable

    from towline.server.call import Call

_NUMBER = re.compile(r"[0-9]{1,9}")
_INDEX = b'{"schemaVersion":2,"mediaType":"%s","manifests":[%%s]}' % media_types.OCI_INDEX.encode()


def tags(call: Call) -> Response:
    """A repository's tags in the order of their bytes, all of them or a page."""
    if not call.repository.exists:
        raise Refused(distribution.NAME_UNKNOWN, name=call.name)
    return _page(call, "tags", call.repository.tags(), name=call.name)


def catalog(call: Call) -> Response:
    """The names of all repositories, in pages (`_catalog`, which Docker's registry had first)."""
    names, limit = call.registry.storage.names(), call.registry.limits.page
    return _page(call, "repositories", names, limit)


def referrers(call: Call) -> Response:
    """The manifests whose subject is a digest; an empty list if there are none.

    A page ends after so many entries, or once so many bytes of descriptors were read. With a filter
    it may be empty without being the last.
    """
    if not call.registry.referrers:
        raise no_endpoint(call.request.path)
    # Media types have plus signs; one that is not encoded means a space in a query.
    wanted = (call.parameter("artifactType") or "").replace(" ", "+")
    headers = {"Content-Type": media_types.OCI_INDEX}
    if wanted:
        headers[distribution.OCI_FILTERS_APPLIED] = "artifactType"
    limits, page, size, last = call.registry.limits, list[bytes](), len(_INDEX), ""
    after = call.parameter("last") or ""
    for digest, descriptor in call.repository.referrers(digest_of(call.last), after):
        size += len(descriptor) + 1
        if last and (len(page) == limits.page or size > limits.page_bytes):
            extra = f"&artifactType={quote(wanted, safe='')}" if wanted else ""
            headers["Link"] = _link(call, f"last={quote(last, safe='')}{extra}")
            break
        last = digest
        if not wanted or json.loads(descriptor).get("artifactType") == wanted:
            page.append(descriptor)
    return Response(200, headers, _INDEX % b",".join(page))


def _page(
    call: Call, what: str, entries: Iterable[str], limit: int | None = None, **beside: str
) -> Response:
    """The entries after `last`: at most `n`, never more than `limit`, and a link to the rest.

    `beside`: other fields of the document.
    """
    after, asked = call.parameter("last") or "", call.parameter("n")
    if asked and not _NUMBER.fullmatch(asked):
        raise Refused(distribution.UNSUPPORTED, "n is no number")
    wanted = limit
    if asked:
        wanted = int(asked) if limit is None else min(int(asked), limit)
    headers = {"Content-Type": "application/json"}
    entries = (entry for entry in entries if entry > after)
    if wanted is None:
        page = sorted(entries)
    else:
        page = heapq.nsmallest(wanted + 1, entries)  # one more tells whether there is more
        more = len(page) > wanted
        del page[wanted:]
        if more and page:
            headers["Link"] = _link(call, f"n={wanted}&last={quote(page[-1], safe='')}")
    return Response(200, headers, json.dumps({**beside, what: page}).encode())


def _link(call: Call, query: str) -> str:
    return f'<{quote(call.request.path)}?{query}>; rel="next"'
