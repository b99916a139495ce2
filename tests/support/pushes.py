"""Clients that push small images to a registry for as long as it lives, and know what they did."""

from __future__ import annotations

import http.client
import json
import random
import threading
from dataclasses import dataclass, field

from tests.support.raw_client import RawClient, image, location, sha256, with_query


@dataclass
class Known:
    """What a registry may say of each tag: what was confirmed last, or was under way."""

    tags: dict[tuple[str, str], list[str | None]] = field(default_factory=dict)
    pushes: int = 0
    faults: list[Exception] = field(default_factory=list)

    def check(self, client: RawClient) -> None:
        """Every tag is one of what it may be, and whole."""
        for (name, tag), possible in self.tags.items():
            found = client.ask("HEAD", f"/v2/{name}/manifests/{tag}")
            digest = found.headers["docker-content-digest"] if found.status == 200 else None
            assert digest in possible, (name, tag, digest, possible)
            self.tags[name, tag] = [digest]
            if digest:
                client.pull(name, tag)


class Pusher(threading.Thread):
    """One client: pushes, retags and deletes at random until its registry is gone."""

    def __init__(self, host: str, number: int, layers: list[bytes], known: Known) -> None:
        super().__init__()
        self.host = host
        self.tag = f"t{number}"
        self.layers = layers
        self.known = known
        self.stop = threading.Event()
        self._random = random.Random()  # noqa: S311 - no secret

    def run(self) -> None:
        with RawClient(self.host) as client:
            while not self.stop.is_set():
                try:
                    self._push(client, f"app{self._random.randrange(3)}")
                except (OSError, http.client.HTTPException):
                    return
                except Exception as error:  # noqa: BLE001 - told by the test, in its own thread
                    self.known.faults.append(error)
                    return

    def _push(self, client: RawClient, name: str) -> None:
        config = json.dumps({"n": self._random.random()}).encode()
        layers = self._random.sample(self.layers, 3)
        for blob in (config, *layers):
            if client.ask("HEAD", f"/v2/{name}/blobs/{sha256(blob)}").status != 200:
                self._upload(client, name, blob)
        manifest = image(config, layers)
        possible = self.known.tags.setdefault((name, self.tag), [None])
        possible.append(sha256(manifest))
        answer = client.put_manifest(name, self.tag, manifest)
        assert answer.status == 201, answer
        possible[:] = [sha256(manifest)]
        self.known.pushes += 1
        if self._random.random() < 0.3:
            possible.append(None)
            answer = client.ask("DELETE", f"/v2/{name}/manifests/{sha256(manifest)}")
            assert answer.status == 202, answer
            possible[:] = [None]

    def _upload(self, client: RawClient, name: str, blob: bytes) -> None:
        session, rest = client.open_upload(name), blob
        if self._random.random() < 0.5:
            middle = len(blob) // 2
            session = location(client.ask("PATCH", session, iter([blob[:middle], blob[middle:]])))
            rest = b""
        answer = client.ask("PUT", with_query(session, digest=sha256(blob)), rest)
        assert answer.status == 201, answer
