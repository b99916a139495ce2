"""Answers that say no, in the specification's form (distribution-spec, "Error Codes")."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from towline.server.http import Response
from towline.spec import distribution
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STATUSES = {
    distribution.BLOB_UNKNOWN: 404,
    distribution.BLOB_UPLOAD_UNKNOWN: 404,
    distribution.MANIFEST_UNKNOWN: 404,
    distribution.NAME_UNKNOWN: 404,
    distribution.TOOMANYREQUESTS: 429,
    distribution.UNAUTHORIZED: 401,
}
"""The status of codes that have one of their own; the others' is 400, unless it is given."""
_MESSAGES = {
    distribution.BLOB_UNKNOWN: "blob unknown to repository",
    distribution.BLOB_UPLOAD_UNKNOWN: "upload unknown",
    distribution.MANIFEST_BLOB_UNKNOWN: "the manifest refers to content unknown to the repository",
    distribution.MANIFEST_UNKNOWN: "manifest unknown",
    distribution.NAME_UNKNOWN: "there is no such repository",
}
"""The messages of codes that need no other."""


class Refused(Exception):
    """A request is refused with one of the specification's codes.

    The answer has an error for each of `details`, or one with `detail`.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        status: int = 0,
        headers: Mapping[str, str] | None = None,
        details: Sequence[Mapping[str, str]] = (),
        **detail: str,
    ) -> None:
        super().__init__(message or _MESSAGES[code])
        self.code = code
        self.status = status or _STATUSES.get(code, 400)
        self.headers = dict(headers or {})
        self.details = details or [detail]

    def response(self) -> Response:
        """The answer."""
        errors = [
            {"code": self.code, "message": str(self)} | ({"detail": detail} if detail else {})
            for detail in self.details
        ]
        content = json.dumps({"errors": errors}).encode()
        headers = {"Content-Type": "application/json"} | self.headers
        return Response(self.status, headers, content)


def no_endpoint(path: str) -> Refused:
    """The refusal of a path that is no endpoint."""
    message = f"there is no endpoint {path[:200]}"
    return Refused(distribution.UNSUPPORTED, message, status=404)


def digest_of(text: str) -> Digest:
    """A text as a digest. Raises Refused for another form, and for unknown algorithms."""
    try:
        return Digest(text)
    except ValueError as error:
        details = [{"digest": text[:200]}] if text else []
        raise Refused(distribution.DIGEST_INVALID, str(error), details=details) from None
