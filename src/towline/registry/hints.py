"""What to do about a refusal, where its status, code or words tell the cause."""

from __future__ import annotations

import re

from towline.spec import distribution
from towline.wire.failures import CLIENT_CERTIFICATE

_IMMUTABLE = re.compile(r"immutab|cannot be overwritten|already exists and")
_FULL = re.compile(r"no space left|disk (?:is )?full")

SPEAKS_HTTPS = "the registry speaks https: leave out --plain-http"

CLOCKS = (
    "the token is new: check that the account may do this here, and that the clocks of the "
    "registry and of its token service agree"
)

_BY_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"http request to an https server|plain http request was sent to https"),
        SPEAKS_HTTPS,
    ),
    # nginx, in plain words: "No required SSL certificate was sent", "The SSL certificate error".
    (re.compile(r"ssl certificate|client certificate"), CLIENT_CERTIFICATE),
    (re.compile(r"expired"), "the credentials have expired: log in again"),
    (_IMMUTABLE, "the tag is immutable: choose another tag"),
    (re.compile(r"quota"), "a quota of the registry is used up: make room there"),
    (_FULL, "the registry has no room left: make room there"),
    (
        re.compile(r"project .*(?:not found|does not exist|doesn't exist)"),
        "create the project at the registry first",
    ),
    (
        re.compile(r"repository .*(?:not found|does not exist|doesn't exist)"),
        "create the repository at the registry first",
    ),
    (
        re.compile(r"csrf"),
        "something on the way adds cookies: ask whoever runs the proxy",
    ),
)
_BY_CODE = {
    distribution.NAME_UNKNOWN: "create the repository at the registry first, or check its name",
    distribution.NAME_INVALID: "the registry does not take such a name: check its rules for names",
    distribution.TOOMANYREQUESTS: "the registry limits requests: try again later, or log in",
}
_BY_STATUS = {
    401: "check the credentials: --creds USER:PASSWORD, or what towline login has saved",
    403: "check that the account may push to this repository, and that the repository exists",
    409: "the tag may be immutable: choose another tag",
    412: "the tag may be immutable: choose another tag",
    404: "check the name of the repository and that the address is a registry's",
    413: "a proxy before the registry limits the size of a request: have it raise the limit",
    429: "the registry limits requests: try again later, or log in",
    507: "the registry has no room left: make room there",
}


def of(status: int, code: str | None, words: str) -> str | None:
    """One imperative clause; None where nothing is known."""
    for pattern, hint in _BY_WORDS:
        if pattern.search(words):
            return hint
    return _BY_CODE.get(code or "") or _BY_STATUS.get(status)


def is_immutable(words: str) -> bool:
    """Whether a refusal speaks of a tag that may not be moved."""
    return _IMMUTABLE.search(words) is not None


def is_full(words: str) -> bool:
    """Whether a refusal speaks of a disk without room: waiting makes none."""
    return _FULL.search(words) is not None
