"""Who may use the registry: users of an htpasswd file (bcrypt, as `htpasswd -B` writes it)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from typing import TYPE_CHECKING

from towline.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_REMEMBERED = 1000
"""Pairs found right that are not computed again: bcrypt is slow on purpose."""


class Guard:
    """Checks Basic credentials. Safe from any thread."""

    def __init__(self, users: dict[str, bytes]) -> None:
        self._users = users
        self._lock = threading.Lock()
        self._right: set[bytes] = set()

    def admits(self, authorization: str) -> bool:
        """Whether the value of an `Authorization` header names a user with the right password."""
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        seen = hashlib.sha256(encoded.encode("latin-1", "replace")).digest()
        with self._lock:
            if seen in self._right:
                return True
        if not self._checks(encoded):
            return False
        with self._lock:
            if len(self._right) < _REMEMBERED:
                self._right.add(seen)
        return True

    def _checks(self, encoded: str) -> bool:
        import bcrypt

        try:
            user, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        hashed = self._users.get(user.decode("utf-8", "replace"))
        if not colon or hashed is None:
            return False
        try:
            return bcrypt.checkpw(password[:72], hashed)
        except ValueError:
            return False


def read_htpasswd(path: Path) -> Guard:
    """The users of a file. Raises UsageError where it cannot be used."""
    try:
        import bcrypt
    except ImportError:
        raise UsageError(
            "--htpasswd needs the bcrypt library", hint="pip install 'towline[htpasswd]'"
        ) from None
    del bcrypt
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    users = {}
    for line in (line.strip() for line in lines):
        if not line or line.startswith("#"):
            continue
        user, colon, hashed = line.partition(":")
        if not colon or not hashed.startswith(("$2a$", "$2b$", "$2y$")):
            raise UsageError(
                f"the entry of {user!r} in {path} is not bcrypt", hint="make it with `htpasswd -B`"
            )
        users[user] = hashed.encode()
    return Guard(users)
