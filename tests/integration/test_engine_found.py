"""Where an engine is found, over real sockets: as docker's own client finds it, and beyond."""

from __future__ import annotations

import hashlib
import itertools
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support import scripted_engine
from towline.errors import SourceError
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Place = Callable[[str, Path], str]

NAMED = ("DOCKER_HOST", "DOCKER_CONTEXT", "currentContext", "CONTAINER_HOST")
"""What names one, first what goes before the others."""
USUAL = (
    "run/docker.sock",
    "home/.docker/run/docker.sock",
    "home/.docker/desktop/docker.sock",
    "run/podman/podman.sock",
)
"""Of a rootless engine, of two ages of Docker Desktop, of a user's Podman."""


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short one: the path of a socket has 107 characters at most (unix(7))."""
    return tmp_path_factory.mktemp("e")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home/.docker").mkdir(parents=True)
    return {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


@pytest.fixture
def put(tmp_path: Path) -> Iterator[Place]:
    """Have an engine at that place, with an image of its own, whose digest is given."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def start(what: str, socket: Path) -> str:
            folder = tmp_path / str(next(numbers))
            folder.mkdir()
            version = "podman" if "podman" in what or what == "CONTAINER_HOST" else "28"
            engine = stack.enter_context(scripted_engine.serving(folder, version))
            made = make_image(folder / "x.tar", [{"what": what.encode()}], format="docker")
            engine.hold(made.path, "app:1")
            socket.parent.mkdir(parents=True, exist_ok=True)
            socket.symlink_to(folder / "engine.sock")
            return towline.digest(made.path)

        yield start


def name(what: str, socket: Path, environ: dict[str, str]) -> None:
    """Say that the engine is there."""
    home = socket.parent / "home/.docker"
    if what in {"DOCKER_HOST", "CONTAINER_HOST"}:
        environ[what] = f"unix://{socket}"
        return
    meta = home / "contexts/meta" / hashlib.sha256(what.encode()).hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    endpoint = {"Host": f"unix://{socket}", "SkipTLSVerify": False}
    meta.write_text(json.dumps({"Name": what, "Endpoints": {"docker": endpoint}}))
    if what == "DOCKER_CONTEXT":
        environ[what] = what
    else:
        (home / "config.json").write_text(json.dumps({what: what}))


def found(environ: dict[str, str]) -> str:
    return towline.digest("docker-daemon:app:1", environ=environ, cache="none")


def test_what_names_an_engine_goes_before_what_comes_after_it(
    put: Place, environ: dict[str, str], tmp_path: Path
) -> None:
    put("rootless", tmp_path / "run/docker.sock")  # none of the usual places is looked at
    for what in reversed(NAMED):
        digest = put(what, socket := tmp_path / f"{what}.sock")
        name(what, socket, environ)
        assert found(environ) == digest, what


def test_what_is_named_and_does_not_answer_is_all_that_is_looked_at(
    put: Place, environ: dict[str, str], tmp_path: Path
) -> None:
    put("rootless", tmp_path / "run/docker.sock")
    for what in reversed(NAMED):
        name(what, tmp_path / f"{what}.sock", environ)
        with pytest.raises(
            SourceError, match=rf"looked at unix://{tmp_path}/{what}\.sock \([^,]*$"
        ):
            found(environ)


def test_the_context_default_is_the_usual_places_whatever_the_current_one_is(
    put: Place, environ: dict[str, str], tmp_path: Path, nothing_at_dockers_own_place: None
) -> None:
    name("currentContext", tmp_path / "gone.sock", environ)
    digest = put("rootless", tmp_path / "run/docker.sock")
    assert found({**environ, "DOCKER_CONTEXT": "default"}) == digest


def test_the_usual_places_are_looked_at_in_turn(
    put: Place, environ: dict[str, str], tmp_path: Path, nothing_at_dockers_own_place: None
) -> None:
    for place in reversed(USUAL):
        digest = put(place, tmp_path / place)
        assert found(environ) == digest, place


@pytest.fixture
def nothing_at_dockers_own_place() -> None:
    if Path("/var/run/docker.sock").exists():
        pytest.skip("an engine of this machine goes before them")
