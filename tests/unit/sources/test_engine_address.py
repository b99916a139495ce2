"""Where an engine is looked for: the rules of docker's client."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from towline.errors import SourceError, UsageError
from towline.sources.engine.address import find
from towline.wire.tls import Trust

if TYPE_CHECKING:
    from pathlib import Path


def context(home: Path, name: str, endpoint: dict[str, Any], *files: str) -> None:
    """One of docker's contexts."""
    key = hashlib.sha256(name.encode()).hexdigest()
    folder = home / ".docker" / "contexts"
    meta = folder / "meta" / key / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Endpoints": {"docker": endpoint}}))
    for file in files:
        path = folder / "tls" / key / "docker" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def texts(environ: dict[str, str], engine: str | None = None) -> list[str]:
    return [address.text for address in find(engine, environ)]


def test_what_is_named_counts_alone_in_the_order_of_dockers_client(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    context(tmp_path, "one", {"Host": "unix:///one"})
    context(tmp_path, "two", {"Host": "unix:///two"})
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": "two"}')
    named = {
        **home,
        "CONTAINER_HOST": "unix:///podman",
        "DOCKER_CONTEXT": "one",
        "DOCKER_HOST": "unix:///host",
    }
    assert texts(named, "unix:///option") == ["unix:///option"]
    assert texts(named) == ["unix:///host"]
    del named["DOCKER_HOST"]
    assert texts(named) == ["unix:///one"]
    del named["DOCKER_CONTEXT"]
    assert texts(named) == ["unix:///two"]
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": "default"}')
    assert texts(named) == ["unix:///podman"]


def test_the_usual_places_are_dockers_the_rootless_the_desktops_and_podmans() -> None:
    assert texts({"HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/1"}) == [
        "unix:///var/run/docker.sock",
        "unix:///run/user/1/docker.sock",
        "unix:///h/.docker/run/docker.sock",
        "unix:///h/.docker/desktop/docker.sock",
        "unix:///run/user/1/podman/podman.sock",
        "unix:///run/podman/podman.sock",
    ]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("tcp://docker:2375", "http://docker:2375/"),
        ("tcp://docker", "http://docker:2375/"),
        ("tcp://docker:", "http://docker:2375/"),
        ("docker", "http://docker:2375/"),
        ("127.0.0.1:9", "http://127.0.0.1:9/"),
        ("tcp://[::1]:9/", "http://[::1]:9/"),
        ("[::1]:", "http://[::1]:2375/"),
        ("tcp://", "http://localhost:2375/"),
        (" tcp://:9 ", "http://localhost:9/"),
        (":9/behind/a/proxy", "http://localhost:9/behind/a/proxy"),
    ],
)
def test_tcp_without_tls_is_http_and_what_is_missing_is_what_dockers_client_takes(
    text: str, url: str
) -> None:
    (address,) = find(None, {"DOCKER_HOST": text})
    assert (str(address.url), address.trust) == (url, Trust())
    (optional,) = find(text, {})
    assert str(optional.url) == url


@pytest.mark.parametrize(
    ("text", "socket"),
    [
        ("unix://", "/var/run/docker.sock"),
        (" ", "/var/run/docker.sock"),
        ("unix://here.sock", "here.sock"),
        ("unix:///a/b c.sock", "/a/b c.sock"),
    ],
)
def test_a_socket_without_a_path_is_the_usual_one(text: str, socket: str) -> None:
    (address,) = find(None, {"DOCKER_HOST": text})
    assert (address.socket, address.text) == (socket, f"unix://{socket}")


def test_the_port_of_tls_is_dockers_only_where_nothing_is_named() -> None:
    for text, port in (("tcp://docker", 2375), ("tcp://", 2375), (" ", 2376)):
        (address,) = find(None, {"DOCKER_HOST": text, "DOCKER_TLS_VERIFY": "1"})
        assert (address.url.scheme, address.url.port) == ("https", port)


def test_the_address_of_a_context_is_whole(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "DOCKER_CONTEXT": "far"}
    context(tmp_path, "far", {"Host": "tcp://far"})
    assert str(find(None, environ)[0].url) == "http://far/"
    for number, short in enumerate(("unix://", "tcp://", ":2375", "far:2375", "")):
        context(tmp_path, str(number), {"Host": short})
        with pytest.raises(SourceError, match=rf"docker's context {number} is .*no address"):
            find(None, {**environ, "DOCKER_CONTEXT": str(number)})


