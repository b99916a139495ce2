"""What `login` and `logout` have in common: which registry, kept where, and what stands beside."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from towline.cli import looking, report

if TYPE_CHECKING:
    import argparse

    from towline.registry.auth.login_store import LoginStore


def host_and_store(args: argparse.Namespace) -> tuple[str, LoginStore]:
    """The registry's host and the place for its login. Raises UsageError."""
    from towline.push import destinations
    from towline.registry.auth.login_store import store_of

    host = destinations.registry(looking.word(args, "registry"))
    return host, store_of(os.environ, getattr(args, "authfile", None))


def warn_of_another(host: str, store: LoginStore, account: tuple[str, str] | None) -> None:
    """Say so where a push would use another login than this, or one though there should be none."""
    from towline.errors import TowlineError
    from towline.reference import RepositoryName
    from towline.registry.auth.keychain import TOKEN_USER, Keychain
    from towline.wire.log import silent

    found = None
    with suppress(TowlineError):
        keychain = Keychain(os.environ, log=silent, warn=silent)
        found = keychain.find(RepositoryName(host, ""), "destination")
    if found is None:
        return
    shown = (found.username or TOKEN_USER, found.password or found.identity_token)
    if shown == account:
        return
    what = "counts before the one in" if account else "is found besides the one in"
    warn(f"another login for {host} {what} {store.path}: {found}")


def warn(message: str) -> None:
    """A warning on standard error."""
    report.write_lines(iter([f"towline: warning: {message}"]))
