"""Refusals, read: any body becomes one sentence, a code where there is one, and a class.

Registries send JSON by the specification or nearly so; proxies in front of them send pages,
storage behind them sends XML, and some send nothing. Nothing in here fails on what they send.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from towline.errors import AuthError, RegistryError
from towline.registry import hints
from towline.spec import distribution
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from towline.wire.message import Response
    from towline.wire.url import Url

_TRANSIENT_STATUSES = frozenset({408, 429, 499})
"""Statuses that may heal by themselves, beside those from 500 (499 is nginx's and Nexus's)."""
_LASTING_FAILURES = frozenset({501, 505, 507, 511})
_FAILURES = range(500, 600)
_TRANSIENT_CODES = frozenset(
    {
        distribution.TOOMANYREQUESTS,
        distribution.UNAVAILABLE,
        distribution.BLOB_UPLOAD_INVALID,
        distribution.BLOB_UPLOAD_UNKNOWN,
    }
)
_LASTING_STATUSES = frozenset({400, 401, 403, 405, 411, 413, 415, 501})
"""Statuses of which each has a remedy of its own, and none is waiting."""
_DENIALS = frozenset({401, 403})
_REDIRECTS = range(300, 400)
_SHOWN = 200
"""Characters of a body that is no JSON."""
_MARKUP_READ = 8 << 10
"""Characters of a page that are searched: what it says is near its top."""
_DETAIL_READ = 1000
_DETAIL_SHOWN = 120
"""Characters of a detail: the cause may stand behind a long path, and is looked for there too."""
_WAIT_MAX = 60.0

_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_XML_MESSAGE = re.compile(r"<Message>(.*?)</Message>", re.IGNORECASE | re.DOTALL)
_XML_CODE = re.compile(r"<Code>(.*?)</Code>", re.IGNORECASE | re.DOTALL)
_TAGS = re.compile(r"<(script|style)\b.*?</\1>|<[^<>]*>", re.IGNORECASE | re.DOTALL)


class Complaint(NamedTuple):
    """One error of an answer (distribution-spec, "Error Codes")."""

    code: str | None
    message: str
    detail: str = ""

    def __str__(self) -> str:
        detail = _shown(self.detail, _DETAIL_SHOWN)
        parts = [self.code or "", self.message, f"({detail})" if detail else ""]
        head, *rest = [part for part in parts[:2] if part] or [""]
        return " ".join(filter(None, [": ".join([head, *rest]), parts[2]]))


def complaints(response: Response) -> list[Complaint]:
    """What the body complains of; empty when it says nothing."""
    text = response.body.decode("utf-8", "replace").strip()
    if not text:
        return []
    document = _json(text)
    if isinstance(document, dict):
        return _from_object(document)
    if document is not None:
        return [Complaint(None, _shown(text, _SHOWN))]
    return _from_markup(text) if text.startswith("<") else [Complaint(None, _shown(text, _SHOWN))]


def _json(text: str) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _from_object(document: dict[str, Any]) -> list[Complaint]:
    errors = document.get("errors")
    if isinstance(errors, list) and errors:
        return [_complaint(error) for error in errors[:5]]
    if isinstance(errors, str):
        return [Complaint(None, _shown(errors, _SHOWN))]
    # The Hub's token server, GitHub's, and many a proxy have forms of their own.
    for key in ("details", "message", "error_description", "error", "detail", "msg"):
        value = document.get(key)
        if isinstance(value, str) and value.strip():
            return [Complaint(_code(document.get("code")), _shown(value, _SHOWN))]
    return []


def _complaint(error: Any) -> Complaint:  # noqa: ANN401 - any JSON
    if not isinstance(error, dict):
        return Complaint(None, _shown(str(error), _SHOWN))
    detail = error.get("detail")
    if detail and not isinstance(detail, str):
        detail = json.dumps(detail, ensure_ascii=False)
    message = error.get("message")
    return Complaint(
        _code(error.get("code")),
        _shown(message, _SHOWN) if isinstance(message, str) else "",
        _shown(detail or "", _DETAIL_READ),
    )


def _code(value: Any) -> str | None:  # noqa: ANN401 - any JSON
    return _shown(value, 60) if isinstance(value, str) and value.strip() else None


def _from_markup(text: str) -> list[Complaint]:
    text = text[:_MARKUP_READ]
    if message := _XML_MESSAGE.search(text):
        code = _XML_CODE.search(text)
        return [Complaint(_code(code[1]) if code else None, _shown(message[1], _SHOWN))]
    title = _TITLE.search(text)
    words = _shown(_TAGS.sub(" ", title[1] if title else text), _SHOWN)
    return [Complaint(None, words)] if words else []


def _shown(text: str, length: int) -> str:
    """On one line, printable, cut to `length` characters."""
    clean = "".join(c if c.isprintable() else " " for c in text[: 4 * length])
    clean = " ".join(clean.split())
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def described(response: Response) -> str:
    """The answer in words: status, then what the headers and the body complain of."""
    said = [str(complaint) for complaint in complaints(response)[:3]]
    words = "; ".join(dict.fromkeys(filter(None, [_challenge_words(response), *said])))
    status = f"{response.status} {response.reason}".strip()
    return f"{status}: {words}" if words else status


def _challenge_words(response: Response) -> str:
    from towline.registry.auth.challenge import challenges

    for challenge in challenges(response.headers.all("WWW-Authenticate")):
        if words := challenge.parameters.get("error_description"):
            return _shown(words, _SHOWN)
    return ""


def code(response: Response) -> str | None:
    """The first code of the body; that of missing blobs, if it is among them.

    Distribution complains of a blob that it does not find in two ways at once.
    """
    found = [complaint.code for complaint in complaints(response) if complaint.code]
    unknown = distribution.MANIFEST_BLOB_UNKNOWN
    return unknown if unknown in found else next(iter(found), None)


def text(response: Response) -> str:
    """Everything that the body complains of, lower case, to look for words in."""
    said = (part for found in complaints(response) for part in found if part)
    return " ".join(said).lower()


def named(response: Response) -> Digest | None:
    """The digest that the answer is said to be about, if it is a digest."""
    try:
        return Digest((response.headers.get(distribution.DOCKER_CONTENT_DIGEST) or "").strip())
    except ValueError:
        return None


def named_instead(response: Response, digest: str) -> Digest | None:
    """The other one that is named where that digest belongs; of another algorithm none can tell."""
    other = named(response)
    same = other is None or other == digest or not digest.startswith(f"{other.algorithm}:")
    return None if same else other


def is_page(response: Response) -> bool:
    """Whether it is a page for people: whatever its status, no registry speaks there."""
    if response.media_type in {"text/html", "application/xhtml+xml"}:
        return True
    return response.body[:256].lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))


def is_a_registrys(response: Response) -> bool:
    """Whether it has the marks of a registry's answer; many a registry's own refusal has none."""
    if is_page(response):
        return False
    named = response.headers.get(distribution.API_VERSION) is not None
    return response.ok or named or response.media_type == "application/json"


def refusal(response: Response, action: str) -> AuthError | RegistryError:
    """The error for an answer that is no success; `action` completes "cannot …"."""
    found, words = code(response), text(response)
    where = f"{response.url.authority} answered {described(response)}"
    if elsewhere := sent_on(response):
        where += f", and sends on to {elsewhere.redacted}"
    message = f"cannot {action}: {where} ({response.method} {response.url.redacted})"
    cls = AuthError if _is_denial(response, found) else RegistryError
    return cls(
        message,
        status=response.status,
        code=found,
        hint=_hint(response, elsewhere) or hints.of(response.status, found, words),
        transient=_is_transient(response.status, found) and not hints.is_full(words),
        retry_after=retry_after(response),
    )


def sent_on(response: Response) -> Url | None:
    """Where a redirect points, if it is one."""
    location = response.headers.get("Location") if response.status in _REDIRECTS else None
    try:
        return response.url.join(location) if location else None
    except ValueError:
        return None


def _hint(response: Response, elsewhere: Url | None) -> str | None:
    if elsewhere is None:
        return None
    if (response.url.scheme, elsewhere.scheme) == ("http", "https"):
        return hints.SPEAKS_HTTPS
    return f"name {elsewhere.authority} in the destination, if the registry is there"


def no_registry(response: Response, action: str) -> RegistryError:
    """The error for an answer that no registry gives, though its status is a success."""
    kind = "a page" if is_page(response) else f"{response.media_type or 'something unexpected'}"
    return RegistryError(
        f"cannot {action}: {response.url.authority} answered {response.status} with {kind} instead "
        f"of what a registry says ({response.method} {response.url.redacted})",
        status=response.status,
        hint="check the address: this does not look like an image registry",
    )


def _is_denial(response: Response, found: str | None) -> bool:
    if response.status in _DENIALS:
        return not hints.is_immutable(text(response))
    return response.status == 400 and found in {  # noqa: PLR2004 - Bad Request
        distribution.DENIED,
        distribution.UNAUTHORIZED,
    }


def _is_transient(status: int, found: str | None) -> bool:
    if status in _TRANSIENT_STATUSES or (status in _FAILURES and status not in _LASTING_FAILURES):
        return True
    return found in _TRANSIENT_CODES and status not in _LASTING_STATUSES


def retry_after(response: Response) -> float | None:
    """Seconds that the answer asks to wait, at most a minute; a date in the past is no time."""
    value = (response.headers.get("Retry-After") or "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _WAIT_MAX)
    return _until(value) if value else None


def _until(value: str) -> float | None:
    import email.utils
    import time

    try:
        seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), _WAIT_MAX)
