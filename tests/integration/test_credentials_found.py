"""What a user is told of logins that cannot be used, or are nowhere, when a registry wants one."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.guards import Tokens, basic
from tests.support.scripted import Reply, Scripted, scripted
from towline.cli.main import main
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Capture = pytest.CaptureFixture[str]
    Push = Callable[..., tuple[int, str]]
    Spoil = Callable[[Path, str], None]


@pytest.fixture
def registry() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(make_image(tmp_path / "image.tar").path)


@pytest.fixture
def push(registry: Scripted, image: str, capsys: Capture) -> Push:
    """Pushes to repositories of the registry: the exit code, and what is said on standard error."""

    def pushed(*words: str, to: tuple[str, ...] = ("team/app",)) -> tuple[int, str]:
        code = main(["push", image, *(f"{registry.host}/{path}:1" for path in to), "-q", *words])
        return code, capsys.readouterr().err

    return pushed


@pytest.fixture
def config() -> Path:
    """Docker's file in the home that each test has."""
    path = Path(os.environ["HOME"], ".docker/config.json")
    path.parent.mkdir(parents=True)
    return path


def wants_a_login(registry: Scripted) -> None:
    registry.guard = lambda asked: (
        None if asked.header("Authorization") else Reply(401, {"WWW-Authenticate": "Basic"})
    )


def of_another(path: Path, _host: str) -> None:
    path.touch(mode=0)


def a_folder(path: Path, _host: str) -> None:
    path.mkdir()


def no_json(path: Path, _host: str) -> None:
    path.write_text('{"auths": ')


def no_text(path: Path, _host: str) -> None:
    path.write_bytes(b"\xff\xfe{}")


def no_base64(path: Path, host: str) -> None:
    path.write_text(json.dumps({"auths": {host: {"auth": "me:s3cret-word"}}}))


def no_colon(path: Path, host: str) -> None:
    auth = base64.b64encode(b"s3cret-word").decode()
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def no_object(path: Path, host: str) -> None:
    path.write_text(json.dumps({"auths": {host: "s3cret-word"}}))


UNUSABLE = [
    pytest.param(
        of_another,
        "Permission denied",
        marks=pytest.mark.skipif(os.getuid() == 0, reason="root may read everything"),
    ),
    (a_folder, "Is a directory"),
    (no_json, "are not a JSON object"),
    (no_text, "it is no text"),
    (no_base64, "`auth` that is not USER:PASSWORD in base64"),
    (no_colon, "`auth` that is not USER:PASSWORD in base64"),
    (no_object, "is not a JSON object"),
]


@pytest.mark.parametrize(("spoil", "reason"), UNUSABLE)
def test_logins_that_cannot_be_used_are_named_with_the_reason_when_one_is_wanted(
    registry: Scripted, push: Push, config: Path, spoil: Spoil, reason: str
) -> None:
    spoil(config, registry.host)
    wants_a_login(registry)
    code, err = push()
    assert code == 4
    (warning,) = [line for line in err.splitlines() if "warning" in line]
    (error,) = [line for line in err.splitlines() if "error" in line]
    assert str(config) in warning
    assert reason in warning
    assert str(config) in error
    assert reason in error
    assert "s3cret-word" not in err


def test_a_named_file_that_is_not_there_is_one_sentence_before_anything_else(
    push: Push, tmp_path: Path
) -> None:
    code, err = push("--progress=plain", f"--authfile={tmp_path}/none", to=("team/a", "team/b"))
    assert code == 2
    (line,) = err.splitlines()
    assert f"{tmp_path}/none cannot be read" in line


@pytest.mark.parametrize(("spoil", "reason"), UNUSABLE)
def test_they_are_warned_of_once_where_nobody_wants_one(
    registry: Scripted, push: Push, config: Path, spoil: Spoil, reason: str
) -> None:
    spoil(config, registry.host)
    code, err = push(to=("team/a", "team/b"))
    assert code == 0
    (line,) = err.splitlines()
    assert line.startswith("towline: warning: ")
    assert reason in line


