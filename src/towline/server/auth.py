"""Basic authentication against an htpasswd file of bcrypt hashes.

Every user may do everything: there are no rights of single users.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import threading
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from towline.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_REMEMBERED = 1000
"""Logins that are remembered as good."""
_CHECKS_AT_ONCE = 2
"""Checks at the same time: each takes a core for a good part of a second, as bcrypt is meant to."""
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")

_NOBODY = b"$2b$04$" + b"." * 53
"""A hash to compare with where the file has none."""


class Guard:
    """Checks credentials; reads the file again when it changes.

    Raises UsageError when the file cannot be used, or bcrypt is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(_CHECKS_AT_ONCE)
        self._known: dict[bytes, None] = {}
        self._stamp: tuple[int, int] | None = None
        self._hashes: dict[str, bytes] = {}
        if find_spec("bcrypt") is None:
            raise UsageError(
                "--htpasswd needs the bcrypt library",
                hint="pip install 'towline[htpasswd]', in a clone pip install '.[htpasswd]'",
            )
        try:
            self._refresh()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise UsageError(f"cannot read {path}: {reason}") from None

    def admits(self, authorization: str) -> bool:
        """Whether the value of an `Authorization` header has a user and the right password."""
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        user, colon, password = given.partition(b":")
        if scheme.lower() != "basic" or not colon:
            return False
        known, hashed = self._hash_of(user.decode("utf-8", "replace"))
        # Remembered under an HMAC of user, password and hash: after a change of the password in the
        # file the old one does not match any more, and no password is kept in memory.
        seen = hmac.digest(self._key, b"\0".join((user, password, hashed)), hashlib.sha256)
        if seen in self._known:
            return True
        import bcrypt

        with self._turns:
            try:
                # bcrypt takes 72 bytes, and htpasswd cuts a longer password there, too.
                good = bcrypt.checkpw(password[:72], hashed) and known
            except ValueError:  # the password has a zero byte
                good = False
        if good:
            with self._lock:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[seen] = None
        return good

    def _hash_of(self, user: str) -> tuple[bool, bytes]:
        """Whether there is such a user, and the hash to compare the password with."""
        with self._lock:
            # If the file is being replaced, or cannot be read, the last content counts.
            with suppress(OSError, UnicodeDecodeError, UsageError):
                self._refresh()
            if hashed := self._hashes.get(user):
                return True, hashed
            others = list(self._hashes.values()) or [_NOBODY]
        # For an unknown user another user's hash is checked, always the same one: so the time that
        # an answer takes does not tell who is a user.
        chosen = hmac.digest(self._key, user.encode(), hashlib.sha256)
        return False, others[int.from_bytes(chosen) % len(others)]

    def _refresh(self) -> None:
        """Read the file if it has changed. Raises UsageError, OSError, UnicodeDecodeError."""
        status = self._path.stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return
        hashes = {}
        for number, line in enumerate(self._path.read_text("utf-8").splitlines(), 1):
            user, colon, hashed = line.strip().partition(":")
            if not user or user.startswith("#"):
                continue
            if not colon or not _BCRYPT.fullmatch(hashed):
                raise UsageError(
                    f"line {number} of {self._path} is no user with a bcrypt hash",
                    hint="make the file with `htpasswd -B`",
                )
            hashes[user] = hashed.encode()
        self._hashes, self._stamp = hashes, stamp
