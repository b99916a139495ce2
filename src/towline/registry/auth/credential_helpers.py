"""Credential helpers: programs that keep logins, asked by their protocol.

`docker-credential-NAME get` reads a server from standard input and answers in JSON; it fails with
its message on *standard output*. One is run at a time: some hang when two are.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from towline.context import Context
from towline.errors import AuthError
from towline.reference import HUB
from towline.registry.endpoints import acquired

if TYPE_CHECKING:
    import subprocess
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
_TICK = 0.1
"""Seconds after which it is looked whether the answer is still wanted."""
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


def get(
    name: str,
    host: str,
    environ: Mapping[str, str],
    *,
    seconds: float = SECONDS,
    context: Context | None = None,
) -> Login | None:
    """Ask the helper of that name, which has so many seconds; None: it knows none.

    Raises HelperMissing, AuthError with the helper's own words when it fails, and Cancelled: then
    it is ended.
    """
    for server in servers(host):
        found = _ask(name, server, environ, seconds, context)
        if found is not None:
            return found
    return None


def _ask(
    name: str, server: str, environ: Mapping[str, str], seconds: float, context: Context | None
) -> Login | None:
    code, output = _run(name, "get", server, environ, seconds=seconds, context=context)
    if code:
        if _is_anonymous(output):
            return None
        raise _failed(name, output)
    return _login(name, output)


def store(name: str, server: str, username: str, secret: str, environ: Mapping[str, str]) -> None:
    """Have a helper keep a login. Raises AuthError, also where the helper is not installed."""
    import json

    login = {"ServerURL": server, "Username": username, "Secret": secret}
    line = json.dumps(login, ensure_ascii=False)
    code, output = _told(name, "store", line, environ)
    if code:
        raise _failed(name, output)


def erase(name: str, server: str, environ: Mapping[str, str]) -> bool:
    """Have a helper forget a login; whether it knew one."""
    code, output = _told(name, "erase", server, environ)
    if code and not _is_anonymous(output):
        raise _failed(name, output)
    return not code


def _told(name: str, verb: str, line: str, environ: Mapping[str, str]) -> tuple[int, bytes]:
    try:
        return _run(name, verb, line, environ)
    except HelperMissing as missing:
        raise AuthError(str(missing), hint="install it, or take it out of the file") from None


def _is_anonymous(output: bytes) -> bool:
    words = _words(output)
    return not words or words.lower().startswith(_ANONYMOUS)


def _words(output: bytes) -> str:
    return " ".join(output.decode("utf-8", "replace").split())[:200]


def _failed(name: str, output: bytes) -> AuthError:
    return AuthError(f"the credential helper docker-credential-{name} failed: {_words(output)}")


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


def _run(
    name: str,
    verb: str,
    line: str,
    environ: Mapping[str, str],
    *,
    seconds: float = SECONDS,
    context: Context | None = None,
) -> tuple[int, bytes]:
    """Run the helper with a line on its standard input; exit code and standard output."""
    import shutil
    import subprocess

    program = f"docker-credential-{name}"
    path = shutil.which(program, path=environ.get("PATH"))
    if path is None or "/" in name:
        raise HelperMissing(f"the credential helper {program} is not installed")
    try:
        with (
            acquired(_one_at_a_time, context or Context()),
            subprocess.Popen(
                [path, verb],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(environ),
            ) as process,
        ):
            try:
                told = line.encode("utf-8", "surrogateescape")
                output = _answer(process, told, seconds, context)
            except BaseException:
                # Not waited for is whoever else has its output open: a child of it.
                process.kill()
                raise
    except subprocess.TimeoutExpired:
        raise AuthError(
            f"the credential helper {program} did not answer within {seconds:g} s"
        ) from None
    except OSError as error:
        raise HelperMissing(f"the credential helper {program} cannot be run: {error}") from None
    return process.returncode, output[:_ANSWER_MAX]


def _answer(
    process: subprocess.Popen[bytes], line: bytes, seconds: float, context: Context | None
) -> bytes:
    """What it says. Raises subprocess.TimeoutExpired and, if there is a context, Cancelled."""
    from subprocess import TimeoutExpired

    if context is None:  # to keep a login, which may be long: it is told all of it in one go
        return process.communicate(line, timeout=seconds)[0]
    end = time.monotonic() + seconds
    told: bytes | None = line
    while True:
        context.cancel.check()
        try:
            return process.communicate(told, timeout=_TICK)[0]
        except TimeoutExpired:
            told = None
            if time.monotonic() >= end:
                raise
