"""Answers that say no, in the specification's form (distribution-spec, "Error Codes").

What is refused in one place is worded there; what several places refuse has a function here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from towline.server.http import Response
from towline.spec import distribution
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Iterable[Any] = (None,),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = list(details)
        """One error is told for each; None where there is no detail."""
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The answer."""
        errors = [
            {"code": self.code, "message": str(self)} | ({"detail": detail} if detail else {})
            for detail in self.details
        ]
        content = json.dumps({"errors": errors}).encode()
        headers = {"Content-Type": "application/json"} | self.headers
        return Response(self.status, headers, content)


def not_a_page(path: str) -> Refused:
    """No such endpoint."""
    return Refused(404, distribution.UNSUPPORTED, f"there is no endpoint {path[:200]}")


def name_unknown(name: str) -> Refused:
    """Nothing was ever pushed to that repository."""
    message = "there is no such repository"
    return Refused(404, distribution.NAME_UNKNOWN, message, details=[{"name": name}])


def digest_invalid(message: str, digest: str | None = None) -> Refused:
    """A digest is malformed, or is not that of the content."""
    details = [{"digest": digest[:200]}] if digest else [None]
    return Refused(400, distribution.DIGEST_INVALID, message, details=details)


def blob_unknown(digest: str) -> Refused:
    """The repository does not hold that blob."""
    details = [{"digest": digest}]
    return Refused(404, distribution.BLOB_UNKNOWN, "blob unknown to repository", details=details)


def manifest_unknown(reference: str) -> Refused:
    """The repository does not hold that manifest, or has no such tag."""
    details = [{"reference": reference}]
    return Refused(404, distribution.MANIFEST_UNKNOWN, "manifest unknown", details=details)


def manifest_invalid(message: str) -> Refused:
    """The manifest cannot be understood."""
    return Refused(400, distribution.MANIFEST_INVALID, f"manifest invalid: {message}")


def size_invalid(message: str) -> Refused:
    """A length that was told is not that of the content."""
    return Refused(400, distribution.SIZE_INVALID, message)


def upload_unknown(session: str) -> Refused:
    """The upload session does not exist, was closed, cancelled or has expired."""
    details = [{"upload": session[:100]}]
    return Refused(404, distribution.BLOB_UPLOAD_UNKNOWN, "upload unknown", details=details)


def digest_of(text: str) -> Digest:
    """A text as a digest. Raises Refused for another form, and for unknown algorithms."""
    try:
        return Digest(text)
    except ValueError as error:
        raise digest_invalid(str(error), text) from None
