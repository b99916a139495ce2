"""Asks a Docker engine, or Podman's service, for images over its API.

The API's version is negotiated, never fixed: an engine refuses versions that it has given up (29.0
refused all below 1.44), and those that it does not know yet.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from towline.errors import NetworkError, RegistryError, SourceError, TowlineError
from towline.push_events import nowhere
from towline.sources.engine import address as addresses
from towline.sources.files import blocks
from towline.spec import reading
from towline.wire.channel import Silence, words
from towline.wire.local import Command, dial_unix
from towline.wire.message import Request, Url, quote
from towline.wire.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from towline.context import Cancel, Context
    from towline.layers.reader import Reader
    from towline.sources.engine.address import Address
    from towline.spec.descriptor import Platform
    from towline.wire.channel import Channel
    from towline.wire.message import Response
    from towline.wire.secrets import Secrets

T = TypeVar("T")

_NEWEST = (1, 55)
"""That of Engine 29.7. Nothing that is asked here has changed since 1.24."""
_OLDEST = (1, 24)
"""The oldest API version for which every question here is known to be the same."""
_WHOLE_ANSWER = 64 << 20
"""Bytes of a list of images."""
_DAYS = 20 * 86400.0
"""Seconds to wait for an export's first byte: an engine with overlay2, and Podman, first write all
of it to their own disk. A `poll` takes no more than 24 days."""
_WORDS = 8 << 10
"""Bytes that are read of the words of an `ssh` that failed."""
_TAIL = 8 << 10
"""Bytes at an export's end that are searched for the engine's error."""
_NO_FILE = "no such file or directory"


class _Unreachable(SourceError):
    """Why no engine answers at an address."""


def connect(
    engine: str | None,
    name: str,
    context: Context,
    environ: Mapping[str, str],
    *,
    timeout: float,
    log: Callable[[str], None] = nowhere,
    secrets: Secrets | None = None,
) -> EngineClient:
    """The first engine that answers; `name`, the image's, is for the error's hint.

    Raises SourceError when none answers, UsageError for an `engine` that is no address.
    """
    tried: list[tuple[Address, _Unreachable]] = []
    for address in addresses.find(engine, environ):
        client = EngineClient(address, context, environ, timeout=timeout, log=log, secrets=secrets)
        try:
            client.ping()
        except _Unreachable as error:
            client.close()
            tried.append((address, error))
        except BaseException:
            client.close()
            raise
        else:
            return client
    looked = ", ".join(
        str(address) + (f": {error.message}" if error.message != _NO_FILE else "")
        for address, error in tried
    )
    first, slash, _ = name.partition("/")
    registry = "" if slash and ("." in first or ":" in first) else "REGISTRY/"
    piped = f"docker save {name} | towline push - {registry}{name}"
    hint = next((error.hint for _, error in tried if error.hint), piped)
    raise SourceError(f"{name} cannot be read: no engine answers (looked at {looked})", hint=hint)


class EngineClient:
    """One engine. Safe from any thread after `ping`."""

    def __init__(
        self,
        address: Address,
        context: Context,
        environ: Mapping[str, str],
        *,
        timeout: float,
        log: Callable[[str], None],
        secrets: Secrets | None,
    ) -> None:
        self.name = f"the engine at {address.text}"
        """Its name in errors."""
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
        """What paths begin with: the API's version, where the engine tells one."""

    def ping(self) -> None:
        """Find out which engine it is, and the API's version. Raises SourceError, _Unreachable."""
        url = self._url("/_ping")
        try:
            answer = self._pool.request(Request("HEAD", url), self._context)
            # A proxy in between may refuse HEAD: then GET is asked, as docker's client does.
            if "Api-Version" not in answer.headers:
                answer = self._pool.request(Request("GET", url), self._context)
        except (OSError, Silence, NetworkError) as error:
            raise self._unreachable(error) from None
        except RegistryError as error:
            raise SourceError(f"what answers at {self._address} is no Docker engine") from error
        told = answer.headers.get("Api-Version")
        self._podman = "Libpod-API-Version" in answer.headers
        if told is None and answer.body.strip() != b"OK":
            raise SourceError(
                f"what answers at {self._address} is no Docker engine: it says {answer.status} to "
                "a ping"
            )
        self.name = f"{'Podman' if self._podman else 'the engine'} at {self._address.text}"
        if pinned := self._environ.get("DOCKER_API_VERSION"):
            self._version = f"/v{pinned.removeprefix('v')}"
        elif told is not None:
            major, minor = min(_numbers(told), _NEWEST)
            if (major, minor) < _OLDEST:
                raise SourceError(
                    f"{self.name} is too old: its API is {told}, and "
                    f"{'.'.join(map(str, _OLDEST))} is the oldest that is spoken",
                    hint="pipe the image in: docker save NAME | towline push - DESTINATION",
                )
            self._version = f"/v{major}.{minor}"

    def _unreachable(self, error: Exception) -> _Unreachable:
        if self._address.command:
            return self._ssh_failed(error)
        if isinstance(error, PermissionError):
            hint = "join the group docker (and log in anew), or use a rootless engine"
            return _Unreachable("it may not be opened by this user", hint=hint)
        # Without the hint of a NetworkError, which is about registries.
        beginning = f"cannot connect to {self._address.url.authority}: "
        return _Unreachable(_said_by(error).removeprefix(beginning))

    def _ssh_failed(self, error: Exception) -> _Unreachable:
        for command in self._commands:
            command.close()
        said = ""
        if self._said:
            self._said.seek(0)
            said = self._said.read(_WORDS).decode("utf-8", "replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        why = lines[-1] if lines else words(error) if isinstance(error, OSError) else "ssh ended"
        host = self._address.text
        if "permission denied" in why.lower():
            hint = f"nothing is asked for: have a key for it in the ssh agent, and try ssh {host}"
            return _Unreachable(f"ssh is not let in without a password: {why}", hint=hint)
        if "host key verification failed" in why.lower():
            return _Unreachable(why, hint=f"connect once by hand: ssh {host}")
        return _Unreachable(why)

    # What is asked.

    def inspect(self, name: str) -> dict[str, Any] | None:
        """The engine's description of an image; None: there is none. Raises SourceError."""
        answer = self._get(f"/images/{quote(name)}/json?manifests=1")
        if answer.status == 404 and self._podman:  # noqa: PLR2004 - not found
            # Podman's compatible API takes a short name as the Hub's; its own builds are under
            # `localhost/`.
            answer = self._get(f"/images/localhost/{quote(name)}/json")
        if answer.status == 404:  # noqa: PLR2004 - not found
            return None
        return self._json(answer, dict)

    def images(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, Any]]:
        """The engine's list of images. Raises SourceError."""
        query = f"?filters={quote(json.dumps(filters))}" if filters else ""
        found = self._json(self._get(f"/images/json{query}"), list)
        return [each for each in found if isinstance(each, dict)]

    def info(self) -> dict[str, Any]:
        """The engine's description of itself; empty if it may be on another machine."""
        # It is needed to find the engine's files, which only a socket's engine shares with us.
        if not self._address.socket:
            return {}
        answer = self._get("/info")
        return self._json(answer, dict) if answer.ok else {}  # a proxy may allow images alone

    def layer_sizes(self, name: str) -> list[int]:
        """Bytes that each step of an image's history has added, the base first.

        Raises SourceError.
        """
        lines = self._json(self._get(f"/images/{quote(name)}/history"), list)
        sizes = [line.get("Size") for line in lines if isinstance(line, dict)]
        return [size if isinstance(size, int) else 0 for size in reversed(sizes)]

    def export(
        self, names: Sequence[str], context: Context, platform: Platform | None = None
    ) -> ExportStream:
        """A tar of images, or of that platform's alone, as it comes. Raises SourceError."""
        if self._podman:
            query = "".join(f"&references={quote(name)}" for name in names)
            # Not as an OCI archive: for that Podman compresses each layer, with one thread. Its own
            # API has versions of its own.
            target = f"/v4.0.0/libpod/images/export?format=docker-archive{query}"
        else:
            query = "&".join(f"names={quote(name)}" for name in names)
            if platform:
                query += f"&platform={quote(json.dumps(platform.as_json()))}"
            target = f"{self._version}/images/get?{query}"
        try:
            request = Request("GET", self._url(target), patience=_DAYS, in_pieces=True)
            answer = self._pool.request(request, context)
        except (OSError, Silence, TowlineError) as error:
            raise self.gone(error) from None
        if answer.unread is None:
            raise self._refused(answer)
        return ExportStream(answer.unread, self)

    def _get(self, target: str) -> Response:
        try:
            request = Request("GET", self._url(self._version + target), limit=_WHOLE_ANSWER)
            return self._pool.request(request, self._context)
        except (OSError, Silence, TowlineError) as error:
            raise self.gone(error) from None

    def _json(self, answer: Response, kind: type[T]) -> T:
        """The JSON of an answer. Raises SourceError."""
        if not answer.ok:
            raise self._refused(answer)
        with suppress(ValueError):
            if isinstance(found := reading.document(answer.body), kind):
                return found
        raise SourceError(f"what {self.name} says of its images makes no sense")

    def _refused(self, answer: Response) -> SourceError:
        """The error for a refusal, in the engine's own words."""
        said = _said_in(answer.body) or answer.reason
        return SourceError(f"{self.name} answers {answer.status}: {said}")

    def gone(self, error: Exception, read: int | None = None) -> SourceError:
        """The error for an engine that does not answer any more; `read`: bytes of an export."""
        said = _said_by(error).removeprefix(self._address.url.authority).strip()
        after = "" if read is None else f", after {read} bytes of its export"
        return SourceError(f"{self.name} is gone: {said}{after}", hint="see whether it still runs")

    # How it is reached.

    def _url(self, target: str) -> Url:
        base = self._address.url.target.partition("?")[0].rstrip("/")
        return self._address.url.at(f"{base}{target}")

    def _dial(self, cancel: Cancel, timeout: float) -> Channel:
        if self._address.socket:
            return dial_unix(self._address.socket, cancel, timeout)
        assert self._said is not None  # noqa: S101 - made with the command
        command = Command(self._address.command, self._environ, self._said)
        self._commands.append(command)
        return command.channel(cancel, timeout)

    def close(self) -> None:
        """Close the connections, and end the commands."""
        self._pool.close()
        for command in self._commands:
            command.close()
        if self._said:
            self._said.close()


