from __future__ import annotations

import re
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tests.support.terminal import Screen
from towline.cli.progress.tty import Bars
from towline.events import Note, Warned, Working
from towline.push_events import LayerProgress, PushStarted, Summary, TagPushed

REFERENCE = "registry.example/team/app:1"
DIGEST = "sha256:" + "ab" * 32
MB = 1_000_000


@dataclass
class Shown:
    """Bars on an emulated terminal, with a clock and a size that the test moves."""

    columns: int = 80
    height: int = 24
    now: float = 0.0
    narrowest: int = 80
    screen: Screen = field(init=False)
    bars: Bars = field(init=False)

    def __post_init__(self) -> None:
        self.screen = Screen(self.columns, self.height)
        self.bars = Bars(lambda: (self.columns, self.height), colour=False, clock=lambda: self.now)

    def tell(self, *events: object) -> None:
        self.write(self.bars.show(list(events)))  # type: ignore[arg-type]  # any event

    def write(self, text: str) -> None:
        self.screen.feed(text)

    def resize(self, columns: int, height: int, *, wraps: bool) -> None:
        self.columns, self.height = columns, height
        self.narrowest = min(self.narrowest, columns)
        self.screen.resize(columns, height, wraps=wraps)
        self.tell()


def layer(
    number: int, status: str, current: int | None = None, total: int | None = None
) -> LayerProgress:
    """Half of what is read is sent: the layer is compressed on its way."""
    name = f"{number:012x}"
    sent = current // 2 if current is not None else None
    return LayerProgress(
        reference=REFERENCE, id=name, status=status, current=current, total=total, sent=sent
    )


def started() -> PushStarted:
    return PushStarted(reference=REFERENCE, repository="registry.example/team/app")


def ended() -> tuple[TagPushed, Summary]:
    return (
        TagPushed(reference=REFERENCE, tag="1", digest=DIGEST, size=1576),
        Summary(
            reference=REFERENCE, sent_bytes=2 * MB, total_bytes=3 * MB, requests=9, seconds=1.25
        ),
    )


def test_a_layer_that_is_sent_has_a_bar_and_the_total_tells_rate_and_time_left() -> None:
    shown = Shown()
    shown.tell(started(), layer(1, "Pushing", 0, 40 * MB), layer(2, "Waiting", total=60 * MB))
    shown.now = 2.0
    shown.tell(layer(1, "Pushing", 20 * MB, 40 * MB))
    first, bar, waiting, total = shown.screen.visible
    assert first == "The push refers to repository [registry.example/team/app]"
    assert re.fullmatch(r"000000000001: Pushing ━+╸?  +50%  10 MB sent", bar)
    assert waiting == "000000000002: Waiting"
    assert re.fullmatch(r"total +━+╸?  +20%  10 MB sent  5 MB/s  8 s left", total)


def test_the_total_tells_the_rate_and_no_time_left_while_a_size_is_unknown() -> None:
    shown = Shown()
    shown.tell(layer(1, "Pushing", 0, 40 * MB), layer(2, "Preparing"))
    shown.now = 1.0
    shown.tell(layer(1, "Pushing", 3 * MB, 40 * MB))
    assert re.fullmatch(r"total [ ━]+ 1.5 MB sent  1.5 MB/s", shown.screen.visible[-1])


def test_layers_stand_in_the_order_in_which_they_were_told_and_keep_their_places() -> None:
    shown = Shown()
    shown.tell(*(layer(n, "Preparing") for n in (3, 1, 2)))
    shown.tell(layer(2, "Pushed"), layer(1, "Layer already exists"))
    assert [row.partition(":")[0][-1] for row in shown.screen.visible] == ["3", "1", "2"]


def test_the_end_shows_every_layer_the_digest_and_what_was_sent() -> None:
    shown = Shown()
    shown.tell(started(), layer(1, "Pushing", 1, 2), layer(2, "Mounted from team/base"))
    shown.tell(layer(1, "Pushed"), *ended())
    shown.write(shown.bars.end())
    assert shown.screen.text.replace("\n", "").endswith(
        "000000000001: Pushed"
        "000000000002: Mounted from team/base"
        f"1: digest: {DIGEST} size: 1576"
        "sent 2 MB of 3 MB, 9 requests, 1.2 s"
    )
    assert "━" not in shown.screen.text


def test_a_push_that_fails_leaves_no_bar_half_open() -> None:
    shown = Shown(columns=60)
    shown.tell(
        layer(1, "Pushing", 20 * MB, 40 * MB), layer(2, "Pushing", 7 * MB), layer(3, "Waiting")
    )
    shown.tell(layer(4, "Pushing", 1, 4), layer(4, "Pushed"))
    assert "━" in shown.screen.text
    shown.write(shown.bars.end())
    assert shown.screen.visible == [
        "000000000001: Pushing stopped at 20 MB of 40 MB",
        "000000000002: Pushing stopped at 7 MB",
        "000000000003: Waiting",
        "000000000004: Pushed",
    ]


