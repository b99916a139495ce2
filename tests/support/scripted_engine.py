"""A Docker engine by its words: an API on a socket that answers as engines of several ages do.

Its images are real archives, made by `towline.testing`; what is said of them is derived from those.
Everything asked is kept in `asked`; `export` and `inspected` can be bent by a test.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import socketserver
import ssl
import tarfile
import threading
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.sources import member, tar_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.certificates import Certificate

VERSIONS = {
    "20.10": ("1.41", "1.12"),
    "25.0": ("1.44", "1.24"),
    "28": ("1.48", "1.24"),
    "29.0": ("1.52", "1.44"),
    "29.7": ("1.55", "1.40"),
    "podman": ("1.41", "1.24"),
    "ancient": ("1.18", "1.12"),
}
"""Highest and lowest version of the API."""
DESCRIPTOR_SINCE = (1, 48)
IDENTITY_SINCE = (1, 53)


def numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


@dataclass
class Held:
    """An image of the engine."""

    archive: Path
    names: tuple[str, ...]
    containerd: bool
    repo_digests: tuple[str, ...] = ()

    def document(self, name: str) -> Any:
        with tarfile.open(self.archive) as tar:
            file = tar.extractfile(name)
            assert file is not None
            return json.loads(file.read())

    @property
    def listed(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document("index.json")["manifests"][0]
        return found

    @property
    def id(self) -> str:
        if self.containerd:
            return str(self.listed["digest"])
        config: str = self.document("manifest.json")[0]["Config"]
        return f"sha256:{config.rpartition('/')[2]}"

    def inspected(self, version: tuple[int, int]) -> dict[str, Any]:
        config = self.document(self.document("manifest.json")[0]["Config"])
        said = {
            "Id": self.id,
            "RepoTags": list(self.names),
            "RepoDigests": list(self.repo_digests),
            "Os": config["os"],
            "Architecture": config["architecture"],
            "Size": self.archive.stat().st_size,
            "GraphDriver": {"Name": "overlayfs" if self.containerd else "overlay2", "Data": None},
            "RootFS": {"Type": "layers", "Layers": config["rootfs"]["diff_ids"]},
        }
        if self.containerd and version >= DESCRIPTOR_SINCE:
            said["Descriptor"] = self.listed
            said["Manifests"] = self.manifests()
        if self.containerd and version >= IDENTITY_SINCE:
            repositories = [name.partition("@")[0] for name in self.repo_digests]
            said["Identity"] = {"Pull": [{"Repository": name} for name in repositories]}
        return said

    def exported(self, platform: dict[str, Any] | None) -> bytes:
        """All of it, or one platform's image, of which alone the list then speaks."""
        if platform is None:
            return self.archive.read_bytes()
        listed = self.document(f"blobs/sha256/{self.id[7:]}")["manifests"]
        (one,) = [each for each in listed if each.get("platform") == platform]
        manifest = self.document(f"blobs/sha256/{one['digest'][7:]}")
        below = (manifest["config"], *manifest["layers"])
        wanted = [one["digest"], *(each["digest"] for each in below)]
        names = {f"blobs/sha256/{digest[7:]}" for digest in wanted}
        index = {"schemaVersion": 2, "manifests": [one]}
        with tarfile.open(self.archive) as tar:
            blobs = [(each, tar.extractfile(each)) for each in tar if each.name in names]
            content = [(each, file.read()) for each, file in blobs if file]
        return tar_of(*content, member("index.json", json.dumps(index).encode()))

    def manifests(self) -> list[dict[str, Any]]:
        top = self.document(f"blobs/sha256/{self.id[7:]}")
        with tarfile.open(self.archive) as tar:
            held = set(tar.getnames())
        return [
            {
                "ID": each["digest"],
                "Descriptor": each,
                "Available": f"blobs/sha256/{each['digest'][7:]}" in held,
                "Kind": "attestation" if "unknown" in str(each.get("platform")) else "image",
                "Size": {"Content": each["size"], "Total": each["size"]},
            }
            for each in top.get("manifests", [self.listed])
        ]


