"""Reads refusals: any answer becomes an error's sentence, code (if there is one) and class.

Registries send JSON by the specification or nearly so; proxies in front of them send pages,
storage behind them sends XML, and some send nothing. Nothing in here fails on what they send.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from towline.errors import AuthError, RegistryError, Side, TowlineError
from towline.spec import distribution, reading
from towline.spec.digest import Digest
from towline.wire.connect import CLIENT_CERTIFICATE
from towline.wire.message import Response, Url, challenges

if TYPE_CHECKING:
    from collections.abc import Iterator


_LASTING_FAILURES = frozenset({501, 505, 507, 511})
"""Failures of a server that waiting does not heal: 507 is a full disk, 511 a network's login."""
_LASTING_STATUSES = frozenset({400, 401, 403, 405, 411, 413, 415, 501})
"""Statuses that waiting does not heal, whatever code comes with them: each has its own remedy."""
_TRANSIENT_CODES = frozenset(
    {
        distribution.TOOMANYREQUESTS,
        distribution.UNAVAILABLE,
        distribution.BLOB_UPLOAD_INVALID,
        distribution.BLOB_UPLOAD_UNKNOWN,
    }
)
_SHOWN = 200
"""Characters of a body that is no JSON."""
_MARKUP_READ = 8 << 10
"""Characters of a page that are searched: what it says is near its top."""
_DETAIL_READ = 1000
"""Characters of a detail that are searched for causes: one may stand behind a long path."""
_DETAIL_SHOWN = 120
"""Characters of a detail in a message, which is to be one sentence."""
_CUT = "…"
"""Marks where a text was cut: the word before it may be a part of a secret (`wire/secrets`)."""
_EPOCH = 1e9
"""A number of seconds above this is a date (since 1970), not a time to wait."""
_SPREAD_MAX = 300.0
"""Seconds of the longest window over which requests are spread."""
_WAIT_MAX = 60.0
"""Seconds to wait at most, however many a registry asks for."""

_TITLE = r"(?is)<title[^>]*>(.*?)</title>"
_XML_MESSAGE = r"(?is)<Message>(.*?)</Message>"
_XML_CODE = r"(?is)<Code>(.*?)</Code>"
_TAGS = r"(?is)<(script|style)\b.*?</\1>|<[^<>]*>"


class Complaint(NamedTuple):
    """One error of an answer (distribution-spec, "Error Codes")."""

    code: str | None
    message: str
    detail: str = ""

    def __str__(self) -> str:
        said = ": ".join(filter(None, [self.code, self.message]))
        if self.message and self.detail.startswith(("{", "[")):
            return said  # a detail in JSON tells a person nothing more than the message
        detail = shown(self.detail, _DETAIL_SHOWN)
        return f"{said} ({detail})".lstrip() if detail else said


def complaints(response: Response) -> list[Complaint]:
    """The errors that the body names; empty when it names none."""
    text = response.body.decode("utf-8", "replace").strip()
    if not text:
        return []
    text += _CUT if response.truncated else ""
    try:
        document = reading.document(text)
    except ValueError:
        document = None
        if text.startswith("<"):
            cut = _CUT if len(text) > _MARKUP_READ else ""
            return _from_markup(text[:_MARKUP_READ] + cut)
    if isinstance(document, dict):
        return _from_object(document)
    return [Complaint(None, shown(text, _SHOWN))]


def _from_object(document: dict[str, Any]) -> list[Complaint]:
    errors = document.get("errors")
    if isinstance(errors, list) and errors:
        # A manifest that lacks many blobs gets an error for each.
        return [_from_error(error) for error in errors[:5]]
    # The Hub's token server says `details`, GitHub's `message`; others have forms of their own.
    for key in ("errors", "details", "message", "error_description", "error", "detail", "msg"):
        value = document.get(key)
        if isinstance(value, str) and value.strip():
            return [Complaint(_code(document.get("code")), shown(value, _SHOWN))]
    return []


