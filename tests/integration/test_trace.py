"""`--trace`: where the time of a push went, as a Chrome trace and as a page in a real browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support.browser import chromium
from tests.support.scripted import Reply, scripted
from towline.cli.main import main
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.browser import Page
    from towline.testing.image_formats import Made
    from towline.testing.registry import TestRegistry

KiB = 1 << 10
STEPS = {"asked", "read", "encoded", "sent", "confirmed"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    random = Random(8)  # noqa: S311 - no secret
    layers = [{f"file{n}": random.randbytes(n * 900 * KiB)} for n in range(1, 4)]
    return make_image(tmp_path_factory.mktemp("image") / "image.tar", layers)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


def ids(made: Made) -> set[str]:
    return {diff_id.partition(":")[2][:12] for diff_id in made.diff_ids}


# The Chrome trace.


def test_a_chrome_trace_has_every_step_of_every_layer_and_every_request(
    oci_registry: TestRegistry, made: Made, tmp_path: Path
) -> None:
    file = tmp_path / "push.json"
    result = towline.push(made.path, f"{oci_registry.name('app')}:1", trace=file)
    events = json.loads(file.read_text())["traceEvents"]
    for layer in ids(made):
        mine = [event for event in events if event["args"].get("blob") == layer]
        assert {event["name"] for event in mine} >= STEPS
    sent = sum(event["args"]["bytes"] for event in events if event["name"] == "sent")
    assert sent == result.sent_bytes
    answered = [event for event in events if "status" in event["args"] and event["pid"] == 3]
    assert len(answered) == result.requests
    assert {event["name"].partition(" ")[0] for event in answered} >= {"HEAD", "POST", "PUT"}


def test_a_chrome_trace_is_one_that_viewers_read(
    oci_registry: TestRegistry, made: Made, tmp_path: Path
) -> None:
    file = tmp_path / "push.json"
    towline.push(made.path, f"{oci_registry.name('app')}:1", trace=file)
    events = json.loads(file.read_text())["traceEvents"]
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    processes, threads = set[int](), set[tuple[int, int]]()
    for event in events:
        if event["ph"] == "M":
            if event["name"] == "process_name":
                processes.add(event["pid"])
            else:
                threads.add((event["pid"], event["tid"]))
            continue
        assert event["ph"] == "X"
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        moments = (event["ts"], event["ts"] + event["dur"])
        tracks.setdefault((event["pid"], event["tid"]), []).append(moments)
    assert processes == {process for process, _ in tracks}
    assert threads == set(tracks)
    for spans in tracks.values():  # what overlaps on a track without nesting is drawn wrongly
        ends = [float("inf")]
        for began, ended in sorted(spans, key=lambda span: (span[0], -span[1])):
            while ends[-1] <= began + 0.2:
                ends.pop()
            assert ended <= ends[-1] + 0.2
            ends.append(ended)


# The page.


def test_the_page_draws_a_bar_for_each_layer_and_asks_for_nothing(
    oci_registry: TestRegistry, made: Made, tmp_path: Path, browser: Page
) -> None:
    file = tmp_path / "push.html"
    name = oci_registry.name("app")
    towline.push(made.path, [f"{name}:1", f"{name}:2"], trace=file)
    for width, scheme in ((360, "light"), (360, "dark"), (1280, "light"), (1280, "dark")):
        browser.open(file, width=width, scheme=scheme)
        assert [event["request"]["url"] for event in asked_for(browser)] == [file.as_uri()]
        assert not browser.events("Log.entryAdded")
        assert not browser.events("Runtime.consoleAPICalled")
        assert not browser.events("Runtime.exceptionThrown")
        bars = browser.value(BARS)
        for layer in ids(made):
            left, right, kinds = bars[layer]
            assert right - left > 0.9
            assert left >= 0
            assert right <= width
            assert set(kinds) == {"waited", *STEPS}
        assert browser.value("document.documentElement.scrollWidth") <= width


def asked_for(browser: Page) -> list[dict[str, Any]]:
    return browser.events("Network.requestWillBeSent")


BARS = """Object.fromEntries([...document.querySelectorAll("h3")].map(head => {
  const drawn = [...head.nextElementSibling.children].map(piece => [
    piece.className, piece.getBoundingClientRect(), getComputedStyle(piece).backgroundColor]);
  const seen = drawn.filter(([, box, colour]) =>
    box.width > 0.9 && box.height > 5 && colour !== "rgba(0, 0, 0, 0)");
  return [head.textContent.split(" ")[0], [Math.min(...seen.map(([, box]) => box.left)),
    Math.max(...seen.map(([, box]) => box.right)), seen.map(([kind]) => kind)]];
}))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable(
    oci_registry: TestRegistry, made: Made, tmp_path: Path, browser: Page, scheme: str
) -> None:
    file = tmp_path / "push.html"
    towline.push(made.path, f"{oci_registry.name('app')}:1", trace=file)
    browser.open(file, width=360, scheme=scheme)
    page, texts, pieces = browser.value(COLOURS)
    assert luminance(page) > 0.9 if scheme == "light" else luminance(page) < 0.1
    assert len(texts) >= 2
    assert min(contrast(page, text) for text in texts) >= 4.5  # WCAG 2.2, 1.4.3
    assert len(pieces) == 6
    waited = pieces.pop("waited")
    for background in (page, waited):
        assert min(contrast(background, piece) for piece in pieces.values()) >= 3  # 1.4.11
    assert browser.value("parseFloat(getComputedStyle(document.body).fontSize)") >= 16


