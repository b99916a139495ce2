"""What `import towline` gives, whatever was used first."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import towline
import towline.testing
from towline import api, results
from towline.cli import options as cli_options
from towline.cli import wording
from towline.push.interface import options
from towline.push_events import Outcome

if typing.TYPE_CHECKING:
    from types import ModuleType


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_every_public_name_is_there() -> None:
    for name in towline.__all__:
        assert getattr(towline, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = towline.nothing


@pytest.mark.parametrize(
    "first",
    [
        "towline.push",
        "towline.Pusher",
        "towline.PushResult",
        "import towline.results",
        "from towline.push.pusher import Pusher",
        "from towline import push",
    ],
)
def test_push_is_the_function_whatever_was_used_first(first: str) -> None:
    told = run(
        f"import towline\n{first}\nprint(type(towline.push).__name__, towline.push.__module__)"
    )
    assert told == "function towline.api\n"


def test_importing_towline_loads_none_of_its_rooms() -> None:
    told = run("import sys, towline\nprint(*(name for name in sys.modules if 'towline' in name))")
    assert sorted(told.split()) == ["towline", "towline._version"]


def public(value: object) -> list[object]:
    """It, and its public methods and properties."""
    found = [value]
    if isinstance(value, type):
        for name, member in inspect.getmembers(value):
            if not name.startswith("_"):
                found += [member.fget if isinstance(member, property) else member]
    return [one for one in found if isinstance(one, type) or inspect.isfunction(one)]


@pytest.mark.parametrize("package", [towline, towline.testing], ids=lambda one: one.__name__)
def test_the_types_of_every_public_name_can_be_asked_for_at_run_time(package: ModuleType) -> None:
    for name in package.__all__:
        for one in public(getattr(package, name)):
            typing.get_type_hints(one)


def sentences(kind: str) -> dict[str, str]:
    """What the source says of each key of a TypedDict."""
    tree = ast.parse(Path(options.__file__).read_text())
    (found,) = (one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == kind)
    pairs = zip(found.body[1::2], found.body[2::2], strict=True)
    return {
        ast.unparse(key.target): " ".join(str(ast.literal_eval(text.value)).split())
        for key, text in pairs
        if isinstance(key, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def test_the_help_of_push_tells_every_option_with_its_sentence() -> None:
    wanted = sentences("PushOptions") | sentences("PusherOptions")
    assert set(wanted) == set(api.Options.__annotations__)
    _, _, told = inspect.getdoc(towline.push).partition("Keywords:\n")  # type: ignore[union-attr]
    flat = " ".join(told.split())
    assert flat == " ".join(f"{key}: {text}" for key, text in wanted.items())


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("outcome", typing.get_args(Outcome)),
        ("status", typing.get_args(results.Status)),
        ("digest_differs", typing.get_args(results.DigestDiffers)),
    ],
)
def test_every_word_of_a_result_is_documented(field: str, words: tuple[str, ...]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "library.md").read_text()
    _, _, told = page.partition(f"`{field}`")
    assert [word for word in words if f"`{word}`" not in told] == []


def test_what_is_always_there_is_not_said_to_be_missing_at_times() -> None:
    hints = typing.get_type_hints(towline.LayerResult)
    assert (hints["digest"], hints["size"]) == (str, int)


SOURCE = Path(towline.__file__).parent
OPTION = re.compile(r"--[a-z][a-z0-9-]+")


def said(page: Path) -> list[str]:
    """The texts of a module, without its docstrings."""
    tree = ast.parse(page.read_text())
    docs = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Expr)}
    found = [one for one in ast.walk(tree) if isinstance(one, ast.Constant) and id(one) not in docs]
    return [one.value for one in found if isinstance(one.value, str)]


def test_the_library_speaks_of_its_keywords_and_the_command_of_its_options() -> None:
    names = {f"--{keyword.replace('_', '-')}" for keyword in cli_options.keywords()}
    for page in SOURCE.rglob("*.py"):
        if page.relative_to(SOURCE).parts[0] not in {"cli", "server", "testing"}:
            assert [text for text in said(page) if names & set(OPTION.findall(text))] == [], page
    for text, wanted in {
        "pass `plain_http=True`": "pass `--plain-http`",
        "use `format='oci'`, not `verify`": "use `--format oci`, not `--verify`",
        "give both: `cert` and `key`": "give both: `--cert` and `--key`",
        "run `towline cache clear`": "run `towline cache clear`",
    }.items():
        assert wording.spelled(text) == wanted
