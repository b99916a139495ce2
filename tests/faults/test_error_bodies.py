"""Whatever the body of a refusal is, the command ends in one line that says what was refused."""

from __future__ import annotations

import json
import os
import re

import pytest

from tests.support.scripted import Asked, Reply, Scripted
from towline.cli.main import main
from towline.testing.images import make_image

SECRET = "hunter2-in-the-query"


def errors(**error: object) -> str:
    return json.dumps({"errors": [error]})


BODIES: dict[str, tuple[str, str]] = {
    "html": ("<html><head><title>Bad  gateway</title></head><p>nginx</p></html>", "Bad gateway"),
    "xml": (
        '<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>No</Message></Error>',
        "AccessDenied: No",
    ),
    "plain": ("no such\nthing", "no such thing"),
    "empty": ("", ""),
    "no errors": ('{"errors": []}', ""),
    "detail text": (
        errors(code="NAME_INVALID", message="m", detail="why"),
        "NAME_INVALID: m (why)",
    ),
    "detail object": (errors(code="A", message="m", detail={"b": 1}), "A: m"),
    "detail list": (errors(code="A", message="m", detail=[1, 2]), "A: m"),
    "detail null": (errors(code="A", message="m", detail=None), "A: m"),
    "details": ('{"details": "bad name"}', "bad name"),
    "a megabyte": ("word " * 200_000, "word word"),
    "a megabyte of json": (errors(code="A", message="word " * 200_000), "word word"),
    "deep": ("[" * 100_000, "[[["),
    "binary": ("\x00\x01\x1b[31m", "[31m"),
}
PLACES = {
    "post": ("POST", "uploads"),
    "patch": ("PATCH", "uploads"),
    "put": ("PUT", "uploads"),
    "manifest": ("PUT", "manifests"),
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    layers = [{"noise": os.urandom(50_000), "room": bytes(1 << 20)}]
    return str(make_image(tmp_path_factory.mktemp("image") / "image.tar", layers).path)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("place", PLACES)
def test_it_is_one_line_with_the_status_and_what_the_body_says(
    registry: Scripted, image: str, name: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    body, words = BODIES[name]
    method, pattern = PLACES[place]
    refusal = Reply(409, {"Content-Type": "whatever"}, body)

    def signed(asked: Asked) -> Reply:
        reply = registry.sound(asked)
        location = dict(reply.headers)["Location"]
        return Reply(202, {"Location": f"{location}&signature={SECRET}"})

    if place != "post":
        registry.on("POST", "uploads", signed, forever=True)
    registry.on(method, pattern, refusal, forever=True)
    assert main(["push", image, f"{registry.host}/team/app:1", "-q", "--retries=0"]) == 5
    out, err = capsys.readouterr()
    first, *rest = err.splitlines()
    assert re.fullmatch(r"towline: error: cannot .*", first)
    assert f"{registry.host} answered 409" in first
    assert words in first
    assert f"({method} http://{registry.host}/v2/" in first
    assert all(line.startswith("hint: ") for line in rest)
    assert len(rest) <= 1
    assert len(first) < 700
    assert err.replace("\n", "").isprintable()
    assert (out, SECRET in err) == ("", False)
