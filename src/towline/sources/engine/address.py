"""Finds the address of a Docker engine, by the rules of docker's client, or of Podman's service.

The first that is named counts alone: `engine`, `DOCKER_HOST`, `DOCKER_CONTEXT`, `currentContext` of
docker's configuration, `CONTAINER_HOST`. If none is, the usual sockets are tried.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from towline.errors import SourceError, UsageError
from towline.reference import without_login
from towline.spec import reading
from towline.wire import tls
from towline.wire.message import DEFAULT_PORTS, Url, parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_CONTEXT = "default"
_DEFAULT_SOCKET = "/var/run/docker.sock"
_SHORT_TCP = re.compile(r"(?P<host>\[[^\]]*\]|[^:/]*)(?::(?P<port>[0-9]*))?(?P<path>/(?!/).*)?")
_SSH = re.compile(
    r"(?:(?P<user>[^@:/\s]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/@\[\]\s]+)"
    r"(?::(?P<port>[0-9]+))?(?P<path>/[^?#]*)?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """One place where an engine may be."""

    text: str
    """As it is written, and shown."""
    named_by: str
    """The option, variable or file that names it; empty: it is one of the usual places."""
    socket: str = ""
    """The path of a socket."""
    command: tuple[str, ...] = ()
    """A command (`ssh`) that carries the connection over its standard input and output."""
    url: Url = Url("http", "docker", 80, "/")  # noqa: RUF009 - a tuple never changes
    """What the URLs of the engine's API begin with."""
    trust: tls.Trust = tls.Trust()  # noqa: RUF009 - a tuple never changes

    def __str__(self) -> str:
        return f"{self.text} ({self.named_by})" if self.named_by else self.text


def find(engine: str | None, environ: Mapping[str, str]) -> tuple[Address, ...]:
    """The addresses to try, in order: the one that is named, else the usual ones.

    Raises UsageError for an `engine` that is no address, SourceError for any other such name.
    """
    if engine is not None:
        try:
            return (_named(engine, "`engine`", environ),)
        except SourceError as error:
            raise UsageError(error.message, hint=error.hint) from None
    if host := environ.get("DOCKER_HOST"):
        return (_named(host, "DOCKER_HOST", environ),)
    if (named := _context(environ)) and named[0] != _DEFAULT_CONTEXT:
        return (_of_context(*named, environ),)
    if host := environ.get("CONTAINER_HOST"):
        return (_address(host, "CONTAINER_HOST", None, program="podman"),)
    return tuple(Address(f"unix://{path}", "", socket=path) for path in _usual_places(environ))


def _usual_places(environ: Mapping[str, str]) -> list[str]:
    runtime, home = environ.get("XDG_RUNTIME_DIR"), environ.get("HOME")
    rootless = [f"{runtime}/docker.sock"] if runtime else []
    desktop = [f"{home}/.docker/{it}/docker.sock" for it in ("run", "desktop")] if home else []
    podman = [f"{runtime}/podman/podman.sock"] if runtime else []
    return [_DEFAULT_SOCKET, *rootless, *desktop, *podman, "/run/podman/podman.sock"]


def _named(text: str, named_by: str, environ: Mapping[str, str]) -> Address:
    """The address in an option or a variable, which docker's client takes in short, too.

    Raises SourceError.
    """
    trust = None
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if verify or environ.get("DOCKER_TLS"):
        folder = Path(environ.get("DOCKER_CERT_PATH") or _config_folder(environ))
        trust = _trust(folder, insecure=not verify)
    text = text.strip()
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "tcp", text
    if not text:
        text = "tcp://localhost:2376" if trust else f"unix://{_DEFAULT_SOCKET}"
    elif scheme == "unix" and not rest:
        text = f"unix://{_DEFAULT_SOCKET}"
    elif scheme == "tcp" and (match := _SHORT_TCP.fullmatch(rest)):
        # The port is the same with TLS: of 2376 docker's client thinks only where nothing is said.
        text = f"tcp://{match['host'] or 'localhost'}:{match['port'] or 2375}{match['path'] or ''}"
    elif scheme in DEFAULT_PORTS:  # it takes them in contexts alone
        raise _no_address(text, named_by)
    return _address(text, named_by, trust)


