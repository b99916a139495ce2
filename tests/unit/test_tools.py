"""The project's doors: what they find, and what they say where they cannot open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scripted import Asked, Reply, scripted

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


def audit(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "audit.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_audit_lists_what_the_program_needs_and_nothing_else() -> None:
    done = audit("--advisories", "none")
    document = json.loads(done.stdout)
    names = {component["name"] for component in document["components"]}
    assert done.returncode == 0
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert {"h11", "isal", "zstandard", "deflate", "rich"} <= names
    assert not names & {"pytest", "hypothesis", "mypy", "towline"}
    refs = {component["bom-ref"] for component in document["components"]}
    refs.add(document["metadata"]["component"]["bom-ref"])
    assert {each["ref"] for each in document["dependencies"]} == refs
    assert all(need in refs for each in document["dependencies"] for need in each["dependsOn"])


def test_what_is_known_against_a_component_is_told_and_fails() -> None:
    def known(asked: Asked) -> Reply:
        queries = json.loads(asked.body)["queries"]
        bad = [
            {"vulns": [{"id": "X-1"}]} if "/h11@" in q["package"]["purl"] else {} for q in queries
        ]
        return Reply(200, {"Content-Type": "application/json"}, json.dumps({"results": bad}))

    with scripted() as database:
        database.on("POST", "/v1/querybatch", known)
        done = audit("--advisories", database.url)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("audit: pkg:pypi/h11@")
    assert done.stderr.splitlines()[-1].endswith(": X-1")


@pytest.mark.parametrize("answer", [Reply(500), Reply(200, body="{}"), Reply(200, body="no")])
def test_a_database_that_cannot_be_asked_is_said_and_no_failure(answer: Reply) -> None:
    with scripted() as database:
        database.on("POST", "/v1/querybatch", answer)
        done = audit("--advisories", database.url)
    assert done.returncode == 0
    assert "no advisories were looked up" in done.stderr
