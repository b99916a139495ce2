"""What another machine wrote into a shared cache, and lies: that a layer is a blob of others."""

from __future__ import annotations

import uuid
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import readback
from tests.support.guards import Tokens, scopes_of
from tests.support.knowledge import THEIRS
from tests.support.knowledge import entry as entry_of
from tests.support.scripted import Asked, Reply, scripted
from towline.cli.main import main
from towline.knowledge.redis import Address, RedisKnowledge
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Place
    from tests.support.redis_server import RedisServer
    from towline.knowledge.base import Entry
    from towline.testing.image_formats import Made

pytestmark = pytest.mark.needs("redis-server")

VICTIM = [{"one": b"1" * 5000}, {"two": b"2" * 5000}]
OTHER = [{"bad": b"0" * 7000}]


@dataclass
class Trap:
    """An image, and a shared cache that calls its first layer another image's blob."""

    cache: str
    made: Made
    name: str
    false: towline.LayerResult
    """The blob that the cache names; the repository has it."""

    def push(self, **options: object) -> towline.PushResult:
        return towline.push(self.made.path, f"{self.name}:1", cache=self.cache, **options)  # type: ignore[call-overload, no-any-return]  # options of any kind

    def layers(self, registry: Place) -> list[bytes]:
        """As served; every digest and DiffID is checked on the way."""
        return readback.image(registry.url, self.name.partition("/")[2], "1").layers


@pytest.fixture(params=["app", "base"], ids=["asked for", "mounted"])
def false_size(
    request: pytest.FixtureRequest, registry: Place, redis_server: RedisServer, tmp_path: Path
) -> Trap:
    """The right blob, and another size."""
    made = make_image(tmp_path / "image.tar", VICTIM)
    holder, prefix = registry.name(request.param), f"{uuid.uuid4()}:"
    first, _ = towline.push(made.path, f"{holder}:other", cache="none").layers
    lie(redis_server, prefix, lying(made, first, holder)._replace(size=7))
    return Trap(f"{redis_server.url}?prefix={prefix}", made, registry.name("app"), first)


def test_a_size_that_is_not_the_blobs_enters_no_manifest(false_size: Trap, registry: Place) -> None:
    result = false_size.push(verify="full")
    assert result.layers[0].size == false_size.false.size
    image = readback.image(registry.url, false_size.name.partition("/")[2], "1")
    assert [layer["size"] for layer in image.manifest["layers"]] == [
        layer.size for layer in result.layers
    ]


def test_nor_does_a_plan_believe_it(false_size: Trap) -> None:
    planned = towline.plan(false_size.made.path, f"{false_size.name}:1", cache=false_size.cache)
    assert isinstance(planned, towline.PlanResult)
    assert planned.layers[0].size != 7 or planned.layers[0].outcome == "mounted"


@pytest.mark.parametrize(
    "said",
    [
        {"Content-Length": "0"},
        {"Transfer-Encoding": "chunked"},
        {"Content-Encoding": "gzip", "Content-Length": "9"},
    ],
)
@pytest.mark.parametrize("holder", ["app", "base"], ids=["asked for", "mounted"])
def test_a_registry_that_does_not_say_the_size_is_believed_to_have_the_blob(
    redis_server: RedisServer, tmp_path: Path, said: dict[str, str], holder: str
) -> None:
    made = make_image(tmp_path / "image.tar", VICTIM)
    prefix = f"{uuid.uuid4()}:"
    with scripted() as registry:
        name = f"{registry.host}/{holder}"
        first, _ = towline.push(made.path, f"{name}:other", cache="none").layers
        lie(redis_server, prefix, lying(made, first, name))
        registry.on("HEAD", f"/blobs/{first.digest}", Reply(200, said), forever=True)
        registry.on("POST", "mount=", Reply(201), forever=True)
        cache = f"{redis_server.url}?prefix={prefix}"
        place = f"{registry.host}/app"
        result = towline.push(
            made.path, f"{place}:1", cache=cache, cache_from=f"{place}:none-that-tells-the-truth"
        )
        outcome = "exists" if holder == "app" else "mounted"
        assert [layer.outcome for layer in result.layers] == [outcome, "pushed"]


