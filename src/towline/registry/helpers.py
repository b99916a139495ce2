"""Credential helpers: programs that keep logins, asked by their protocol.

`docker-credential-NAME get` reads a server from standard input and answers in JSON; it fails with
its message on *standard output*. One is run at a time: some hang when two are.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from towline.errors import AuthError
from towline.reference import HUB

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS = 30.0
"""For an answer; a helper may have to ask its user."""
_HUB_SERVERS = ("https://index.docker.io/v1/", HUB, "index.docker.io", "registry-1.docker.io")
_ANONYMOUS = (
    "credentials not found in native keychain",
    "no credentials server url",
    "no credentials username",
)
_ANSWER_MAX = 1 << 20
_one_at_a_time = threading.Lock()


class HelperMissing(Exception):
    """There is no such program; its text is for one warning."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a helper knows."""

    username: str
    secret: str


def servers(host: str) -> tuple[str, ...]:
    """Under which names a host's login may be kept; the first is the usual one."""
    return _HUB_SERVERS if host == HUB else (host, f"https://{host}")


def get(name: str, host: str, environ: Mapping[str, str]) -> Login | None:
    """Ask the helper of that name; None: it knows none.

    Raises HelperMissing, and AuthError with the helper's own words when it fails.
    """
    for server in servers(host):
        found = _ask(name, server, environ)
        if found is not None:
            return found
    return None


def _ask(name: str, server: str, environ: Mapping[str, str]) -> Login | None:
    code, output = _run(name, "get", server, environ)
    if code:
        words = " ".join(output.decode("utf-8", "replace").split())[:200]
        if not words or words.lower().startswith(_ANONYMOUS):
            return None
        raise AuthError(f"the credential helper docker-credential-{name} failed: {words}")
    return _login(name, output)


def _login(name: str, output: bytes) -> Login | None:
    import json

    try:
        document = json.loads(output)
        username, secret = document["Username"], document["Secret"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise AuthError(
            f"the credential helper docker-credential-{name} answered with something else than a "
            "login"
        ) from None
    if not isinstance(username, str) or not isinstance(secret, str) or not secret:
        return None
    return Login(username, secret)


def _run(name: str, verb: str, line: str, environ: Mapping[str, str]) -> tuple[int, bytes]:
    """Run the helper with a line on its standard input; exit code and standard output."""
    import shutil
    import subprocess

    program = f"docker-credential-{name}"
    path = shutil.which(program, path=environ.get("PATH"))
    if path is None or "/" in name:
        raise HelperMissing(f"the credential helper {program} is not installed")
    try:
        with _one_at_a_time:
            done = subprocess.run(
                [path, verb],
                input=line.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(environ),
                timeout=SECONDS,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise AuthError(
            f"the credential helper {program} did not answer within {SECONDS:g} s"
        ) from None
    except OSError as error:
        raise HelperMissing(f"the credential helper {program} cannot be run: {error}") from None
    return done.returncode, done.stdout[:_ANSWER_MAX]
