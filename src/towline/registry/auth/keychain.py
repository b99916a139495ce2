"""Finds the credentials for a registry.

The first place that names the host wins: the options, the variables, Docker's and Podman's files,
GitLab CI's variables. If none does, access is anonymous. Files are read, and credential helpers
run.

Keys in files come in several spellings: `host`, `host:port`, with a scheme, with `/v1/` or `/v2/`
behind, and in Podman's files with a namespace. A namespace goes before the whole host, a longer one
before a shorter one; of the spellings of a host the bare one is first.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from towline.errors import AuthError, Side, TowlineError, UsageError
from towline.reference import HUB, HUB_ALIASES, RepositoryName
from towline.wire.message import user_pass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from towline.context import Context
    from towline.wire.secrets import Secrets

    AskForHost = Callable[[str], tuple[str, str] | None]
    """A caller's function: a host's account, or None where it knows none."""

TOKEN_USER = "<token>"  # noqa: S105 - the name that helpers and files give instead of a user's
"""Where it stands for a user, the password is an identity token."""
_SHOWN = 5
"""Hosts of a file that are named in a message."""
_VARIABLES = (
    "TOWLINE_CREDS",
    "TOWLINE_USERNAME",
    "TOWLINE_PASSWORD",
    "TOWLINE_AUTHFILE",
    "REGISTRY_AUTH_FILE",
    "DOCKER_AUTH_CONFIG",
    "DOCKER_CONFIG",
    "HOME",
    "CI_REGISTRY",
    "CI_REGISTRY_USER",
    "CI_REGISTRY_PASSWORD",
)


class Keychain:
    """Finds credentials by host and path. Safe from any thread."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        creds: tuple[str, str] | AskForHost | None = None,
        src_creds: tuple[str, str] | None = None,
        authfile: str | None = None,
        log: Callable[[str], None],
        warn: Callable[[str], None],
        secrets: Secrets | None = None,
    ) -> None:
        """`secrets` is told of every account that is found."""
        self._environ = environ
        self._secrets = secrets
        self._ask = creds if callable(creds) else None
        self._given: dict[Side, Credentials] = {}
        user, password = environ.get("TOWLINE_USERNAME"), environ.get("TOWLINE_PASSWORD")
        where = "`creds`"
        if not creds and user and password is not None:
            creds, where = (user, password), "TOWLINE_USERNAME and TOWLINE_PASSWORD"
        if creds and not callable(creds):
            self._given["destination"] = Credentials.of(*creds, where)
        if src_creds:
            self._given["source"] = Credentials.of(*src_creds, "`src_creds`")
        self._destination: str | None = None
        """The host whose account was given: the first that is written to, or asked in its place.

        Its account is used for reading there, too.
        """
        self._authfile = authfile
        self._log = log
        self._warn = warn
        self._troubles: dict[str, dict[str, None]] = {}
        """By host, what kept a login from being found."""
        self._lock = threading.Lock()
        self._files: Sequence[CredentialFile] | None = None

    def find(
        self, name: RepositoryName, side: Side | None, context: Context | None = None
    ) -> Credentials | None:
        """The account for a repository; None: access is anonymous.

        `side` is None for a host that is neither source nor destination. A file, an entry or a
        helper that cannot be used is warned of, and the search goes on. Raises UsageError for a
        named file that is unreadable, and as `write_to` does; AuthError where the caller's own
        function fails, and Cancelled while a helper is waited for.
        """
        if side == "destination":
            self.write_to([name.host])
        found = self._given.get(side) if side else None
        if found is None and side == "source" and name.host == self._destination:
            found = self._given.get("destination")
        if found is None and self._ask:
            found = self._asked(self._ask, name.host)
        if found is None:
            in_files = (self._in_file(file, name, context) for file in self._places())
            found = next(filter(None, in_files), None) or self._of_ci(name.host)
        if found is None:
            self._log(f"* no credentials for {name.host}: anonymous; {self._searched}")
            return None
        if self._secrets:
            self._secrets.add(found.identity_token, found.registry_token)
            self._secrets.add_account(found.username, found.password)
        self._log(f"* credentials for {name.host}: {found}")
        return found

    def check(self) -> None:
        """Read the files, if no account was given. Raises UsageError for a named one."""
        if not self._given:
            self._places()

    def write_to(self, hosts: Iterable[str]) -> None:
        """Note the destination's host, whose account was given, if one was.

        Raises UsageError where that is another: the password was given for one host alone.
        """
        given = self._given.get("destination")
        for host in hosts if given else ():
            with self._lock:
                self._destination = self._destination or host
            if host != self._destination:
                raise UsageError(
                    f"the account {given} is for one registry, {self._destination}, and not for "
                    f"{host}",
                    hint="give `creds` a function, which is asked for each host's account, or make "
                    "a Pusher for each",
                )

    def _asked(self, ask: AskForHost, host: str) -> Credentials | None:
        asked = "the function given as `creds`"
        try:
            pair = ask(host)
        except TowlineError:
            raise
        except Exception as error:
            message = f"{asked} fails for {host}: {type(error).__name__}: {error}"
            raise AuthError(message) from error
        return Credentials.of(*pair, asked, renewable=True) if pair else None

    def _in_file(
        self, file: CredentialFile, name: RepositoryName, context: Context | None
    ) -> Credentials | None:
        if file.flaw and not file.absent:
            self._note_trouble(name.host, file.flaw)
        if program := file.helper(name.host):
            return self._from_helper(file, program, name, context)
        entry = file.entry(name)
        if isinstance(entry, str):
            self._note_trouble(name.host, entry)
        elif entry:
            return entry
        return self._from_helper(file, file.store, name, context) if file.store else None

    def _from_helper(
        self, file: CredentialFile, program: str, name: RepositoryName, context: Context | None
    ) -> Credentials | None:
        from towline.registry.auth import credential_helpers

        try:
            login = credential_helpers.get(program, name.host, self._environ, context=context)
        except (credential_helpers.HelperMissing, AuthError) as error:
            self._note_trouble(name.host, f"{error} (named by {file.where})")
            return None
        if login is None:
            return None
        source = f"docker-credential-{program}, named by {file.where}"
        return Credentials.of(*login, source, renewable=True)

    def _of_ci(self, host: str) -> Credentials | None:
        """GitLab's variables, for exactly the registry that they name."""
        names = ("CI_REGISTRY", "CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD")
        registry, user, password = map(self._environ.get, names)
        if not (user and registry) or password is None or split(registry)[0] != host:
            return None
        return Credentials(user, password, source="CI_REGISTRY_USER and CI_REGISTRY_PASSWORD")

    def _note_trouble(self, host: str, message: str) -> None:
        """Warn once of what kept a login from being found; kept for the message of a 401."""
        with self._lock:
            told = any(message in known for known in self._troubles.values())
            self._troubles.setdefault(host, {})[message] = None
        if not told:
            self._warn(f"{message}; going on without it")

    def _places(self) -> Sequence[CredentialFile]:
        with self._lock:
            if self._files is None:
                self._files = list(_files(self._environ, self._authfile))
            return self._files

    def nothing_found(self, host: str) -> str:
        """Why no account was found for a host: part of a 401's message."""
        with self._lock:
            troubles = list(self._troubles.get(host, ()))
        said = [f"no credentials were found for {host}", *troubles, self._searched]
        said += [f"{name} is empty" for name in _VARIABLES if self._environ.get(name) == ""]
        if self._environ.get("TOWLINE_USERNAME") and "TOWLINE_PASSWORD" not in self._environ:
            said.append("TOWLINE_PASSWORD is not set")
        return "; ".join(said)

    @property
    def _searched(self) -> str:
        """The files that were looked at, and their hosts, for a message."""
        files = self._places()
        absent = ", ".join(file.where for file in files if file.absent)
        seen = ", ".join(str(file) for file in files if not file.flaw)
        if seen:
            return f"looked in {seen}"
        return f"looked for {absent}, and there is none" if absent else "looked in no file"


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
    def of_document(cls, where: str, document: Mapping[str, Any]) -> CredentialFile:
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


def _files(environ: Mapping[str, str], authfile: str | None) -> Iterator[CredentialFile]:
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
