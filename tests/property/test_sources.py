"""An image has one digest, wherever it is pushed from, as long as nothing asks for a change."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import subprocess
import tempfile
import threading
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, BinaryIO

import zstandard
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import towline
from tests.support import scripted_engine, sparse
from towline.server import Server
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from towline.push.interface.signatures import Source

# Each example is some ten pushes, so they are few, and are not made smaller when one fails.
A_FEW = settings(
    max_examples=max(5, settings().max_examples // 100), phases=[Phase.reuse, Phase.generate]
)
CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.integers(1, 300_000).map(lambda size: Random(size).randbytes(size)),  # noqa: S311 - noise
    st.integers(1, 300_000).map(bytes),
)
LAYERS = st.lists(
    st.dictionaries(st.sampled_from("abc"), CONTENTS, min_size=1, max_size=2),
    min_size=1,
    max_size=4,
)
PLATFORMS = st.none() | st.lists(
    st.sampled_from(["linux/amd64", "linux/arm64", "linux/arm/v7"]),
    min_size=1,
    max_size=3,
    unique=True,
)


class Tried:
    """One image, its digest from each kind of source, each in a repository of its own."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.digests: dict[str, str] = {}
        self._server = server
        self._folder = folder

    def push(self, kind: str, source: Source, **options: Any) -> None:
        place = f"{self._server.host}/{kind.replace(' ', '-')}:1"
        result = towline.push(source, place, cache="none", verify="full", **options)
        self.digests[kind] = result.digest

    def each_way(self, tar: Path) -> None:
        """A tar as a file, compressed, as an object, and through a pipe."""
        data = tar.read_bytes()
        for end, packed in (("gz", gzip.compress(data, 1)), ("zst", zstandard.compress(data))):
            path = self._folder / f"packed.{end}"
            path.write_bytes(packed)
            self.push(end, path)
            with piped(packed) as pipe:
                self.push(f"pipe of {end}", pipe)
        self.push("tar", tar)
        self.push("object", io.BytesIO(data))
        with piped(data) as pipe:
            self.push("pipe", pipe)
        source = f"docker://{self._server.host}/tar:1"
        self.push("registry", source)

    def engine(self, tar: Path, version: str, *, containerd: bool) -> None:
        kind = f"engine {version} {'containerd' if containerd else 'overlay2'}"
        folder = self._folder / kind
        folder.mkdir()
        with scripted_engine.serving(folder, version) as engine:
            engine.hold(tar, "app:1", containerd=containerd)
            self.push(kind, "docker-daemon:app:1", engine=engine.url)

    def lacking(self, name: str, whole: Path, layers: Sequence[str]) -> None:
        """The layers that a source lacks are at the destination, where `latest` tells of them."""
        place = f"{self._server.host}/sparse-{name}"
        towline.push(whole, f"{place}:latest", cache="none")
        left_out = sparse.without(whole, layers)
        self.digests[f"sparse {name}"] = towline.push(left_out, f"{place}:1", cache="none").digest


@contextlib.contextmanager
def piped(data: bytes) -> Iterator[BinaryIO]:
    ours, theirs = os.pipe()

    def write() -> None:
        with os.fdopen(theirs, "wb") as file:
            file.write(data)

    writing = threading.Thread(target=write)
    writing.start()
    with os.fdopen(ours, "rb", buffering=0) as file:
        yield file
    writing.join()


@contextlib.contextmanager
def trying() -> Iterator[tuple[Tried, Path]]:
    with tempfile.TemporaryDirectory(prefix="sources-") as name, Server() as server:
        yield Tried(server, Path(name)), Path(name)


def some_of(draw: Callable[[st.SearchStrategy[Any]], Any], layers: Sequence[str]) -> Sequence[str]:
    found: Sequence[str] = draw(st.lists(st.sampled_from(layers), min_size=1, unique=True))
    return found


@A_FEW
@given(LAYERS, PLATFORMS, st.sampled_from(["gzip", "zstd", "none"]), st.booleans(), st.data())
def test_what_came_with_a_manifest(
    layers: Any, platforms: Any, compression: Any, attestations: Any, data: st.DataObject
) -> None:
    spec: Any = {"layers": layers, "platforms": platforms, "compression": compression}
    if platforms:
        spec["attestations"] = attestations
    with trying() as (tried, folder):
        made = make_image(folder / "layout", format="oci", **spec)
        tried.push("folder", made.path)
        tar = make_image(folder / "layout.tar", format="oci-archive", **spec).path
        tried.each_way(tar)
        plain = subprocess.run(["tar", "-C", made.path, "-c", "."], check=True, capture_output=True)
        with piped(plain.stdout) as pipe:
            tried.push("pipe of a folder", pipe)
        if compression != "none" or platforms:
            saved = make_image(folder / "saved.tar", format="docker-containerd", **spec).path
            tried.push("saved", saved)
            for version in ("25.0", "28", "29.7"):
                tried.engine(saved, version, containerd=True)
        blobs = [layer.blob.digest for layer in made.images[0].layers]
        tried.lacking("folder", made.path, some_of(data.draw, blobs))
        tried.lacking("tar", tar, some_of(data.draw, blobs))
        assert len(set(tried.digests.values())) == 1, tried.digests
        if compression != "none":
            assert made.digest in tried.digests.values()


@A_FEW
@given(LAYERS, st.sampled_from([None, "gzip", "zstd"]), st.data())
def test_what_docker_saves_without_one(layers: Any, compression: Any, data: st.DataObject) -> None:
    with trying() as (tried, folder):
        form: Any = "docker-legacy" if compression else "docker"
        made = make_image(folder / "saved.tar", layers, format=form, compression=compression)
        tried.each_way(made.path)
        if compression is None:
            older = make_image(folder / "older.tar", layers, format="docker-legacy").path
            tried.push("older", older)
            for version in ("20.10", "28", "29.0", "podman"):
                tried.engine(made.path, version, containerd=False)
            # Of a store for which it was loaded from plain tars.
            tried.engine(made.path, "29.0", containerd=True)
        blobs = [layer.blob.digest for layer in made.images[0].layers]
        tried.lacking("saved", made.path, some_of(data.draw, blobs))
        assert len(set(tried.digests.values())) == 1, tried.digests
