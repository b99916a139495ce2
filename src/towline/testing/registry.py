"""A registry as a test sees it: names of its own, what was asked and stored, faults to order."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

from towline.spec import distribution, media_types

if TYPE_CHECKING:
    from collections.abc import Mapping

    from towline.server import LoggedRequest, Server

_SECONDS = 30.0


class TestRegistry:
    """One test's view of a registry that other tests use too.

    Every repository that `name` gives begins with this test's own prefix.
    """

    __test__ = False  # not a class of tests, whatever its name looks like

    def __init__(self, url: str, prefix: str, server: Server | None = None) -> None:
        self.url = url
        """Scheme, host and port."""
        self.host = url.partition("://")[2]
        """`HOST:PORT`, as a reference has it."""
        self.prefix = prefix
        self._server = server
        self._before = len(server.requests) if server else 0

    def name(self, repository: str) -> str:
        """`HOST:PORT/PREFIX/REPOSITORY`."""
        return f"{self.host}/{self.prefix}/{repository}"

    @property
    def requests(self) -> list[LoggedRequest]:
        """What the registry was asked during this test, oldest first."""
        return self._own().requests[self._before :]

    def manifest(self, name: str) -> dict[str, Any]:
        """The manifest under `NAME:TAG` or `NAME@DIGEST`, `NAME` as `name` gives it."""
        path = name.removeprefix(f"{self.host}/")
        repository, at, reference = path.partition("@")
        if not at:
            repository, _, reference = path.rpartition(":")
        found: dict[str, Any] = json.loads(
            self._get(distribution.manifest_path(repository, reference))
        )
        return found

    def blob(self, digest: str) -> bytes:
        """A blob's bytes, from whichever of this test's repositories holds it.

        Raises KeyError when none does.
        """
        for repository in self._repositories():
            try:
                return self._get(distribution.blob_path(repository, digest))
            except HTTPError as error:
                error.close()
        raise KeyError(digest)

    def tags(self, name: str) -> list[str]:
        """The tags of a repository, in lexical order; none where there is no repository."""
        path = distribution.tags_path(name.removeprefix(f"{self.host}/"))
        try:
            return sorted(json.loads(self._get(path))["tags"] or [])
        except HTTPError as error:
            error.close()
            return []

    def fail(
        self,
        method: str,
        path: str,
        status: int,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next `times` requests of that method and path (a regular expression) so."""
        self._own().faults.fail(method, path, status, times, headers=headers)

    def cut(self, after_bytes: int, times: int = 1) -> None:
        """Close the connection of the next `times` bodies after that many bytes."""
        self._own().faults.cut(after_bytes, times)

    def stall(self, seconds: float) -> None:
        """Wait so long before answering each request from now on."""
        self._own().faults.stall(seconds)

    def _own(self) -> Server:
        if self._server is None:
            import pytest

            pytest.skip("faults and requests are those of the embedded registry alone")
        return self._server

    def _repositories(self) -> list[str]:
        catalog = json.loads(self._get("/v2/_catalog?n=1000"))["repositories"]
        return [name for name in catalog if name.startswith(f"{self.prefix}/")]

    def _get(self, path: str) -> bytes:
        accept = {"Accept": ", ".join(media_types.MANIFESTS)}
        request = urllib.request.Request(self.url + path, headers=accept)  # noqa: S310 - our own URL
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - as above
            content: bytes = answer.read()
        return content
