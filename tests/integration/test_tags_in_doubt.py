"""Pushes that fail and may have moved a tag say so: no error lets one think otherwise."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.scripted import CUT, Reply, Scripted, complaint, scripted
from tests.support.subjects import signature
from towline.cli.main import main
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.scripted import Asked
    from towline.testing.image_formats import Made

BUSY = Reply(503, {"Retry-After": "0"})


@pytest.fixture
def registry() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_image(tmp_path / "image.tar", [{"hello": b"hello\n"}])


def failing(made: Made, place: str, *, retries: int) -> towline.TowlineError:
    with pytest.raises(towline.TowlineError) as caught:
        towline.push(made.path, place, cache="none", no_learn=True, timeout=2, retries=retries)
    return caught.value


def lose_answers(registry: Scripted, *, unseen: bool) -> None:
    """Have each manifest kept and its answer lost; `unseen`: and nobody shown what is there."""

    def lost(asked: Asked) -> Reply:
        registry.sound(asked)
        return CUT

    registry.on("PUT", "/manifests/", lost, forever=True)
    for method in ("HEAD", "GET"):
        registry.on(method, "/manifests/", BUSY, forever=unseen)


def test_a_tag_that_nobody_can_tell_of_is_named_with_how_to_look(
    registry: Scripted, made: Made
) -> None:
    lose_answers(registry, unseen=True)
    error = failing(made, f"{registry.host}/app:1", retries=0)
    reference = f"{registry.host}/app:1"
    assert f"; {reference} may have been written (`towline digest {reference}`" in str(error)


def test_what_an_earlier_attempt_left_in_doubt_is_said_of_the_last_one_too(
    registry: Scripted, made: Made
) -> None:
    registry.on("PUT", "/manifests/", CUT, complaint(403, "DENIED", "no more"), forever=True)
    for method in ("HEAD", "GET"):
        registry.on(method, "/manifests/", BUSY, forever=True)
    error = failing(made, f"{registry.host}/app:1", retries=1)
    assert isinstance(error, towline.AuthError)
    assert "no more" in str(error)
    assert "app:1 may have been written" in str(error)


def test_a_doubt_that_a_later_attempt_dispels_is_not_spoken_of(
    registry: Scripted, made: Made
) -> None:
    registry.on("PUT", "/manifests/", CUT, Reply(500), forever=True)
    for method in ("HEAD", "GET"):
        registry.on(method, "/manifests/", BUSY, complaint(404, "MANIFEST_UNKNOWN"), forever=True)
    error = failing(made, f"{registry.host}/app:1", retries=1)
    assert "500" in str(error)
    assert "written" not in str(error)


def test_a_tag_that_was_damaged_by_every_attempt_is_said_to_hold_something_else(
    registry: Scripted, made: Made
) -> None:
    def flipped(asked: Asked) -> Reply:
        body = asked.body.replace(b'"schemaVersion"', b'"schemaVErsion"')
        return registry.sound(replace(asked, body=body))

    registry.on("PUT", "/manifests/", flipped, forever=True)
    error = failing(made, f"{registry.host}/app:1", retries=1)
    (digest,) = (key for key in registry.manifests if ":" in key)
    assert f"{registry.host}/app:1 now holds {digest}, which is not what was pushed" in str(error)
    assert str(error).count("now holds") == 1
    assert "changes what is sent" in str(error.hint)


@pytest.mark.parametrize(
    "failure", [complaint(403, "DENIED", "no more"), CUT, Reply(500)], ids=["denied", "cut", "500"]
)
def test_damage_that_is_followed_by_another_failure_is_not_forgotten(
    registry: Scripted, made: Made, failure: Reply
) -> None:
    def flipped(asked: Asked) -> Reply:
        body = asked.body.replace(b'"schemaVersion"', b'"schemaVErsion"')
        return registry.sound(replace(asked, body=body))

    registry.on("PUT", "/manifests/", flipped, failure, forever=True)
    error = failing(made, f"{registry.host}/app:1", retries=1)
    (digest,) = (key for key in registry.manifests if ":" in key)
    assert f"; {registry.host}/app:1 now holds {digest}, which is not what" in str(error)


def test_the_json_of_such_a_tag_says_it_and_the_other_tags_have_their_results(
    registry: Scripted, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.on("PUT", "/manifests/b$", CUT, forever=True)
    for method in ("HEAD", "GET"):
        registry.on(method, "/manifests/b$", BUSY, forever=True)
    places = [f"{registry.host}/app:{tag}" for tag in "ab"]
    words = ["--cache=none", "--no-learn", "--retries=0", "--output=json", "-q"]
    assert main(["push", str(made.path), *places, *words]) == 7
    out = capsys.readouterr().out
    good, bad = json.loads(out)
    assert good["status"] == "pushed"
    assert bad["reference"] == places[1]
    assert f"{places[1]} may have been written" in bad["error"]["message"]


def test_a_tag_that_failed_in_doubt_is_named_when_the_push_is_cancelled_afterwards(
    registry: Scripted, made: Made
) -> None:
    cancel = towline.Cancel()

    def stop(_asked: Asked) -> Reply:
        cancel.cancel()
        return CUT

    registry.on("PUT", "/manifests/a$", CUT, forever=True)
    for method in ("HEAD", "GET"):
        registry.on(method, "/manifests/a$", BUSY, forever=True)
    registry.on("PUT", "/manifests/b$", stop)
    places = [f"{registry.host}/app:{tag}" for tag in "ab"]
    with pytest.raises(towline.TransferCancelled) as caught:
        towline.push(made.path, places, cache="none", no_learn=True, retries=0, cancel=cancel)
    assert f"{places[0]}, {places[1]} may have been written" in str(caught.value)


@pytest.mark.parametrize("answer", [complaint(403, "DENIED"), CUT], ids=["denied", "cut"])
def test_a_verification_that_cannot_be_carried_out_says_that_it_is_one(
    registry: Scripted, made: Made, answer: Reply
) -> None:
    registry.on("GET", "/blobs/", answer, forever=True)
    with pytest.raises(towline.TowlineError, match=r"verification of .*app:1 failed: ") as caught:
        towline.push(made.path, f"{registry.host}/app:1", cache="none", retries=0, verify="full")
    assert caught.value.message.count("verification of ") == 1
    assert registry.manifests["1"]


def test_a_signature_that_cannot_be_listed_under_its_subject_is_said_to_be_in_place(
    registry: Scripted, tmp_path: Path
) -> None:
    signature(tmp_path / "signature", f"sha256:{64 * '0'}", 7)
    registry.on("GET", "/referrers/", complaint(404, "NOT_FOUND"), forever=True)
    registry.on("PUT", "/manifests/sha256-", complaint(403, "DENIED", "not that tag"))
    place = f"{registry.host}/app:sig"
    with pytest.raises(towline.AuthError, match="not that tag") as caught:
        towline.push(tmp_path / "signature", place, cache="none", retries=0)
    assert f"; {place} was written" in str(caught.value)
    assert registry.manifests["sig"]
