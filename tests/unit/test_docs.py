"""The documentation speaks of everything there is, and of nothing that is not."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

import towline
from tests.support.docker_registry import PASSWORD, USER
from tests.support.docker_registry import Options as RegistryOptions
from towline import errors, events
from towline.cli import exit_codes, guesses
from towline.cli.main import COMMANDS, load
from towline.testing import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartDockerRegistry
    from towline.cli.options import Option
    from towline.testing import TestRegistry

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def section(text: str, title: str) -> str:
    """From a heading to the next one of its level."""
    level = title.partition(" ")[0]
    start = text.index(f"\n{title}\n") + 1
    end = text.find(f"\n{level} ", start)
    return text[start : end if end > 0 else len(text)]


def options_of(command: str) -> list[Option]:
    return load(command).every


def spellings() -> Iterator[tuple[str, str]]:
    for command in COMMANDS:
        for option in options_of(command):
            for name in option.spellings:
                yield command, name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_section(command: str) -> None:
    assert section(page("cli.md"), f"## {command}")


def test_every_option_is_documented() -> None:
    text = page("cli.md")
    names = sorted(set(spellings()))
    assert names
    missing = [
        (command, name)
        for command, name in names
        if not re.search(rf"`{re.escape(name)}[`= \[]", text)
    ]
    assert missing == []


def test_no_option_is_documented_that_no_command_takes() -> None:
    known = {name for _, name in spellings()} | {"--version", "--help"}
    named = set(re.findall(r"`(--[a-z][a-z0-9-]*)", page("cli.md")))
    reserved = set(re.findall(r"`(--[a-z][a-z0-9-]*)", section(page("cli.md"), _LATER)))
    assert named - reserved <= known


_LATER = "## Not available yet"


def test_what_is_refused_as_not_available_yet_is_listed_as_such() -> None:
    later = section(page("cli.md"), _LATER)
    assert set(re.findall(r"`([a-z]+)`", later)) >= guesses.NOT_YET


def test_nothing_that_works_is_listed_as_not_available_yet() -> None:
    later = section(page("cli.md"), _LATER)
    works = {
        name for command in COMMANDS for option in options_of(command) for name in option.names
    }
    assert not works & set(re.findall(r"`(--[a-z][a-z0-9-]*)`", later))
    assert not set(COMMANDS) & set(re.findall(r"`([a-z]+)`", later))


@pytest.mark.parametrize("event", get_args(events.Event), ids=lambda event: event.__name__)
def test_every_event_is_documented_with_its_fields(event: Any) -> None:
    text = page("events.md")
    common = {"reference", "time"}
    own = section(text, f"## {event.event}")
    assert f"towline.{event.__name__}" in own
    for field in {one.name for one in fields(event)} - common:
        assert f"`{field}`" in own
    assert {"event", *common} <= set(re.findall(r"`(\w+)`", text[: text.index("\n## ")]))


def error_classes() -> list[type[errors.TowlineError]]:
    found = [errors.TowlineError]
    for each in found:
        found += each.__subclasses__()
    return [each for each in found if each.__name__ in towline.__all__]


def test_every_exit_code_is_documented() -> None:
    codes = {exit_codes.DONE, exit_codes.OTHER, 143, *(code for _, code in exit_codes.EXIT_CODES)}
    rows = re.findall(r"(?m)^\| (\d+) \|", page("exit-codes.md"))
    assert set(map(int, rows)) == codes


@pytest.mark.parametrize("error", error_classes(), ids=lambda error: error.__name__)
def test_every_error_is_documented(error: type[errors.TowlineError]) -> None:
    assert error.__name__ in page("library.md")
    assert f"`{error.__name__}`" in page("exit-codes.md")


@pytest.mark.parametrize("name", [name for name in towline.__all__ if not name.startswith("_")])
def test_every_public_name_is_documented(name: str) -> None:
    text = "".join(path.read_text("utf-8") for path in DOCS.glob("*.md"))
    assert re.search(rf"\b{name}\b", text)


def test_every_keyword_of_the_library_is_documented() -> None:
    from towline.push.interface.options import PusherOptions, PushOptions

    text = section(page("library.md"), "## Options")
    for keyword in (*PusherOptions.__annotations__, *PushOptions.__annotations__):
        assert re.search(rf"`{keyword}[`=]", text), keyword


def anchor(heading: str) -> str:
    words = re.sub(r"[^\w\- ]", "", heading.lower())
    return words.strip().replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"(?s)```.*?```", "", path.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, fragment = target.partition("#")
        if "://" in file:
            continue
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        if fragment:
            headings = re.findall(r"(?m)^#+ (.*)$", found.read_text("utf-8"))
            assert fragment in set(map(anchor, headings)), target


def examples(name: str) -> list[str]:
    return re.findall(r"(?s)```python\n(.*?)```", page(name))


def test_the_examples_for_tests_run(oci_registry: TestRegistry, tmp_path: Path) -> None:
    named: dict[str, Any] = {}
    for example in examples("testing.md"):
        exec(example, named)  # noqa: S102 - it is our own text
    for name, example in list(named.items()):
        if name.startswith("test_"):
            example(oci_registry, tmp_path)


def test_the_example_for_unittest_runs() -> None:
    import unittest

    named: dict[str, Any] = {"__name__": "example"}
    for example in examples("testing.md"):
        exec(example, named)  # noqa: S102 - as above
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(named["PushTest"])
    outcome = unittest.TestResult()
    suite.run(outcome)
    assert outcome.testsRun == 1
    assert outcome.wasSuccessful(), outcome.errors


def test_the_readme_s_python_runs(oci_registry: TestRegistry, tmp_path: Path) -> None:
    (example,) = re.findall(r"(?s)```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"))
    image = make_image(tmp_path / "image.tar").path
    example = example.replace("image.tar", str(image))
    exec(example.replace("registry.example/team/app", oci_registry.name("app")), {})  # noqa: S102 - as above
    assert oci_registry.tags(oci_registry.name("app")) == ["1.2"]


RECIPES = dict(
    zip(("gitlab", "github"), re.findall(r"(?s)```yaml\n(.*?)```", page("ci.md")), strict=True)
)


@pytest.mark.needs("docker-registry")
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_for_ci_push_and_remember(
    recipe: str, start_docker_registry: StartDockerRegistry, tmp_path: Path
) -> None:
    """Their lines of shell, with their variables, on a machine that knows nothing but its cache."""
    registry = start_docker_registry(RegistryOptions(htpasswd=True))
    text = RECIPES[recipe].replace("ghcr.io", registry.host)
    text = text.replace("${{ github.actor }}", USER).replace(
        "${{ secrets.GITHUB_TOKEN }}", PASSWORD
    )
    lines = re.findall(r"(?m)^ +- (?:run: )?(towline .*)$", text)
    assert lines
    given = dict(re.findall(r"(?m)^ +(TOWLINE_[A-Z]+): (.*)$", text))
    make_image(tmp_path / "image.tar", [{"a": b"layer" * 1000}])
    environ = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path / "home"),
        "CI_PROJECT_DIR": str(tmp_path),
        "CI_REGISTRY": registry.host,
        "CI_REGISTRY_IMAGE": registry.name("team/app"),
        "CI_REGISTRY_USER": USER,
        "CI_REGISTRY_PASSWORD": PASSWORD,
        "CI_COMMIT_SHORT_SHA": "1a2b3c",
        "GITHUB_REPOSITORY": "Team/App",
        "GITHUB_SHA": "1a2b3c",
    }
    exports = "".join(f'export {name}="{value}"\n' for name, value in given.items())
    script = f"set -e\n{exports}" + "\n".join(lines)
    for said in (r"Pushed", r"nothing sent"):
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stderr
    digests = set((tmp_path / "digest.txt").read_text().split())
    pushed = towline.digest(registry.name("team/app:1a2b3c"), creds=f"{USER}:{PASSWORD}")
    assert digests == {pushed}
    kept = ".towline" if recipe == "gitlab" else "home/.cache/towline"
    assert list((tmp_path / kept).iterdir()), "what the recipe says is kept for the next run"