@dataclass
class ScriptedEngine:
    """What it is, what it holds, and what it was asked."""

    url: str
    version: str
    images: list[Held] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    bend_inspect: Callable[[dict[str, Any]], dict[str, Any]] = lambda said: said
    bend_export: Callable[[bytes], bytes] = lambda content: content
    """What is sent instead of the export."""
    breaks_off: int | None = None
    """Bytes of an export after which the connection is lost."""
    before_export: Callable[[], None] = lambda: None
    before_piece: Callable[[int], None] = lambda _: None
    """Called with the bytes of an export that went out before each further piece."""
    sent: int = 0
    """Bytes of exports that went out."""
    root: Path | None = None
    """The folder below which it says that its things lie."""

    def hold(
        self,
        archive: Path,
        *names: str,
        containerd: bool = False,
        repo_digests: tuple[str, ...] = (),
    ) -> Held:
        held = Held(archive, names, containerd, repo_digests)
        self.images.append(held)
        return held

    @property
    def exports(self) -> list[str]:
        return [target for target in self.asked if "/get?" in target or "/export?" in target]

    def find(self, name: str) -> Held | None:
        full = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
        for image in self.images:
            if full in image.names or image.id.removeprefix("sha256:").startswith(
                name.removeprefix("sha256:")
            ):
                return image
        return None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: ScriptedEngine

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.engine.asked.append(f"{self.command} {self.path}")
        path, _, query = self.path.partition("?")
        if path == "/_ping":
            self.say(200, b"OK", "text/plain")
            return
        highest, lowest = map(numbers, VERSIONS[self.engine.version])
        version = highest
        if match := re.match(r"/v(\d+)\.(\d+)(?:\.\d+)?(?=/)", path):
            path = path[match.end() :]
            version = int(match[1]), int(match[2])
            if not path.startswith("/libpod/") and not lowest <= version <= highest:
                word = "new" if version > highest else "old"
                self.refuse(400, f"client version {version[0]}.{version[1]} is too {word}.")
                return
        self.route(path, urllib.parse.parse_qs(query), version)

    def route(self, path: str, query: dict[str, list[str]], version: tuple[int, int]) -> None:
        images = self.engine.images
        if path == "/info" and self.engine.root:
            self.say(200, json.dumps({"DockerRootDir": str(self.engine.root)}).encode())
        elif path == "/images/json":
            said = [{"Id": each.id, "RepoTags": list(each.names)} for each in images]
            self.say(200, json.dumps(said).encode())
        elif path == "/images/get" and self.engine.version != "podman":
            told = query.get("platform")
            self.export(query["names"], json.loads(told[0]) if told else None)
        elif path == "/libpod/images/export" and query["format"] == ["docker-archive"]:
            self.export(query["references"])
        elif match := re.fullmatch(r"/images/(.+)/(json|history)", path):
            image = self.engine.find(urllib.parse.unquote(match[1]))
            if image is None:
                self.refuse(404, f"No such image: {match[1]}")
            elif match[2] == "json":
                said_of = self.engine.bend_inspect(image.inspected(version))
                self.say(200, json.dumps(said_of).encode())
            else:
                self.say(200, b"[]")
        else:
            self.refuse(404, "page not found")

    def export(self, names: list[str], platform: dict[str, Any] | None = None) -> None:
        found = [self.engine.find(name) for name in names]
        image = found[0]
        if image is None:
            self.refuse(404, f"No such image: {names[0]}")
            return
        assert all(each and each.archive == image.archive for each in found)
        self.engine.before_export()
        content = self.engine.bend_export(image.exported(platform))
        self.send_response(200)
        self.tell("application/x-tar")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(content), 32 << 10):
            piece = content[at : at + (32 << 10)]
            if self.engine.breaks_off is not None and at >= self.engine.breaks_off:
                self.close_connection = True
                return
            self.engine.before_piece(at)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.engine.sent += len(piece)
        self.wfile.write(b"0\r\n\r\n")

    def refuse(self, status: int, message: str) -> None:
        self.say(status, json.dumps({"message": message}).encode())

    def say(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.tell(kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def tell(self, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Api-Version", VERSIONS[self.engine.version][0])
        if self.engine.version == "podman":
            self.send_header("Libpod-Api-Version", "4.3.1")

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Quiet."""


class _OnASocket(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever has enough of an export hangs up."""


class _OverTls(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, certificate: Certificate, handler: type[_Handler]) -> None:
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate.cert, certificate.key)
        super().__init__(("127.0.0.1", 0), handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = super().get_request()
        return self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever does not trust it hangs up."""


@contextlib.contextmanager
def serving(
    folder: Path, version: str = "28", *, tls: Certificate | None = None
) -> Iterator[ScriptedEngine]:
    """An engine of that age, on a socket in the folder or over TLS."""
    engine = ScriptedEngine("", version)
    handler = type("Handler", (_Handler,), {"engine": engine})
    path = str(folder / "engine.sock")
    with _OverTls(tls, handler) if tls else _OnASocket(path, handler) as server:
        port = server.socket.getsockname()[1] if tls else 0
        engine.url = f"tcp://127.0.0.1:{port}" if tls else f"unix://{path}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield engine
        finally:
            server.shutdown()
            thread.join()
