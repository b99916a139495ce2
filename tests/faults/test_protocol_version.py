"""A registry that speaks only version 1 of the protocol is named as such; nobody else is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.scripted import HTML, Reply, Scripted, complaint
from towline.cli.main import main
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pushing import Client

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH")
PAGE = Reply(404, {"Content-Type": "text/html"}, "<html><title>Not Found</title></html>")
PING = Reply(200, {"Content-Type": "application/json"}, "true")
ONLY_1 = "speaks only version 1 of the protocol"


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(make_image(tmp_path / "image.tar", [{"hello": b"hello\n"}]).path)


def nowhere(registry: Scripted, answer: Reply, ping: Reply = PING) -> None:
    """Have nothing of version 2 be there."""
    for method in METHODS:
        registry.on(method, "^/v2/", answer, forever=True)
    registry.on("GET", "^/v1/_ping$", ping, forever=True)


def asked(registry: Scripted) -> int:
    """Requests that only find out which version is spoken."""
    return len(registry.requests("GET", "^/v2/$|^/v1/"))


@pytest.mark.parametrize("answer", [PAGE, Reply(404), Reply(404, {"Content-Type": "text/plain"})])
@pytest.mark.parametrize(
    "command",
    [
        "push IMAGE HOST/app:1",
        "plan --check-push IMAGE HOST/app:1",
        "inspect HOST/app:1",
        "digest HOST/app:1",
        "tags HOST/app",
    ],
)
def test_a_registry_of_version_1_is_named_as_such(
    registry: Scripted,
    image: str,
    answer: Reply,
    command: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nowhere(registry, answer)
    assert main(command.replace("IMAGE", image).replace("HOST", registry.host).split()) == 5
    said = capsys.readouterr().err
    assert f"the registry {registry.host} {ONLY_1}" in said
    assert asked(registry) <= 6, "for the list of tags, for the layer and for the config"


def test_a_login_to_one_is_told_the_same(registry: Scripted, client: Client) -> None:
    nowhere(registry, PAGE)
    with pytest.raises(towline.RegistryError, match=ONLY_1):
        client.client.log_in(registry.host, client.context)


@pytest.mark.parametrize("ping", [Reply(404), HTML, Reply(500)], ids=["404", "page", "500"])
def test_what_is_no_registry_at_all_is_not_said_to_be_one(
    registry: Scripted, image: str, ping: Reply
) -> None:
    nowhere(registry, PAGE, ping)
    with pytest.raises(towline.RegistryError, match="404") as caught:
        towline.push(image, f"{registry.host}/app:1", retries=0)
    assert "version" not in str(caught.value)
    assert "that the address is a registry's" in str(caught.value.hint)
    assert not caught.value.transient, "nothing has spoken as a registry yet"


@pytest.mark.parametrize(
    "refusal",
    [
        complaint(404, "NAME_UNKNOWN"),
        Reply(404, {"Docker-Distribution-Api-Version": "registry/2.0"}),
    ],
    ids=["json", "header"],
)
def test_a_registry_of_version_2_that_lacks_a_repository_is_not_asked(
    registry: Scripted, image: str, refusal: Reply
) -> None:
    nowhere(registry, refusal)
    with pytest.raises(towline.RegistryError) as caught:
        towline.push(image, f"{registry.host}/app:1")
    assert "version" not in str(caught.value)
    assert asked(registry) == 0


def test_a_push_that_succeeds_asks_for_no_version(registry: Scripted, image: str) -> None:
    towline.push(image, f"{registry.host}/app:1")
    assert asked(registry) == 0
