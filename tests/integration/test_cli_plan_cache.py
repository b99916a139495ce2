"""`towline plan` and `towline cache`: what they print, and that a plan writes nothing."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

import towline as towline_library
from towline.cli.main import main
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Place
    from towline.testing import TestRegistry

    Capture = pytest.CaptureFixture[str]

LAYERS = [{"one": b"1" * 5000}, {"two": b"2" * 50}]


def towline(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main(words)
    return (code, *capsys.readouterr())


DEAD = "127.0.0.1:1/app:1"


@pytest.mark.parametrize("how", [["plan"], ["push", "--dry-run"]])
def test_of_several_plans_those_that_fail_are_named_and_the_others_shown(
    registry: Place, tmp_path: Path, capsys: Capture, how: list[str]
) -> None:
    image = str(make_image(tmp_path / "image.tar", LAYERS).path)
    words = [*how, image, DEAD, registry.name("app") + ":1", "--retries=0"]
    code, out, said = towline(capsys, *words)
    assert (code, out.splitlines()[0]) == (7, words[-2])
    assert "towline: error: 127.0.0.1:1/app:1: cannot connect to 127.0.0.1:1" in said
    code, out, _ = towline(capsys, *words, "--output=json")
    failed, planned = json.loads(out)
    assert (code, planned["reference"], planned["status"]) == (7, words[-2], "pushed")
    assert (failed["reference"], failed["error"]["exit_code"]) == (DEAD, 6)


def test_one_plan_that_fails_ends_as_a_push_would(tmp_path: Path, capsys: Capture) -> None:
    image = str(make_image(tmp_path / "image.tar", LAYERS).path)
    code, out, said = towline(capsys, "plan", image, DEAD, "--retries=0", "--output=json")
    assert (code, out) == (6, "")
    assert said.startswith("towline: error: cannot connect to 127.0.0.1:1")


@pytest.mark.parametrize("how", [["plan"], ["push", "--dry-run"]])
def test_a_plan_is_a_table_and_sends_nothing(
    registry: Place, tmp_path: Path, capsys: Capture, how: list[str]
) -> None:
    image = str(make_image(tmp_path / "image.tar", LAYERS).path)
    name = registry.name("app") + ":1"
    code, out, _ = towline(capsys, *how, image, name)
    lines = out.splitlines()
    assert (code, lines[0]) == (0, name)
    assert [line.split()[1] for line in lines[2:4]] == ["push", "push"]
    assert lines[-1].startswith("  to be sent: at most ")
    assert {method for method, _ in registry.requests()} <= {"GET", "HEAD"}
    towline(capsys, "push", image, name)
    code, out, _ = towline(capsys, *how, image, name)
    assert (code, out.splitlines()[-1].startswith("  unchanged: sha256:")) == (0, True)


def test_a_plan_of_a_tag_that_is_left_alone_says_so_and_has_no_table(
    registry: Place, tmp_path: Path, capsys: Capture
) -> None:
    image, name = str(make_image(tmp_path / "image.tar", LAYERS).path), registry.name("app") + ":1"
    digest = towline_library.push(image, name).digest
    code, out, _ = towline(capsys, "plan", image, name, "--no-clobber")
    assert (code, out.splitlines()) == (0, [name, f"  left as it is: {digest}"])


def test_a_plan_as_json_has_the_fields_of_a_push_and_its_own(
    registry: Place, tmp_path: Path, capsys: Capture
) -> None:
    image = str(make_image(tmp_path / "image.tar", LAYERS).path)
    words = [image, registry.name("a") + ":1", registry.name("b") + ":1"]
    code, out, _ = towline(capsys, "plan", *words, "--output", "json")
    planned = json.loads(out)
    assert code == 0
    assert [one["reference"] for one in planned] == words[1:]
    for one in planned:
        assert one["digest"] is None
        assert one["send_bytes"] > 0
        assert one["seconds_estimate"] is None
        assert one["resumable"] is None or isinstance(one["resumable"], bool)
        assert one["sent_bytes"] == 0


@pytest.mark.parametrize("form", ["oci", "docker"])
@pytest.mark.parametrize("platforms", [None, ["linux/amd64", "linux/arm64"]])
@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_plan_tells_the_media_type_that_the_push_makes(
    oci_registry: TestRegistry, tmp_path: Path, form: Any, platforms: Any, compression: Any
) -> None:
    made = make_image(tmp_path / "image", LAYERS, platforms, "oci", compression=compression)
    name = oci_registry.name("app") + ":1"
    planned = towline_library.plan(made.path, name, format=form)
    assert planned.media_type == towline_library.push(made.path, name, format=form).media_type


def test_a_plan_estimates_the_time_by_the_last_rate_to_that_host(
    registry: Place, tmp_path: Path, capsys: Capture
) -> None:
    first, second = ({name: Random(name).randbytes(9 << 20)} for name in "ab")  # noqa: S311 - no secret
    image = str(make_image(tmp_path / "image.tar", [first]).path)
    towline(capsys, "push", image, registry.name("app") + ":1")
    image = str(make_image(tmp_path / "other.tar", [first, second]).path)
    words = ["plan", image, registry.name("app") + ":2"]
    planned = json.loads(towline(capsys, *words, "--output", "json")[1])
    assert 0 < planned["seconds_estimate"] < 60
    _, out, _ = towline(capsys, *words)
    assert out.splitlines()[-1].startswith("  to be sent: at most 9.4")
    assert out.splitlines()[-1].endswith(" s at the last rate")
    assert [row.split()[1:] for row in out.splitlines()[2:4]] == [
        ["exists", "9.44", "MB", "reused"],
        ["push", "9.44", "MB", "plain", "gzip"],
    ]


def test_a_plan_writes_the_digests_that_it_knows(
    registry: Place, tmp_path: Path, capsys: Capture
) -> None:
    image = str(make_image(tmp_path / "image.tar", LAYERS).path)
    name, file = registry.name("app"), tmp_path / "digest"
    words = ["plan", image, f"{name}:1", "--digest-file", str(file)]
    code, out, err = towline(capsys, *words)
    assert (code, out.splitlines()[0]) == (1, f"{name}:1")
    assert err.splitlines() == [
        f"towline: error: the digest of {name}:1 is not known before it is pushed",
        "hint: towline digest computes that of a push to an empty registry",
    ]
    assert not file.exists()
    _, pushed, _ = towline(capsys, "push", image, f"{name}:1")
    code, _, _ = towline(capsys, *words)
    assert (code, file.read_text()) == (0, pushed.partition("@")[2])
    absent = tmp_path / "absent"
    code, _, err = towline(capsys, *words[:-1], f"{absent}/x")
    assert (code, err) == (
        2,
        f"towline: error: `--digest-file {absent}/x`: there is no directory `{absent}`\n",
    )


def test_a_plan_tells_warnings_and_notes_as_progress_is_wished_for(
    registry: Place, tmp_path: Path
) -> None:
    both = ["linux/amd64", "linux/arm64"]
    made = make_image(tmp_path / "image.tar", LAYERS, both, "docker-containerd", absent=both[1:])
    archive = gzip.compress(made.path.read_bytes())

    def told(*options: str) -> list[str]:
        words = ["plan", "-", registry.name("app"), *options]
        command = [sys.executable, "-m", "towline", *words]
        done = subprocess.run(command, input=archive, capture_output=True, check=True)
        return done.stderr.decode().splitlines()

    kinds = [line.split(": ")[1] for line in told()]
    assert kinds == ["note", "note", "warning"]
    assert [line.split(": ")[1] for line in told("-q")] == ["warning"]
    objects = [json.loads(line) for line in told("--progress", "json")]
    assert [shown["event"] for shown in objects] == ["note", "note", "warning"]


def test_the_cache_is_counted_thinned_out_and_forgotten(
    registry: Place, tmp_path: Path, capsys: Capture
) -> None:
    image = str(make_image(tmp_path / "image.tar", LAYERS).path)
    cache = ["--cache", str(tmp_path / "cache.sqlite")]
    towline(capsys, "push", image, registry.name("app") + ":1", *cache)
    code, out, _ = towline(capsys, "cache", "stats", "--output", "json", *cache)
    stats = json.loads(out)
    assert code == 0
    assert stats["path"] == str(tmp_path / "cache.sqlite")
    assert (stats["diff_ids"], stats["entries"]) == (2, 3)  # the config has an entry, too
    assert stats["bytes"] > 0
    code, out, _ = towline(capsys, "cache", "prune", *cache)
    assert (code, out.startswith("dropped 0 entries")) == (0, True)
    code, out, err = towline(capsys, "cache", "clear", "--older-than", "30", *cache)
    assert (code, out) == (2, ""), "what was asked for is less than what it does"
    assert err.splitlines()[-1] == "hint: towline cache prune --older-than 30"
    code, out, _ = towline(capsys, "cache", "clear", *cache)
    assert (code, out) == (0, "dropped all 3 entries\n")
    code, out, _ = towline(capsys, "cache", "stats", *cache)
    assert "entries: 0" in out.splitlines()


def test_a_cache_that_cannot_be_used_is_an_error_where_it_was_asked_about(
    tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "cache").write_bytes(b"this is no database, but it is long enough to be one" * 90)
    code, out, err = towline(capsys, "cache", "stats", "--cache", str(tmp_path / "cache"))
    assert (code, out) == (1, "")
    assert err.startswith("towline: error: ")
    code, _, err = towline(capsys, "cache", "shrink")
    assert (code, err.splitlines()[-1]) == (2, "hint: towline cache stats, prune or clear")