def test_a_hundred_layers_fit_on_a_small_terminal_and_all_are_there_in_the_end() -> None:
    shown = Shown()
    shown.tell(started(), *(layer(n, "Preparing", total=MB) for n in range(100)))
    shown.tell(*(layer(n, "Pushed") for n in range(60)))
    shown.tell(*(layer(n, "Pushing", MB // 2, MB) for n in range(60, 65)))
    rows = shown.screen.visible
    assert len(rows) == 24  # the repository's line, which scrolls away, and 23 of the frame
    assert sum(": Pushing" in row for row in rows) == 5
    assert rows[-2] == "and 79 more layers: 60 done, 19 waiting"
    assert rows[-1].startswith("total")
    shown.tell(*(layer(n, "Pushed") for n in range(60, 100)), *ended())
    shown.write(shown.bars.end())
    assert len(re.findall(": Pushed", shown.screen.text)) == 100
    assert "more layers" not in shown.screen.text


def test_warnings_and_notes_stay_above_the_rows() -> None:
    shown = Shown()
    shown.tell(layer(1, "Pushing", 1, 4))
    shown.tell(Warned(reference="", message="the cache cannot be opened"))
    shown.tell(Note(reference="", message="standard input is spooled"))
    assert shown.screen.visible[:2] == [
        "towline: warning: the cache cannot be opened",
        "towline: note: standard input is spooled",
    ]
    assert shown.screen.visible[2].startswith("000000000001: Pushing")


def test_what_goes_on_beside_the_sending_has_a_bar_while_it_does() -> None:
    shown = Shown()

    def work(what: str, current: int, total: int | None = None) -> Working:
        return Working(reference="", what=what, current=current, total=total)

    shown.tell(work("spooling standard input", 3 * MB), work("compressing 01", 1 * MB, 4 * MB))
    spooled, compressed = shown.screen.visible
    assert re.fullmatch("spooling standard input [ ━]+ 3 MB", spooled)
    assert re.fullmatch("compressing 01 +━+╸? +25%  1 MB/4 MB", compressed)
    shown.tell(work("spooling standard input", 5 * MB, 5 * MB))
    assert [row.split()[0] for row in shown.screen.visible] == ["compressing"]
    shown.tell(work("compressing 01", 4 * MB, 4 * MB))
    shown.write(shown.bars.end())
    assert shown.screen.text == ""


def test_several_destinations_have_a_title_each() -> None:
    shown = Shown()
    for host in ("one.example", "two.example"):
        name = f"{host}/app"
        shown.tell(
            PushStarted(reference=f"{name}:1", repository=name),
            LayerProgress(reference=f"{name}:1", id="0" * 12, status="Waiting"),
        )
    assert shown.screen.visible[2:] == [
        "one.example/app:1",
        "000000000000: Waiting",
        "two.example/app:1",
        "000000000000: Waiting",
    ]
    for host in ("two.example", "one.example"):
        shown.tell(TagPushed(reference=f"{host}/app:1", tag="1", digest=DIGEST, size=1576))
    shown.write(shown.bars.end())
    assert "".join(shown.screen.visible[-6:]) == (
        f"[two.example/app]1: digest: {DIGEST} size: 1576"
        f"[one.example/app]1: digest: {DIGEST} size: 1576"
    )


def test_nothing_is_drawn_when_nothing_is_new() -> None:
    shown = Shown()
    shown.tell(layer(1, "Pushing", 1, 2))
    shown.now = 0.5
    assert shown.bars.show([]) == ""
    shown.now = 1.5
    assert shown.bars.show([]) != ""


WORDS = st.sampled_from(
    [
        "Preparing",
        "Waiting",
        "Pushing",
        "Pushed",
        "Layer already exists",
        "Mounted from a/repository/with/a/long/name",
        "Retrying in 4 seconds (the registry said 503 and asked to be left alone for a while)",
    ]
)
LAYERS = st.builds(layer, st.integers(0, 39), WORDS, st.integers(0, 10 * MB), st.just(10 * MB))
SIZES = st.tuples(st.integers(16, 120), st.integers(2, 40))
STEPS = st.lists(
    st.one_of(st.lists(LAYERS, min_size=1, max_size=20), st.tuples(SIZES, st.booleans())),
    max_size=12,
)


@given(steps=STEPS)
def test_whatever_happens_no_row_is_wider_than_the_terminal_and_nothing_is_left_behind(
    steps: list[list[LayerProgress] | tuple[tuple[int, int], bool]],
) -> None:
    shown = Shown()
    shown.tell(Note(reference="", message="above"))
    names: dict[str, str] = {}
    for step in steps:
        if isinstance(step, tuple):
            (columns, height), wraps = step
            shown.resize(columns, height, wraps=wraps)
        else:
            shown.now += 0.3
            shown.tell(*step)
            names.update((event.id, event.status) for event in step)
        rows = shown.screen.visible
        assert shown.screen.longest <= shown.columns
        assert len(rows) <= shown.height
        ids = [row.partition(":")[0] for row in shown.screen.rows if re.match("0{10}", row)]
        # On narrow terminals an ID is cut, and that of another layer may then look the same.
        whole = [name for name in ids if len(name) == 12]
        assert len(whole) == len(set(whole)), "a row was left behind"
        assert len(ids) <= len(names), "a row was left behind"
    shown.write(shown.bars.end())
    assert shown.screen.text.startswith("towline: note: above"[: shown.narrowest].rstrip())
    if shown.columns > 20:
        assert set(re.findall(r"^(0{10}\w\w): ", shown.screen.text, re.MULTILINE)) == set(names)
