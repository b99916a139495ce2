"""Credential helpers: programs that keep logins.

`docker-credential-NAME get` reads a server's name from standard input and answers in JSON. Where it
fails, the message is on *standard output*, but that of gcloud's on standard error. One helper is
run at a time: that of macOS hangs when several are.
"""

from __future__ import annotations

import os
import threading
import time
from typing import IO, TYPE_CHECKING

from towline.context import Context, acquired
from towline.errors import AuthError
from towline.reference import HUB
from towline.registry import errors

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

SECONDS = 30.0
"""For an answer; a helper may have to ask its user."""
# Docker keeps the Hub's login under the URL of its old index; other tools use the host's names.
_HUB_SERVERS = ("https://index.docker.io/v1/", HUB, "index.docker.io", "registry-1.docker.io")
_ANONYMOUS = (
    "credentials not found in native keychain",
    "no credentials server url",
    "no credentials username",
)
_ANSWER_MAX = 1 << 20
"""Bytes of a helper's answer that are read as JSON: a login is far smaller."""
_SHOWN = 200
"""Characters of what a helper says when it fails."""
_TICK = 0.1
"""Seconds between looks whether the answer is still wanted."""
_one_at_a_time = threading.Lock()


class HelperMissing(Exception):
    """The program is not installed or cannot be run; `str()` is a sentence for a warning."""


def servers(host: str) -> tuple[str, ...]:
    """The names under which a host's login may be kept, the usual one first."""
    return _HUB_SERVERS if host == HUB else (host, f"https://{host}")


def get(
    name: str,
    host: str,
    environ: Mapping[str, str],
    *,
    seconds: float = SECONDS,
    context: Context | None = None,
) -> tuple[str, str] | None:
    """Ask the helper `name` for a host's user and secret, for at most `seconds`; None: it has none.

    Raises HelperMissing, AuthError with the helper's own words when it fails, and Cancelled, after
    which the helper is killed.
    """
    import json

    for server in servers(host):
        output = _run(name, "get", server, environ, seconds=seconds, context=context)
        if output is None:
            continue
        try:
            document = json.loads(output)
            username, secret = document["Username"], document["Secret"]
        except (ValueError, RecursionError, KeyError, TypeError):
            raise AuthError(
                f"the credential helper docker-credential-{name} answered with something else "
                "than a login"
            ) from None
        if isinstance(username, str) and isinstance(secret, str) and secret:
            return username, secret
    return None


def store(name: str, server: str, username: str, secret: str, environ: Mapping[str, str]) -> None:
    """Have a helper keep a login. Raises AuthError where it does not, or is not installed."""
    import json

    login = {"ServerURL": server, "Username": username, "Secret": secret}
    if _told(name, "store", json.dumps(login, ensure_ascii=False), environ) is None:
        raise AuthError(f"the credential helper docker-credential-{name} has not kept the login")


def erase(name: str, server: str, environ: Mapping[str, str]) -> bool:
    """Have a helper forget a login. Returns whether it knew one. Raises AuthError."""
    return _told(name, "erase", server, environ) is not None


def _told(name: str, verb: str, line: str, environ: Mapping[str, str]) -> bytes | None:
    try:
        return _run(name, verb, line, environ)
    except HelperMissing as missing:
        raise AuthError(str(missing), hint="install it, or take it out of the file") from None


def _run(
    name: str,
    verb: str,
    line: str,
    environ: Mapping[str, str],
    *,
    seconds: float = SECONDS,
    context: Context | None = None,
) -> bytes | None:
    """The output of a helper with `line` on its standard input; None: it has no such login.

    Raises HelperMissing, AuthError, Cancelled.
    """
    import shutil
    import subprocess

    context = context or Context()  # `store` and `erase` have none: nobody cancels them
    program = f"docker-credential-{name}"
    path = shutil.which(program, path=environ.get("PATH"))
    if path is None or "/" in name:  # a name with a slash would lead out of PATH
        raise HelperMissing(f"the credential helper {program} is not installed")
    try:
        with (
            _scratch() as complaints,
            acquired(_one_at_a_time, context),
            subprocess.Popen(
                [path, verb],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env=dict(environ),
            ) as process,
        ):
            try:
                told = line.encode("utf-8", "surrogateescape")
                output = _answer(process, told, seconds, context)[:_ANSWER_MAX]
            except BaseException:
                # A child of the helper may keep its output open: that is not waited for.
                process.kill()
                raise
            complaints.seek(0)
            said = output.strip() or complaints.read(_ANSWER_MAX)
    except subprocess.TimeoutExpired:
        raise AuthError(
            f"the credential helper {program} did not answer within {seconds:g} s"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise HelperMissing(f"the credential helper {program} cannot be run: {reason}") from None
    if not process.returncode:
        return output
    words = errors.shown(said.decode("utf-8", "replace"), _SHOWN)
    if process.returncode < 0:
        words = words or f"signal {-process.returncode}"
    if not words or words.lower().startswith(_ANONYMOUS):
        return None
    raise AuthError(f"the credential helper {program} failed: {words}")


def _scratch() -> IO[bytes]:
    """A file for standard error. No pipe: a daemon that the helper starts may keep that open."""
    import tempfile

    try:
        return tempfile.TemporaryFile()
    except OSError:  # nowhere may be written
        return open(os.devnull, "r+b")  # noqa: PTH123 - pathlib costs start-up


def _answer(
    process: subprocess.Popen[bytes], line: bytes, seconds: float, context: Context
) -> bytes:
    """The helper's output. Raises subprocess.TimeoutExpired, Cancelled."""
    from subprocess import TimeoutExpired

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
