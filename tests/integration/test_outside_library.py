"""What a program meets that uses the library otherwise than meant."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Unpack, assert_type, get_type_hints

import pytest

import towline
from tests.support.docker_registry import PASSWORD, USER
from tests.support.docker_registry import Options as RegistryOptions
from tests.support.scripted import running
from tests.support.unsteady import Trouble, Unsteady
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartDockerRegistry
    from towline.testing import TestRegistry


def test_a_closed_pusher_refuses_all_it_is_asked(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image.tar").path
    name = oci_registry.name("app")
    with towline.Pusher(cache="none") as pusher:
        pusher.push(image, f"{name}:1")
    pusher.close()  # once more does no harm
    for ask in (
        lambda: pusher.push(image, f"{name}:2"),
        lambda: pusher.plan(image, f"{name}:2"),
        lambda: pusher.digest(image),
        lambda: pusher.tags(name),
    ):
        with pytest.raises(towline.UsageError, match="closed"):
            ask()
    assert oci_registry.tags(name) == ["1"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_push_whose_pusher_is_closed_under_it_ends_with_a_sentence(
    count: int, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image.tar", [{"f": bytes([n]) * 999} for n in range(8)]).path
    pusher, errors, asked = towline.Pusher(cache="none"), list[BaseException](), threading.Event()
    with running(Unsteady) as registry:
        registry.script.always["open"] = Trouble(wait=0.2)
        registry.on_request = lambda number: asked.set() if number == 4 else None

        def push() -> None:
            try:
                pusher.push(image, [f"{registry.host}/app{n}:1" for n in range(count)])
            except BaseException as error:  # noqa: BLE001 - it is looked at below
                errors.append(error)

        pushing = threading.Thread(target=push, daemon=True)
        pushing.start()
        assert asked.wait(10)
        pusher.close()
        pushing.join(10)
        assert not pushing.is_alive(), "it tries for ever"
        assert not any(place.manifests for place in registry.repositories.values())
    (failed,) = errors
    assert isinstance(failed, towline.PartialFailure)
    for error in failed.results:
        assert isinstance(error, towline.UsageError)
        assert "closed" in error.message


def test_after_a_fork_a_pusher_is_refused_and_does_not_hang(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image.tar").path
    name = oci_registry.name("app")
    program = (
        "import os, signal, sys, towline\n"
        "pusher = towline.Pusher()\n"
        "pusher.push(sys.argv[1], sys.argv[2])\n"
        "if os.fork() == 0:\n"
        "    signal.alarm(20)\n"
        "    for use in (lambda: pusher.push(*sys.argv[1:]), lambda: pusher.tags(sys.argv[2])):\n"
        "        try: use()\n"
        "        except towline.UsageError as error: print(error)\n"
        "    sys.stdout.flush()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "pusher.close()\n"
    )
    words = [sys.executable, "-c", program, str(image), name]
    told = subprocess.run(words, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["this Pusher is of another process"] * 2


def test_a_plan_is_typed_as_a_push_is(oci_registry: TestRegistry, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image.tar").path
    name = oci_registry.name("app")
    one = towline.plan(image, f"{name}:1", cache="none")
    several = towline.plan(image, [f"{name}:1", f"{name}:2"], cache="none")
    tagged = towline.plan(image, name, all_tags=True, cache="none")
    assert_type(one, towline.PlanResult)
    assert_type(several, list[towline.PlanResult])
    assert_type(tagged, list[towline.PlanResult])
    assert [len(several), len(tagged)] == [2, 1]


def test_what_several_came_to_is_typed_in_the_error_that_some_failed(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image.tar").path
    places = [f"{oci_registry.name('app')}:1", "127.0.0.1:1/app:1"]
    with pytest.raises(towline.PartialFailure) as caught:
        towline.push(image, places, retries=0, cache="none")
    results = caught.value.results
    assert_type(results, tuple[towline.PushResult | towline.PlanResult | towline.TowlineError, ...])
    done, failed = results
    assert isinstance(done, towline.PushResult)
    assert_type(done.digest, str)
    assert isinstance(failed, towline.NetworkError)
    hints = get_type_hints(towline.TransferCancelled)
    assert hints["results"] == tuple[towline.PushResult | towline.TowlineError | None, ...]


def test_an_index_is_typed_as_a_push_is(oci_registry: TestRegistry, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image.tar").path
    name = oci_registry.name("app")
    one = towline.index([image], f"{name}:1")
    several = towline.index([image], [f"{name}:1", f"{name}:2"])
    assert_type(one, towline.PushResult)
    assert_type(several, list[towline.PushResult])
    assert [each.digest for each in several] == [one.digest] * 2


def test_a_digest_is_of_the_platform_that_is_asked_for_at_a_registry_too(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    platforms = ["linux/amd64", "linux/arm64"]
    made = make_image(tmp_path / "image", platforms=platforms, format="oci")
    name = f"{oci_registry.name('app')}:1"
    towline.push(made.path, name)
    told = [towline.digest(name, platform=platform) for platform in platforms]
    assert told == [image.manifest.digest for image in made.images]
    assert towline.digest(name) == made.digest


class Options(towline.PusherOptions, towline.PushOptions, total=False):
    """What a wrapper takes."""


def wrapped(image: Path, name: str, **options: Unpack[Options]) -> str:
    return towline.push(image, name, **options).status


def test_a_wrapper_can_be_typed_and_a_wrong_word_is_seen_before_it_runs(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image.tar").path
    name = f"{oci_registry.name('app')}:1"
    assert wrapped(image, name, cache="none", verify="full", if_exists="fail") == "pushed"
    for wrong in (
        lambda: towline.push(image, name, verify="ful"),  # type: ignore[call-overload]
        lambda: wrapped(image, name, if_exists="maybe"),  # type: ignore[arg-type]
        lambda: wrapped(image, name, format="dockr"),  # type: ignore[arg-type]
        lambda: towline.push(image, name, check_push=True),
    ):
        with pytest.raises(towline.UsageError):
            wrong()


def test_a_function_gives_the_account_of_each_host_and_is_asked_again_where_it_is_refused(
    oci_registry: TestRegistry, start_docker_registry: StartDockerRegistry, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image.tar").path
    closed = start_docker_registry(RegistryOptions(htpasswd=True))
    asked: list[str] = []

    def creds(host: str) -> tuple[str, str] | None:
        asked.append(host)
        if host != closed.host:
            return None
        return USER, PASSWORD if asked.count(host) > 1 else "expired"

    names = [closed.name("app:1"), oci_registry.name("app:1")]
    environ = {**os.environ, "TOWLINE_USERNAME": "other", "TOWLINE_PASSWORD": "unasked"}
    pushed = towline.push(image, names, creds=creds, cache="none", environ=environ)
    assert [result.status for result in pushed] == ["pushed", "pushed"]
    assert set(asked) == {closed.host, oci_registry.host}


@pytest.mark.parametrize("given", ["no pair", 7])
def test_a_function_for_accounts_that_fails_or_gives_none_is_named(
    oci_registry: TestRegistry, tmp_path: Path, given: Any
) -> None:
    image = make_image(tmp_path / "image.tar").path

    def creds(_host: str) -> tuple[str, str] | None:
        return given if given != 7 else given / 0  # type: ignore[no-any-return]

    with pytest.raises((towline.AuthError, towline.UsageError), match="`creds`"):
        towline.push(image, oci_registry.name("app:1"), creds=creds, cache="none")
    assert oci_registry.tags("app") == []
