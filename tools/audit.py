"""Lists what the program is made of (CycloneDX 1.6), and asks what is known against it.

    make audit ARGS="[--output FILE] [--advisories URL|none]"

The components are what is installed beside this Python for towline to run, with the extras that are
there: names, versions, licenses, who needs whom. They are looked up in an advisory database that
speaks OSV's protocol; where it cannot be asked that is said, and is no failure. Where something is
known against one, the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

ADVISORIES = "https://api.osv.dev"
SECONDS = 20.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)")


def main(words: list[str]) -> int:
    """Write the list; 1 where something is known against a component."""
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.add_argument("--output", default="-")
    parser.add_argument("--advisories", default=ADVISORIES)
    chosen = parser.parse_args(words)
    needs = _needs("towline")
    document = json.dumps(_document(needs), indent=2) + "\n"
    if chosen.output == "-":
        sys.stdout.write(document)
    else:
        Path(chosen.output).write_text(document)
    if chosen.advisories == "none":
        return 0
    found = _advisories(chosen.advisories, sorted(needs))
    for name, advisories in found.items():
        _say(f"{_purl(name)}: {', '.join(advisories)}")
    return 1 if found else 0


def _needs(root: str) -> dict[str, list[str]]:
    """What is installed that it needs, and what that needs, itself included."""
    found: dict[str, list[str]] = {}
    todo = [root]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        lines = metadata.requires(name) or []
        # Another distribution's extras are its own affair; ours count where they are installed.
        wanted = [line for line in lines if name == root or not _EXTRA.search(line)]
        found[name] = sorted({need for line in wanted if (need := _installed(line))})
        todo += found[name]
    return found


def _installed(requirement: str) -> str | None:
    """The name of what is required, if it is there."""
    match = _NAME.match(requirement)
    try:
        return _normal(metadata.metadata(match[0])["Name"]) if match else None
    except metadata.PackageNotFoundError:
        return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _purl(name: str) -> str:
    return f"pkg:pypi/{name}@{metadata.version(name)}"


def _document(needs: dict[str, list[str]]) -> dict[str, Any]:
    first, *rest = needs
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _component(first, "application")},
        "components": [_component(name, "library") for name in sorted(rest)],
        "dependencies": [
            {"ref": _purl(name), "dependsOn": [_purl(need) for need in needs[name]]}
            for name in sorted(needs)
        ],
    }


def _component(name: str, kind: str) -> dict[str, Any]:
    told = metadata.metadata(name)
    component = {
        "type": kind,
        "bom-ref": _purl(name),
        "name": name,
        "version": told["Version"],
        "purl": _purl(name),
    }
    if "License-Expression" in told:
        return {**component, "licenses": [{"expression": told["License-Expression"]}]}
    # Older metadata says it in a classifier, or in free words.
    classifiers = [line for line in told.get_all("Classifier") or [] if line.startswith("License")]
    words = [line.rpartition(" :: ")[2] for line in classifiers]
    if not words and "License" in told:
        words = told["License"].splitlines()[:1]
    licenses = [{"license": {"name": word}} for word in words if word]
    return {**component, "licenses": licenses} if licenses else component


def _advisories(database: str, names: list[str]) -> dict[str, list[str]]:
    """What is known against each; nothing where the database cannot be asked."""
    queries = [{"package": {"purl": _purl(name)}} for name in names]
    request = urllib.request.Request(  # noqa: S310 - what was asked for
        f"{database.rstrip('/')}/v1/querybatch",
        json.dumps({"queries": queries}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - as above
            results = json.load(answer)["results"]
        told = {
            name: [advisory["id"] for advisory in result.get("vulns", ())]
            for name, result in zip(names, results, strict=True)
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        _say(f"no advisories were looked up: {database} cannot be asked ({error})")
        return {}
    _say(f"{len(names)} components were looked up at {database}")
    return {name: advisories for name, advisories in told.items() if advisories}


def _say(sentence: str) -> None:
    sys.stderr.write(f"audit: {sentence}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