def _from_error(error: Any) -> Complaint:  # noqa: ANN401 - any JSON
    if not isinstance(error, dict):
        return Complaint(None, shown(str(error), _SHOWN))
    message, detail = error.get("message"), error.get("detail")
    # Distribution sends an object or a list, others a text, null, or nothing.
    if detail and not isinstance(detail, str):
        detail = json.dumps(detail, ensure_ascii=False)
    return Complaint(
        _code(error.get("code")),
        shown(message, _SHOWN) if isinstance(message, str) else "",
        shown(detail or "", _DETAIL_READ),
    )


def _code(value: Any) -> str | None:  # noqa: ANN401 - any JSON
    return shown(value, 60) if isinstance(value, str) and value.strip() else None


def _from_markup(text: str) -> list[Complaint]:
    if message := re.search(_XML_MESSAGE, text):
        code = re.search(_XML_CODE, text)
        return [Complaint(_code(code[1]) if code else None, shown(message[1], _SHOWN))]
    title = re.search(_TITLE, text)
    words = shown(re.sub(_TAGS, " ", title[1] if title else text), _SHOWN)
    return [Complaint(None, words)] if words else []


def shown(text: str, length: int) -> str:
    """The text on one line, printable, cut to `length` characters."""
    # Four times as many are cleaned, as much white space may fall away: it may be megabytes.
    clean = "".join(c if c.isprintable() else " " for c in text[: 4 * length])
    clean = " ".join(clean.split())
    whole = len(text) <= 4 * length and len(clean) <= length
    return clean if whole else clean[: length - 1] + _CUT


def described(response: Response) -> str:
    """The answer in words: its status, then what the headers and the body complain of."""
    # The challenge of a 401 often says more than its body, so it stands first.
    found = challenges(response.headers.all("WWW-Authenticate"))
    reasons = (challenge.parameters.get("error_description") for challenge in found)
    reason = shown(next(filter(None, reasons), ""), _SHOWN)
    said = [reason, *(str(complaint) for complaint in complaints(response)[:3])]
    words = "; ".join(dict.fromkeys(filter(None, said)))
    status = f"{response.status} {response.reason}".strip()
    return f"{status}: {words}" if words else status


def code(response: Response) -> str | None:
    """The first code of the body; MANIFEST_BLOB_UNKNOWN goes before any other."""
    found = [complaint.code for complaint in complaints(response) if complaint.code]
    # Distribution says DIGEST_INVALID and MANIFEST_BLOB_UNKNOWN of a blob that it does not find.
    unknown = distribution.MANIFEST_BLOB_UNKNOWN
    return unknown if unknown in found else next(iter(found), None)


def text(response: Response) -> str:
    """All that the body complains of, in lower case, to be searched for words."""
    said = (part for found in complaints(response) for part in found if part)
    return " ".join(said).lower()


def named(response: Response) -> Digest | None:
    """The answer's `Docker-Content-Digest`, if it is a digest."""
    try:
        return Digest((response.headers.get(distribution.DOCKER_CONTENT_DIGEST) or "").strip())
    except ValueError:
        return None


def named_instead(response: Response, digest: str) -> Digest | None:
    """The digest that the answer names, if it contradicts `digest`.

    None also where it is of another algorithm: both may be of the same blob.
    """
    other = named(response)
    same = other is None or other == digest or not digest.startswith(f"{other.algorithm}:")
    return None if same else other


def is_page(response: Response) -> bool:
    """Whether the answer is a page for people. Whatever its status, no registry sent it."""
    if response.media_type in {"text/html", "application/xhtml+xml"}:
        return True
    return response.body[:256].lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))


def is_a_registrys(response: Response) -> bool:
    """Whether the answer is certainly a registry's. False for some refusals of registries, too."""
    if is_page(response):
        return False
    versioned = response.headers.get(distribution.API_VERSION) is not None
    return response.ok or versioned or response.media_type == "application/json"


