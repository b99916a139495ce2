"""`make image`: an image of towline, made and pushed by towline, that runs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import towline
from tests.support import readback

if TYPE_CHECKING:
    from towline.testing import TestRegistry

TOOL = Path(__file__).resolve().parents[2] / "tools" / "image.py"


def made(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, TOOL, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def image(registry: TestRegistry, name: str) -> readback.Image:
    found = readback.read(registry.url, name.partition("/")[2], "1")
    assert isinstance(found, readback.Image)
    return found


def environ_of(config: dict[str, Any]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in config["config"]["Env"])


def test_an_image_of_towline_runs_by_itself_and_on_a_base(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    name = oci_registry.name("towline")
    first = made(f"{name}:1")
    assert made(f"{name}:1") == first, "the same files, the same image"
    found = image(oci_registry, name)
    assert found.config["config"]["Entrypoint"] == ["python3", "-m", "towline"]
    for layer in found.layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            tar.extractall(tmp_path, filter="data")
    (loader,) = map(str, tmp_path.glob("lib*/ld-linux*"))
    root = f"{tmp_path}/usr/local"
    told = environ_of(found.config)
    inside = {key: f"{tmp_path}{told[key]}" for key in ("PYTHONHOME", "PYTHONPATH")}
    python = [loader, "--library-path", f"{root}/lib", f"{root}/bin/python3"]
    run = subprocess.run(
        [*python, "-m", "towline", "--version"],
        env={"HOME": os.devnull, **inside},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == f"towline {towline.__version__}\n"

    other = oci_registry.name("based")
    made(f"{other}:1", "--base", f"{name}:1")
    based = image(oci_registry, other)
    listed = [layer["digest"] for layer in found.manifest["layers"]]
    assert [layer["digest"] for layer in based.manifest["layers"]][: len(listed)] == listed
    assert json.dumps(based.config["rootfs"]["diff_ids"]).count("sha256:") == len(listed) + 1


def test_what_cannot_be_pushed_is_told_in_a_sentence() -> None:
    done = subprocess.run(
        [sys.executable, TOOL, "app"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "image: app names no registry to push to\n"
