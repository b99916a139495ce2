"""Accounts, and how Docker's and Podman's files spell them.

Keys in files come in several spellings: `host`, `host:port`, with a scheme, with `/v1/` or `/v2/`
behind, and in Podman's files with a namespace. A namespace goes before the whole host, a longer one
before a shorter one; of the spellings of a host the bare one is first.
"""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from towline.errors import UsageError
from towline.reference import HUB, HUB_ALIASES, RepositoryName
from towline.wire.message import user_pass

TOKEN_USER = "<token>"  # noqa: S105 - the name that helpers and files give instead of a user's
"""Where it stands for a user, the password is an identity token."""
_SHOWN = 5
"""Hosts of a file that are named in a message."""


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
    ) -> "Credentials":
        """The credentials of a user; of an identity token where `username` is `<token>`."""
        if username == TOKEN_USER:
            return cls(identity_token=password, source=source, renewable=renewable)
        return cls(username, password, source=source, renewable=renewable)

    @property
    def basic(self) -> str | None:
        """The `Authorization` for Basic; None without a user's name."""
        # Google's passwords are keys of kilobytes with line feeds.
        return "Basic " + user_pass(self.username, self.password) if self.username else None

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
    helpers: Mapping[str, object] = {}
    """Helper programs by host (`credHelpers`)."""
    store: str = ""
    """The helper program for all other hosts (`credsStore`)."""
    flaw: str = ""
    """Why it cannot be read, where it cannot: then it names nobody."""
    absent: bool = False

    @classmethod
    def of_document(cls, where: str, document: Mapping[str, Any]) -> "CredentialFile":
        """The logins of a file that holds this JSON."""
        old = where.endswith(".dockercfg") and document.get("auths") is None
        auths = document if old else mapping(document, "auths")
        return cls(where, auths, mapping(document, "credHelpers"), _text(document, "credsStore"))

    def __repr__(self) -> str:
        return f"<CredentialFile {self.where}>"

    def __str__(self) -> str:
        """Its path and its hosts, for messages: a misspelled host is seen at once."""
        hosts = list(dict.fromkeys(split(key)[0] for key in (*self.auths, *self.helpers)))
        more = f" and {len(hosts) - _SHOWN} more" if len(hosts) > _SHOWN else ""
        store = f", and docker-credential-{self.store} for all" if self.store else ""
        return f"{self.where} (for {', '.join(hosts[:_SHOWN]) or 'no host'}{more}{store})"

    def helper(self, host: str) -> str:
        """The helper program for that host alone (`credHelpers`); empty: none."""
        programs = (program for key, program in self.helpers.items() if split(key)[0] == host)
        return next((program for program in programs if isinstance(program, str)), "")

    def entry(self, name: RepositoryName) -> Credentials | str | None:
        """The login for a repository: of the keys that fit, the best one that can be used.

        A sentence where none can be used; None where no key fits, or a helper has the login.
        """
        fitting = []
        for key in self.auths:
            host, rest = split(key)
            below = not rest or name.path == rest or name.path.startswith(rest.rstrip("/") + "/")
            if host == name.host and below:
                fitting.append((len(rest), key == host, key))
        entries = [self._entry(key) for _, _, key in sorted(fitting, reverse=True)]
        usable = [entry for entry in entries if not isinstance(entry, str)]
        return next(iter(usable or entries), None)

    def _entry(self, key: str) -> Credentials | str | None:
        import base64

        value, source = self.auths[key], f"{self.where}, entry {key}"
        if value is None:
            return None
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
        return Credentials(username, password, *tokens, source) if username or any(tokens) else None


def split(key: str) -> tuple[str, str]:
    """The host that a key names, and what else it says: a namespace, or nothing (the whole host).

    All aliases of the Hub are `docker.io`.
    """
    host, slash, rest = re.sub(r"(?i)https?://", "", key).partition("/")
    whole = re.fullmatch(r"/v[12](?:/.*)?|/", slash + rest)
    return HUB if host in HUB_ALIASES else host, "" if whole else rest


def mapping(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under a key; empty where something else is there, or nothing."""
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _text(document: Mapping[str, Any], key: str) -> str:
    found = document.get(key)
    return found if isinstance(found, str) else ""


def credential_files(environ: Mapping[str, str], authfile: str | None) -> Iterator[CredentialFile]:
    """Every place where logins are looked for, in the order in which they count.

    Raises UsageError when one that was named cannot be read. The `flaw` of any other says why not.
    """
    named = (("`authfile`", authfile), ("REGISTRY_AUTH_FILE", environ.get("REGISTRY_AUTH_FILE")))
    for label, path in named:
        if path:
            file = _read(f"{label} {path}", path)
            if file.flaw:
                raise UsageError(file.flaw)
            yield file
    if content := environ.get("DOCKER_AUTH_CONFIG"):
        where = "DOCKER_AUTH_CONFIG"
        yield CredentialFile.of_document(where, parsed(where, content))
    for path in _usual(environ):
        yield _read(path, path)


def _read(where: str, path: str) -> CredentialFile:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs start-up
            return CredentialFile.of_document(where, parsed(where, file.read()))
    except (OSError, UnicodeError) as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        why = f"{where} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}"
        return CredentialFile(where, flaw=why, absent=absent)
    except UsageError as error:
        return CredentialFile(where, flaw=error.message)


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


def parsed(where: str, content: str) -> dict[str, Any]:
    """The JSON object of a file of logins; an empty file is an empty one. Raises UsageError."""
    import json

    try:
        document = json.loads(content or "{}")
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UsageError(f"the logins of {where} are not a JSON object")
    return document
