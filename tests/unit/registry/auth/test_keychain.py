"""Which account is used: files in all spellings, their order, helpers by their protocol."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from towline.errors import AuthError, UsageError
from towline.reference import RepositoryName
from towline.registry.auth import credential_helpers
from towline.registry.auth.credential_files import Credentials
from towline.registry.auth.keychain import Keychain

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.errors import Side

HOST = "reg.example:5000"
APP = RepositoryName(HOST, "team/app")
HUB = RepositoryName("docker.io", "library/app")


def auth(user: str, word: str = "word") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{word}".encode()).decode()}


class Found:
    """What a keychain finds in an environment, and what it says meanwhile."""

    def __init__(
        self,
        name: RepositoryName = APP,
        side: Side = "destination",
        environ: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.logged: list[str] = []
        self.warned: list[str] = []
        keychain = Keychain(
            environ or {}, log=self.logged.append, warn=self.warned.append, **options
        )
        self.credentials = keychain.find(name, side)

    @property
    def user(self) -> str | None:
        return self.credentials.username if self.credentials else None


def found_in(document: object, name: RepositoryName = APP) -> str | None:
    return Found(name, environ={"DOCKER_AUTH_CONFIG": json.dumps(document)}).user


@pytest.mark.parametrize(
    "key",
    [
        HOST,
        f"https://{HOST}",
        f"https://{HOST}/",
        f"http://{HOST}",
        f"https://{HOST}/v1/",
        f"https://{HOST}/v2/",
        f"https://{HOST}/v2",
        f"{HOST}/v1/",
        f"{HOST}/team",
        f"{HOST}/team/app",
    ],
)
def test_a_host_is_found_under_each_spelling_of_its_key(key: str) -> None:
    assert found_in({"auths": {"other.example": auth("no"), key: auth("me")}}) == "me"


@pytest.mark.parametrize(
    "key",
    ["reg.example", "reg.example:5001", "eg.example:5000", f"{HOST}/tea", f"{HOST}/team/app/x"],
)
def test_another_place_is_not_meant(key: str) -> None:
    assert found_in({"auths": {key: auth("me")}}) is None


@pytest.mark.parametrize(
    "key",
    [
        "https://index.docker.io/v1/",
        "https://index.docker.io/v2/",
        "index.docker.io",
        "docker.io",
        "registry-1.docker.io",
        "https://registry.hub.docker.com",
    ],
)
def test_the_hub_has_many_names(key: str) -> None:
    assert found_in({"auths": {key: auth("me")}}, HUB) == "me"


def test_the_longest_namespace_wins_and_the_bare_host_before_other_spellings() -> None:
    auths = {
        f"https://{HOST}": auth("scheme"),
        HOST: auth("host"),
        f"{HOST}/team": auth("team"),
        f"{HOST}/team/app": auth("app"),
    }
    assert found_in({"auths": auths}) == "app"
    assert found_in({"auths": auths}, RepositoryName(HOST, "team/b")) == "team"
    assert found_in({"auths": auths}, RepositoryName(HOST, "x")) == "host"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (auth("me", "pass:word"), Credentials("me", "pass:word")),
        (auth("me", "word\0\0"), Credentials("me", "word")),
        ({"username": "me", "password": "word"}, Credentials("me", "word")),
        ({"identitytoken": "t"}, Credentials(identity_token="t")),
        ({"registrytoken": "t"}, Credentials(registry_token="t")),
        ({**auth("me"), "identitytoken": "t"}, Credentials("me", "word", "t")),
        (auth("<token>", "t"), Credentials(identity_token="t")),
        ({"auth": base64.b64encode(b"no colon").decode()}, None),
        ({"auth": "%%%"}, None),
        ({"auth": 7}, None),
        ({}, None),
        (None, None),
        ("text", None),
    ],
)
def test_an_entry_is_read_in_each_of_its_forms(entry: object, expected: Credentials | None) -> None:
    config = json.dumps({"auths": {HOST: entry}})
    credentials = Found(environ={"DOCKER_AUTH_CONFIG": config}).credentials
    if expected is None or credentials is None:
        assert credentials is expected
        return
    assert (credentials.username, credentials.password) == (expected.username, expected.password)
    assert credentials.identity_token == expected.identity_token
    assert credentials.registry_token == expected.registry_token


def test_the_first_place_that_names_the_host_wins(tmp_path: Path) -> None:
    def write(name: str, user: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"auths": {HOST: auth(user)}}))
        return str(path)

    environ = {
        "TOWLINE_USERNAME": "variables",
        "TOWLINE_PASSWORD": "word",
        "REGISTRY_AUTH_FILE": write("named.json", "variable-file"),
        "DOCKER_AUTH_CONFIG": json.dumps({"auths": {HOST: auth("json")}}),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "HOME": str(tmp_path / "home"),
        "CI_REGISTRY": HOST,
        "CI_REGISTRY_USER": "ci",
        "CI_REGISTRY_PASSWORD": "word",
    }
    write("run/containers/auth.json", "podman-run")
    write("config/containers/auth.json", "podman-config")
    write("docker/config.json", "docker")
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home/.dockercfg").write_text(json.dumps({HOST: auth("legacy")}))
    given: dict[str, Any] = {"creds": ("option", "word"), "authfile": write("file", "authfile")}
    order: list[tuple[str, Callable[[], object]]] = [
        ("option", lambda: given.pop("creds")),
        ("variables", lambda: environ.pop("TOWLINE_USERNAME")),
        ("authfile", lambda: given.pop("authfile")),
        ("variable-file", lambda: environ.pop("REGISTRY_AUTH_FILE")),
        ("json", lambda: environ.pop("DOCKER_AUTH_CONFIG")),
        ("podman-run", lambda: Path.unlink(tmp_path / "run/containers/auth.json")),
        ("podman-config", lambda: Path.unlink(tmp_path / "config/containers/auth.json")),
        ("docker", lambda: Path.unlink(tmp_path / "docker/config.json")),
        ("legacy", lambda: Path.unlink(tmp_path / "home/.dockercfg")),
        ("ci", lambda: environ.pop("CI_REGISTRY_USER")),
    ]
    for user, remove in order:
        assert Found(environ=environ, **given).user == user
        remove()
    assert Found(environ=environ, **given).credentials is None


def test_a_place_that_names_other_hosts_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": {"other.example": auth("no")}}))
    config = json.dumps({"auths": {HOST: auth("me")}})
    assert Found(environ={"DOCKER_AUTH_CONFIG": config}, authfile=str(file)).user == "me"


def test_home_is_where_docker_and_podman_look_without_variables(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(json.dumps({"auths": {HOST: auth("docker")}}))
    assert Found(environ={"HOME": str(tmp_path)}).user == "docker"
    (tmp_path / ".config/containers").mkdir(parents=True)
    (tmp_path / ".config/containers/auth.json").write_text(
        json.dumps({"auths": {HOST: auth("podman")}})
    )
    assert Found(environ={"HOME": str(tmp_path)}).user == "podman"


def test_options_of_one_side_are_not_shown_to_the_other() -> None:
    options: dict[str, Any] = {"creds": ("to", "word"), "src_creds": ("from", "word")}
    assert Found(side="destination", **options).user == "to"
    assert Found(side="source", **options).user == "from"
    assert Found(side="source", creds=("to", "word")).credentials is None
    variables = {"TOWLINE_USERNAME": "to", "TOWLINE_PASSWORD": "word"}
    assert Found(side="source", environ=variables).credentials is None


@pytest.mark.parametrize("registry", ["other.example", f"https://{HOST}x", ""])
def test_the_ci_variables_are_for_exactly_their_registry(registry: str) -> None:
    variables = {"CI_REGISTRY": registry, "CI_REGISTRY_USER": "me", "CI_REGISTRY_PASSWORD": "w"}
    assert Found(environ=variables).credentials is None


@pytest.mark.parametrize("content", ["not json", "[]", None, "\udc80"])
@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_named_file_that_cannot_be_read_is_a_usage_error(
    tmp_path: Path, content: str | None, how: str
) -> None:
    path = tmp_path / "auth.json"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    options: dict[str, Any] = {"authfile": str(path)} if how == "option" else {}
    environ = {"REGISTRY_AUTH_FILE": str(path)} if how == "variable" else {}
    with pytest.raises(UsageError, match=r"auth\.json"):
        Found(environ=environ, **options)


def test_a_usual_file_that_cannot_be_read_is_warned_of_and_the_search_goes_on(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.json").write_text("not json")
    (tmp_path / ".dockercfg").write_text(json.dumps({HOST: auth("legacy")}))
    found = Found(environ={"DOCKER_CONFIG": str(tmp_path), "HOME": str(tmp_path)})
    assert found.user == "legacy"
    (warning,) = found.warned
    assert "config.json are not a JSON object" in warning


def test_nothing_is_warned_of_behind_the_place_that_names_the_host(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("not json")
    found = Found(environ={"DOCKER_CONFIG": str(tmp_path)}, creds=("me", "word"))
    assert (found.user, found.warned) == ("me", [])


def test_what_was_found_is_told_without_any_secret() -> None:
    found = Found(environ={"DOCKER_AUTH_CONFIG": json.dumps({"auths": {HOST: auth("me", "s3c")}})})
    assert found.logged == [
        f"* credentials for {HOST}: user me (from DOCKER_AUTH_CONFIG, entry {HOST})"
    ]
    assert "s3c" not in f"{found.credentials!r} {found.credentials}"
    assert found.credentials is not None
    assert found.credentials.account == f"DOCKER_AUTH_CONFIG, entry {HOST} me"


class TestHelpers:
    @pytest.fixture
    def environ(self, tmp_path: Path) -> dict[str, str]:
        return {"PATH": f"{tmp_path}:/usr/bin:/bin", "DOCKER_CONFIG": str(tmp_path)}

    def helper(self, tmp_path: Path, script: str, name: str = "box") -> None:
        path = tmp_path / f"docker-credential-{name}"
        path.write_text(f'#!/bin/sh\nread server\necho "$1 $server" >> {tmp_path}/asked\n{script}')
        path.chmod(0o755)

    def config(self, tmp_path: Path, **document: object) -> None:
        (tmp_path / "config.json").write_text(json.dumps(document))

    def asked(self, tmp_path: Path) -> list[str]:
        return (tmp_path / "asked").read_text().splitlines()

    LOGIN = """echo '{"ServerURL":"x","Username":"me","Secret":"word"}'\n"""

    def test_the_store_is_asked_by_its_protocol(
        self, tmp_path: Path, environ: dict[str, str]
    ) -> None:
        self.helper(tmp_path, self.LOGIN)
        self.config(tmp_path, credsStore="box", auths={HOST: {}})
        found = Found(environ=environ).credentials
        assert found is not None
        assert (found.username, found.password) == ("me", "word")
        assert found.renewable
        assert self.asked(tmp_path) == [f"get {HOST}"]

    def test_the_helper_of_a_host_goes_before_entries_and_the_store(
        self, tmp_path: Path, environ: dict[str, str]
    ) -> None:
        self.helper(tmp_path, self.LOGIN)
        self.config(
            tmp_path, credHelpers={HOST: "box"}, credsStore="none", auths={HOST: auth("plain")}
        )
        assert Found(environ=environ).user == "me"

    def test_an_entry_with_a_password_goes_before_the_store(
        self, tmp_path: Path, environ: dict[str, str]
    ) -> None:
        self.config(tmp_path, credsStore="none", auths={HOST: auth("plain")})
        assert Found(environ=environ).user == "plain"

    def test_the_hub_is_asked_for_by_its_whole_url_first(
        self, tmp_path: Path, environ: dict[str, str]
    ) -> None:
        login = "case $server in docker.io) " + self.LOGIN.strip() + ";; *) exit 1;; esac\n"
        self.helper(tmp_path, login)
        self.config(tmp_path, credsStore="box")
        assert Found(HUB, environ=environ).user == "me"
        assert self.asked(tmp_path) == ["get https://index.docker.io/v1/", "get docker.io"]

    @pytest.mark.parametrize(
        "words",
        [
            "credentials not found in native keychain",
            "credentials not found in native keychain\\n",
            "no credentials server URL",
            "no credentials username",
            "",
        ],
    )
    def test_a_helper_that_knows_no_login_means_anonymous(
        self, tmp_path: Path, environ: dict[str, str], words: str
    ) -> None:
        self.helper(tmp_path, f"printf '{words}'\nexit 1\n")
        self.config(tmp_path, credsStore="box")
        found = Found(environ=environ)
        assert found.credentials is None
        assert found.warned == []

    @pytest.mark.parametrize(
        ("script", "said"),
        [
            ("echo the vault is sealed\nexit 1\n", "the vault is sealed"),
            ("echo the vault is sealed >&2\nexit 1\n", "the vault is sealed"),
            ("kill -9 $$\n", "signal 9"),
        ],
        ids=["standard output", "standard error", "killed"],
    )
    def test_a_helper_that_fails_is_warned_of_in_its_own_words_and_the_search_goes_on(
        self, tmp_path: Path, environ: dict[str, str], script: str, said: str
    ) -> None:
        self.helper(tmp_path, script)
        self.config(tmp_path, credsStore="box")
        (tmp_path / ".dockercfg").write_text(json.dumps({HOST: auth("legacy")}))
        found = Found(environ={**environ, "HOME": str(tmp_path)})
        assert found.user == "legacy"
        (warning,) = found.warned
        assert f"docker-credential-box failed: {said}" in warning
        assert "config.json" in warning

    @pytest.mark.parametrize("output", ["secret-ish junk", "[]", '{"Username":"me"}', ""])
    def test_a_helper_that_answers_oddly_is_warned_of_without_its_words(
        self, tmp_path: Path, environ: dict[str, str], output: str
    ) -> None:
        self.helper(tmp_path, f"echo '{output}'\n")
        self.config(tmp_path, credsStore="box")
        found = Found(environ=environ)
        assert found.credentials is None
        (warning,) = found.warned
        assert "docker-credential-box answered" in warning
        assert "junk" not in warning

    def test_a_token_instead_of_a_user_is_an_identity_token(
        self, tmp_path: Path, environ: dict[str, str]
    ) -> None:
        self.helper(tmp_path, self.LOGIN.replace('"me"', '"<token>"'))
        self.config(tmp_path, credsStore="box")
        found = Found(environ=environ).credentials
        assert found is not None
        assert (found.username, found.identity_token) == ("", "word")

    def test_a_helper_that_is_not_installed_is_warned_of_and_the_search_goes_on(
        self, tmp_path: Path, environ: dict[str, str]
    ) -> None:
        self.config(tmp_path, credsStore="nowhere")
        (tmp_path / ".dockercfg").write_text(json.dumps({HOST: auth("legacy")}))
        found = Found(environ={**environ, "HOME": str(tmp_path)})
        assert found.user == "legacy"
        (warning,) = found.warned
        assert "docker-credential-nowhere is not installed" in warning
        assert "config.json" in warning

    def test_a_helper_that_cannot_be_run_is_told_with_the_systems_reason(
        self, tmp_path: Path, environ: dict[str, str]
    ) -> None:
        self.helper(tmp_path, self.LOGIN)
        (tmp_path / "docker-credential-box").write_bytes(b"\x7fELF is what it is not")
        with pytest.raises(
            credential_helpers.HelperMissing, match=r"-box cannot be run: Exec [^:]*$"
        ):
            credential_helpers.get("box", HOST, environ)

    def test_a_helper_that_does_not_answer_is_an_error_after_a_while(
        self, tmp_path: Path, environ: dict[str, str]
    ) -> None:
        self.helper(tmp_path, "exec sleep 60\n")
        began = time.monotonic()
        with pytest.raises(AuthError, match=r"docker-credential-box did not answer within 0.3 s"):
            credential_helpers.get("box", HOST, environ, seconds=0.3)
        assert time.monotonic() - began < 10

    def test_a_daemon_that_it_starts_may_keep_its_standard_error(
        self, tmp_path: Path, environ: dict[str, str]
    ) -> None:
        self.helper(tmp_path, f"sleep 60 >&- &\necho $! > {tmp_path}/daemon\n{self.LOGIN}")
        try:
            assert credential_helpers.get("box", HOST, environ) == ("me", "word")
        finally:
            os.kill(int((tmp_path / "daemon").read_text()), signal.SIGKILL)

    def test_nor_is_one_waited_for_whose_child_keeps_its_output_open(
        self, tmp_path: Path, environ: dict[str, str]
    ) -> None:
        self.helper(tmp_path, "sleep 5\nexit 1\n")
        began = time.monotonic()
        with pytest.raises(AuthError, match=r"did not answer"):
            credential_helpers.get("box", HOST, environ, seconds=0.3)
        assert time.monotonic() - began < 3

    def test_helpers_are_run_one_at_a_time(self, tmp_path: Path, environ: dict[str, str]) -> None:
        alone = f"mkdir {tmp_path}/busy || {{ echo another is running; exit 1; }}\nsleep 0.1\n"
        self.helper(tmp_path, f"{alone}{self.LOGIN}rmdir {tmp_path}/busy\n")
        self.config(tmp_path, credsStore="box")
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: Found(environ=environ).user, range(4)))
        assert found == ["me"] * 4

    def test_a_helper_hears_of_no_secret_by_its_arguments(
        self, tmp_path: Path, environ: dict[str, str]
    ) -> None:
        words = f"echo $# $@ >> {tmp_path}/words\n"
        path = tmp_path / "docker-credential-box"
        path.write_text(f"#!/bin/sh\n{words}cat > {tmp_path}/stdin\n")
        path.chmod(0o755)
        credential_helpers.store("box", HOST, "me", "s3cret", environ)
        assert (tmp_path / "words").read_text() == "1 store\n"
        assert json.loads((tmp_path / "stdin").read_text())["Secret"] == "s3cret"