COLOURS = """[getComputedStyle(document.body).backgroundColor,
  [...new Set([...document.querySelectorAll("body, h1, h2, h3, p, li, span, strong")]
    .map(one => getComputedStyle(one).color))],
  Object.fromEntries([...document.querySelectorAll("i")]
    .map(one => [one.className, getComputedStyle(one).backgroundColor]))]"""


def luminance(colour: str) -> float:
    """WCAG's relative luminance of `rgb(…)`."""
    found = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert found, colour
    parts = [int(part) / 255 for part in found.groups()]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_page_says_what_bounded_the_push(
    oci_registry: TestRegistry, made: Made, tmp_path: Path
) -> None:
    file = tmp_path / "push.html"
    towline.push(
        made.path, f"{oci_registry.name('slow')}:1", trace=file, limit_rate="2M", cache="none"
    )
    assert shares(file)["the link"] > 50
    oci_registry.stall(0.3)
    small = make_image(tmp_path / "small.tar", [{"a": b"a"}])
    towline.push(small.path, f"{oci_registry.name('late')}:1", trace=file, cache="none")
    assert shares(file)["the registry"] > 50
    assert shares(file)["the link"] < 20


def shares(file: Path) -> dict[str, int]:
    page = file.read_text()
    found = re.findall(r"<strong>([a-z ]+)</strong> (\d+)%", page)
    ranked = sorted(found, key=lambda share: -int(share[1]))
    assert f"Bound by {ranked[0][0]}" in page
    return {name: int(percent) for name, percent in found}


def test_several_destinations_have_a_bar_each(
    oci_registry: TestRegistry, made: Made, tmp_path: Path
) -> None:
    file = tmp_path / "push.html"
    names = [oci_registry.name("one"), oci_registry.name("two")]
    towline.push(made.path, names, trace=file)
    page = file.read_text()
    for layer in ids(made):
        assert all(f"<h3>{layer} to {name} " in page for name in names)


# However it ends.


@pytest.mark.parametrize("ending", ["json", "html"])
def test_a_push_that_fails_is_written_down_too(
    oci_registry: TestRegistry, made: Made, tmp_path: Path, ending: str
) -> None:
    file = tmp_path / f"push.{ending}"
    oci_registry.fail("PUT", "/manifests/", 400, times=9)
    with pytest.raises(towline.RegistryError) as raised:
        towline.push(made.path, f"{oci_registry.name('app')}:1", trace=file)
    assert "400" in str(raised.value)
    assert "cannot put the manifest" in file.read_text()
    assert [path.name for path in tmp_path.glob("push*")] == [file.name]


