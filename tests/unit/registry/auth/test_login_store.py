"""Keeping logins: where, for whose eyes, and what else the file holds stays."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from towline.errors import AuthError, UsageError
from towline.reference import RepositoryName
from towline.registry.auth.keychain import Keychain
from towline.registry.auth.login_store import LoginStore, store_of

if TYPE_CHECKING:
    from towline.registry.auth.credential_files import Credentials

HOST = "reg.example:5000"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docker/config.json"


@pytest.fixture
def store(path: Path) -> LoginStore:
    return store_of({"DOCKER_CONFIG": str(path.parent), "PATH": "/usr/bin:/bin"})


def found(path: Path, host: str = HOST, **environ: str) -> Credentials | None:
    keychain = Keychain(
        {"DOCKER_CONFIG": str(path.parent), **environ}, log=lambda _: None, warn=lambda _: None
    )
    return keychain.find(RepositoryName(host, "team/app"), "destination")


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def test_a_login_is_kept_for_its_owners_eyes_and_found_again(store: LoginStore, path: Path) -> None:
    assert store.save(HOST, "me", "pass:word") == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    credentials = found(path)
    assert credentials is not None
    assert (credentials.username, credentials.password) == ("me", "pass:word")
    assert [entry.name for entry in path.parent.iterdir()] == ["config.json"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_what_else_the_file_holds_is_kept(store: LoginStore, path: Path, mode: int) -> None:
    path.parent.mkdir()
    others = {"auths": {"other.example": {"auth": "eA=="}, f"{HOST}/team": {}}, "psFormat": "{{x}}"}
    path.write_text(json.dumps(others))
    path.chmod(mode)
    store.save(HOST, "me", "word")
    document = read(path)
    assert document["psFormat"] == "{{x}}"
    assert set(document["auths"]) == {"other.example", f"{HOST}/team", HOST}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("key", [f"https://{HOST}", f"https://{HOST}/v1/", f"http://{HOST}/v2/"])
def test_other_spellings_of_the_host_do_not_outlive_a_new_login(
    store: LoginStore, path: Path, key: str
) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"auths": {key: {"auth": "b2xkOm9sZA=="}}}))
    store.save(HOST, "me", "word")
    assert set(read(path)["auths"]) == {HOST}


def test_the_hub_is_kept_under_the_key_that_others_look_for(store: LoginStore, path: Path) -> None:
    store.save("docker.io", "me", "word")
    assert set(read(path)["auths"]) == {"https://index.docker.io/v1/"}
    credentials = found(path, "docker.io")
    assert credentials is not None


def test_a_login_is_forgotten_in_every_spelling(store: LoginStore, path: Path) -> None:
    path.parent.mkdir()
    keys = [HOST, f"https://{HOST}/v1/", "other.example"]
    path.write_text(json.dumps({"auths": {key: {"auth": "bWU6d29yZA=="} for key in keys}}))
    assert store.erase(HOST)
    assert set(read(path)["auths"]) == {"other.example"}
    assert not store.erase(HOST)


def test_there_is_nothing_to_forget_without_a_file(store: LoginStore) -> None:
    assert not store.erase(HOST)


def test_a_link_to_the_file_stays_a_link(store: LoginStore, path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    real = tmp_path / "dotfiles.json"
    real.write_text("{}")
    path.symlink_to(real)
    store.save(HOST, "me", "word")
    assert path.is_symlink()
    assert HOST in read(real)["auths"]


@pytest.mark.parametrize("content", ["not json", "[]"])
def test_a_file_that_cannot_be_read_is_left_alone(
    store: LoginStore, path: Path, content: str
) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(UsageError, match=r"config\.json"):
        store.save(HOST, "me", "word")
    assert path.read_text() == content


def test_a_place_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = store_of({"DOCKER_CONFIG": str(tmp_path / "file/docker")})
    with pytest.raises(UsageError, match="cannot be"):
        store.save(HOST, "me", "word")


def test_logins_at_the_same_time_are_all_kept(store: LoginStore, path: Path) -> None:
    hosts = [f"reg{number}.example" for number in range(20)]
    with ThreadPoolExecutor(len(hosts)) as threads:
        for done in [threads.submit(store.save, host, "me", "word") for host in hosts]:
            done.result()
        assert set(read(path)["auths"]) == set(hosts)
        for gone in [threads.submit(store.erase, host) for host in hosts[1:]]:
            assert gone.result()
    assert list(read(path)["auths"]) == hosts[:1]


def test_a_password_may_be_any_bytes(store: LoginStore, path: Path) -> None:
    password = b"caf\xe9".decode("utf-8", "surrogateescape")
    store.save(HOST, "me", password)
    kept = found(path)
    assert kept is not None
    assert kept.password == password


def test_where_a_login_is_kept(tmp_path: Path) -> None:
    assert store_of({"HOME": "/h"}).path == Path("/h/.docker/config.json")
    assert store_of({"HOME": "/h", "DOCKER_CONFIG": "/d"}).path == Path("/d/config.json")
    assert store_of({"REGISTRY_AUTH_FILE": "/a"}).path == Path("/a")
    assert store_of({"REGISTRY_AUTH_FILE": "/a"}, "/b").path == Path("/b")
    with pytest.raises(UsageError, match="no home"):
        store_of({})


class TestHelpers:
    @pytest.fixture
    def store(self, path: Path, tmp_path: Path) -> LoginStore:
        helper = tmp_path / "docker-credential-box"
        helper.write_text(
            "#!/bin/sh\nread line\n"
            f'echo "$1 $line" >> {tmp_path}/told\n'
            f"case $line in *bad*) echo the vault is sealed; exit 1;; esac\n"
        )
        helper.chmod(0o755)
        path.parent.mkdir()
        path.write_text('{"credsStore":"box"}')
        path_variable = f"{tmp_path}:{os.environ['PATH']}"
        return store_of({"DOCKER_CONFIG": str(path.parent), "PATH": path_variable})

    def told(self, tmp_path: Path) -> list[str]:
        return (tmp_path / "told").read_text().splitlines()

    def test_the_helper_keeps_the_login_and_the_file_holds_no_secret(
        self, store: LoginStore, path: Path, tmp_path: Path
    ) -> None:
        assert store.save(HOST, "me", "s3cret") == "docker-credential-box"
        (line,) = self.told(tmp_path)
        assert line.startswith("store ")
        assert json.loads(line.removeprefix("store ")) == {
            "ServerURL": HOST,
            "Username": "me",
            "Secret": "s3cret",
        }
        assert read(path) == {"credsStore": "box", "auths": {HOST: {}}}

    def test_the_helper_forgets_the_login(
        self, store: LoginStore, path: Path, tmp_path: Path
    ) -> None:
        store.save(HOST, "me", "s3cret")
        assert store.erase(HOST)
        assert f"erase {HOST}" in self.told(tmp_path)
        assert read(path)["auths"] == {}

    def test_a_helper_that_fails_is_an_error_in_its_own_words(
        self, store: LoginStore, path: Path
    ) -> None:
        before = path.read_text()
        with pytest.raises(AuthError, match="the vault is sealed"):
            store.save(HOST, "bad", "word")
        assert path.read_text() == before

    def test_a_helper_that_is_not_installed_is_an_error(
        self, store: LoginStore, path: Path
    ) -> None:
        path.write_text('{"credsStore":"nowhere"}')
        with pytest.raises(AuthError, match="docker-credential-nowhere is not installed"):
            store.save(HOST, "me", "word")
