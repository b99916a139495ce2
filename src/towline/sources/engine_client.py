"""What is asked of a Docker engine, or of Podman's service: four questions over its API.

The version of the API is negotiated, never fixed: engines refuse versions that they have left
behind (29.0 refused all below 1.44), and those that they do not know yet.
"""

from __future__ import annotations

import json
import tempfile
from typing import TYPE_CHECKING, Any, TypeVar

from towline.errors import NetworkError, RegistryError, SourceError, TowlineError
from towline.sources import engine_address
from towline.wire import url as urls
from towline.wire.channel import Silence, words
from towline.wire.local import Command, dial_unix
from towline.wire.log import silent
from towline.wire.message import Request
from towline.wire.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.context import Cancel, Context
    from towline.sources.engine_address import Address
    from towline.wire.channel import Channel
    from towline.wire.exchange import Unread
    from towline.wire.log import Log
    from towline.wire.message import Response
    from towline.wire.secrets import Secrets

T = TypeVar("T")

NEWEST = (1, 55)
"""Of Engine 29.7; nothing that is asked has changed since 1.24."""
_OLDEST = (1, 24)
_WHOLE_ANSWER = 64 << 20
"""Bytes of a list of images."""
_DAYS = 20 * 86400.0
"""Seconds for which an export may be prepared: an overlay2 engine writes all of it to its own disk
before the first byte comes. A poll takes no more than 24 days."""
_TEMPORARY_ERRORS = 8 << 10
"""Bytes of what an `ssh` that failed has said."""


_NO_FILE = "no such file or directory"


class _Unreachable(Exception):
    """Nobody answers at an address, and why."""

    def __init__(self, address: Address, why: str, hint: str | None = None) -> None:
        super().__init__(why)
        self.address, self.why, self.hint = address, why, hint


def connect(
    engine: str | None,
    name: str,
    context: Context,
    environ: Mapping[str, str],
    *,
    timeout: float,
    log: Log = silent,
    secrets: Secrets | None = None,
) -> EngineClient:
    """The first engine that answers, where `name` is to be found.

    Raises SourceError when there is none, UsageError for an `engine` that is no address.
    """
    tried: list[_Unreachable] = []
    for address in engine_address.find(engine, environ):
        client = EngineClient(address, context, environ, timeout=timeout, log=log, secrets=secrets)
        try:
            client.ping()
        except _Unreachable as error:
            client.close()
            tried.append(error)
        except BaseException:
            client.close()
            raise
        else:
            return client
    raise _nobody(name, tried)