def test_tls_is_as_dockers_variables_say(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / f"{name}.pem").touch()
    environ = {"DOCKER_HOST": "tcp://docker:2376", "DOCKER_CERT_PATH": str(tmp_path)}
    (plain,) = find(None, environ)
    assert str(plain.url) == "http://docker:2376/"
    (verified,) = find(None, {**environ, "DOCKER_TLS_VERIFY": "1"})
    assert str(verified.url) == "https://docker:2376/"
    assert verified.trust == Trust(
        authorities=(tmp_path / "ca.pem",),
        certificate=tmp_path / "cert.pem",
        key=tmp_path / "key.pem",
    )
    (unverified,) = find(None, {**environ, "DOCKER_TLS": "1"})
    assert unverified.trust.insecure


def test_the_certificates_of_a_context_are_its_own(tmp_path: Path) -> None:
    context(tmp_path, "far", {"Host": "tcp://far:2376", "SkipTLSVerify": False}, "ca.pem")
    context(tmp_path, "lax", {"Host": "tcp://lax:2376", "SkipTLSVerify": True})
    (far,) = find(None, {"HOME": str(tmp_path), "DOCKER_CONTEXT": "far"})
    assert (str(far.url), len(far.trust.authorities)) == ("https://far:2376/", 1)
    (lax,) = find(None, {"HOME": str(tmp_path), "DOCKER_CONTEXT": "lax"})
    assert (str(lax.url), lax.trust) == ("https://lax:2376/", Trust(insecure=True))


def test_ssh_is_run_as_docker_runs_it() -> None:
    (address,) = find("ssh://me@far:2222", {})
    options = ("ssh", "-o", "ConnectTimeout=30", "-o", "BatchMode=yes", "-T")
    assert address.command == (
        *options,
        *("-l", "me", "-p", "2222", "--", "far", "docker", "system", "dial-stdio"),
    )
    (address,) = find("ssh://far/run/some where.sock", {})
    assert address.command[7:] == (
        *("far", "docker", "--host=unix://'/run/some where.sock'", "system", "dial-stdio"),
    )
    (address,) = find(None, {"CONTAINER_HOST": "ssh://far/run/podman/podman.sock"})
    assert address.command[8:10] == ("podman", "--url=unix:///run/podman/podman.sock")


def test_a_host_that_looks_like_an_option_is_none() -> None:
    (address,) = find("ssh://-oProxyCommand=x", {})
    assert address.command[6:8] == ("--", "-oProxyCommand=x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("npipe:////./pipe/docker_engine", "a named pipe, which is of Windows"),
        ("npipe://", "a named pipe, which is of Windows"),
        ("ftp://host", "no address of an engine"),
        ("http://host:2375", "no address of an engine"),
        ("fd://", "no address of an engine"),
        ("unix://tcp://host", "no address of an engine"),
        ("tcp://unix:///a.sock", "no address of an engine"),
        ("tcp:host", "no address of an engine"),
        ("tcp://host:port", "no address of an engine"),
        ("tcp://host:99999", "no address of an engine"),
        ("two words", "no address of an engine"),
        ("tcp://user:pass@host:1", "no address of an engine"),
        ("ssh://me:secret@far", "no address of an engine"),
        ("ssh://far/a.sock?x", "no address of an engine"),
    ],
)
def test_what_is_no_address_is_refused_by_whoever_named_it(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"`engine` is .*{said}"):
        find(text, {})
    with pytest.raises(SourceError, match=f"DOCKER_HOST is .*{said}"):
        find(None, {"DOCKER_HOST": text})


def test_a_context_that_is_not_there_is_told_with_what_named_it(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match="'gone', named by DOCKER_CONTEXT, does not exist"
    ) as told:
        find(None, {"HOME": str(tmp_path), "DOCKER_CONTEXT": "gone"})
    assert told.value.hint == "docker context ls shows those that do"
    context(tmp_path, "odd", {})
    with pytest.raises(SourceError, match="is no context of docker's"):
        find(None, {"HOME": str(tmp_path), "DOCKER_CONTEXT": "odd"})
    config = tmp_path / ".docker" / "config.json"
    config.write_text('{"currentContext": "lost"}')
    with pytest.raises(SourceError, match=r"'lost', named by .*config\.json, does not exist"):
        find(None, {"HOME": str(tmp_path)})