def test_verify_counts_the_bytes_where_a_registry_does_not_say_how_many_they_are(
    redis_server: RedisServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_image(tmp_path / "image.tar", VICTIM)
    prefix = f"{uuid.uuid4()}:"
    with scripted() as registry:

        def silent(asked: Asked) -> Reply | None:
            there = asked.path.rpartition("/")[2] in registry.blobs
            return Reply(200, {"Transfer-Encoding": "chunked"}) if there else None

        registry.on("HEAD", "/blobs/", silent, forever=True)
        name = f"{registry.host}/app"
        first, _ = towline.push(made.path, f"{name}:other", cache="none").layers
        lie(redis_server, prefix, lying(made, first, name)._replace(size=7))
        words = [str(made.path), f"{name}:1", f"--cache={redis_server.url}?prefix={prefix}", "-q"]
        assert main(["push", *words]) == 0
        for _ in range(2):
            capsys.readouterr()
            assert main(["push", *words, "--verify=full"]) == 5
            *_, error, hint = capsys.readouterr().err.splitlines()
            assert error == (
                f"towline: error: verification of {name}:1 failed: blob {first.digest} has "
                f"{first.size} bytes, its manifest lists 7"
            )
            assert "--no-learn" in hint
        assert main(["push", *words, "--no-learn", "--verify=full"]) == 0


@pytest.fixture(params=["app", "base"], ids=["asked for", "mounted"])
def trap(
    request: pytest.FixtureRequest, registry: Place, redis_server: RedisServer, tmp_path: Path
) -> Trap:
    made = make_image(tmp_path / "image.tar", VICTIM)
    other = make_image(tmp_path / "other.tar", OTHER)
    holder = registry.name(request.param)
    (false,) = towline.push(other.path, f"{holder}:other", cache="none").layers
    prefix = f"{uuid.uuid4()}:"
    lie(redis_server, prefix, lying(made, false, holder))
    return Trap(f"{redis_server.url}?prefix={prefix}", made, registry.name("app"), false)


def lying(made: Made, false: towline.LayerResult, holder: str) -> Entry:
    assert false.digest is not None
    return entry_of(made.diff_ids[0], Digest(false.digest), false.size or 0, repository=holder)


def lie(server: RedisServer, prefix: str, entry: Entry) -> None:
    with closing(RedisKnowledge(Address(server.url, "redis", prefix), THEIRS)) as store:
        store.record([entry])


@pytest.mark.parametrize(
    "path",
    [
        "base:pull registry:catalog:*",
        "base:pull,push",
        "base&mount=x",
        "../base",
        "base/../../secret",
        "Base",
        "base/",
        "",
        "base:tag",
        f"base@{Digest.of(b'x')}",
        "base\r\nX-Other: y",
    ],
)
def test_a_name_that_is_none_enters_no_scope_and_no_path(
    redis_server: RedisServer, tmp_path: Path, path: str
) -> None:
    made = make_image(tmp_path / "image.tar", VICTIM)
    prefix = f"{uuid.uuid4()}:"
    with scripted() as registry:
        service = Tokens(registry)
        for number, diff_id in enumerate(made.diff_ids):
            blob = Digest.of(b"%d" % number)
            lie(redis_server, prefix, entry_of(diff_id, blob, repository=f"{registry.host}/{path}"))
        cache = f"{redis_server.url}?prefix={prefix}"
        result = towline.push(made.path, f"{registry.host}/app:1", cache=cache)
        assert [layer.outcome for layer in result.layers] == ["pushed", "pushed"]
        asked_for = {scope for asked in service.asked for scope in scopes_of(asked)}
        assert asked_for == {"repository:app:pull,push"}
        assert registry.requests("POST", "mount=") == []


@pytest.mark.parametrize(
    "false",
    [{"size": -1}, {"size": 10**18 * 10}, {"profile": ""}, {"profile": "gzip/2@x86-64\n"}],
)
def test_an_entry_that_says_what_cannot_be_is_passed_over(
    registry: Place, redis_server: RedisServer, tmp_path: Path, false: dict[str, Any]
) -> None:
    made = make_image(tmp_path / "image.tar", VICTIM)
    prefix, name = f"{uuid.uuid4()}:", registry.name("app")
    first = towline.push(made.path, f"{name}:other", cache="none", compression="none")
    digest = Digest(str(first.layers[0].digest))  # which is there
    told = {"size": first.layers[0].size, **false}
    lie(redis_server, prefix, entry_of(made.diff_ids[0], digest, repository=name, **told))
    cache = f"{redis_server.url}?prefix={prefix}"
    truth = f"{name}:none-that-tells-the-truth"
    result = towline.push(made.path, f"{name}:1", cache=cache, cache_from=truth)
    assert [layer.outcome for layer in result.layers] == ["pushed", "pushed"]


def test_with_a_key_it_never_gives_a_wrong_image(
    trap: Trap, registry: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWLINE_CACHE_KEY", "what the machines agree on")
    result = trap.push(verify="full")
    assert [layer.outcome for layer in result.layers] == ["pushed", "pushed"]
    assert len(trap.layers(registry)) == 2


def test_without_a_key_verify_finds_it_and_says_what_to_do(
    trap: Trap, registry: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(trap.made.path), f"{trap.name}:1", f"--cache={trap.cache}", "-q"]
    assert main(["push", *words, "--verify=full"]) == 5
    *_, error, hint = capsys.readouterr().err.splitlines()
    assert error == (
        f"towline: error: verification of {trap.name}:1 failed: layer {trap.false.digest} unpacks "
        f"to {trap.false.diff_id}, the config lists {trap.made.diff_ids[0]}"
    )
    assert hint == (
        "hint: it was taken for that layer on somebody's word: run `towline cache clear`, then "
        "push again with `--no-learn`"
    )
    assert main(["cache", "clear", f"--cache={trap.cache}"]) == 0
    assert main(["push", *words, "--no-learn", "--verify=full"]) == 0
    assert len(trap.layers(registry)) == 2
    assert main(["push", *words, "--verify=full"]) == 0


def test_verify_finds_it_in_a_tag_that_is_called_unchanged_too(trap: Trap) -> None:
    assert trap.push().layers[0].digest == trap.false.digest
    assert trap.push().status == "unchanged"
    with pytest.raises(towline.RegistryError, match="unpacks to"):
        trap.push(verify="full")


def test_a_blob_that_is_no_layer_at_all_is_found_too(
    registry: Place, redis_server: RedisServer, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", VICTIM)
    prefix, name = f"{uuid.uuid4()}:", registry.name("app")
    towline.push(made.path, f"{name}:other", cache="none")
    config = Digest.of(made.config)
    false = entry_of(made.diff_ids[0], config, len(made.config), repository=name)
    lie(redis_server, prefix, false)
    cache = f"{redis_server.url}?prefix={prefix}"
    with pytest.raises(towline.RegistryError) as caught:
        towline.push(made.path, f"{name}:1", cache=cache, verify="full")
    assert str(caught.value).startswith(f"verification of {name}:1 failed: layer {config} ")
    assert "`no_learn=True`" in str(caught.value.hint)


def test_it_stays_another_machines_word_when_it_was_believed_once(
    trap: Trap, registry: Place
) -> None:
    assert trap.push().layers[0].digest == trap.false.digest
    assert trap.push(no_learn=True).layers[0].outcome == "pushed"
    assert len(trap.layers(registry)) == 2
    assert trap.push().layers[0].digest != trap.false.digest


def test_what_we_saw_ourselves_comes_before_it(
    registry: Place, redis_server: RedisServer, tmp_path: Path
) -> None:
    prefix, name = f"{uuid.uuid4()}:", registry.name("app")
    trap = Trap(
        f"{redis_server.url}?prefix={prefix}",
        make_image(tmp_path / "image.tar", VICTIM),
        name,
        towline.push(make_image(tmp_path / "o.tar", OTHER).path, f"{name}:o", cache="none").layers[
            0
        ],
    )
    first = trap.push(compression="none")
    lie(redis_server, prefix, lying(trap.made, trap.false, name))
    assert trap.push().digest == first.digest