class TestHelper:
    @pytest.fixture(autouse=True)
    def failing(self, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        helper = tmp_path / "docker-credential-box"
        helper.write_text("#!/bin/sh\necho the vault is sealed\nexit 1\n")
        helper.chmod(0o755)
        config.write_text('{"credsStore":"box"}')
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def test_one_that_fails_is_a_warning_where_nobody_wants_a_login(
        self, registry: Scripted, push: Push
    ) -> None:
        code, err = push()
        assert code == 0
        (line,) = err.splitlines()
        assert "warning: the credential helper docker-credential-box failed" in line
        assert "the vault is sealed" in line

    def test_one_that_fails_is_named_in_the_error_where_a_login_is_wanted(
        self, registry: Scripted, push: Push
    ) -> None:
        wants_a_login(registry)
        code, err = push()
        assert code == 4
        (error,) = [line for line in err.splitlines() if "error" in line]
        assert "docker-credential-box failed: the vault is sealed" in error


def test_the_refusal_says_where_was_looked_and_which_hosts_were_seen(
    registry: Scripted, push: Push, config: Path
) -> None:
    hosts = ["ghcr.io", "https://index.docker.io/v1/", *(f"r{n}.example" for n in range(9))]
    config.write_text(json.dumps({"auths": {key: {"auth": "bWU6d29yZA=="} for key in hosts}}))
    wants_a_login(registry)
    code, err = push()
    assert code == 4
    seen = "ghcr.io, docker.io, r0.example, r1.example, r2.example and 6 more"
    assert f"looked in {config} (for {seen})" in err


def test_the_refusal_says_where_was_looked_though_nothing_is_there(
    registry: Scripted, push: Push
) -> None:
    wants_a_login(registry)
    code, err = push()
    assert code == 4
    assert f"{os.environ['HOME']}/.docker/config.json" in err
    assert "there is none" in err


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"TOWLINE_USERNAME": "me", "TOWLINE_PASSWORD": None}, "TOWLINE_PASSWORD is not set"),
        ({"TOWLINE_USERNAME": "", "TOWLINE_PASSWORD": "w"}, "TOWLINE_USERNAME is empty"),
        ({"DOCKER_AUTH_CONFIG": ""}, "DOCKER_AUTH_CONFIG is empty"),
        ({"REGISTRY_AUTH_FILE": ""}, "REGISTRY_AUTH_FILE is empty"),
        ({"TOWLINE_CREDS": ""}, "TOWLINE_CREDS is empty"),
        ({"CI_REGISTRY": "{host}", "CI_REGISTRY_USER": ""}, "CI_REGISTRY_USER is empty"),
    ],
)
def test_the_refusal_names_a_variable_without_a_value(
    registry: Scripted,
    push: Push,
    variables: dict[str, str | None],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value.format(host=registry.host))
    wants_a_login(registry)
    code, err = push()
    assert code == 4
    assert said in err


@pytest.mark.parametrize(
    ("variables", "source"),
    [
        ({"TOWLINE_CREDS": "me:"}, "--creds"),
        ({"TOWLINE_USERNAME": "me", "TOWLINE_PASSWORD": ""}, "TOWLINE_PASSWORD"),
        (
            {"CI_REGISTRY": "{host}", "CI_REGISTRY_USER": "me", "CI_REGISTRY_PASSWORD": ""},
            "CI_REGISTRY_PASSWORD",
        ),
    ],
)
def test_an_empty_password_that_is_refused_is_said_to_be_empty(
    registry: Scripted,
    push: Push,
    variables: dict[str, str],
    source: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(host=registry.host))
    registry.guard = lambda _: Reply(401, {"WWW-Authenticate": "Basic"})
    code, err = push()
    assert code == 4
    assert "user me with an empty password" in err
    assert source in err


class TestNamesBeyondASCII:
    """As a container without a locale has them."""

    USER, PASSWORD = "jürgen", "pässword"

    @pytest.fixture(params=[{}, {"PYTHONUTF8": "0"}], ids=["C", "C, and Python keeps to it"])
    def environ(self, request: pytest.FixtureRequest) -> dict[str, str]:
        return {**os.environ, "LC_ALL": "C", **request.param}

    def run(self, environ: dict[str, str], *words: str, said: str = "") -> None:
        command = [sys.executable, "-m", "towline", *words]
        done = subprocess.run(
            command, check=False, input=said.encode(), capture_output=True, env=environ
        )
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("kind", ["password", "token"])
    def test_an_account_of_an_option_is_shown_as_it_is_written(
        self, registry: Scripted, image: str, environ: dict[str, str], kind: str
    ) -> None:
        if kind == "password":
            wants_a_login(registry)
        else:
            Tokens(registry)
        place = f"{registry.host}/team/app:1"
        self.run(environ, "push", image, place, "--creds", f"{self.USER}:{self.PASSWORD}")
        shown = {one.header("Authorization") for one in registry.asked}
        assert basic(self.USER, self.PASSWORD) in shown
        asked = [one.target for one in registry.asked if one.target.startswith("/token")]
        assert all("account=j%C3%BCrgen" in target for target in asked)
        assert bool(asked) == (kind == "token")

    def test_a_login_is_kept_beside_what_else_the_file_holds(
        self, registry: Scripted, environ: dict[str, str], config: Path
    ) -> None:
        config.write_text('{"psFormat": "größe"}', "utf-8")
        wants_a_login(registry)
        words = ["login", registry.host, "-u", self.USER, "--password-stdin"]
        self.run(environ, *words, said=self.PASSWORD)
        document = json.loads(config.read_text("utf-8"))
        assert document["psFormat"] == "größe"
        kept = base64.b64decode(document["auths"][registry.host]["auth"]).decode()
        assert kept == f"{self.USER}:{self.PASSWORD}"

    def test_a_helper_is_told_it_as_it_is_written(
        self, registry: Scripted, environ: dict[str, str], config: Path, tmp_path: Path
    ) -> None:
        helper = tmp_path / "docker-credential-box"
        helper.write_text(
            '#!/bin/sh\ncase "$1" in store) cat > "$0.kept";; get) cat "$0.kept";; esac\n'
        )
        helper.chmod(0o755)
        config.write_text('{"credsStore":"box"}')
        wants_a_login(registry)
        environ["PATH"] = f"{tmp_path}:{environ['PATH']}"
        words = ["login", registry.host, "-u", self.USER, "--password-stdin"]
        self.run(environ, *words, said=self.PASSWORD)
        kept = json.loads(Path(f"{helper}.kept").read_text("utf-8"))
        assert (kept["Username"], kept["Secret"]) == (self.USER, self.PASSWORD)