def says_nothing(response: Response) -> bool:
    """Whether a refused HEAD leaves open what was asked for.

    Most refusals are of a rule or of a proxy: 405, 501, 400 "invalid verb" (IIS), 403 for a tag
    that is not there (Artifactory).
    """
    status = response.status
    # 401 is about the login, 404 an answer, and 408, 429 and 499 (nginx, Nexus) pass.
    return status == 501 or (400 <= status < 500 and status not in {401, 404, 408, 429, 499})


def refusal(response: Response, action: str) -> AuthError | RegistryError:
    """The error for an answer that is no success; `action` completes "cannot …"."""
    status, found, words = response.status, code(response), text(response)
    where = f"{response.url.authority} answered {described(response)}"
    if elsewhere := sent_on(response):
        where += f", and sends on to {elsewhere.redacted}"
    # A 403 may also say that the tag is immutable, which no other login would change.
    denied = status in {401, 403} and not is_immutable(words)
    # ECR Public answers 400 with such a code where others answer 401 and 403.
    denied |= status == 400 and found in {distribution.DENIED, distribution.UNAUTHORIZED}
    # 499 is nginx's and Nexus's for a client that hung up, 522 Cloudflare's for a time-out.
    transient = status in {408, 429, 499}
    transient |= 500 <= status < 600 and status not in _LASTING_FAILURES
    transient |= found in _TRANSIENT_CODES and status not in _LASTING_STATUSES
    cls = AuthError if denied else RegistryError
    # A full disk comes as a 500 from distribution, and no second attempt makes room.
    return cls(
        f"cannot {action}: {where} ({response.method} {response.url.redacted})",
        status=status,
        code=found,
        hint=_hint(response, found, words, elsewhere),
        transient=transient and not re.search(_FULL, words),
        retry_after=retry_after(response),
    )


def check_success(response: Response, action: str) -> None:
    """Raise AuthError or RegistryError for anything but a registry's success."""
    if not response.ok or is_page(response):
        raise no_success(response, action)


def no_success(response: Response, action: str) -> AuthError | RegistryError:
    """The error for an answer that is no success, or a page (HTML) with a status of success."""
    if not response.ok:
        return refusal(response, action)
    kind = "a page" if is_page(response) else f"{response.media_type or 'something unexpected'}"
    return RegistryError(
        f"cannot {action}: {response.url.authority} answered {response.status} with {kind} instead "
        f"of what a registry says ({response.method} {response.url.redacted})",
        status=response.status,
        hint="check the address: this does not look like an image registry",
    )


def sent_on(response: Response) -> Url | None:
    """Where a redirect points, if it is one."""
    location = response.headers.get("Location") if 300 <= response.status < 400 else None
    try:
        return response.url.join(location) if location else None
    except ValueError:
        return None


def retry_after(response: Response) -> float | None:
    """Seconds that the answer asks to wait: at most 60, and 0 for a date in the past.

    None where it does not say (RFC 9110, section 10.2.3).
    """
    value = (response.headers.get("Retry-After") or "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        seconds = float(value[:12])
        if seconds > _EPOCH:  # the Hub has sent the time at which the wait is over
            seconds = max(0.0, seconds - time.time())
        return min(seconds, _WAIT_MAX)
    import email.utils

    try:
        seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), _WAIT_MAX)


def few_left(response: Response) -> tuple[int, float] | None:
    """How many more requests the host takes in its present window, and the window's seconds.

    None where the answer does not say, where more than a quarter of the window's requests are left,
    and where the window is too long to spread requests over it: the Hub's has six hours.
    """
    headers = response.headers
    if "RateLimit-Remaining" not in headers:
        return None
    # The Hub writes `200;w=21600`, GitLab has a header for the window's end.
    left, _, left_window = (headers.get("RateLimit-Remaining") or "").partition(";w=")
    limit, _, window = (headers.get("RateLimit-Limit") or "").partition(";w=")
    reset = headers.get("RateLimit-Reset") or window or left_window
    if not all(each.isascii() and each.isdigit() for each in (left, limit, reset)):
        return None
    seconds = float(reset[:12])
    if seconds > _EPOCH:  # GitLab: when the next one begins
        seconds -= time.time()
    few = int(left) * 4 < int(limit) and 0 < seconds <= _SPREAD_MAX
    return (int(left), seconds) if few else None