class EngineClient:
    """One engine. Safe from any thread after `ping`."""

    def __init__(
        self,
        address: Address,
        context: Context,
        environ: Mapping[str, str],
        *,
        timeout: float,
        log: Log,
        secrets: Secrets | None,
    ) -> None:
        self.name = f"the engine at {address.text}"
        """What errors call it."""
        self._address = address
        self._context = context
        self._environ = environ
        self._commands: list[Command] = []
        self._said = tempfile.TemporaryFile() if address.command else None  # noqa: SIM115 - closed below
        self._pool = Pool(
            timeout=timeout,
            trust=lambda _url: address.trust,
            write_log=log,
            secrets=secrets,
            dial=self._dial if address.socket or address.command else None,
        )
        self._podman = False
        self._version = ""
        """Of the API, as it stands in paths; empty: they stand without one."""

    def ping(self) -> None:
        """Find out who is there, and which version of the API both know. Raises SourceError."""
        # HEAD alone leaves a proxy in between unable to answer for the engine.
        answer = self._first("HEAD")
        if "Api-Version" not in answer.headers:
            answer = self._first("GET")
        told = answer.headers.get("Api-Version")
        self._podman = "Libpod-API-Version" in answer.headers
        if told is None and answer.body.strip() != b"OK":
            raise SourceError(
                f"what answers at {self._address} is no Docker engine: it says {answer.status} to "
                "a ping"
            )
        self.name = f"{'Podman' if self._podman else 'the engine'} at {self._address.text}"
        self._version = self._agreed(told)

    def _agreed(self, told: str | None) -> str:
        """The newest version that both know."""
        if pinned := self._environ.get("DOCKER_API_VERSION"):
            return pinned.removeprefix("v")
        if told is None:
            return ""
        theirs = _numbers(told)
        if theirs < _OLDEST:
            raise SourceError(
                f"{self.name} is too old: its API is {told}, and {_text(_OLDEST)} is the oldest "
                "that is spoken",
                hint="pipe the image in: docker save NAME | towline push - DESTINATION",
            )
        return _text(min(theirs, NEWEST))

    def _first(self, method: str) -> Response:
        """An answer to a ping. Raises _Unreachable."""
        request = Request(method, self._url("/_ping"))
        try:
            return self._pool.request(request, self._context)
        except (OSError, Silence, NetworkError) as error:
            raise self._unreachable(error) from None
        except RegistryError as error:
            raise SourceError(f"what answers at {self._address} is no Docker engine") from error

    def _unreachable(self, error: OSError | Silence | NetworkError) -> _Unreachable:
        if self._address.command:
            return self._ssh_failed(error)
        if isinstance(error, PermissionError):
            return _Unreachable(
                self._address,
                "it may not be opened by this user",
                "join the group docker (and log in anew), or use a rootless engine",
            )
        if isinstance(error, NetworkError):
            why = error.message.removeprefix(f"cannot connect to {self._authority}: ")
            return _Unreachable(self._address, why)  # its hint is about registries
        return _Unreachable(
            self._address, words(error) if isinstance(error, OSError) else str(error)
        )

    def _ssh_failed(self, error: Exception) -> _Unreachable:
        for command in self._commands:
            command.close()
        said = ""
        if self._said:
            self._said.seek(0)
            said = self._said.read(_TEMPORARY_ERRORS).decode("utf-8", "replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        why = lines[-1] if lines else words(error) if isinstance(error, OSError) else "ssh ended"
        host = self._address.text
        if "permission denied" in why.lower():
            hint = f"nothing is asked for: have a key for it in the ssh agent, and try ssh {host}"
            return _Unreachable(self._address, f"ssh is not let in without a password: {why}", hint)
        if "host key verification failed" in why.lower():
            return _Unreachable(self._address, why, f"connect once by hand: ssh {host}")
        return _Unreachable(self._address, why)

    # What is asked.

    def inspect(self, name: str) -> dict[str, Any] | None:
        """What the engine says of an image; None: it has none of that name. Raises SourceError."""
        answer = self._get(f"/images/{urls.quote(name)}/json?manifests=1")
        if answer.status == 404 and self._podman:  # noqa: PLR2004 - not found
            # As docker would, Podman takes a short name to be the Hub's; its own builds are here.
            answer = self._get(f"/images/localhost/{urls.quote(name)}/json")
        if answer.status == 404:  # noqa: PLR2004 - not found
            return None
        return self._json(answer, dict)

    def images(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, Any]]:
        """The images that it has. Raises SourceError."""
        query = f"?filters={urls.quote(json.dumps(filters))}" if filters else ""
        found = self._json(self._get(f"/images/json{query}"), list)
        return [each for each in found if isinstance(each, dict)]

    def info(self) -> dict[str, Any]:
        """What the engine says of itself; nothing of one on another machine. Raises SourceError."""
        if not self._address.socket:
            return {}
        answer = self._get("/info")
        return self._json(answer, dict) if answer.ok else {}  # a proxy may allow images alone

    def layer_sizes(self, name: str) -> list[int]:
        """Bytes that each line of an image's history has added, base first. Raises SourceError."""
        lines = self._json(self._get(f"/images/{urls.quote(name)}/history"), list)
        sizes = [line.get("Size") for line in lines if isinstance(line, dict)]
        return [size if isinstance(size, int) else 0 for size in reversed(sizes)]

    def export(self, names: Sequence[str], context: Context) -> Unread:
        """A tar of images, as it comes. Raises SourceError."""
        if self._podman:
            query = "".join(f"&references={urls.quote(name)}" for name in names)
            # As an OCI archive each layer would be compressed there, by one thread.
            target = f"/libpod/images/export?format=docker-archive{query}"
        else:
            target = "/images/get?" + "&".join(f"names={urls.quote(name)}" for name in names)
        request = Request("GET", self._url(target))
        try:
            unread = self._pool.open(request, context, patience=_DAYS)
        except (OSError, Silence, TowlineError) as error:
            raise self.gone(error) from None
        if not unread.response.ok:
            raise self._refused(unread.response)
        return unread

    def _get(self, target: str) -> Response:
        try:
            return self._pool.request(
                Request("GET", self._url(target)), self._context, limit=_WHOLE_ANSWER
            )
        except (OSError, Silence, TowlineError) as error:
            raise self.gone(error) from None

    def _json(self, answer: Response, kind: type[T]) -> T:
        """What it answers. Raises SourceError."""
        if not answer.ok:
            raise self._refused(answer)
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, kind):
            raise SourceError(f"what {self.name} says of its images makes no sense")
        return found

    def _refused(self, answer: Response) -> SourceError:
        """Its own words."""
        said = said_in(answer.body) or answer.reason
        return SourceError(f"{self.name} answers {answer.status}: {said}")

    def gone(self, error: Exception, read: int | None = None) -> SourceError:
        """It answered before, and does not any more; in an export, after so many bytes of it."""
        said = words(error) if isinstance(error, OSError) else str(error)
        said = said.removeprefix(self._authority).strip()
        after = "" if read is None else f", after {read} bytes of its export"
        return SourceError(f"{self.name} is gone: {said}{after}", hint="see whether it still runs")

    # How it is reached.

    @property
    def _authority(self) -> str:
        return self._address.origin.partition("://")[2]

    def _url(self, target: str) -> urls.Url:
        libpod = target.startswith("/libpod/")
        version = "4.0.0" if libpod else self._version
        prefix = f"/v{version}" if version and target != "/_ping" else ""
        return urls.parse(self._address.origin).at(f"{prefix}{target}")

    def _dial(self, cancel: Cancel, timeout: float) -> Channel:
        if self._address.socket:
            return dial_unix(self._address.socket, cancel, timeout)
        assert self._said is not None  # noqa: S101 - made with the command
        command = Command(self._address.command, self._environ, self._said)
        self._commands.append(command)
        return command.channel(cancel, timeout)

    def close(self) -> None:
        """Hang up."""
        self._pool.close()
        for command in self._commands:
            command.close()
        if self._said:
            self._said.close()


def said_in(body: bytes) -> str:
    """The message in an answer, or in the line that ends a torn export; empty: there is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    detail = document.get("errorDetail")
    inner = detail.get("message") if isinstance(detail, dict) else None
    found = document.get("message") or document.get("error") or document.get("cause") or inner
    return " ".join(str(found).split()) if found else ""


def _nobody(name: str, tried: Sequence[_Unreachable]) -> SourceError:
    """No engine answers: where was looked, and the way that needs none of this."""
    looked = ", ".join(
        str(place.address) + (f": {place.why}" if place.why != _NO_FILE else "") for place in tried
    )
    first, slash, _ = name.partition("/")
    registry = "" if slash and ("." in first or ":" in first) else "REGISTRY/"
    piped = f"docker save {name} | towline push - {registry}{name}"
    hint = next((place.hint for place in tried if place.hint), piped)
    return SourceError(f"{name} cannot be read: no engine answers (looked at {looked})", hint=hint)


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else NEWEST


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
