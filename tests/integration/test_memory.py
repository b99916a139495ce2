"""Memory does not grow with what is pushed: whole processes, measured by the operating system."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from towline.testing.images import ImageSpec, make_image, make_images

if TYPE_CHECKING:
    from pathlib import Path

    from towline.testing import TestRegistry

MiB = 1 << 20
LARGE = 192 * MiB
"""Half of it, as it is compressed, is above every bound here."""
# Not ru_maxrss: that remembers the process which this one was forked from.
_MEASURED = """
import sys
from towline.cli.main import main
code = main(sys.argv[1:])
status = open("/proc/self/status").read()
print(status.partition("VmHWM:")[2].split()[0], file=sys.stderr)
sys.exit(code)
"""


def peak(*words: str) -> int:
    """Bytes of the largest resident set of one command."""
    command = [sys.executable, "-c", _MEASURED, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1]) * 1024


def big_file(path: Path, size: int) -> Path:
    """Bytes that compress by half, also where a compressor looks back over more than one block."""
    with path.open("wb") as file:
        for _ in range(size // MiB):
            file.write(os.urandom(MiB // 2) + bytes(MiB // 2))
    return path


# Where the layers are not read, zstd makes them, which takes a tenth of gzip's time.
@pytest.mark.parametrize(("form", "packed"), [("docker", "none"), ("docker-containerd", "zstd")])
def test_memory_is_constant_in_the_layers_size(
    oci_registry: TestRegistry, tmp_path: Path, form: Any, packed: Any
) -> None:
    sizes = {"small": 48 * MiB, "large": LARGE}
    peaks = {}
    for name, size in sizes.items():
        source = big_file(tmp_path / name, size)
        image = tmp_path / f"{name}.tar"
        make_image(image, [{"big": source}], format=form, compression=packed)
        source.unlink()
        peaks[name] = peak(
            "push", str(image), f"{oci_registry.name(name)}:1", "-q", "--cache", "none"
        )
        image.unlink()
    assert peaks["large"] < 96 * MiB
    assert peaks["large"] - peaks["small"] < 12 * MiB


@pytest.mark.parametrize(
    ("kind", "packed"), [("oci", "zstd"), ("oci-archive", "zstd"), ("docker-archive", "gzip")]
)
def test_a_copy_to_files_needs_no_more_for_a_large_image(
    oci_registry: TestRegistry, tmp_path: Path, kind: str, packed: Any
) -> None:
    layer = {"big": big_file(tmp_path / "big", LARGE)}
    make_image(tmp_path / "image", [layer], format="oci", compression=packed)
    name = f"{oci_registry.name('app')}:1"
    peak("push", str(tmp_path / "image"), name, "-q", "--cache", "none")
    most = peak("copy", name, f"{kind}:{tmp_path}/to:app:1", "-q", "--cache", "none")
    assert most < 64 * MiB


def test_many_small_images_at_once_need_little(oci_registry: TestRegistry, tmp_path: Path) -> None:
    images = [ImageSpec([{"own": b"%d" % n}], names=[str(n)]) for n in range(60)]
    make_images(tmp_path / "images", images, "oci")
    name = oci_registry.name("app")
    peak("push", "-a", str(tmp_path / "images"), name, "-q", "--cache", "none")
    assert peak("copy", "-a", name, f"oci:{tmp_path}/to", "-q", "--cache", "none") < 64 * MiB
