"""How the command starts: with descriptors that were closed before."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from towline.testing.registry import TestRegistry


def test_a_closed_standard_input_is_an_error_and_no_wait(oci_registry: TestRegistry) -> None:
    done = _shell(f"push - {oci_registry.name('app')}:1 <&-")
    assert done.returncode == 3
    assert done.stderr.startswith("towline: error: standard input is closed\n")


def test_a_push_with_all_three_descriptors_closed_is_whole(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image.tar")
    name = oci_registry.name("app")
    done = _shell(f"push {image.path} {name}:1 <&- >&- 2>&-")
    assert done.returncode == 1, "the result could not be written"
    assert oci_registry.tags(name) == ["1"]


def test_quiet_is_read_from_the_environment_by_either_name(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image.tar")
    for variable in ("TOWLINE_Q", "TOWLINE_QUIET"):
        with_it = f"push {image.path} {oci_registry.name(variable.lower())}:1"
        assert _shell(with_it, f"{variable}=1 ").stderr == ""


def _shell(words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    command = f"{before}{sys.executable} -m towline {words} --cache none"
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False
    )
