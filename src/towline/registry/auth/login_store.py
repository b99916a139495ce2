"""Keeps logins: in the helper that Docker's configuration names, else in its file.

The file is config.json, or one that was named. It is replaced as a whole, can be read by its owner
alone, and keeps whatever else it holds.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towline.errors import TowlineError, UsageError
from towline.registry.auth import credential_helpers
from towline.registry.auth.credential_files import CredentialFile, mapping, parsed, split
from towline.wire.message import user_pass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class LoginStore:
    """Where logins are kept."""

    path: Path
    environ: Mapping[str, str] = field(repr=False)

    def save(self, host: str, username: str, password: str) -> str:
        """Keep a login. Returns where it is kept, in words. Raises TowlineError, AuthError."""
        key = credential_helpers.servers(host)[0]
        if program := self._helper(self._read(), host):
            credential_helpers.store(program, key, username, password, self.environ)
            entry = {}  # Docker's way to say that a helper has it
        else:
            entry = {"auth": user_pass(username, password)}
        with self._alone():
            document = self._read()
            self._write({**document, "auths": {**_others(document, host), key: entry}})
        return f"docker-credential-{program}" if program else str(self.path)

    def erase(self, host: str) -> bool:
        """Forget a login. Returns whether there was one. Raises TowlineError, AuthError."""
        document = self._read()
        erased = False
        if program := self._helper(document, host):
            # Other tools may have kept it under another of the host's names.
            for server in credential_helpers.servers(host):
                erased |= credential_helpers.erase(program, server, self.environ)
        if not document:
            return erased
        with self._alone():
            document = self._read()
            kept = _others(document, host)
            if kept == mapping(document, "auths"):
                return erased
            self._write({**document, "auths": kept})
            return True

    def _helper(self, document: Mapping[str, Any], host: str) -> str:
        file = CredentialFile.of_document(str(self.path), document)
        return file.helper(host) or file.store

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the folder, so that several logins at once change the file one after the other."""
        import fcntl

        # The folder, because the file is replaced: a lock would stay with the old one.
        folder = self.path.resolve().parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise _unkept(folder, error) from None
        try:
            with contextlib.suppress(OSError):  # some file systems lock no folders
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, Any]:
        try:
            content = self.path.read_text("utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise UsageError(f"the logins of {self.path} cannot be read: {why}") from None
        return parsed(str(self.path), content)

    def _write(self, document: dict[str, Any]) -> None:
        # Where the path is a link, the file itself is replaced, not the link.
        path = self.path.resolve()
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        content = json.dumps(document, indent="\t", ensure_ascii=False) + "\n"
        try:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()  # a killed process with this number may have left it
            with os.fdopen(
                os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
            ) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise _unkept(path, error) from None


def _unkept(path: Path, error: OSError) -> TowlineError:
    """The system's refusal, such as a full disk: no UsageError, since the command was right."""
    return TowlineError(f"the login cannot be kept in {path}: {error.strerror}")


def store_of(environ: Mapping[str, str], authfile: str | None = None) -> LoginStore:
    """The place where this user's logins are kept: the file that was named, else Docker's.

    Raises UsageError when there is no home.
    """
    named = authfile or environ.get("REGISTRY_AUTH_FILE")
    if named:
        return LoginStore(Path(named), environ)
    folder = environ.get("DOCKER_CONFIG")
    if not folder:
        home = environ.get("HOME")
        if not home:
            raise UsageError(
                "there is no home to keep the login in",
                hint="name a file with `authfile`, or set HOME",
            )
        folder = f"{home}/.docker"
    return LoginStore(Path(folder, "config.json"), environ)


def _others(document: Mapping[str, Any], host: str) -> dict[str, Any]:
    """The entries of all other hosts."""
    entries = mapping(document, "auths")
    return {key: entries[key] for key in entries if split(key) != (host, "")}