def _address(text: str, named_by: str, trust: tls.Trust | None, program: str = "docker") -> Address:
    """Parse a whole URL; `trust` is given where TLS is spoken. Raises SourceError."""
    scheme, _, rest = text.partition("://")
    if "://" in rest:
        raise _no_address(text, named_by)
    if scheme == "unix" and rest:
        return Address(text, named_by, socket=rest)
    if scheme in {"tcp", *DEFAULT_PORTS} and "@" not in rest:
        with suppress(ValueError):
            secure = trust is not None or scheme == "https"
            url = parse_url(f"{'https' if secure else 'http'}://{rest}")
            return Address(text, named_by, url=url, trust=trust or tls.Trust())
    if scheme == "ssh" and (match := _SSH.fullmatch(rest)):
        return Address(text, named_by, command=_ssh(match, program))
    if scheme == "npipe":
        raise SourceError(
            f"{named_by} is {text}, a named pipe, which is of Windows and is not spoken to",
            hint="pipe the image in: docker save NAME | towline push - DESTINATION",
        )
    raise _no_address(text, named_by)


def _no_address(text: str, named_by: str) -> SourceError:
    return SourceError(
        f"{named_by} is {without_login(text)}, which is no address of an engine",
        hint="as in unix:///var/run/docker.sock, tcp://HOST:2376 or ssh://USER@HOST",
    )


def _ssh(match: re.Match[str], program: str) -> tuple[str, ...]:
    """The command by which docker's client reaches an engine through ssh."""
    # BatchMode is ours: ssh asks nothing on the terminal. `--` keeps a host that begins with a
    # dash from being an option.
    words = ["ssh", "-o", "ConnectTimeout=30", "-o", "BatchMode=yes", "-T"]
    if match["user"]:
        words += ["-l", match["user"]]
    if match["port"]:
        words += ["-p", match["port"]]
    words += ["--", match["host"].strip("[]"), program]
    if match["path"] and match["path"] != "/":
        import shlex  # a shell at the other end takes the command apart

        option = "--host" if program == "docker" else "--url"
        words.append(f"{option}=unix://{shlex.quote(match['path'])}")
    return (*words, "system", "dial-stdio")


def _trust(folder: Path, *, insecure: bool) -> tls.Trust:
    """The `ca.pem`, `cert.pem` and `key.pem` of a folder, as far as it has them."""
    there = {
        name: path for name in ("ca", "cert", "key") if (path := folder / f"{name}.pem").is_file()
    }
    authorities = (there["ca"],) if "ca" in there and not insecure else ()
    return tls.Trust(insecure, authorities, there.get("cert"), there.get("key"))


def _config_folder(environ: Mapping[str, str]) -> Path:
    """The folder of docker's configuration."""
    told = environ.get("DOCKER_CONFIG")
    return Path(told) if told else Path(environ.get("HOME") or Path.home()) / ".docker"


def _context(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The name of the context in use, and what names it; None: nothing does."""
    if name := environ.get("DOCKER_CONTEXT"):
        return name, "DOCKER_CONTEXT"
    path = _config_folder(environ) / "config.json"
    try:
        name = reading.mapping(path.read_bytes()).get("currentContext")
    except OSError:
        return None  # where its logins are looked for, it is told what is wrong with it
    return (name, str(path)) if isinstance(name, str) and name else None


def _of_context(name: str, said_by: str, environ: Mapping[str, str]) -> Address:
    """The address in one of docker's contexts. Raises SourceError where there is none."""
    import hashlib  # docker names a context's folder by the SHA-256 of its name

    folder = _config_folder(environ) / "contexts"
    key = hashlib.sha256(name.encode()).hexdigest()
    path = folder / "meta" / key / "meta.json"
    try:
        endpoint = reading.document(path.read_bytes())["Endpoints"]["docker"]
        host = str(endpoint["Host"])
    except FileNotFoundError:
        raise SourceError(
            f"docker's context {name!r}, named by {said_by}, does not exist",
            hint="docker context ls shows those that do",
        ) from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {(error.strerror or '').lower()}") from None
    except (ValueError, LookupError, TypeError):
        raise SourceError(f"{path} is no context of docker's: it names no endpoint") from None
    certificates = folder / "tls" / key / "docker"
    insecure = endpoint.get("SkipTLSVerify") is True
    secure = insecure or certificates.is_dir()
    trust = _trust(certificates, insecure=insecure) if secure else None
    return _address(host, f"docker's context {name}", trust)
