"""Which profile a layer gets with `auto`, and what is said of a push that the link has bounded."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import zstandard

from tests.support.layers import BytesReader
from tests.support.pushing import Client
from towline.context import Context
from towline.knowledge.base import Entry
from towline.knowledge.store import Knowledge
from towline.layers import profile as profiles
from towline.push.image import Blob
from towline.push.unfinished import Unfinished
from towline.push.upload.blob_upload import BlobUpload
from towline.push.upload.choice import Choice
from towline.spec import media_types
from towline.spec.digest import Digest
from towline.transfers.threads import processors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.layers.profile import Profile

MiB = 1 << 20
SLOW, FAST = 2_000_000, 100_000_000_000
HOST = "reg.example"
GZIP, AUTO = profiles.parse("gzip"), profiles.AUTO


def layer(name: str, size: int = MiB) -> Blob:
    return Blob(Digest.of(name.encode()), None, size, lambda: BytesReader(b""), is_layer=True)


class Push:
    """One to a host, whose clock stands still but for `pass_by`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.context = Context(clock=lambda: self.now)
        self.client = Client(HOST)

    def pass_by(self, seconds: float, sent: int = 0) -> None:
        self.now += seconds
        self.context.meter.add(sent_bytes=sent)

    def remember(self, rate: int | None) -> None:
        self.client.repository.facts.rate = rate

    def profile(self, choice: Choice, blob: Blob) -> str:
        upload = BlobUpload(
            blob,
            self.client.repository,
            [],
            profile=AUTO,
            context=self.context,
            unfinished=Unfinished(Knowledge(), lambda: None),
            learn=True,
        )
        return choice.profile(blob, [upload], self.context.cancel).name


@pytest.fixture
def push() -> Iterator[Push]:
    with ExitStack() as stack:
        made = Push()
        stack.callback(made.client.client.close)
        yield made


def made_as(blob: Blob, profile: Profile | str, *, learned: bool = False) -> Entry:
    recorded = profile if isinstance(profile, str) else profile.recorded
    return Entry(
        diff_id=blob.identity,
        digest=Digest.of(b"packed"),
        size=9,
        media_type=media_types.OCI_LAYER,
        compression="gzip",
        profile=recorded,
        repository="elsewhere/app",
        account="",
        learned=learned,
        seen=0.0,
    )


@pytest.mark.parametrize(
    ("rate", "zstd", "name"),
    [(1e6, True, "zstd:9"), (1e6, False, "gzip:best"), (1e9, True, "gzip"), (1e9, False, "gzip")],
)
def test_the_slower_the_link_the_smaller_the_profile(rate: float, zstd: bool, name: str) -> None:  # noqa: FBT001 - a column
    assert profiles.smallest(rate, 2, zstd=zstd).name == name


def test_more_processors_feed_a_smaller_one() -> None:
    found = [profiles.smallest(60e6, cores, zstd=True).name for cores in (1, 2, 3, 64)]
    assert found == ["zstd:3", "zstd:3", "zstd:6", "zstd:9"]


@pytest.mark.parametrize(
    ("recorded", "name"),
    [
        (GZIP.recorded, "gzip"),
        ("zstd:7/1", "zstd:7"),
        ("gzip:best/1", "gzip:best"),
        ("none", "none"),
        ("gzip/1@x86-64", None),
        ("lz4/1", None),
        (None, None),
    ],
)
def test_a_record_leads_back_to_the_profile_that_still_makes_it(
    recorded: str | None, name: str | None
) -> None:
    found = profiles.of_record(recorded)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("rate", "zstd", "name"),
    [
        (SLOW, True, "zstd:9"),
        (SLOW, False, "gzip:best"),
        (FAST, True, "gzip"),
        (None, True, "gzip"),
    ],
)
def test_the_rate_that_is_remembered_of_the_host_decides(
    push: Push,
    rate: int | None,
    zstd: bool,  # noqa: FBT001 - a column
    name: str,
) -> None:
    push.remember(rate)
    assert push.profile(Choice(AUTO, {}, zstd=zstd), layer("one")) == name


def test_what_this_push_has_seen_counts_more_and_a_layer_keeps_its_profile(push: Push) -> None:
    push.remember(FAST)
    choice = Choice(AUTO, {}, zstd=True)
    assert push.profile(choice, layer("one")) == "gzip"
    push.pass_by(4.0, sent=4 * SLOW)
    assert push.profile(choice, layer("two")) == "zstd:9"
    assert push.profile(choice, layer("one")) == "gzip"


def test_a_layer_keeps_the_profile_in_which_it_was_made(push: Push) -> None:
    one, two, three = layer("one"), layer("two"), layer("three")
    known = {
        one.identity: [made_as(one, "zstd:9/1"), made_as(one, GZIP)],
        two.identity: [made_as(two, GZIP), made_as(two, "zstd:9/1")],
        three.identity: [made_as(three, GZIP, learned=True)],
    }
    push.remember(SLOW)
    docker = Choice(AUTO, known, zstd=False)
    assert [push.profile(docker, each) for each in (one, two, three)] == [
        "gzip",
        "gzip",
        "gzip:best",
    ]
    oci = Choice(AUTO, known, zstd=True)
    assert [push.profile(oci, each) for each in (one, two)] == ["gzip", "zstd:9"]


def test_a_large_layer_waits_until_the_first_has_told_of_a_rate(push: Push) -> None:
    choice = Choice(AUTO, {}, zstd=True)
    assert push.profile(choice, layer("one", 99 * MiB)) == "gzip:best"
    push.pass_by(0.5, sent=10 * MiB)
    assert push.profile(choice, layer("small")) == "gzip", "it is not worth waiting for"
    threading.Timer(0.1, push.pass_by, [0.6]).start()
    assert push.profile(choice, layer("two", 99 * MiB)) == "zstd:9"


def test_a_named_profile_is_what_it_is(push: Push) -> None:
    push.remember(SLOW)
    assert push.profile(Choice(GZIP, {}, zstd=True), layer("one")) == "gzip"


WORDS = b"some words that come again and again " * 30_000
SMALLEST = len(zstandard.ZstdCompressor(9).compress(WORDS))


def seen(choice: Choice, push: Push, seconds: float, busy: float) -> str | None:
    """What is told of a push of so many seconds, whose encoders had work for some of them."""
    push.profile(choice, layer("one"))
    for _ in range(32):
        push.pass_by(seconds / 32, sent=MiB // 4)
        choice.look(memoryview(WORDS), 10 * SMALLEST, busy * processors() / 32)
    return choice.told()


def test_a_push_that_the_link_has_bounded_is_told_what_auto_would_have_saved(push: Push) -> None:
    told = seen(Choice(GZIP, {}, zstd=True), push, 8.0, busy=1.0)
    assert told is not None
    assert "`auto` would have sent about 90% less" in told
    assert "idle for 88%" in told


@pytest.mark.parametrize(
    ("wished", "seconds", "busy"), [(GZIP, 8.0, 7.0), (GZIP, 2.0, 0.1), (AUTO, 8.0, 1.0)]
)
def test_no_other_push_is_told_so(push: Push, wished: Profile, seconds: float, busy: float) -> None:
    assert seen(Choice(wished, {}, zstd=True), push, seconds, busy) is None
