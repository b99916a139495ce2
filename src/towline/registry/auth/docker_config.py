"""The files in which logins are kept: Docker's config.json, Podman's auth.json, and their places.

Keys come in several spellings: `host`, `host:port`, with a scheme, with `/v1/` or `/v2/` behind,
and in Podman's files with a namespace. A namespace goes before the whole host, a longer one before
a shorter one; of the spellings of a host the bare one is first.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from towline.errors import UsageError
from towline.reference import HUB, HUB_ALIASES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from towline.reference import RepositoryName

_SCHEME = r"(?i)https?://"
_SHOWN = 5
"""Hosts of a file that are named in a message."""
_API = r"/v[12](?:/.*)?|/"
TOKEN_USER = "<token>"  # noqa: S105 - the name that helpers and files give instead of a user's
"""Where it stands for a user, the password is an identity token."""


class Credentials(NamedTuple):
    """An account at a registry; secrets are never shown."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    """A refresh token, to be exchanged for access tokens."""
    registry_token: str = ""
    """An access token, sent as it is."""
    source: str = ""
    """Where they were found, in words."""
    renewable: bool = False
    """Whether asking the source again may give others, as helpers and functions do."""

    @classmethod
    def of(
        cls, username: str, password: str, source: str, *, renewable: bool = False
    ) -> Credentials:
        """The credentials of a user; of an identity token where `username` is `<token>`."""
        if username == TOKEN_USER:
            return cls(identity_token=password, source=source, renewable=renewable)
        return cls(username, password, source=source, renewable=renewable)

    @property
    def basic(self) -> str | None:
        """The `Authorization` for Basic; None without a user's name."""
        if not self.username:
            return None
        import base64

        # On one line, however long: Google's passwords are keys of kilobytes with line feeds.
        pair = f"{self.username}:{self.password}".encode("utf-8", "surrogateescape")
        return "Basic " + base64.b64encode(pair).decode()

    @property
    def account(self) -> str:
        """A name of this entry without any secret: equal for equal accounts."""
        return f"{self.source} {self.username}".strip()

    def __str__(self) -> str:
        who = f"user {self.username}" if self.username else "a token"
        if self.username and not (self.password or self.identity_token or self.registry_token):
            who += " with an empty password"
        return f"{who} (from {self.source})"

    def __repr__(self) -> str:
        return f"<Credentials of {self}>"


class CredentialFile(NamedTuple):
    """One file (or variable) with logins."""

    where: str
    """Its path, or the variable's name."""
    auths: Mapping[str, Any] = {}
    helpers: Mapping[str, str] = {}
    """Helper programs by host (`credHelpers`)."""
    store: str = ""
    """The helper program for all other hosts (`credsStore`)."""
    flaw: str = ""
    """Why it cannot be read, where it cannot: then it names nobody."""
    absent: bool = False

    def __repr__(self) -> str:
        return f"<CredentialFile {self.where}>"

    def helper(self, host: str) -> str:
        """The helper program for that host alone (`credHelpers`); empty: none."""
        for key, program in self.helpers.items():
            if host_of(key) == host and isinstance(program, str):
                return program
        return ""

    def entry(self, name: RepositoryName) -> Credentials | str | None:
        """The login for a repository: of the keys that fit, the best one that can be used.

        A sentence where none can be used; None where no key fits. Credentials without user and
        tokens mean that a helper has the login.
        """
        fitting = [(rank, key) for key in self.auths if (rank := _rank(key, name))]
        entries = [self._entry(key) for _, key in sorted(fitting, reverse=True)]
        usable = [entry for entry in entries if not isinstance(entry, str)]
        return next(iter(usable or entries), None)

    def _entry(self, key: str) -> Credentials | str:
        import base64

        value, source = self.auths[key], f"{self.where}, entry {key}"
        if value is None:
            return Credentials(source=source)
        if not isinstance(value, dict):
            return f"the entry {key} of {self.where} is not a JSON object"
        username, password = _text(value, "username"), _text(value, "password")
        if encoded := value.get("auth"):
            try:
                pair = base64.b64decode(encoded, validate=False).decode("utf-8", "surrogateescape")
            except (ValueError, TypeError):
                pair = ""
            username, colon, password = pair.partition(":")
            if not colon:
                what = "has an `auth` that is not USER:PASSWORD in base64"
                return f"the entry {key} of {self.where} {what}"
            password = password.rstrip("\0")  # some files are padded with NULs
        if username == TOKEN_USER:
            return Credentials.of(username, password, source)
        tokens = _text(value, "identitytoken"), _text(value, "registrytoken")
        return Credentials(username, password, *tokens, source)

    def __str__(self) -> str:
        """Its path and its hosts, for messages: a misspelled host is seen at once."""
        hosts = list(dict.fromkeys(map(host_of, (*self.auths, *self.helpers))))
        more = f" and {len(hosts) - _SHOWN} more" if len(hosts) > _SHOWN else ""
        store = f", and docker-credential-{self.store} for all" if self.store else ""
        return f"{self.where} (for {', '.join(hosts[:_SHOWN]) or 'no host'}{more}{store})"


