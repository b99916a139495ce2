"""Warnings that a registry sends along with its answers (distribution-spec, "Warnings")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.pushing import client_of
from tests.support.scripted import Asked, Reply, Scripted
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = Digest.of(b"")


def heard(registry: Scripted, *values: str) -> list[str]:
    """What is told of these headers, however often they come."""
    fields = tuple(("Warning", value) for value in values)
    registry.on("HEAD", "", Reply(404, fields), forever=True)
    told: list[str] = []
    with client_of(registry, warn=told.append) as client:
        for _ in range(2):
            client.repository.has_blob(DIGEST, client.context)
    return [text.removeprefix(f"{registry.host} says: ") for text in told]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (['299 - "This tag will go"'], ["This tag will go"]),
        (['299 - "one"', '299 - "two"'], ["one", "two"]),
        (['299 - "one", 299 - "two, or three"'], ["one", "two, or three"]),
        (['299 - "a \\"quoted\\" \\\\ word"'], ['a "quoted" \\ word']),
        (['299 - "bell\x07 and \x1b[31mcolour"'], ["bell and [31mcolour"]),
        (['199 - "not ours"', '299 proxy "nor this"', "299", '299 - ""'], []),
        (['299 - "' + 5000 * "x" + '"'], []),
        ([f'299 - "{n}"' for n in range(60)], [str(n) for n in range(20)]),
    ],
)
def test_each_is_told_once_and_fits_on_a_line(
    registry: Scripted, values: list[str], told: list[str]
) -> None:
    assert heard(registry, *values) == told


def test_a_push_hears_of_it(registry: Scripted, tmp_path: Path) -> None:
    def warned(asked: Asked) -> Reply:
        reply = registry.sound(asked)
        fields = reply.headers.items() if isinstance(reply.headers, dict) else reply.headers
        return Reply(reply.status, (*fields, ("Warning", '299 - "read only from Monday"')))

    registry.on("PUT", "", warned, forever=True)
    made = make_image(tmp_path / "image.tar", [{"a": b"a"}, {"b": b"b"}])
    events: list[towline.Event] = []
    with towline.Pusher(cache="none", on_event=events.append) as pusher:
        pusher.push(made.path, f"{registry.host}/app:1")
    told = [event.message for event in events if isinstance(event, towline.Warned)]
    assert told == [f"{registry.host} says: read only from Monday"]