@contextmanager
def on_side(side: Side) -> Iterator[None]:
    """Mark errors that are raised inside as of this side of the transfer, unless they have one."""
    try:
        yield
    except TowlineError as error:
        error.side = error.side or side
        raise


# What to do about a refusal.

ALTERED = "check what lies between here and the registry: it changes what is sent"
SPEAKS_HTTPS = "the registry speaks https: leave out `plain_http=True`"
CLOCKS = (
    "the token is new: check that the account may do this here, and that the clocks of the "
    "registry and of its token service agree"
)
_IMMUTABLE = r"immutab|cannot be overwritten|already exists and"
_FULL = r"no space left|disk (?:is )?full"
_MISSING = r"(?:not found|does not exist|doesn't exist)"
_HINTS_BY_WORDS: tuple[tuple[str, str], ...] = (
    (r"http request to an https server|plain http request was sent to https", SPEAKS_HTTPS),
    # nginx, in plain words: "No required SSL certificate was sent", "The SSL certificate error".
    (r"ssl certificate|client certificate", CLIENT_CERTIFICATE),
    (r"expired", "the credentials have expired: log in again"),
    # ECR: "cannot be overwritten because the repository is immutable".
    (_IMMUTABLE, "the tag is immutable: choose another tag"),
    # Harbor has quotas, and projects that are made by hand.
    (r"quota", "a quota of the registry is used up: make room there"),
    (_FULL, "the registry has no room left: make room there"),
    (rf"project .*{_MISSING}", "create the project at the registry first"),
    # ECR makes no repository by itself.
    (rf"repository .*{_MISSING}", "create the repository at the registry first"),
    # Harbor, of a request with the cookie that it has set: we send none.
    (r"csrf", "something on the way adds cookies: ask whoever runs the proxy"),
)
_HINTS_BY_CODE = {
    distribution.NAME_UNKNOWN: "create the repository at the registry first, or check its name",
    distribution.NAME_INVALID: "the registry does not take such a name: check its rules for names",
    distribution.TOOMANYREQUESTS: "the registry limits requests: try again later, or log in",
}
_HINTS_BY_STATUS = {
    401: "check the credentials: `creds='USER:PASSWORD'`, or what towline login has saved",
    403: "check that the account may push to this repository, and that the repository exists",
    # Quay says 409 of a tag that may not be moved, Harbor 412.
    409: "the tag may be immutable: choose another tag",
    412: "the tag may be immutable: choose another tag",
    404: "check the name of the repository and that the address is a registry's",
    413: "a proxy before the registry limits the size of a request: have it raise the limit",
    429: "the registry limits requests: try again later, or log in",
    507: "the registry has no room left: make room there",
}


def _hint(response: Response, found: str | None, words: str, elsewhere: Url | None) -> str | None:
    """What to do about a refusal, one imperative clause; None where nothing is known."""
    if elsewhere is not None:
        if (response.url.scheme, elsewhere.scheme) == ("http", "https"):
            return SPEAKS_HTTPS
        return f"name {elsewhere.authority} in the destination, if the registry is there"
    for pattern, hint in _HINTS_BY_WORDS:
        if re.search(pattern, words):
            return hint
    return _HINTS_BY_CODE.get(found or "") or _HINTS_BY_STATUS.get(response.status)


def is_immutable(words: str) -> bool:
    """Whether a refusal speaks of a tag that may not be moved."""
    return re.search(_IMMUTABLE, words) is not None
