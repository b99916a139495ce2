"""A registry's client without comfort: requests as a test writes them, answers as they came.

It shares no code with towline's own client, nor with its server.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    Body = bytes | Iterable[bytes] | None

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
SECONDS = 20.0
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [A-Z]")


def sha256(data: bytes) -> str:
    """Its digest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def sha512(data: bytes) -> str:
    """Its other digest."""
    return f"sha512:{hashlib.sha512(data).hexdigest()}"


def descriptor(data: bytes, media_type: str = LAYER, **more: Any) -> dict[str, Any]:
    """What a manifest says of a blob."""
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


def image(config: bytes, layers: Sequence[bytes] = (), **more: Any) -> bytes:
    """A manifest of these blobs."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer) for layer in layers],
        **more,
    }
    return json.dumps(document).encode()


def index(*manifests: bytes, **more: Any) -> bytes:
    """An index of these manifests."""
    listed = [descriptor(manifest, MANIFEST) for manifest in manifests]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed, **more}
    return json.dumps(document).encode()


@dataclass(frozen=True)
class Answer:
    """One answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as a document."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the first error; empty where the body holds none."""
        try:
            return str(self.json()["errors"][0]["code"])
        except (ValueError, KeyError, TypeError):
            return ""

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and code together."""
        return self.status, self.code


class RawClient:
    """One connection, opened when needed and kept while the registry keeps it."""

    def __init__(self, host: str, headers: Mapping[str, str] | None = None) -> None:
        self.host = host
        self._headers = dict(headers or {})
        self._connection = http.client.HTTPConnection(host, timeout=SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request, an iterable in chunks, and read its answer whole."""
        said = {**self._headers, **(headers or {})}
        chunked = not isinstance(body, bytes | None)
        try:
            self._connection.request(method, path, body, said, encode_chunked=chunked)
            got = self._connection.getresponse()
            content = got.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, content)

    # What every test has to do before it comes to its point

    def open_upload(self, name: str, query: str = "") -> str:
        """A new session's path."""
        answer = self.ask("POST", f"/v2/{name}/blobs/uploads/{query}", b"")
        assert answer.status == 202, answer
        return location(answer)

    def put_blob(self, name: str, data: bytes) -> str:
        """Push a blob in one request; its digest."""
        digest = sha256(data)
        answer = self.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data)
        assert answer.status == 201, answer
        return digest

    def put_manifest(
        self, name: str, reference: str, content: bytes, media_type: str | None = None
    ) -> Answer:
        """Put a manifest under a tag or digest."""
        media_type = media_type or json.loads(content)["mediaType"]
        return self.ask(
            "PUT", f"/v2/{name}/manifests/{reference}", content, {"Content-Type": str(media_type)}
        )

    def put_image(self, name: str, tag: str, *layers: bytes, **more: Any) -> str:
        """Push an image with its blobs; its digest."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "n": len(layers)}).encode()
        for blob in (config, *layers):
            self.put_blob(name, blob)
        manifest = image(config, layers, **more)
        answer = self.put_manifest(name, tag, manifest)
        assert answer.status == 201, answer
        return sha256(manifest)

    def tags(self, name: str) -> list[str]:
        """All tags."""
        found: list[str] = self.ask("GET", f"/v2/{name}/tags/list").json()["tags"]
        return found

    def pull(self, name: str, reference: str) -> list[bytes]:
        """Manifest, config and layers of an image, every digest checked."""
        manifest = self.ask("GET", f"/v2/{name}/manifests/{reference}")
        assert manifest.status == 200, (reference, manifest)
        assert sha256(manifest.body) == manifest.headers["docker-content-digest"]
        document = manifest.json()
        return [manifest.body, *(self._pull(name, one) for one in _blobs(document))]

    def _pull(self, name: str, one: Mapping[str, Any]) -> bytes:
        blob = self.ask("GET", f"/v2/{name}/blobs/{one['digest']}")
        assert blob.status == 200, (one, blob)
        assert (sha256(blob.body), len(blob.body)) == (one["digest"], one["size"])
        return blob.body


def _blobs(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [document["config"], *document["layers"]]


def location(answer: Answer) -> str:
    """Where an answer points to, without the host."""
    parts = urlsplit(answer.headers["location"])
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def with_query(path: str, **parameters: str) -> str:
    """A path with more parameters."""
    added = "&".join(f"{name}={quote(value, safe=':')}" for name, value in parameters.items())
    return f"{path}{'&' if '?' in path else '?'}{added}"


@contextlib.contextmanager
def raw_socket(host: str) -> Iterator[socket.socket]:
    """A connection on which a test writes every byte itself."""
    name, _, port = host.rpartition(":")
    with socket.create_connection((name.strip("[]"), int(port)), timeout=SECONDS) as sock:
        yield sock


def exchange(host: str, *pieces: bytes) -> bytes:
    """Send these bytes, and all that comes back until the registry hangs up."""
    with raw_socket(host) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                sock.sendall(piece)
        return read_to_end(sock)


def read_to_end(sock: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(1 << 16):
            got += data
    return got


def statuses(received: bytes) -> list[int]:
    """The statuses of the answers in what was received."""
    return [int(status) for status in _STATUS.findall(received)]
