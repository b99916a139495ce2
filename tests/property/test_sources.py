"""An image has one digest, wherever it is pushed from, as long as nothing asks for a change."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
import zstandard
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import towline
from tests.support import scripted_engine, sparse
from towline.server import Server
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from towline.push.interface.options import Source
    from towline.testing.image_formats import Made

# Each example is some five pushes, so they are not many, and not made smaller when one fails.
SOME = settings(
    max_examples=max(25, settings().max_examples // 12), phases=[Phase.reuse, Phase.generate]
)
CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.integers(1, 300_000).map(lambda size: Random(size).randbytes(size)),  # noqa: S311 - noise
    st.integers(1, 300_000).map(bytes),
)
LAYERS = st.lists(
    st.dictionaries(st.sampled_from("abc"), CONTENTS, min_size=1, max_size=2),
    min_size=1,
    max_size=3,
)
PLATFORMS = st.none() | st.lists(
    st.sampled_from(["linux/amd64", "linux/arm64", "linux/arm/v7"]),
    min_size=1,
    max_size=2,
    unique=True,
)


ENGINES = ("20.10", "25.0", "28", "29.0", "29.7", "podman")
Ways = dict[str, Callable[[], str]]
"""Pushes of one image from each kind of source, which give its digest."""


class World:
    """A registry, engines, and whoever pushes from one to the other."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.host = stack.enter_context(Server()).host
        self.engines: dict[str, scripted_engine.ScriptedEngine] = {}
        self._pushers: dict[str, towline.Pusher] = {}
        self._folder = folder
        self._numbers = itertools.count()
        self._pusher = stack.enter_context(towline.Pusher(cache="none"))
        for version in ENGINES:
            (folder / version).mkdir()
            engine = stack.enter_context(scripted_engine.serving(folder / version, version))
            self.engines[version] = engine
            pusher = towline.Pusher(cache="none", engine=engine.url)
            self._pushers[version] = stack.enter_context(pusher)

    def folder(self) -> Path:
        """An empty one."""
        path = self._folder / f"image-{next(self._numbers)}"
        path.mkdir()
        return path

    def push(self, source: Source, place: str | None = None, engine: str | None = None) -> str:
        """Its digest, in a repository of its own unless `place` names one."""
        place = place or f"{self.host}/image-{next(self._numbers)}:1"
        pusher = self._pushers[engine] if engine else self._pusher
        return pusher.push(source, place, verify="full").digest

    def from_engine(self, version: str, archive: Path, *, containerd: bool) -> str:
        """Push an image that an engine holds, and no other."""
        self.engines[version].images.clear()
        self.engines[version].hold(archive, "app:1", containerd=containerd)
        return self.push("docker-daemon:app:1", engine=version)

    def piped(self, data: bytes) -> str:
        with piped(data) as pipe:
            return self.push(pipe)

    def sparse(self, whole: Path, layers: Collection[str], pushed: str) -> str:
        """The layers that a source lacks are at the destination, where `latest` tells of them."""
        path = self.folder() / "sparse"
        (shutil.copytree if whole.is_dir() else shutil.copy)(whole, path)
        return self.push(sparse.without(path, layers), pushed.replace(":latest", ":1"))

    def compressed(self, data: bytes) -> str:
        path = self.folder() / "packed"
        path.write_bytes(data)
        return self.push(path)

    def ways(self, tar: Path, lacking: Collection[str], pushed: str) -> Ways:
        """Those of a tar."""
        data = tar.read_bytes()
        found: Ways = {
            "registry": lambda: self.push(f"docker://{pushed}"),
            "object": lambda: self.push(io.BytesIO(data)),
            "pipe": lambda: self.piped(data),
            "sparse": lambda: self.sparse(tar, lacking, pushed),
        }
        for name, packed in ("gz", gzip.compress(data, 1)), ("zst", zstandard.compress(data)):
            found[name] = partial(self.compressed, packed)
            found[f"pipe of {name}"] = partial(self.piped, packed)
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(tmp_path_factory.mktemp("sources"), stack)


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


def equal(data: st.DataObject, digest: str, ways: Ways) -> None:
    """A few of the ways give that digest."""
    kinds = st.lists(st.sampled_from(sorted(ways)), min_size=3, max_size=4, unique=True)
    found = {kind: ways[kind]() for kind in data.draw(kinds)}
    assert found == dict.fromkeys(found, digest)


@SOME
@given(
    layers=LAYERS,
    platforms=PLATFORMS,
    compression=st.sampled_from(["gzip", "zstd", "none"]),
    attestations=st.booleans(),
    data=st.data(),
)
def test_what_came_with_a_manifest(
    world: World,
    layers: Any,
    platforms: Any,
    *,
    compression: Any,
    attestations: Any,
    data: st.DataObject,
) -> None:
    spec: Any = {"layers": layers, "platforms": platforms, "compression": compression}
    if platforms:
        spec["attestations"] = attestations
    folder = world.folder()
    made = make_image(folder / "layout", format="oci", **spec)
    tar = make_image(folder / "layout.tar", format="oci-archive", **spec).path
    pushed = f"{world.host}/{folder.name}:latest"
    digest = world.push(tar, pushed)
    if compression != "none":
        assert digest == made.digest
    lacking = data.draw(some_of(made))
    packing = ["tar", "-C", str(made.path), "-c", "."]
    ways = world.ways(tar, lacking, pushed) | {
        "folder": lambda: world.push(made.path),
        "sparse folder": lambda: world.sparse(made.path, lacking, pushed),
        "pipe of a folder": lambda: world.piped(subprocess.check_output(packing)),
    }
    if compression != "none" or platforms:
        saved = make_image(folder / "saved.tar", format="docker-containerd", **spec).path
        ways["saved"] = lambda: world.push(saved)
        for version in ("25.0", "28", "29.7"):
            ways[version] = partial(world.from_engine, version, saved, containerd=True)
    equal(data, digest, ways)


@SOME
@given(LAYERS, st.sampled_from([None, "gzip", "zstd"]), st.data())
def test_what_docker_saves_without_one(
    world: World, layers: Any, compression: Any, data: st.DataObject
) -> None:
    folder = world.folder()
    form: Any = "docker-legacy" if compression else "docker"
    made = make_image(folder / "saved.tar", layers, format=form, compression=compression)
    pushed = f"{world.host}/{folder.name}:latest"
    digest = world.push(made.path, pushed)
    ways = world.ways(made.path, data.draw(some_of(made)), pushed)
    if compression is None:
        older = make_image(folder / "older.tar", layers, format="docker-legacy").path
        ways["older"] = lambda: world.push(older)
        for version in ("20.10", "28", "29.0", "podman"):
            ways[version] = partial(world.from_engine, version, made.path, containerd=False)
        # Of a store for which it was loaded from plain tars.
        ways["loaded"] = partial(world.from_engine, "29.0", made.path, containerd=True)
    equal(data, digest, ways)


def some_of(made: Made) -> st.SearchStrategy[list[str]]:
    """Digests of some of the layers."""
    blobs: list[str] = [layer.blob.digest for layer in made.images[0].layers]
    return st.lists(st.sampled_from(blobs), min_size=1, unique=True)
