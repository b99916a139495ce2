"""Several tags of one manifest by one request, and registries that take them one by one."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

import towline
from tests.support import readback
from tests.support.scripted import CUT, HANG, Reply, Scripted, complaint, scripted
from tests.support.subjects import signature
from towline.testing.images import ImageSpec, make_image, make_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.conftest import Place
    from tests.support.scripted import Asked
    from towline.testing.image_formats import Made


@pytest.fixture
def offering() -> Iterator[Scripted]:
    """A registry that takes several tags by one request."""
    with scripted() as server:
        offer(server)
        yield server


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_image(tmp_path / "image.tar", [{"hello": b"hello\n"}])


def offer(registry: Scripted, named: Callable[[list[str]], list[str]] = lambda tags: tags) -> None:
    """`named`: of the tags that are asked for, those that it sets."""

    def put(asked: Asked) -> Reply:
        reply, tags = registry.sound(asked), named(parse_qs(asked.query)["tag"])
        entry = registry.manifests[asked.path.rpartition("/")[2]]
        registry.manifests |= dict.fromkeys(tags, entry)
        fields = [*dict(reply.headers).items(), *(("OCI-Tag", tag) for tag in tags)]
        return Reply(201, tuple(fields))

    registry.on("PUT", r"/manifests/sha256:.*\?tag=", put, forever=True)


def puts(registry: Scripted, since: int = 0) -> list[str]:
    """What was put under tags, in a form that is easily read: `a`, or `b+c` by one request."""
    found = []
    for asked in registry.asked[since:]:
        if asked.method == "PUT" and "/manifests/" in asked.path:
            last = asked.target.rpartition("/manifests/")[2]
            found.append(re.sub("^sha256:[0-9a-f]{64}[?]tag=", "", last).replace("&tag=", "+"))
    return found


def places(registry: Scripted | Place, tags: str = "abc") -> list[str]:
    name = f"{registry.host}/app" if isinstance(registry, Scripted) else registry.name("app")
    return [f"{name}:{tag}" for tag in tags]


def pushed(results: list[towline.PushResult]) -> None:
    assert [result.status for result in results] == ["pushed"] * len(results)
    assert len({result.digest for result in results}) == 1


def test_each_tag_is_there_and_what_the_registry_takes_is_remembered(
    request: pytest.FixtureRequest, registry: Place, tmp_path: Path
) -> None:
    asked = []
    for number in range(2):
        made = make_image(tmp_path / f"{number}.tar", [{"a": bytes([number])}])
        before = len(registry.requests())
        results = towline.push(made.path, places(registry), cache=tmp_path / "cache")
        pushed(results)
        for result in results:
            image = readback.image(registry.url, registry.path("app"), str(result.tag))
            assert image.digest == result.digest
        requests = registry.requests()[before:]
        asked.append([path for method, path in requests if method == "PUT" and "/man" in path])
        assert sum(result.requests for result in results) <= len(requests)
    if "embedded" in request.node.name:
        assert [len(some) for some in asked] == [2, 1]
    else:
        assert [len(some) for some in asked] == [4, 3]


def test_the_first_tag_finds_out_the_form_and_the_others_whether_they_go_together(
    offering: Scripted, made: Made
) -> None:
    with towline.Pusher(cache="none") as pusher:
        pushed(pusher.push(made.path, places(offering)))
        assert puts(offering) == ["a", "b+c"]
        pushed(pusher.push(made.path, places(offering, "def")))
        assert puts(offering)[2:] == ["d+e+f"]
        assert set("abcdef") < set(offering.manifests)


def test_two_tags_cost_no_request_more_to_find_it_out(offering: Scripted, made: Made) -> None:
    pushed(towline.push(made.path, places(offering, "ab"), cache="none"))
    assert puts(offering) == ["a", "b"]
    assert len(offering.requests("PUT", r"\?tag=b$")) == 1


def test_further_tags_of_what_is_there_go_together_too(offering: Scripted, made: Made) -> None:
    with towline.Pusher(cache="none") as pusher:
        pusher.push(made.path, f"{offering.host}/app:a")
        pushed(pusher.tag(f"{offering.host}/app:a", ["b", "c", "d"]))
        assert puts(offering) == ["a", "b+c+d"]
        results = pusher.tag(f"{offering.host}/app:a", ["e", "b", "f"])
        assert [result.status for result in results] == ["pushed", "unchanged", "pushed"]
        assert puts(offering)[2:] == ["e+f"]
        assert len(offering.requests("GET", "/manifests/")) == 2


def test_no_more_than_ten_go_together(offering: Scripted, made: Made) -> None:
    tags = [f"{offering.host}/app:{number:02}" for number in range(23)]
    with towline.Pusher(cache="none") as pusher:
        pushed(pusher.push(made.path, tags))
        assert sorted(put.count("+") + 1 for put in puts(offering)) == [1, 3, 9, 10]


def test_each_of_several_images_has_its_own_tags(offering: Scripted, tmp_path: Path) -> None:
    specs = [ImageSpec([{"a": bytes([n])}], names=[f"app:{n}", f"app:{n}x"]) for n in range(3)]
    make_images(tmp_path / "all.tar", [*specs, ImageSpec([{"a": b"x"}], names=["app:y"])])
    with towline.Pusher(cache="none") as pusher:
        results = pusher.push(tmp_path / "all.tar", f"{offering.host}/app", all_tags=True)
    assert sorted(puts(offering)) == ["0", "0x", "1+1x", "2+2x", "y"]
    assert len({result.digest for result in results}) == 4
    for result in results:
        content = offering.manifests[str(result.tag)][1]
        assert result.digest == "sha256:" + hashlib.sha256(content).hexdigest()


def test_tags_that_the_answer_does_not_name_are_put_by_themselves(made: Made) -> None:
    with scripted() as registry, towline.Pusher(cache="none") as pusher:
        offer(registry, lambda tags: tags[1:])
        pushed(pusher.push(made.path, places(registry, "abcd")))
        assert puts(registry) == ["a", "b+c+d", "b"]
        pushed(pusher.push(made.path, places(registry, "ef")))
        assert puts(registry)[3:] == ["e+f", "e"]


def test_an_answer_that_names_another_manifest_is_not_believed(made: Made) -> None:
    with scripted() as registry:
        other = {"Docker-Content-Digest": "sha256:" + 64 * "0", "OCI-Tag": "b, c"}
        registry.on("PUT", r"\?tag=", Reply(201, other))
        pushed(towline.push(made.path, places(registry), cache="none"))
        assert puts(registry)[:2] == ["a", "b+c"]
        assert sorted(puts(registry)[2:]) == ["b", "c"]


REFUSALS = {
    **{str(status): Reply(status) for status in (201, 400, 404, 405, 414, 431, 500)},
    "cut": CUT,
}


@pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS)
def test_who_does_not_offer_it_is_asked_once_and_has_every_tag(made: Made, answer: Reply) -> None:
    with scripted() as registry, towline.Pusher(cache="none") as pusher:
        registry.on("PUT", r"\?tag=", answer, forever=True)
        pushed(pusher.push(made.path, places(registry)))
        assert sorted(puts(registry)) == ["a", "b", "b+c", "c"]
        pushed(pusher.push(made.path, places(registry, "def")))
        assert sorted(puts(registry)[4:]) == ["d", "e", "f"]


@pytest.mark.parametrize("answer", [Reply(500), Reply(429, {"Retry-After": "0"}), CUT, Reply(400)])
def test_only_an_answer_about_it_is_remembered(
    offering: Scripted, tmp_path: Path, answer: Reply
) -> None:
    offering.forget("PUT")
    offering.on("PUT", r"\?tag=", answer)
    offer(offering)
    for number in range(2):
        made = make_image(tmp_path / f"{number}.tar", [{"a": bytes([number])}])
        seen = len(offering.asked)
        pushed(towline.push(made.path, places(offering), cache=tmp_path / "cache"))
    assert ("b+c" in puts(offering, seen)) is (answer.status != 400)


@pytest.mark.parametrize("rule", ["same", "skip", "fail"])
def test_under_other_rules_each_tag_is_looked_at_right_before_it_is_written(
    offering: Scripted, made: Made, rule: str
) -> None:
    with towline.Pusher(cache="none") as pusher:
        pushed(pusher.push(made.path, places(offering)))
        seen = len(offering.asked)
        tags = places(offering, "def")
        pushed(pusher.push(made.path, tags, if_exists=rule))  # type: ignore[call-overload]
        assert sorted(puts(offering, seen)) == ["d", "e", "f"]


def test_a_tag_that_holds_the_image_is_not_written_again(offering: Scripted, made: Made) -> None:
    with towline.Pusher(cache="none") as pusher:
        pusher.push(made.path, places(offering))
        del offering.manifests["a"], offering.manifests["b"]
        seen = len(offering.asked)
        results = pusher.push(made.path, [*places(offering, "c"), *places(offering, "ab")])
        assert [result.status for result in results] == ["unchanged", "pushed", "pushed"]
        assert "c" not in "".join(puts(offering, seen))


def test_before_a_blob_is_there_no_tag_is_put(offering: Scripted, made: Made) -> None:
    with towline.Pusher(cache="none", retries=0) as pusher:
        pushed(pusher.push(made.path, places(offering)))
        offering.on("POST", "/uploads/", complaint(403, "DENIED"), forever=True)
        seen = len(offering.asked)
        other = make_image(made.path.parent / "other.tar", [{"other": b"other"}])
        with pytest.raises(towline.PartialFailure, match="DENIED"):
            pusher.push(other.path, places(offering))
        assert puts(offering, seen) == []


def test_children_of_an_index_go_before_it_and_once(offering: Scripted, tmp_path: Path) -> None:
    platforms = ["linux/amd64", "linux/arm64"]
    made = make_image(tmp_path / "image", [{"a": b"a"}], platforms, "oci")
    with towline.Pusher(cache="none") as pusher:
        pushed(pusher.push(made.path, places(offering)))
        seen = len(offering.asked)
        pushed(pusher.push(made.path, places(offering, "def")))
    children = puts(offering, seen)
    assert [put.startswith("sha256:") for put in children] == [True, True, False]
    assert children[2] == "d+e+f"


def test_what_refers_to_another_manifest_goes_tag_by_tag(
    offering: Scripted, tmp_path: Path, made: Made
) -> None:
    with towline.Pusher(cache="none") as pusher:
        pushed(pusher.push(made.path, places(offering)))
        subject = offering.manifests["a"][1]
        digest = "sha256:" + hashlib.sha256(subject).hexdigest()
        signature(tmp_path / "signature", digest, len(subject))
        seen = len(offering.asked)
        pusher.push(tmp_path / "signature", places(offering, "de"))
        assert [put for put in puts(offering, seen) if "+" in put] == []


def test_when_it_is_cancelled_all_that_may_have_been_written_are_named(
    offering: Scripted, made: Made
) -> None:
    cancel = towline.Cancel()

    def stop(_asked: Asked) -> Reply:
        cancel.cancel()
        return HANG

    with towline.Pusher(cache="none") as pusher:
        pushed(pusher.push(made.path, places(offering)))
        offering.forget("PUT")
        offering.on("PUT", r"\?tag=", stop)
        with pytest.raises(towline.TransferCancelled) as caught:
            pusher.push(made.path, places(offering, "de"), cancel=cancel)
    first, second = places(offering, "de")
    assert f"{first}, {second} may have been written" in str(caught.value)


def test_what_a_lost_answer_leaves_open_is_said_of_a_tag_that_then_fails(
    offering: Scripted, made: Made
) -> None:
    with towline.Pusher(cache="none", retries=0) as pusher:
        pushed(pusher.push(made.path, places(offering)))
        offering.forget("PUT")
        offering.on("PUT", r"\?tag=", CUT)
        offering.on("PUT", "/manifests/e$", complaint(403, "DENIED", "no more"), forever=True)
        with pytest.raises(towline.PartialFailure) as caught:
            pusher.push(made.path, places(offering, "de"))
    (error,) = caught.value.exceptions
    assert "no more" in str(error)
    assert f"{places(offering, 'e')[0]} may have been written" in str(error)