def host_of(key: str) -> str:
    """The host that a key names; all aliases of the Hub are `docker.io`."""
    host = re.sub(_SCHEME, "", key).partition("/")[0]
    return HUB if host in HUB_ALIASES else host


def names_host(key: str, host: str) -> bool:
    """Whether a key stands for the whole host, not for one of its namespaces."""
    rest = re.sub(_SCHEME, "", key).partition("/")[2]
    return host_of(key) == host and (not rest or re.fullmatch(_API, "/" + rest) is not None)


def _rank(key: str, name: RepositoryName) -> tuple[int, int, str] | None:
    """A sorting key, greater for keys that fit better; None: it is for another repository."""
    if host_of(key) != name.host:
        return None
    if names_host(key, name.host):
        return 0, int(key == name.host), key
    rest = re.sub(_SCHEME, "", key).partition("/")[2]
    fits = name.path == rest or name.path.startswith(rest.rstrip("/") + "/")
    return (len(rest), 0, key) if fits else None


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""


def read(environ: Mapping[str, str], authfile: str | None) -> list[CredentialFile]:
    """Every place where logins are looked for, in the order in which they count.

    Raises UsageError when a file that was named cannot be read. The `flaw` of any other file says
    why it cannot be read.
    """
    found = []
    named = (("`authfile`", authfile), ("REGISTRY_AUTH_FILE", environ.get("REGISTRY_AUTH_FILE")))
    for label, path in named:
        if path:
            try:
                text = _read(path)
            except (OSError, UnicodeError) as error:
                raise UsageError(_unreadable(f"the file {path} of {label}", error)) from None
            found.append(_parse(f"{label} {path}", text))
    if content := environ.get("DOCKER_AUTH_CONFIG"):
        found.append(_parse("DOCKER_AUTH_CONFIG", content))
    for where in _usual(environ):
        try:
            found.append(_parse(where, _read(where)))
        except (FileNotFoundError, NotADirectoryError):
            found.append(CredentialFile(where, absent=True))
        except (OSError, UnicodeError) as error:
            found.append(CredentialFile(where, flaw=_unreadable(where, error)))
        except UsageError as error:
            found.append(CredentialFile(where, flaw=error.message))
    return found


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs start-up
        return file.read()


def _unreadable(what: str, error: Exception) -> str:
    return f"{what} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}"


def _usual(environ: Mapping[str, str]) -> Iterator[str]:
    # Podman's places, then Docker's, and last Docker's old file, a flat map of hosts.
    named = environ.get("HOME")
    home = (named or "").rstrip("/")
    if folder := environ.get("XDG_RUNTIME_DIR"):
        yield f"{folder.rstrip('/')}/containers/auth.json"
    elif hasattr(os, "getuid"):
        yield f"/run/containers/{os.getuid()}/auth.json"
    if folder := environ.get("XDG_CONFIG_HOME") or (named and f"{home}/.config"):
        yield f"{folder.rstrip('/')}/containers/auth.json"
    if folder := environ.get("DOCKER_CONFIG") or (named and f"{home}/.docker"):
        yield f"{folder.rstrip('/')}/config.json"
    if named:
        yield f"{home}/.dockercfg"


def _parse(where: str, content: str) -> CredentialFile:
    import json

    try:
        document = json.loads(content or "{}")
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UsageError(f"the logins of {where} are not a JSON object")
    return of_document(where, document)


def of_document(where: str, document: Mapping[str, Any]) -> CredentialFile:
    """The logins of a file that holds this JSON."""
    old = where.endswith(".dockercfg") and document.get("auths") is None
    auths = document if old else mapping(document, "auths")
    return CredentialFile(
        where, auths, mapping(document, "credHelpers"), _text(document, "credsStore")
    )


def mapping(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under a key; empty where something else is there, or nothing."""
    found = document.get(key)
    return found if isinstance(found, dict) else {}
