"""The images of the cases beside the real one: made once, and kept."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import image
from benchmarks.peers import towline_command
from towline.testing import make_image
from towline.testing.images import ImageSpec, make_images

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from towline.testing.blob_store import Content

MiB = 1 << 20
BIG = 4096
"""MiB of one layer, or of several together."""
SMALL = 30
"""Small layers."""
TAGS = 300
"""Images on the same base."""
BASE = 12
"""Layers of that."""


def one(path: Path) -> None:
    """One large layer, a quarter of it random, the rest zeros."""
    _large(path, layers=1, share=4)


def weights(path: Path) -> None:
    """One large layer that no encoder makes smaller, as what neural networks have learned."""
    _large(path, layers=1, share=1)


def several(path: Path) -> None:
    """The same as one, in four layers."""
    _large(path, layers=4, share=4)


def _large(path: Path, *, layers: int, share: int) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="making-") as making:
        files: list[Mapping[str, Content]] = []
        for number in range(layers):
            file = Path(making, f"model-{number}.safetensors")
            bytes_of = random.Random(number).randbytes  # noqa: S311 - no secret
            with file.open("wb") as writing:
                for block in range(BIG // layers):
                    writing.write(bytes_of(MiB) if block % share == 0 else bytes(MiB))
            files.append({file.name: file})
        make_image(path, files)


def small(path: Path) -> None:
    """Many small layers of text, some 10 to 100 kB each once they are compressed."""
    draw = random.Random(5)  # noqa: S311 - no secret
    words = [bytes(draw.choices(b"abcdefghijklmnop", k=6)) for _ in range(2000)]
    texts = (b" ".join(draw.choices(words, k=(n % 10 + 1) * 4000)) for n in range(SMALL))
    make_image(path, [{f"file-{n}": text} for n, text in enumerate(texts)])


def layout(path: Path) -> None:
    """The real image as an OCI layout, in a folder, its layers compressed by gzip."""
    real = image.kept(path.parent.with_name("image.tar"), partial(print, flush=True)).path
    copy = [*towline_command(), "copy", "--quiet", "--cache", "none", "--format", "oci"]
    subprocess.run([*copy, f"docker-archive:{real}", f"oci:{path}:1"], check=True)


def named_by_digest(path: Path) -> None:
    """What `docker save` gives of a containerd store: layers of gzip, in files named by digest."""
    draw = random.Random(9).randbytes  # noqa: S311 - no secret
    layers = [{"file": draw(size)} for size in (250 * MiB, 600, 140 * MiB, 118 * MiB, MiB // 4)]
    names = [image.NAME]
    make_image(path, layers, names=names, format="docker-containerd", compression="gzip")


def tags(path: Path) -> None:
    """A layout of many images on the same base layers, each with a small layer of its own."""
    draw = random.Random(7).randbytes  # noqa: S311 - no secret
    base = [{f"base-{n}": draw(MiB // 2)} for n in range(BASE)]
    specs = [
        ImageSpec([*base, {"own": b"%d" % number}], names=[str(number)]) for number in range(TAGS)
    ]
    make_images(path, specs, "oci")


def kept(folder: Path, make: Callable[[Path], None] | None = None) -> image.Image:
    """What was made in that way, or the real image; made now if it is not there yet."""
    if make is None:
        return image.kept(folder / "image.tar", partial(print, flush=True))
    path = folder / make.__name__
    if not path.exists():
        print(f"making {path} (once)", flush=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="making-") as making:
            made = Path(making, "made")
            make(made)
            made.rename(path)
    return _layout(path) if path.is_dir() else image.opened(path)


def _layout(path: Path) -> image.Image:
    described = json.loads((path / "index.json").read_bytes())["manifests"][0]
    algorithm, _, digits = described["digest"].partition(":")
    manifest = json.loads((path / "blobs" / algorithm / digits).read_bytes())
    sizes = tuple(layer["size"] for layer in manifest["layers"])
    return image.Image(path, sum(sizes), sizes)
