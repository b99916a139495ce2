"""`towline login` and `logout`: save a login after its registry has accepted it, or remove it."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from towline.cli import options, output, report
from towline.cli.options import Arguments, Command, Group, Option
from towline.cli.pusher import opened, piped
from towline.errors import AuthError, TowlineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from towline.registry.auth.login_store import LoginStore


def _login(args: Arguments) -> int:
    from towline.push.interface.edge import Edge
    from towline.wire.secrets import Secrets

    host, store = _host_and_store(args)
    account = _account(args)
    checked = _checked(args, host, account)
    secrets = Secrets()
    secrets.add_account(*account)
    with Edge(secrets).crossed():  # a helper's error may repeat the password
        kept = store.save(host, *account)
    output.write([f"logged in to {host} as {account[0]}; the login is kept in {kept}"])
    if not checked:
        report.warn(f"{host} let us in without asking for it: the login was not checked")
    _warn_of_another(args, host, store, account)
    return 0


def _logout(args: Arguments) -> int:
    host, store = _host_and_store(args)
    erased = store.erase(host)  # that there was none is no failure
    words = f"logged out of {host}" if erased else f"there was no login for {host}"
    output.write([f"{words} in {store.path}"])
    _warn_of_another(args, host, store, None)
    return 0


def _host_and_store(args: Arguments) -> tuple[str, LoginStore]:
    """The registry's host and the place for its login. Raises UsageError."""
    from towline.push.interface import destinations
    from towline.registry.auth.login_store import store_of

    host = destinations.registry(args.words[0])
    return host, store_of(os.environ, getattr(args, "authfile", None))


def _account(args: Arguments) -> tuple[str, str]:
    """The user and password, from options, variables or the terminal. Raises UsageError.

    Sets `args.account` to where the password came from, for messages.
    """
    user = getattr(args, "username", None) or os.environ.get("TOWLINE_USERNAME", "")
    from_stdin = "password_stdin" in args
    if from_stdin and not user:
        raise UsageError("`--password-stdin` needs a user: `-u USER`")
    user = user or _asked("Username: ")
    if not user or ":" in user:
        shown = user.partition(":")[0]
        raise UsageError(f"{shown!r} is no user name: it is empty or a colon is behind it")
    if from_stdin:
        args.account = "`--password-stdin`"
        return user, piped("login")
    secret = os.environ.get("TOWLINE_PASSWORD")
    args.account = "TOWLINE_PASSWORD" if secret else "the terminal"
    secret = secret or _asked("Password: ", secret=True)
    if not secret:
        raise UsageError("the password is empty")
    return user, secret


def _asked(question: str, *, secret: bool = False) -> str:
    """Ask on the terminal, without echo for a secret, and give what is typed.

    Raises UsageError without a terminal, or when nothing is typed.
    """
    if sys.stdin is None or sys.stderr is None or not sys.stdin.isatty():
        raise UsageError(
            f"there is no terminal to ask for {'the' if secret else 'user and'} password on",
            hint="give them: … | towline login … -u USER --password-stdin",
        )
    line = ""
    try:
        if secret:
            from getpass import getpass

            with _unwound_by_signals():
                return getpass(question)
        # Not `input`: its question would go to standard output, which is for the result.
        sys.stderr.write(question)
        sys.stderr.flush()
        line = sys.stdin.readline()
    except EOFError:
        pass
    except BaseException:
        sys.stderr.write("\n")  # the next message belongs on a line of its own
        raise
    if not line:
        sys.stderr.write("\n")
        raise UsageError("nothing was typed")
    return line.rstrip("\r\n")


@contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """While the block runs, signals raise Interrupted, so that getpass turns the echo on again."""
    import signal

    from towline.cli.signals import Interrupted
    from towline.errors import TransferCancelled

    def end(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(TransferCancelled("interrupted"), 128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _checked(args: Arguments, host: str, account: tuple[str, str]) -> bool:
    """Whether the registry has checked the account; False where it lets anyone in.

    Raises AuthError when the registry refuses the account.
    """
    unasked = {"username", "password_stdin", "authfile"}
    kept = {name: value for name, value in vars(args).items() if name not in unasked}
    try:
        with opened(Arguments(**kept, creds=account)) as (pusher, cancel):
            return pusher.check_login(host, cancel=cancel)
    except AuthError as error:
        error.hint = "check user and password; many registries want an access token for it"
        raise


def _warn_of_another(
    args: Arguments, host: str, store: LoginStore, account: tuple[str, str] | None
) -> None:
    """Warn where a push would use another login than `account`, or any after a logout (None)."""
    if "authfile" in args:
        return  # only pushes with the same option find that login, and no other
    from towline.push_events import nowhere
    from towline.reference import RepositoryName
    from towline.registry.auth.credential_files import TOKEN_USER
    from towline.registry.auth.keychain import Keychain

    with suppress(TowlineError):
        keychain = Keychain(os.environ, log=nowhere, warn=nowhere)
        found = keychain.find(RepositoryName(host, ""), "destination")
        if found is None:
            return
        shown = (found.username or TOKEN_USER, found.password or found.identity_token)
        if shown != account:
            what = "counts before the one in" if account else "is found besides the one in"
            report.warn(f"another login for {host} {what} {store.path}: {found}")


LOGIN = Command(
    _login,
    "REGISTRY [OPTION...]",
    """\
Save a login for REGISTRY, HOST[:PORT], after asking it whether the login is good.

It is kept by the credential helper that Docker's config.json names for it, else in that file
(or in FILE), readable by its owner alone.""",
    (
        Group(
            "the login",
            Option("-u, --username", "else asked for", "USER", typed_only=True),
            Option(
                "--password-stdin",
                "read it from standard input; else it is asked for on the terminal",
            ),
            Option("--authfile", "keep it in this file (default: Docker's)", "FILE"),
        ),
        options.PATIENCE,
        options.TRANSPORT,
        options.MESSAGES,
    ),
    words=1,
    needs="registry",
)
LOGOUT = Command(
    _logout,
    "REGISTRY [OPTION...]",
    """\
Forget the login for REGISTRY, HOST[:PORT], where `towline login` keeps it. Nobody is asked.""",
    (
        Group(
            "the login", Option("--authfile", "forget it in this file (default: Docker's)", "FILE")
        ),
        options.MESSAGES,
    ),
    words=1,
    needs="registry",
)