class ExportStream:
    """A Reader of an engine's export as it comes; closing it ends the export."""

    def __init__(self, unread: Reader, client: EngineClient) -> None:
        self._unread = unread
        self._client = client
        self._position = 0
        self._tail = b""
        self._over = False

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`. Raises SourceError for an engine that is gone, Cancelled."""
        if self._over:
            return 0
        try:
            count = self._unread.readinto(buffer)
        except TowlineError as error:
            self._over = True
            raise self._client.gone(error, self._position) from None
        self._tail = (self._tail + bytes(buffer[:count][-_TAIL:]))[-_TAIL:]
        self._over = not count
        self._position += count
        return count

    def explained(self, error: SourceError) -> SourceError:
        """The engine's reason for a torn tar, if it gives one; else `error`."""
        # An engine that fails after the first byte cannot change the status, which was 200: it
        # appends a line of JSON to the tar.
        for _ in blocks(self):
            pass
        begin = self._tail.rfind(b'{"errorDetail"')
        if begin >= 0 and (said := _said_in(self._tail[begin:])):
            return SourceError(f"the engine could not export the image: {said}")
        return error

    def close(self) -> None:
        """See `Reader`."""
        self._unread.close()


def _said_in(body: bytes) -> str:
    """The message in an answer, or in the line at the end of a torn export; or ""."""
    document = reading.mapping(body)
    detail = document.get("errorDetail")
    inner = detail.get("message") if isinstance(detail, dict) else None
    found = document.get("message") or document.get("error") or document.get("cause") or inner
    return " ".join(str(found).split()) if found else ""


def _said_by(error: Exception) -> str:
    return words(error) if isinstance(error, OSError) else str(error)


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else _NEWEST