def test_a_push_that_is_cancelled_is_written_down_too(
    oci_registry: TestRegistry, made: Made, tmp_path: Path
) -> None:
    file = tmp_path / "push.html"
    cancel = towline.Cancel()

    def stop(event: towline.Event) -> None:
        if isinstance(event, towline.LayerProgress) and event.status == "Pushing":
            cancel.cancel()

    with pytest.raises(towline.TransferCancelled):
        towline.push(
            made.path, f"{oci_registry.name('app')}:1", trace=file, cancel=cancel, on_event=stop
        )
    assert "was cancelled" in file.read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trace.txt", "the name of a trace ends in .json or .html, not as "),
        ("no/such/folder/trace.json", "No such file or directory"),
        ("folder.html", "it is a directory"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_anything_is_asked(
    oci_registry: TestRegistry, made: Made, tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "folder.html").mkdir()
    words = ["push", str(made.path), f"{oci_registry.name('app')}:1"]
    command = [sys.executable, "-m", "towline", *words, "--trace", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("towline: error: the ")
    assert said in done.stderr
    assert not oci_registry.requests


@pytest.mark.parametrize("trace", ["image.json", "link.json", "layout/index.json"])
@pytest.mark.parametrize("call", ["push", "plan", "copy", "index", "digest"])
def test_it_replaces_no_source(
    oci_registry: TestRegistry, tmp_path: Path, call: str, trace: str
) -> None:
    layout, image = tmp_path / "layout", tmp_path / "image.json"
    source = make_image(layout, format="oci").path
    if trace != "layout/index.json":
        source = make_image(image).path
    (tmp_path / "link.json").symlink_to("image.json")
    before = (layout / "index.json").read_bytes(), image.exists() and image.read_bytes()
    to = [] if call == "digest" else [f"{oci_registry.name('app')}:1"]
    work: Any = getattr(towline, call)
    with pytest.raises(towline.UsageError, match=f"`trace .*{trace}` would replace {source}"):
        work(source, *to, trace=tmp_path / trace)
    if trace == "image.json":
        with image.open("rb") as file, pytest.raises(towline.UsageError, match="would replace"):
            work(file, *to, trace=tmp_path / trace)
    assert before == ((layout / "index.json").read_bytes(), image.exists() and image.read_bytes())
    assert not oci_registry.requests


@pytest.mark.parametrize("place", ["oci:{}/layout:1", "docker-archive:{}/index.json:app:1"])
def test_it_replaces_no_destination(made: Made, tmp_path: Path, place: str) -> None:
    to = place.format(tmp_path)
    trace = tmp_path / "layout" / "index.json" if "layout" in to else tmp_path / "index.json"
    with pytest.raises(towline.UsageError, match=f"would replace {to}"):
        towline.copy(made.path, to, trace=trace)
    assert not trace.exists()


def test_a_file_that_cannot_be_at_the_end_undoes_no_push(
    oci_registry: TestRegistry, made: Made, tmp_path: Path
) -> None:
    file = tmp_path / "folder" / "trace.json"
    file.parent.mkdir()
    name = oci_registry.name("app")

    def take_away(event: towline.Event) -> None:
        if isinstance(event, towline.PushStarted):
            file.mkdir()
        if isinstance(event, towline.Warned):
            warned.append(event.message)

    warned: list[str] = []
    towline.push(made.path, f"{name}:1", trace=file, on_event=take_away)
    assert oci_registry.tags(name) == ["1"]
    assert warned == [f"the trace {file} is not written: Is a directory"]
    assert list(file.parent.iterdir()) == [file]


def test_copy_and_index_take_it_too(oci_registry: TestRegistry, made: Made, tmp_path: Path) -> None:
    file, name = tmp_path / "copy.html", oci_registry.name("app")
    towline.push(made.path, f"{name}:1")
    assert main(["copy", f"{name}:1", f"{oci_registry.name('other')}:1", "--trace", str(file)]) == 0
    assert "Mounted from" in file.read_text()
    index = tmp_path / "index.json"
    assert main(["index", f"{name}:1", "--to", f"{name}:2", "--trace", str(index)]) == 0
    assert f"{name}:2 is in place" in index.read_text()


# What it holds, and what it costs who has not asked for it.


@pytest.mark.parametrize("ending", ["json", "html"])
def test_no_secret_is_in_it(made: Made, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"push.{ending}"
    word = "s3cret-word"

    def refuse(_asked: object) -> Reply:
        body = json.dumps({"errors": [{"code": "DENIED", "message": f"not with {word}"}]})
        return Reply(403, {"Content-Type": "application/json"}, body.encode())

    with scripted() as registry:
        registry.on("POST", "/blobs/uploads/", refuse, forever=True)
        name, creds = f"{registry.host}/app:1", f"me:{word}"
        with pytest.raises(towline.AuthError):
            towline.push(made.path, name, trace=file, creds=creds, plain_http=True)
    text = file.read_text()
    assert "not with [hidden]" in text
    assert word not in text


def test_a_push_without_it_loads_nothing_of_it(oci_registry: TestRegistry, made: Made) -> None:
    code = (
        "import sys, towline\n"
        f"towline.push({str(made.path)!r}, {oci_registry.name('app') + ':1'!r}, cache='none')\n"
        "print([name for name in sys.modules if name.startswith('towline.tracing')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
