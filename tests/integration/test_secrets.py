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


NAMES = [
    "{login}@reg.example/app",
    "{login}@reg.example:5000/team/app:1",
    "{login}@reg.example",
    "https://{login}@reg.example/app:1",
    "docker://{login}@reg.example/app",
    f"{{login}}@reg.example/app@sha256:{'a' * 64}",
]
LOGINS = [f"{USER}:{WORD}", f"{USER}:{WORD[:4]}/p@rt{WORD[4:]}", f"{USER}:80/{WORD}@"]
COMMANDS = [
    "push {image} {name}",
    "push {name}",
    "push {name} reg.example/app",
    "push {image} {name} reg.example/app --progress=json",
    "push {image} reg.example/app --cache-from {name}",
    "plan {image} {name}",
    "copy {name} reg.example/app",
    "copy {name}",
    "copy reg.example/app {name}",
    "inspect {name}",
    "digest {name}",
    "tags {name}",
    "tag {name} 1",
    "index {name} --to reg.example/app",
    "index reg.example/app --to {name}",
    "login {name}",
    "logout {name}",
]


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_login_in_a_name_is_refused_and_not_repeated(
    image: str, capsys: Capture, words: str, name: str
) -> None:
    for login in LOGINS:
        given = words.format(image=image, name=name.format(login=login)).split()
        assert main(given) == 2
        out, err = capsys.readouterr()
        assert not any(part in out + err for part in (WORD, WORD[:4], WORD[4:]))
        assert "login" in err
        assert "[hidden]@reg.example" in err or "--progress=json" in given


def test_a_token_in_a_name_is_refused_and_not_repeated(image: str, capsys: Capture) -> None:
    for name in (f"{WORD}@reg.example/app", f"https://{WORD}@reg.example/app"):
        assert main(["push", image, name]) == 2
        assert WORD not in "".join(capsys.readouterr())


def test_a_path_that_looks_like_a_login_is_a_path(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me:of@home").mkdir()
    path = "me:of@home/app"
    make_image(tmp_path / path, [{"a": b"a"}])
    assert main(["push", path]) == 2
    assert f"no destination is named for {path}" in capsys.readouterr().err
    assert main(["inspect", path]) == 0
    assert main(["push", f"./{path}2", "reg.example/app"]) == 3
    assert f"{path}2 does not exist" in capsys.readouterr().err


def test_a_login_in_the_address_of_an_engine_is_not_repeated(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in (f"tcp://{USER}:{WORD}@10.0.0.1:2375", f"{USER}:{WORD}@10.0.0.1"):
        assert main(["push", "reg.example/app", "--engine", address]) == 2
        monkeypatch.setenv("DOCKER_HOST", address)
        assert main(["push", "reg.example/app", "--debug"]) == 3
        err = capsys.readouterr().err
        assert err.count("[hidden]@10.0.0.1") == 3
        assert WORD not in err


@pytest.mark.parametrize(
    "words",
    [
        ["login", "reg.example", f"-p{WORD}"],
        ["login", "reg.example", f"--password={WORD}"],
        ["login", "reg.example", "-u", f"{USER}:{WORD}"],
        ["push", "x.tar", "reg.example/app", "-u", f"{USER}:{WORD}", "--password-stdin"],
    ],
)
def test_a_password_where_none_belongs_is_refused_and_not_repeated(
    capsys: Capture, words: list[str]
) -> None:
    assert main(words) == 2
    assert WORD not in "".join(capsys.readouterr())
