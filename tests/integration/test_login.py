"""`towline login` and `logout`: asked of a real registry, kept where others look for it too."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import stat
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import token_service
from tests.support.certificates import make_authority
from tests.support.docker_registry import PASSWORD, USER, Options
from tests.support.scripted import scripted
from tests.support.terminal import pseudo_terminal
from towline.cli.main import main
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartDockerRegistry
    from tests.support.docker_registry import DockerRegistry

    Capture = pytest.CaptureFixture[str]

HELPER = """\
#!/bin/sh
# Keeps one login, in the file beside it, and writes down what it is asked.
echo "$1" >> "$0.asked"
case "$1" in
    store) cat > "$0.kept" ;;
    get) if [ -e "$0.kept" ]; then cat "$0.kept"
         else echo "credentials not found in native keychain"; exit 1; fi ;;
    erase) rm -f "$0.kept" ;;
esac
"""


@pytest.fixture
def registry(start_docker_registry: StartDockerRegistry) -> DockerRegistry:
    return start_docker_registry(Options(htpasswd=True))


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(make_image(tmp_path / "image.tar").path)


@pytest.fixture
def config() -> Path:
    """Docker's file in the home that each test has."""
    return Path(os.environ["HOME"], ".docker/config.json")


def piped(content: str, *words: str) -> tuple[int, str, str]:
    """Run the command with that on standard input: its exit code, standard output and error."""
    command = [sys.executable, "-m", "towline", *words]
    done = subprocess.run(command, check=False, input=content, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def login(host: str, *words: str, password: str = PASSWORD) -> tuple[int, str, str]:
    return piped(f"{password}\n", "login", host, "-u", USER, "--password-stdin", *words)


class TestFile:
    def test_a_login_that_is_good_is_kept_and_lets_pushes_in_until_the_logout(
        self,
        registry: DockerRegistry,
        image: str,
        config: Path,
        capsys: Capture,
    ) -> None:
        push = ["push", image, registry.name("app:1"), "-q"]
        assert main(push) == 4
        capsys.readouterr()
        said = f"logged in to {registry.host} as {USER}; the login is kept in {config}\n"
        assert login(registry.host) == (0, said, "")
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert list(json.loads(config.read_text())["auths"]) == [registry.host]
        assert PASSWORD not in config.read_text()
        assert main(push) == 0
        capsys.readouterr()
        assert main(["logout", registry.host]) == 0
        assert capsys.readouterr() == (f"logged out of {registry.host} in {config}\n", "")
        assert json.loads(config.read_text()) == {"auths": {}}
        assert main(push) == 4
        assert main(["logout", registry.host]) == 0
        assert "there was no login" in capsys.readouterr().out

    def test_a_login_that_is_not_good_is_not_kept(
        self,
        registry: DockerRegistry,
        config: Path,
    ) -> None:
        code, out, err = login(registry.host, password="wr0ng-word")
        assert (code, out) == (4, "")
        assert f"cannot log in to {registry.host}" in err
        assert "hint: check user and password" in err
        assert "wr0ng-word" not in err
        assert not config.exists()

    def test_a_registry_that_is_not_there_keeps_nothing(self, config: Path) -> None:
        assert login("127.0.0.1:1", "--retries=0")[0] == 6
        assert not config.exists()

    def test_a_named_file_is_kept_to_and_found_by_the_same_option(
        self,
        registry: DockerRegistry,
        image: str,
        config: Path,
        tmp_path: Path,
        capsys: Capture,
    ) -> None:
        named = ["--authfile", str(tmp_path / "auth.json")]
        assert login(registry.host, *named)[0] == 0
        assert not config.exists()
        assert main(["push", image, registry.name("app:1"), "-q", *named]) == 0
        assert main(["push", image, registry.name("app:1"), "-q"]) == 4
        assert main(["logout", registry.host, *named]) == 0
        assert main(["push", image, registry.name("app:1"), "-q", *named]) == 4
        capsys.readouterr()

    def test_the_file_of_the_environment_is_kept_to(
        self,
        registry: DockerRegistry,
        image: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Capture,
    ) -> None:
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
        assert login(registry.host)[0] == 0
        assert main(["push", image, registry.name("app:1"), "-q"]) == 0
        assert capsys.readouterr().err == ""

    def test_skopeo_and_docker_find_it_in_their_own_file(
        self,
        registry: DockerRegistry,
        image: str,
        config: Path,
        skopeo_bin: Path,
        capsys: Capture,
    ) -> None:
        assert login(registry.host)[0] == 0
        assert main(["push", image, registry.name("app:1"), "-q"]) == 0
        capsys.readouterr()
        name = f"docker://{registry.name('app:1')}"
        words = [str(skopeo_bin), "inspect", "--tls-verify=false", "--authfile", str(config), name]
        found = subprocess.run(words, check=True, capture_output=True, text=True)
        assert json.loads(found.stdout)["Name"] == registry.name("app")

    def test_another_login_that_counts_first_is_warned_of(
        self,
        registry: DockerRegistry,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Capture,
    ) -> None:
        podmans = tmp_path / "containers/auth.json"
        podmans.parent.mkdir()
        podmans.write_text(json.dumps({"auths": {registry.host: {"auth": "b2xkOm9uZQ=="}}}))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        code, _, err = login(registry.host)
        assert code == 0
        assert "warning: another login" in err
        assert f"user old (from {podmans}" in err
        assert main(["logout", registry.host]) == 0
        assert "is found besides" in capsys.readouterr().err


class TestChecking:
    def test_a_token_service_is_asked_and_believed(
        self,
        start_docker_registry: StartDockerRegistry,
        config: Path,
        tmp_path: Path,
    ) -> None:
        with token_service.serving(make_authority(tmp_path)) as service:
            registry = start_docker_registry(Options(auth=service.auth()))
            assert login(registry.host, password="wrong")[0] == 4
            assert not config.exists()
            code, _, err = login(registry.host)
            assert (code, err) == (0, "")
            assert service.granted == [[]]

    def test_a_registry_that_asks_nobody_is_told_of(
        self,
        docker_registry: DockerRegistry,
        config: Path,
    ) -> None:
        code, _, err = login(docker_registry.host)
        assert code == 0
        assert "the login was not checked" in err
        assert config.exists()

    def test_the_password_is_all_of_standard_input_but_its_last_line_end(
        self, config: Path
    ) -> None:
        key = '{\n  "type": "service_account",\n  "key": "-----\\n"\n}'
        with scripted() as server:
            words = ["login", server.host, "-u", "_json_key", "--password-stdin", "--plain-http"]
            assert piped(f"{key}\r\n", *words)[0] == 0
            kept = json.loads(config.read_text())["auths"][server.host]["auth"]
        assert base64.b64decode(kept).decode() == f"_json_key:{key}"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["login"], "no registry is named"),
            (["login", "a.example", "b.example"], "one word too many"),
            (["login", "ghcr.io/owner"], "is no registry"),
            (["login", ""], "is no registry"),
            (["login", "https://"], "is no registry"),
            (["logout", ""], "is no registry"),
            (["login", "myhost"], "is no registry"),
            (["login", "a.example:port"], "is no registry"),
            (["login", "a.example", "--password-stdin"], "needs a user"),
            (["login", "a.example", "-u", "a:b"], "is no user name"),
            (["login", "a.example", "-u", "me"], "no terminal to ask for the password on"),
            (["login", "a.example"], "no terminal to ask for user and password on"),
            (["logout"], "no registry is named"),
            (["logout", "a.example", "-u", "me"], "has no option `-u`"),
        ],
    )
    def test_what_cannot_be_meant_is_exit_code_2(self, words: list[str], message: str) -> None:
        code, out, err = piped("", *words)
        assert (code, out) == (2, "")
        assert message in err


