"""Reads an image back from a registry and compares it, without towline's own code.

It uses the standard library's HTTP, hashes and gzip: the code that wrote the image does not judge
it.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import zlib
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from towline.errors import TowlineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ACCEPT = (
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.oci.image.manifest.v1+json"
)
_BLOCK = 1 << 20
_GZIP = zlib.MAX_WBITS | 16
"""zlib's parameter for a gzip header and trailer."""


@dataclass(frozen=True, slots=True)
class ReadBack:
    """How much was read back and found right."""

    digests: int
    diff_ids: int
    received: int
    """Bytes received."""


class Reader:
    """One repository of a registry that speaks plain HTTP."""

    def __init__(self, host: str, path: str) -> None:
        self._host = host
        self._path = path
        self.received = 0

    def _blocks(self, kind: str, name: str) -> Iterator[bytes]:
        """The bytes of a manifest or blob in blocks; raises TowlineError where it is missing."""
        with closing(http.client.HTTPConnection(self._host)) as connection:
            path = f"/v2/{self._path}/{kind}/{name}"
            connection.request("GET", path, headers={"Accept": _ACCEPT})
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                raise TowlineError(
                    f"reading {kind}/{name} back: the registry answered {answer.status}"
                )
            while block := answer.read(_BLOCK):
                self.received += len(block)
                yield block

    def document(self, kind: str, name: str, digest: str) -> Any:  # noqa: ANN401 - JSON
        """A manifest or config, read as JSON; raises TowlineError unless it has this digest."""
        content = b"".join(self._blocks(kind, name))
        found = f"sha256:{hashlib.sha256(content).hexdigest()}"
        _agree(f"the digest of {kind}/{name}", found, digest)
        return json.loads(content)

    def layer(self, digest: str) -> str:
        """The DiffID of a layer; raises TowlineError unless the blob has this digest."""
        packed, plain, gzip = hashlib.sha256(), hashlib.sha256(), zlib.decompressobj(_GZIP)
        for block in self._blocks("blobs", digest):
            packed.update(block)
            # A torn layer has another digest, and that is the error to tell.
            with suppress(zlib.error):
                plain.update(gzip.decompress(block))
        _agree("the digest of a layer", f"sha256:{packed.hexdigest()}", digest)
        return f"sha256:{plain.hexdigest()}"


def read_back(reader: Reader, tag: str, digest: str, diff_ids: Sequence[str]) -> ReadBack:
    """Read everything under a tag; raises TowlineError where anything differs."""
    manifest = reader.document("manifests", tag, digest)
    config = reader.document("blobs", manifest["config"]["digest"], manifest["config"]["digest"])
    found = [reader.layer(layer["digest"]) for layer in manifest["layers"]]
    _agree("the list of DiffIDs in the config", config["rootfs"]["diff_ids"], list(diff_ids))
    _agree("the DiffIDs of the layers", found, list(diff_ids))
    return ReadBack(2 + len(found), len(found), reader.received)


def _agree(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise TowlineError(f"{what} is {found}, not {wanted}")
