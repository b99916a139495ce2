"""Opens the cache that `--cache` names: a path, an address, `none`, or the user's own.

For a push (`open_knowledge`) a cache that cannot be used is a warning. For a command that is about
the cache itself, such as `cache stats` (`open_store`), it is an error. Also knows the user's
folders (XDG Base Directory Specification), and in one of them this machine's secret, and the user's
key for signatures.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from towline.errors import UsageError
from towline.knowledge.base import KnowledgeError, Signer
from towline.knowledge.safe import DEADLINE, SafeKnowledge
from towline.knowledge.store import Knowledge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

REMOTE = ("redis", "rediss", "unix")
KEY_VARIABLE = "TOWLINE_CACHE_KEY"
PLACE_VARIABLE = "TOWLINE_CACHE"
"""The variable that names the cache where nothing else does, for the library too."""
KEY_FILE = "schema1-key.pem"
_ID_SIZE = 32
"""Bytes of this machine's secret: the length that HMAC-SHA256 wants (RFC 2104, section 3)."""


def open_knowledge(
    text: str | None, environ: Mapping[str, str], warn: Callable[[str], None]
) -> Knowledge:
    """The cache that `text` names, connected at its first use; errors are one call of `warn`.

    Without a text it is the one that TOWLINE_CACHE names, else the SQLite file in the user's cache
    directory. Raises UsageError for a text that can name no cache.
    """
    text = text or environ.get(PLACE_VARIABLE) or ""
    if text == "none":
        return Knowledge()
    # A file is on this machine's disk: it has a time limit of its own, and needs no thread beside.
    deadline = DEADLINE if "://" in text else None
    return SafeKnowledge(_opener(text, environ), warn, deadline=deadline)


def open_store(text: str | None, environ: Mapping[str, str]) -> Knowledge:
    """The cache that `text` names, connected now; its errors are raised as KnowledgeError.

    Raises UsageError for a text that can name no cache.
    """
    return _opener(text or environ.get(PLACE_VARIABLE) or "", environ)()


def _opener(text: str, environ: Mapping[str, str]) -> Callable[[], Knowledge]:
    """The function that connects the cache. Raises UsageError for a text that can name none."""
    if text == "none":
        return Knowledge
    scheme, remote, _ = text.partition("://")
    if not remote:
        kind, colon, rest = text.partition(":")
        if colon and kind in REMOTE:  # `redis:127.0.0.1` would be a file of that name
            raise UsageError(
                f"{text} is no address of a cache",
                hint=f"write {kind}://{rest.lstrip('/')}, or ./{text} for a file of that name",
            )

        def open_file() -> Knowledge:
            from towline.knowledge.sqlite import SqliteKnowledge

            return SqliteKnowledge(text or default_cache_path(environ), _signer(environ))

        return open_file
    if scheme.lower() not in REMOTE:
        raise UsageError(
            f"no cache can be kept at {scheme.lower()}://",
            hint="give `cache` a path, redis://, rediss://, unix:// or none",
        )
    from towline.knowledge.redis import Address, RedisKnowledge

    address = Address.parse(text)
    return lambda: RedisKnowledge(address, _signer(environ))


def _signer(environ: Mapping[str, str]) -> Signer:
    if key := environ.get(KEY_VARIABLE):
        return Signer(key.encode("utf-8", "surrogateescape"), shared=True)
    return Signer(machine_id(environ), shared=False)


# The user's folders.


def default_cache_path(environ: Mapping[str, str]) -> str:
    """The SQLite file in the user's cache directory.

    Raises KnowledgeError when the environment names no such directory.
    """
    return f"{_folder(environ, 'XDG_CACHE_HOME', '.cache')}/knowledge.sqlite"


def machine_id(environ: Mapping[str, str]) -> bytes:
    """This machine's secret, made once and kept in the user's data folder."""
    # Where it cannot be kept, the next process has another one: what this process writes into the
    # cache then counts as another machine's, which costs trust and nothing else.
    fresh = os.urandom(_ID_SIZE)
    try:
        text = _kept(environ, "machine-id", f"{fresh.hex()}\n".encode())
        found = bytes.fromhex(text.decode("ascii"))
    except (KnowledgeError, OSError, ValueError):
        return fresh
    return found if len(found) == _ID_SIZE else fresh  # a file that was cut short is no secret


def signing_key(environ: Mapping[str, str], warn: Callable[[str], None]) -> EllipticCurvePrivateKey:
    """The key that signs schema 1, made once and kept in the user's data folder.

    Where it cannot be kept or read it is another one each time: nobody has to trust it, as
    registries of that time only check that a signature fits the key beside it.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    fresh = ec.generate_private_key(ec.SECP256R1())
    pem = fresh.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        key = serialization.load_pem_private_key(_kept(environ, KEY_FILE, pem), password=None)
    except (KnowledgeError, OSError):
        return fresh
    except (ValueError, TypeError):
        why = "it cannot be read"
    else:
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
            return key
        why = "it is no key on the curve P-256"
    warn(f"the key in {KEY_FILE} of the user's data folder is of no use: {why}")
    return fresh


def _kept(environ: Mapping[str, str], name: str, fresh: bytes) -> bytes:
    """The content of a file in the user's data folder. If there is none, `fresh` is written there.

    Only the user can read the file, and nobody ever sees a part of it. Raises KnowledgeError when
    the environment names no such folder, and OSError.
    """
    path = f"{_folder(environ, 'XDG_DATA_HOME', '.local/share')}/{name}"
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs start-up
            return file.read()
    except FileNotFoundError:
        return _put(path, fresh)


def _folder(environ: Mapping[str, str], variable: str, below_home: str) -> str:
    base, home = environ.get(variable, ""), environ.get("HOME", "")
    if not base.startswith("/"):  # the specification has relative paths ignored
        if not home.startswith("/"):
            raise KnowledgeError(
                f"there is no place for a cache: neither {variable} nor HOME is an absolute path"
            )
        base = f"{home.rstrip('/')}/{below_home}"
    return f"{base.rstrip('/')}/towline"


def _put(name: str, fresh: bytes) -> bytes:
    from pathlib import Path

    path = Path(name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
    beside.touch(mode=0o600, exist_ok=False)
    try:
        beside.write_bytes(fresh)
        # A link and not a rename: of two processes the first wins, and its file is never replaced.
        os.link(beside, path)
    except FileExistsError:  # another process was faster: its content counts
        return path.read_bytes()
    finally:
        beside.unlink()
    return fresh