class TestHelper:
    @pytest.fixture
    def helper(self, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "docker-credential-drawer"
        program.write_text(HELPER)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        config.parent.mkdir()
        config.write_text(json.dumps({"credsStore": "drawer", "HttpHeaders": {"X": "y"}}))
        return program

    def test_a_login_goes_through_the_helper_and_the_file_has_no_secret(
        self,
        registry: DockerRegistry,
        helper: Path,
        image: str,
        config: Path,
        capsys: Capture,
    ) -> None:
        code, out, _ = login(registry.host)
        assert code == 0
        assert "kept in docker-credential-drawer" in out
        kept = json.loads(Path(f"{helper}.kept").read_text())
        assert kept == {"ServerURL": registry.host, "Username": USER, "Secret": PASSWORD}
        document = json.loads(config.read_text())
        assert (document["HttpHeaders"], document["credsStore"]) == ({"X": "y"}, "drawer")
        assert document["auths"] == {registry.host: {}}
        assert main(["push", image, registry.name("app:1"), "-q"]) == 0
        assert main(["logout", registry.host]) == 0
        assert not Path(f"{helper}.kept").exists()
        assert main(["push", image, registry.name("app:1"), "-q"]) == 4
        capsys.readouterr()

    def test_a_wrong_password_never_gets_to_the_helper(
        self,
        registry: DockerRegistry,
        helper: Path,
    ) -> None:
        assert login(registry.host, password="wrong")[0] == 4
        assert not Path(f"{helper}.asked").exists()


# Takes the terminal that it finds as standard input for its own, as a shell's child has it.
ON_TERMINAL = (
    "import fcntl, os, sys, termios;"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.executable, [sys.executable, '-m', 'towline', *sys.argv[1:]])"
)


