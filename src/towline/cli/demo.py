"""`towline demo`: a real image pushed to registries of its own, in every way that sends little.

Everything lies in a temporary folder and everything is decided there: cache, configuration, port.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from towline.cli import output
from towline.cli.arguments import Command
from towline.cli.progress import figures
from towline.cli.signals import cancel_on_signals
from towline.errors import Cancelled, TowlineError, TransferCancelled

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from towline.context import Cancel
    from towline.push.pusher import Pusher
    from towline.push.result import PushResult
    from towline.server import LoggedRequest, Server
    from towline.testing.made import Made

_REPOSITORY = "demo/python"
_TAG = "1"
_COLUMNS = "{:<12}  {:<32}  {:>9}  {:>8}  {:>7}"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the table."""

    name: str
    outcome: str
    moved: int | None
    """Bytes over the wire; None where there is no wire."""
    requests: int | None
    seconds: float

    def line(self) -> str:
        """As it is printed."""
        moved = "" if self.moved is None else figures.size(self.moved)
        requests = "" if self.requests is None else str(self.requests)
        columns = (self.name, self.outcome, moved, requests, f"{self.seconds:.2f} s")
        return _COLUMNS.format(*columns)


def _demo(_args: argparse.Namespace) -> int:
    """Run it; an untrue promise ends it with exit code 1."""
    import towline
    from towline.server import Server

    with (
        tempfile.TemporaryDirectory(prefix="towline-demo-") as folder,
        cancel_on_signals() as cancel,
        Server(Path(folder) / "registry") as server,
        towline.Pusher(
            cache=str(Path(folder) / "cache.sqlite"), environ=_environ(Path(folder))
        ) as pusher,
    ):
        _Demo(Path(folder), server, pusher, cancel).run()
    output.write(_next())
    return 0


class _Demo:
    """The steps, in order."""

    def __init__(self, folder: Path, server: Server, pusher: Pusher, cancel: Cancel) -> None:
        self._image = folder / "image.tar"
        self._environ = _environ(folder)
        self._server = server
        self._pusher = pusher
        self._cancel = cancel
        self._destination = f"{server.host}/{_REPOSITORY}:{_TAG}"

    def run(self) -> None:
        output.write([f"a registry of our own listens on {self._server.url}", ""])
        output.write([_COLUMNS.format("step", "outcome", "bytes", "requests", "time").rstrip()])
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
            message = "the demo was interrupted"
            raise TransferCancelled(message) from None

    def _build(self) -> Made:
        from towline.cli.demo_image import layers
        from towline.testing.images import make_image

        begun = time.monotonic()
        made = make_image(self._image, layers=layers(), names=["python:demo"])
        size = figures.size(self._image.stat().st_size)
        what = f"{figures.counted(len(made.diff_ids), 'layer')}, {size}"
        _tell(Step("build", what, None, None, time.monotonic() - begun))
        return made

    def _push(self) -> PushResult:
        begun, before = time.monotonic(), len(self._server.requests)
        result = self._pusher.push(str(self._image), self._destination, cancel=self._cancel)
        asked = self._server.requests[before:]
        what = f"{figures.counted(len(result.layers), 'layer')} pushed"
        _tell(Step("push", what, _uploaded(asked), len(asked), time.monotonic() - begun))
        return result

    def _push_again(self, first: PushResult) -> None:
        begun, before = time.monotonic(), len(self._server.requests)
        again = self._pusher.push(str(self._image), self._destination, cancel=self._cancel)
        asked = self._server.requests[before:]
        uploads = [request for request in asked if _is_upload(request)]
        if uploads or again.digest != first.digest:
            told = ", ".join(f"{request.method} {request.path}" for request in uploads)
            message = f"the second push was not what it promises: {told or again.digest}"
            raise TowlineError(message)
        _tell(Step("push again", "nothing sent", 0, len(asked), time.monotonic() - begun))

    def _read_back(self, pushed: PushResult, made: Made) -> None:
        from towline.cli.demo_readback import Reader, read_back

        begun, before = time.monotonic(), len(self._server.requests)
        reader = Reader(self._server.host, _REPOSITORY)
        found = read_back(reader, _TAG, pushed.digest, made.diff_ids)
        asked = len(self._server.requests) - before
        what = f"{found.digests} digests, {found.diff_ids} DiffIDs agree"
        _tell(Step("read back", what, found.received, asked, time.monotonic() - begun))

    def _mount(self, first: PushResult) -> None:
        """Another repository of the registry takes the layers from the first one."""
        name = f"{self._server.host}/demo/copy:{_TAG}"
        begun, before = time.monotonic(), len(self._server.requests)
        copy = self._pusher.push(str(self._image), name, cancel=self._cancel)
        asked = self._server.requests[before:]
        mounted = [layer for layer in copy.layers if layer.outcome == "mounted"]
        if _uploaded(asked) or len(mounted) < len(copy.layers) or copy.digest != first.digest:
            raise TowlineError("the layers were not mounted from the first repository")
        what = f"{figures.counted(len(mounted), 'layer')} mounted"
        _tell(Step("repository 2", what, 0, len(asked), time.monotonic() - begun))

    def _other_machine(self, first: PushResult) -> None:
        """Without any cache: what is there is learned from the registry."""
        import towline

        begun, before = time.monotonic(), len(self._server.requests)
        with towline.Pusher(cache="none", environ=self._environ) as stranger:
            found = stranger.push(str(self._image), self._destination, cancel=self._cancel)
        asked = self._server.requests[before:]
        if any(map(_is_upload, asked)) or found.digest != first.digest:
            raise TowlineError("a machine without a cache sent what the registry held")
        _tell(Step("no cache", "nothing sent", 0, len(asked), time.monotonic() - begun))

    def _two_registries(self, first: PushResult, made: Made) -> None:
        """One read for two registries, under one repository name: both must be whole."""
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
        _tell(Step("2 registries", "both whole, read once", _uploaded(asked), len(pushes), seconds))


def _is_upload(request: LoggedRequest) -> bool:
    return request.method in {"POST", "PATCH", "PUT"} and "/blobs/" in request.path


def _uploaded(requests: Sequence[LoggedRequest]) -> int:
    """Bytes of blobs that the registry says it was sent."""
    return sum(request.received for request in requests if _is_upload(request))


def _environ(folder: Path) -> dict[str, str]:
    """Variables that lead nowhere outside of the demo's folder."""
    return {"HOME": str(folder), "TMPDIR": str(folder)}


def _tell(step: Step) -> None:
    output.write([step.line()])


def _next() -> list[str]:
    program = _program()
    return [
        "",
        "Next, with an image and a registry of your own:",
        "  docker save app:1 -o image.tar",
        f"  {program} push image.tar registry.example/team/app:1",
        f"Without a registry, `{program} serve` starts one on 127.0.0.1:5000.",
    ]


def _program() -> str:
    """How this command is called from where the user is."""
    if shutil.which("towline"):
        return "towline"
    called = sys.argv[0]
    return called if Path(called).name == "towline" else f"{sys.executable} -m towline"


DEMO = Command(
    _demo,
    "",
    """\
Push a real image to a registry of its own, push it again, read it back and compare; then to
another repository, from a machine that knows nothing, and to two registries at once.""",
    words=0,
)
