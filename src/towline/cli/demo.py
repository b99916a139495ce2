"""`towline demo`: pushes a real image to a registry of its own, twice, and reads it back.

Everything is in a temporary folder, cache and configuration too, so that the demo neither reads nor
changes anything of the user's. The image is read back by the standard library's HTTP, hashes and
gzip: the code that wrote it does not judge it.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import sys
import sysconfig
import tempfile
import time
import zlib
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from towline.cli import output, wording
from towline.cli.options import Arguments, Command
from towline.cli.signals import cancel_on_signals, interrupted
from towline.errors import Cancelled, TowlineError, TransferCancelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from towline.context import Cancel
    from towline.push.pusher import Pusher
    from towline.results import PushResult
    from towline.server import Server

_REPOSITORY = "demo/python"
_TAG = "1"
_LAYER_BYTES = 40_000_000
"""Most bytes of a layer, so that the demo takes seconds whatever is installed."""
_LEFT_OUT = frozenset(
    {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "lib-dynload"}
)
_ACCEPT = (
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.oci.image.manifest.v1+json"
)
_BLOCK = 1 << 20
_GZIP = zlib.MAX_WBITS | 16
"""zlib's parameter for a gzip header and trailer."""
_COLUMNS = "{:<12}  {:<32}  {:>9}  {:>8}  {:>7}"


def _demo(_args: Arguments) -> int:
    """Run the demo; a step that does not do as promised ends it with exit code 1."""
    import towline
    from towline.server import Server

    def last_words(code: int) -> bytes:
        # The building does not look at the switch: where it is cut short, its files go here.
        shutil.rmtree(name, ignore_errors=True)
        return interrupted(code, None)

    with (
        tempfile.TemporaryDirectory(prefix="towline-demo-") as name,
        cancel_on_signals(last_words) as cancel,
        Server(Path(name) / "registry") as server,
        # Nothing outside of the demo's folder is named.
        towline.Pusher(cache=f"{name}/cache", environ={"HOME": name, "TMPDIR": name}) as pusher,
    ):
        output.write([f"a registry of our own listens on {server.url}", ""])
        output.write([_COLUMNS.format("step", "outcome", "bytes", "requests", "time").rstrip()])
        try:
            _run(Path(name), server, pusher, cancel)
        except Cancelled:
            raise TransferCancelled("the demo was interrupted") from None
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


def _run(folder: Path, server: Server, pusher: Pusher, cancel: Cancel) -> None:
    """The steps of the demo, each of which writes a line of the table."""
    from towline.testing.images import make_image

    begun, image = time.monotonic(), folder / "image.tar"
    made = make_image(image, layers=_layers(), names=["python:demo"])
    layers = len(made.diff_ids)
    size = wording.size(image.stat().st_size)
    _tell("build", f"{wording.counted(layers, 'layer')}, {size}", "", "", begun)
    cancel.check()
    first = push(image, server, pusher, cancel)
    push(image, server, pusher, cancel, first)
    cancel.check()
    begun = time.monotonic()
    received = read_back(server.host, _REPOSITORY, _TAG, first.digest, made.diff_ids)
    digests = 2 + layers  # those of the manifest and the config, too
    what = f"{digests} digests, {layers} DiffIDs agree"
    _tell("read back", what, received, digests, begun)


def push(
    image: Path, server: Server, pusher: Pusher, cancel: Cancel, first: PushResult | None = None
) -> PushResult:
    """Push it; after the `first` push raises TowlineError unless nothing is sent again."""
    begun, before = time.monotonic(), len(server.requests)
    destination = f"{server.host}/{_REPOSITORY}:{_TAG}"
    result = pusher.push(str(image), destination, cancel=cancel)
    asked = server.requests[before:]
    writing = (request for request in asked if request.method in {"POST", "PATCH", "PUT"})
    uploads = [request for request in writing if "/blobs/" in request.path]
    if first and (uploads or result.digest != first.digest):
        told = ", ".join(f"{request.method} {request.path}" for request in uploads)
        raise TowlineError(f"the second push was not what it promises: {told or result.digest}")
    pushed = f"{wording.counted(len(result.layers), 'layer')} pushed"
    step, what = ("push again", "nothing sent") if first else ("push", pushed)
    _tell(step, what, sum(request.received for request in uploads), len(asked), begun)
    return result


def read_back(host: str, repository: str, tag: str, digest: str, diff_ids: Sequence[str]) -> int:
    """Read everything under a tag, and give its bytes. Raises TowlineError where it differs."""
    read = partial(_blocks, host, repository)
    manifest = b"".join(read(f"manifests/{tag}", digest))
    document = json.loads(manifest)
    config = b"".join(read(f"blobs/{document['config']['digest']}"))
    received, found = len(manifest) + len(config), []
    for layer in document["layers"]:
        plain, gzip = hashlib.sha256(), zlib.decompressobj(_GZIP)
        for block in read(f"blobs/{layer['digest']}"):
            received += len(block)
            with suppress(zlib.error):  # a torn layer has another digest: that is the error to tell
                plain.update(gzip.decompress(block))
        found.append(f"sha256:{plain.hexdigest()}")
    listed = json.loads(config)["rootfs"]["diff_ids"]
    for what, ids in (("the config lists", listed), ("the layers have", found)):
        if ids != [*diff_ids]:
            raise TowlineError(f"{what} the DiffIDs {ids}, not {diff_ids}")
    return received


def _blocks(host: str, repository: str, path: str, digest: str = "") -> Iterator[bytes]:
    """The bytes of a manifest, or of a blob by its digest.

    Raises TowlineError where it is missing, and at its end where it has another digest.
    """
    hashed = hashlib.sha256()
    with closing(http.client.HTTPConnection(host)) as connection:
        connection.request("GET", f"/v2/{repository}/{path}", headers={"Accept": _ACCEPT})
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise TowlineError(f"reading {path} back: the registry answered {answer.status}")
        while block := answer.read(_BLOCK):
            hashed.update(block)
            yield block
    if (found := f"sha256:{hashed.hexdigest()}") != (digest or path.removeprefix("blobs/")):
        raise TowlineError(f"the digest of {path} is {found} when it is read back")


def _layers() -> list[Mapping[str, Path]]:
    """The layers of the demo's image, base first: the files of the running Python.

    For each layer the paths in the image, and the files of this machine behind them.
    """
    library = Path(sysconfig.get_path("stdlib"))
    interpreter = [Path(sys.executable).resolve()]
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDLIBRARY")
    if folder and name:
        interpreter.append((Path(folder) / name).resolve())
    kinds = (
        interpreter,
        _below(library / "lib-dynload", "*.so"),
        _below(library, "*.py"),
        _below(Path(__file__).parent.parent, "*.py"),
    )
    return [layer for kind in kinds if (layer := _cut(kind))]


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


def _tell(step: str, outcome: str, moved: int | str, requests: int | str, begun: float) -> None:
    """Write a line of the table; bytes and requests are empty for a step that sends nothing."""
    size = wording.size(moved) if isinstance(moved, int) else moved
    took = f"{time.monotonic() - begun:.2f} s"
    output.write([_COLUMNS.format(step, outcome, size, requests, took)])


DEMO = Command(
    _demo,
    "",
    """\
Push a real image to a registry of its own, push it again, read it back and compare.""",
    words=0,
)
