"""What `--debug` says of accounts, and that no secret is ever said."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.guards import Tokens
from tests.support.scripted import Reply, Scripted, scripted
from towline.cli.main import main
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.scripted import Asked

    Capture = pytest.CaptureFixture[str]

USER, WORD = "me", "s3cret-word"
PAIR = base64.b64encode(f"{USER}:{WORD}".encode()).decode()
SECRETS = (WORD, PAIR, "s3cret-refresh", "s3cret-token", "s3cret-access")
WAYS = [
    "--creds",
    "stdin",
    "TOWLINE_PASSWORD",
    "--authfile",
    "DOCKER_AUTH_CONFIG",
    "CI_REGISTRY_PASSWORD",
    "helper",
    "identity token",
    "registry token",
]


@pytest.fixture
def registry() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(make_image(tmp_path / "image.tar", [{"a": b"a"}]).path)


class Giving:
    """Gives the account in one of the ways; `words` are the options that it takes."""

    def __init__(self, way: str, host: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.words: list[str] = []
        entry: dict[str, str] = {"auth": PAIR}
        match way:
            case "--creds":
                self.words = ["--creds", f"{USER}:{WORD}"]
            case "stdin":
                self.words = ["-u", USER, "--password-stdin"]
                monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(WORD.encode())))
            case "TOWLINE_PASSWORD":
                monkeypatch.setenv("TOWLINE_USERNAME", USER)
                monkeypatch.setenv("TOWLINE_PASSWORD", WORD)
            case "--authfile":
                (folder / "auth.json").write_text(json.dumps({"auths": {host: entry}}))
                self.words = ["--authfile", str(folder / "auth.json")]
            case "CI_REGISTRY_PASSWORD":
                for name, value in (("", host), ("_USER", USER), ("_PASSWORD", WORD)):
                    monkeypatch.setenv(f"CI_REGISTRY{name}", value)
            case "helper":
                self._helper(folder, monkeypatch)
            case _:
                if way == "identity token":
                    entry = {"identitytoken": "s3cret-refresh"}
                if way == "registry token":
                    entry = {"registrytoken": "s3cret-token"}
                config = json.dumps({"auths": {host: entry}})
                monkeypatch.setenv("DOCKER_AUTH_CONFIG", config)

    def _helper(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        helper = folder / "docker-credential-box"
        login = json.dumps({"ServerURL": "x", "Username": USER, "Secret": WORD})
        helper.write_text(f"#!/bin/sh\necho '{login}'\n")
        helper.chmod(0o755)
        (folder / "config.json").write_text('{"credsStore": "box"}')
        monkeypatch.setenv("DOCKER_CONFIG", str(folder))
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def lets_in(registry: Scripted, challenge: str, *, denied: bool) -> None:
    """Have it ask for what each way gives; or take it, and deny the push all the same."""
    tokens = Tokens(registry, challenge="Basic" if challenge == "Basic" else "")
    tokens.valid[f"Basic {PAIR}"] = []
    registry._rules.clear()

    def grant(asked: Asked) -> Reply:
        tokens.grant(asked)
        tokens.valid["s3cret-access"] = []
        answer = {"access_token": "s3cret-access", "refresh_token": "s3cret-refresh"}
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(answer))

    registry.on("GET", "^/token", grant, forever=True)
    registry.on("POST", "^/token", grant, forever=True)
    tokens.valid["s3cret-token"] = []
    if denied:

        def deny(asked: Asked) -> Reply | None:
            shown = asked.header("Authorization")
            return Reply(403, (), f"no push for you with {shown}") if shown else None

        registry.on("POST", "uploads", deny, forever=True)


@pytest.mark.parametrize("challenge", ["Basic", "Bearer"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("denied", [False, True])
def test_no_secret_is_said_whatever_happens(  # noqa: PLR0917 - fixtures
    registry: Scripted,
    image: str,
    tmp_path: Path,
    way: str,
    challenge: str,
    denied: bool,  # noqa: FBT001 - a column of the table
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    if challenge == "Basic" and "token" in way:
        challenge = "Bearer"  # there is no user to show
    lets_in(registry, challenge, denied=denied)
    giving = Giving(way, registry.host, tmp_path, monkeypatch)
    name = f"{registry.host}/team/app:1"
    code = main(["push", image, name, "--debug", "--progress=plain", *giving.words])
    out, err = capsys.readouterr()
    assert code == (4 if denied else 0)
    shown = [asked.header("Authorization") for asked in registry.requests("POST", "uploads")]
    assert any(shown), "the account was used"
    assert "credentials for" in err
    assert [secret for secret in SECRETS if secret in out + err] == []
    if denied:
        assert "Traceback" in err
        assert re.search(r"no push for you with (Basic|Bearer) \[hidden\]", err)


def test_a_denied_push_says_who_asked_for_what_and_was_given_what(
    registry: Scripted, image: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    tokens = Tokens(registry)
    claims = {"access": [{"type": "repository", "name": "team/app", "actions": ["pull"]}]}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    registry._rules.clear()

    def grant(asked: Asked) -> Reply:
        tokens.valid[f"x.{payload}.y"] = []
        return Reply(200, (), json.dumps({"token": f"x.{payload}.y"}))

    registry.on("GET", "^/token", grant, forever=True)
    registry.on("POST", "uploads", Reply(403), forever=True)
    config = json.dumps({"auths": {registry.host: {"auth": PAIR}}})
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", config)
    assert main(["push", image, f"{registry.host}/team/app:1", "--debug"]) == 4
    err = capsys.readouterr().err
    entry = f"DOCKER_AUTH_CONFIG, entry {registry.host}"
    assert f"credentials for {registry.host}: user me (from {entry})" in err
    assert f"it was asked as user me (from {entry})" in err
    asked, granted = "repository:team/app:pull,push", "repository:team/app:pull"
    assert f"for {asked}: granted {granted}," in err


def test_where_no_credentials_are_found_it_says_where_they_were_looked_for(
    registry: Scripted,
    image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    registry.guard = lambda _: Reply(401, {"WWW-Authenticate": "Basic"})
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {"other.example": {"auth": PAIR}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert main(["push", image, f"{registry.host}/team/app:1", "--debug"]) == 4
    err = capsys.readouterr().err
    assert f"no credentials for {registry.host}: anonymous; looked in {config}" in err
    assert "no credentials were found" in err
    assert f"hint: towline login {registry.host}" in err
