"""`towline demo`: pushes a real image to registries of its own, and shows how little is sent again.

Everything is in a temporary folder, cache and configuration too, so that the demo neither reads nor
changes anything of the user's.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from towline.cli import figures, output
from towline.cli.command import Command
from towline.cli.signals import cancel_on_signals
from towline.errors import Cancelled, TowlineError, TransferCancelled

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping

    from towline.context import Cancel
    from towline.push.interface.result import PushResult
    from towline.push.pusher import Pusher
    from towline.server import LoggedRequest, Server
    from towline.testing.made import Made

_REPOSITORY = "demo/python"
_TAG = "1"
_LAYER_BYTES = 40_000_000
"""Most bytes of a layer, so that the demo takes seconds whatever is installed."""
_LEFT_OUT = frozenset(
    {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "lib-dynload"}
)
_COLUMNS = "{:<12}  {:<32}  {:>9}  {:>8}  {:>7}"


def _demo(_args: argparse.Namespace) -> int:
    """Run the demo; a step that does not do as promised ends it with exit code 1."""
    import towline
    from towline.server import Server

    with (
        tempfile.TemporaryDirectory(prefix="towline-demo-") as name,
        cancel_on_signals() as cancel,
        Server(Path(name) / "registry") as server,
        towline.Pusher(
            cache=str(Path(name) / "cache.sqlite"), environ=_environ(Path(name))
        ) as pusher,
    ):
        output.write([f"a registry of our own listens on {server.url}", ""])
        output.write([_COLUMNS.format("step", "outcome", "bytes", "requests", "time").rstrip()])
        _Demo(Path(name), server, pusher, cancel).run()
    # How this command is called from where the user is.
    program, called = "towline", sys.argv[0]
    if not shutil.which(program):
        as_module = Path(called).name != "towline"
        program = f"{sys.executable} -m towline" if as_module else called
    output.write(
        [
            "",
            "Next, with an image and a registry of your own:",
            "  docker save app:1 -o image.tar",
            f"  {program} push image.tar registry.example/team/app:1",
            f"Without a registry, `{program} serve` starts one on 127.0.0.1:5000.",
        ]
    )
    return 0


class _Demo:
    """The steps of the demo, each of which writes a line of the table."""

    def __init__(self, folder: Path, server: Server, pusher: Pusher, cancel: Cancel) -> None:
        self._image = folder / "image.tar"
        self._environ = _environ(folder)
        self._server = server
        self._pusher = pusher
        self._cancel = cancel
        self._destination = f"{server.host}/{_REPOSITORY}:{_TAG}"

    def run(self) -> None:
        try:
            made = self._build()
            self._cancel.check()
            first = self._push()
            self._push_again(first)
            self._cancel.check()
            self._read_back(first, made)
            self._mount(first)
            self._other_machine(first)
            self._cancel.check()
            self._two_registries(first, made)
        except Cancelled:
            raise TransferCancelled("the demo was interrupted") from None

    def _build(self) -> Made:
        from towline.testing.images import make_image

        begun = time.monotonic()
        made = make_image(self._image, layers=_layers(), names=["python:demo"])
        size = figures.size(self._image.stat().st_size)
        what = f"{figures.counted(len(made.diff_ids), 'layer')}, {size}"
        _tell("build", what, "", "", time.monotonic() - begun)
        return made

    def _pushed(
        self, pusher: Pusher, destination: str
    ) -> tuple[PushResult, list[LoggedRequest], float]:
        """The result of a push, the requests that the registry got for it, and its seconds."""
        begun, before = time.monotonic(), len(self._server.requests)
        result = pusher.push(str(self._image), destination, cancel=self._cancel)
        return result, self._server.requests[before:], time.monotonic() - begun

    def _push(self) -> PushResult:
        first, asked, seconds = self._pushed(self._pusher, self._destination)
        what = f"{figures.counted(len(first.layers), 'layer')} pushed"
        _tell("push", what, _uploaded(asked), len(asked), seconds)
        return first

    def _push_again(self, first: PushResult) -> None:
        again, asked, seconds = self._pushed(self._pusher, self._destination)
        uploads = [request for request in asked if _is_upload(request)]
        if uploads or again.digest != first.digest:
            told = ", ".join(f"{request.method} {request.path}" for request in uploads)
            raise TowlineError(f"the second push was not what it promises: {told or again.digest}")
        _tell("push again", "nothing sent", 0, len(asked), seconds)

    def _read_back(self, pushed: PushResult, made: Made) -> None:
        from towline.cli.demo_readback import Reader, read_back

        begun, before = time.monotonic(), len(self._server.requests)
        reader = Reader(self._server.host, _REPOSITORY)
        found = read_back(reader, _TAG, pushed.digest, made.diff_ids)
        asked = len(self._server.requests) - before
        what = f"{found.digests} digests, {found.diff_ids} DiffIDs agree"
        _tell("read back", what, found.received, asked, time.monotonic() - begun)

    def _mount(self, first: PushResult) -> None:
        """Push to another repository of the registry, which mounts the layers from the first."""
        name = f"{self._server.host}/demo/copy:{_TAG}"
        copy, asked, seconds = self._pushed(self._pusher, name)
        mounted = [layer for layer in copy.layers if layer.outcome == "mounted"]
        if _uploaded(asked) or len(mounted) < len(copy.layers) or copy.digest != first.digest:
            raise TowlineError("the layers were not mounted from the first repository")
        what = f"{figures.counted(len(mounted), 'layer')} mounted"
        _tell("repository 2", what, 0, len(asked), seconds)

    def _other_machine(self, first: PushResult) -> None:
        """Push without a cache: what is there is learned from the registry."""
        import towline

        with towline.Pusher(cache="none", environ=self._environ) as stranger:
            found, asked, seconds = self._pushed(stranger, self._destination)
        if any(map(_is_upload, asked)) or found.digest != first.digest:
            raise TowlineError("a machine without a cache sent what the registry held")
        _tell("no cache", "nothing sent", 0, len(asked), seconds)

    def _two_registries(self, first: PushResult, made: Made) -> None:
        """Push to two registries, under one repository name, with one read; both must be whole."""
        from towline.cli.demo_readback import Reader, read_back
        from towline.server import Server

        with Server(self._image.parent / "a") as one, Server(self._image.parent / "b") as other:
            names = [f"{server.host}/{_REPOSITORY}:{_TAG}" for server in (one, other)]
            begun = time.monotonic()
            results = self._pusher.push(str(self._image), names, cancel=self._cancel)
            seconds = time.monotonic() - begun
            for server, result in zip((one, other), results, strict=True):
                reader = Reader(server.host, _REPOSITORY)
                read_back(reader, _TAG, result.digest, made.diff_ids)
            asked = [*one.requests, *other.requests]
        if {result.digest for result in results} != {first.digest}:
            raise TowlineError("two registries were given different images")
        pushes = [request for request in asked if request.method != "GET"]
        _tell("2 registries", "both whole, read once", _uploaded(asked), len(pushes), seconds)


def _layers() -> list[Mapping[str, Path]]:
    """The layers of the demo's image, base first: the files of the running Python.

    For each layer the paths in the image, and the files of this machine behind them.
    """
    library = Path(sysconfig.get_path("stdlib"))
    kinds = (
        _interpreter(),
        _below(library / "lib-dynload", "*.so"),
        _below(library, "*.py"),
        _below(Path(__file__).parent.parent, "*.py"),
    )
    return [layer for kind in kinds if (layer := _cut(kind))]


def _interpreter() -> Iterator[Path]:
    yield Path(sys.executable).resolve()
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDLIBRARY")
    if folder and name:
        yield (Path(folder) / name).resolve()


def _below(root: Path, pattern: str) -> Iterator[Path]:
    for path in sorted(root.rglob(pattern)):
        if not _LEFT_OUT & set(path.relative_to(root).parts):
            yield path


def _cut(paths: Iterable[Path]) -> dict[str, Path]:
    """As many of the files as fit into a layer; files that cannot be read are left out."""
    taken: dict[str, Path] = {}
    room = _LAYER_BYTES
    for path in paths:
        # pathlib's own question raises where a folder may not be looked into.
        if not os.path.isfile(path) or not os.access(path, os.R_OK):  # noqa: PTH113 - see above
            continue
        room -= path.stat().st_size
        if room < 0:
            break
        taken[str(path).lstrip("/")] = path
    return taken


def _is_upload(request: LoggedRequest) -> bool:
    return request.method in {"POST", "PATCH", "PUT"} and "/blobs/" in request.path


def _uploaded(requests: Iterable[LoggedRequest]) -> int:
    """Bytes of blobs that the registry has received."""
    return sum(request.received for request in requests if _is_upload(request))


def _environ(folder: Path) -> dict[str, str]:
    """An environment that names nothing outside of the demo's folder."""
    return {"HOME": str(folder), "TMPDIR": str(folder)}


def _tell(step: str, outcome: str, moved: int | str, requests: int | str, seconds: float) -> None:
    """Write a line of the table; bytes and requests are empty for a step that sends nothing."""
    size = figures.size(moved) if isinstance(moved, int) else moved
    output.write([_COLUMNS.format(step, outcome, size, requests, f"{seconds:.2f} s")])


DEMO = Command(
    _demo,
    "",
    """\
Push a real image to a registry of its own, push it again, read it back and compare; then to
another repository, from a machine that knows nothing, and to two registries at once.""",
    words=0,
)
