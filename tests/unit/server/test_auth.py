"""Who may use the registry: Basic credentials against an htpasswd file."""

from __future__ import annotations

import base64
import os
import time
from typing import TYPE_CHECKING

import bcrypt
import pytest

from towline.errors import UsageError
from towline.server.auth import Guard

if TYPE_CHECKING:
    from pathlib import Path


def line(user: str, password: str, prefix: bytes = b"2b") -> str:
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4, prefix)).decode()}\n"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_users_of_the_file_come_in_with_their_own_password(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text("# people\n\n" + line("anna", "grüße:und") + line("ben", "b", b"2a"))
    guard = Guard(path)
    for _ in range(2):  # the second time from memory
        assert guard.admits(basic("anna", "grüße:und"))
        assert guard.admits(basic("ben", "b").replace("Basic", "bAsIc"))
        assert not guard.admits(basic("anna", "b"))
        assert not guard.admits(basic("carl", "b"))


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !", "Basic YQ==", "Bearer YTpi", "Basic YToAYg=="]
)
def test_what_is_no_credential_is_not_let_in(tmp_path: Path, header: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(line("a", "b"))
    assert not Guard(path).admits(header)


def test_a_wrong_guess_costs_the_same_whether_or_not_there_is_such_a_user(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(8)).decode()
    path.write_text(f"anna:{hashed}\nben:{hashed}\n")
    guard = Guard(path)

    def cost(user: str) -> float:
        begun = time.thread_time()
        assert not guard.admits(basic(user, "wrong"))
        return time.thread_time() - begun

    known = min(cost("anna") for _ in range(5))
    for user in ("nobody", "Anna", ""):
        assert min(cost(user) for _ in range(5)) > known / 2


def test_a_file_without_users_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text("# nobody yet\n")
    assert not Guard(path).admits(basic("anna", "a"))


def test_a_changed_file_counts_at_once(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(line("anna", "old"))
    guard = Guard(path)
    assert guard.admits(basic("anna", "old"))
    (tmp_path / "new").write_text(line("anna", "new"))
    os.replace(tmp_path / "new", path)  # noqa: PTH105 - as htpasswd's users do it
    assert guard.admits(basic("anna", "new"))
    assert not guard.admits(basic("anna", "old"))


def test_while_the_file_is_away_or_torn_the_last_one_holds(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(line("anna", "a"))
    guard = Guard(path)
    path.write_text("anna:plain\n")
    assert guard.admits(basic("anna", "a"))
    path.unlink()
    assert guard.admits(basic("anna", "a"))


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    with pytest.raises(UsageError, match=r"cannot read .*htpasswd: No such file"):
        Guard(path)
    path.write_text(line("a", "b") + "ben:$apr1$md5\n")
    with pytest.raises(UsageError, match=r"line 2 of .*htpasswd is no user with a bcrypt hash"):
        Guard(path)
    path.write_text("ben:$2y$05$torn\n")
    with pytest.raises(UsageError, match=r"line 1 of .*htpasswd is no user with a bcrypt hash"):
        Guard(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="it is no text"):
        Guard(path)
