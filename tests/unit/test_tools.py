"""The project's doors: what they find, and what they say where they cannot open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_python_that_is_too_old_is_one_sentence(tmp_path: Path) -> None:
    says = "import runpy, sys; sys.version_info = (3, 10, 0); sys.argv = sys.argv[1:]; "
    says += "runpy.run_path(sys.argv[0], run_name='__main__')"
    old = script(tmp_path / "python3.10", f'exec {sys.executable} -c "{says}" "$@"')
    done = subprocess.run(
        ["make", "-s", "demo", f"PYTHON={old}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert said == [
        f"bootstrap: Python 3.11 or newer is needed, and {sys.executable} is 3.10",
    ]
    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("minors", "failing", "wanted"),
    [
        ([9, 11, 13, 14], "", ["lint 11", "test 11", "test 14"]),
        ([12], "", ["lint 12", "test 12"]),
        ([11, 13], "test", ["lint 11", "test 11", "test 13"]),
        ([8, 10], "", []),
    ],
)
def test_ci_runs_the_checks_and_the_tests_on_the_oldest_and_the_newest_python(
    tmp_path: Path, minors: list[int], failing: str, wanted: list[str]
) -> None:
    for minor in minors:
        fits = "" if minor < 11 else f"echo {minor} {minor}"
        script(tmp_path / f"python3.{minor}", fits)
    log = tmp_path / "made"
    script(tmp_path / "python3", "exit 1")
    script(tmp_path / "make", f'echo "$1 ${{2#PYTHON=}}" >> {log}; [ "$1" != "{failing}" ]')
    path = f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin"
    shadow = {f"python3.{minor}" for minor in range(11, 20)} - {f"python3.{m}" for m in minors}
    for name in shadow:  # of this machine
        script(tmp_path / name, "exit 1")
    done = subprocess.run(
        [ROOT / ".ci/run"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (log.read_text().splitlines() if log.exists() else []) == wanted
    assert done.returncode == (0 if wanted and not failing else 1)
    if not wanted:
        assert done.stderr == "no Python 3.11 or newer is found\n"
    if failing:
        assert "make test PYTHON=11 failed" in done.stderr