@dataclass
class Typed:
    """A process at a terminal, and somebody who types."""

    master: int
    process: subprocess.Popen[bytes]
    shown: str = ""

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def until(self, wanted: str) -> None:
        end = time.monotonic() + 20
        while wanted not in self.shown:
            assert time.monotonic() < end, self.shown
            if select.select([self.master], [], [], 0.1)[0]:
                self.shown += os.read(self.master, 4096).decode()

    def until_it_hides(self) -> None:
        end = time.monotonic() + 20
        while self.echoes:
            assert time.monotonic() < end, self.shown
            time.sleep(0.01)

    def type(self, line: str) -> None:
        os.write(self.master, f"{line}\n".encode())

    def ends(self) -> int:
        return self.process.wait(timeout=20)


@contextmanager
def at_a_terminal(*words: str) -> Iterator[Typed]:
    master, slave = pseudo_terminal()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, *words],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        start_new_session=True,
    )
    try:
        yield Typed(master, process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        os.close(slave)
        os.close(master)


class TestTerminal:
    def test_user_and_password_are_asked_for_and_the_password_is_not_shown(
        self, registry: DockerRegistry, config: Path
    ) -> None:
        with at_a_terminal("login", registry.host) as typed:
            typed.until("Username: ")
            typed.type(USER)
            typed.until("Password: ")
            typed.until_it_hides()
            typed.type(PASSWORD)
            assert typed.ends() == 0
            assert PASSWORD not in typed.shown
            assert typed.echoes
            assert typed.process.stdout is not None
            assert typed.process.stdout.read().startswith(b"logged in to ")
        assert registry.host in json.loads(config.read_text())["auths"]

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_at_the_password_gives_the_terminal_back(
        self, number: signal.Signals, code: int, config: Path
    ) -> None:
        with at_a_terminal("login", "registry.example", "-u", USER) as typed:
            typed.until("Password: ")
            typed.until_it_hides()
            typed.process.send_signal(number)
            assert typed.ends() == code
            assert typed.echoes
            typed.until("Password: \r\ntowline: error: interrupted\r\n")
        assert not config.exists()

    def test_nothing_typed_is_told_on_a_line_of_its_own(self, config: Path) -> None:
        with at_a_terminal("login", "registry.example", "-u", USER) as typed:
            typed.until("Password: ")
            typed.until_it_hides()
            os.write(typed.master, b"\x04")  # the end of what is typed
            assert typed.ends() == 2
            typed.until("Password: \r\ntowline: error: nothing was typed\r\n")
        assert not config.exists()


def test_a_refused_account_is_said_to_be_from_where_it_is_from(
    registry: DockerRegistry, image: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = registry.name("app:1")
    code, _, err = login(registry.host, password="wr0ng-word")
    assert code == 4
    assert f"user {USER} (from `--password-stdin`)" in err
    words = ["push", image, name, "-q", "-u", USER, "--password-stdin"]
    assert "(from `--password-stdin`)" in piped("wr0ng-word", *words)[2]
    assert main(["push", image, name, "-q", "--creds", f"{USER}:wr0ng-word"]) == 4
    assert "(from `--creds`)" in capsys.readouterr().err
    monkeypatch.setenv("TOWLINE_CREDS", f"{USER}:wr0ng-word")
    assert main(["push", image, name, "--progress", "json"]) == 4
    error, hint = map(json.loads, capsys.readouterr().err.splitlines()[-2:])
    assert "(from TOWLINE_CREDS)" in error["message"]
    assert (error["reference"], hint["reference"]) == (name, name)
    assert "[{" not in error["message"], "what a registry says in objects is nothing for people"
