"""Finds the credentials for a registry.

The first place that names the host wins: the options, the variables, Docker's and Podman's files,
GitLab CI's variables. If none does, access is anonymous. Files are read, and credential helpers
run.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from towline.errors import AuthError, Side, TowlineError, UsageError
from towline.registry.auth.credential_files import (
    CredentialFile,
    Credentials,
    credential_files,
    split,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from towline.context import Context
    from towline.reference import RepositoryName
    from towline.wire.secrets import Secrets

    AskForHost = Callable[[str], tuple[str, str] | None]
    """A caller's function: a host's account, or None where it knows none."""

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
                self._files = list(credential_files(self._environ, self._authfile))
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
