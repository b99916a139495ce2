"""What `import towline` gives, whatever was used first."""

from __future__ import annotations

import subprocess
import sys

import pytest

import towline


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
        "import towline.push.result",
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
