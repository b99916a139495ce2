"""Pushes single blobs and manifests through the registry client, with the real retrying."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.support.scripted import Heard, Scripted
from towline.context import Context
from towline.reference import RepositoryName
from towline.registry.client import RegistryClient, Settings
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest
from towline.spec.manifest import RawManifest
from towline.transfers.retry import Attempts, Gate, Policy, retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from towline.registry.repository import Repository
    from towline.registry.upload.upload import Upload

BLOCK = 1 << 16
NAME = "team/app"
AT_ONCE = Policy(retries=4, base=0.0)
TIMEOUT = 5.0
"""Seconds without a byte, where a test says nothing else."""


class Client:
    """A registry client under test, and one context for all it does."""

    def __init__(
        self,
        host: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        recall: Callable[[str], Mapping[str, str]] | None = None,
        **settings: Any,
    ) -> None:
        self.heard = Heard()
        self.context = Context()
        given = Settings()
        usual = {"log": self.heard, "timeout": TIMEOUT, "plain_http": True}
        for name, value in {**usual, **settings}.items():
            setattr(given, name, value)
        self.client = RegistryClient(given, clock, recall=recall)
        self.host = host
        self.repository = self.repo(NAME)

    def repo(
        self, path: str, *, pull_from: Iterable[RepositoryName] = (), **options: Any
    ) -> Repository:
        repository = self.client.repository(RepositoryName(self.host, path), **options)
        repository.pull_from(pull_from)
        return repository

    def push(self, data: bytes, *, known: bool = False) -> int:
        """Push a blob as a push does, whatever it takes; the attempts that it took."""
        digest = Digest.of(data)
        descriptor = Descriptor(media_types.OCI_LAYER, digest, len(data)) if known else None
        attempts = 0

        def attempt() -> None:
            nonlocal attempts
            attempts += 1
            if attempts > 1 and self.repository.has_blob(digest, self.context):
                return
            send(self.repository.start_upload(self.context, descriptor), data)

        self.retried(attempt)
        return attempts

    def retried(self, work: Callable[[], object]) -> None:
        retry(work, Attempts(AT_ONCE), Gate(), self.host, self.context, lambda _s, _r: None)

    def put(self, tag: str = "1", content: bytes = b'{"schemaVersion":2}') -> RawManifest:
        manifest = RawManifest(content, media_types.OCI_MANIFEST)
        self.repository.put_manifest(tag, manifest, self.context)
        return manifest

    def cancel_after(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self.context.cancel.cancel)
        timer.start()
        return timer


def send(upload: Upload, data: bytes) -> None:
    """Write all blocks of a blob and commit it; a session that failed is given back."""
    try:
        for at in range(0, len(data), BLOCK):
            upload.write(data[at : at + BLOCK])
        upload.commit(Digest.of(data))
    except BaseException:
        upload.cancel()
        raise


@contextmanager
def client_of(registry: Scripted | str, **settings: Any) -> Iterator[Client]:
    """A client of that registry, closed at the end."""
    client = Client(registry if isinstance(registry, str) else registry.host, **settings)
    try:
        yield client
    finally:
        client.client.close()
