"""A test's view of a registry: its own names, what was asked and stored, faults on demand."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from towline.server import LoggedRequest, Server
from towline.spec import distribution, media_types

_SECONDS = 30.0
_CACHE = "TOWLINE_CACHE"


class TestRegistry:
    """One test's view of a registry that other tests use too.

    Every repository that `name` gives begins with this test's own prefix. `manifest`, `blob` and
    `tags` read the embedded registry's store directly: faults do not affect them, and they do not
    appear in `requests`.
    """

    __test__ = False  # not a class of tests, whatever its name looks like

    def __init__(self, url: str, server: Server | None = None) -> None:
        """`url`: without a scheme it is http; `server`: the embedded registry, if it is that."""
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        """The registry's address: scheme, host and port."""
        self.host = urlsplit(self.url).netloc
        """`HOST:PORT`, the first part of a reference."""
        self.prefix = f"t{os.urandom(6).hex()}"
        self._server = server
        if server:
            server.faults.clear()  # those of the test before
        self._mark = server.log.count if server else 0
        self._named: dict[str, None] = {}

    def name(self, repository: str) -> str:
        """`HOST:PORT/PREFIX/REPOSITORY`."""
        path = f"{self.prefix}/{repository}"
        self._named[path.partition(":")[0].partition("@")[0]] = None
        return f"{self.host}/{path}"

    @property
    def requests(self) -> list[LoggedRequest]:
        """The requests to the registry during this test, oldest first."""
        return self._own().log.since(self._mark)

    def manifest(self, name: str) -> dict[str, Any]:
        """The manifest under `NAME:TAG` or `NAME@DIGEST`, `NAME` as `name` gives it.

        Raises KeyError when there is none.
        """
        path, at, digest = self._path(name).partition("@")
        path, _, tag = path.partition(":")
        reference = digest if at else tag or "latest"
        content = self._read(distribution.manifest_path(path, reference))
        if content is None:
            raise KeyError(name)
        found: dict[str, Any] = json.loads(content)
        return found

    def blob(self, digest: str) -> bytes:
        """A blob's bytes, from whichever of this test's repositories holds it.

        Raises KeyError when none does.
        """
        for repository in self._repositories():
            content = self._read(distribution.blob_path(repository, digest))
            if content is not None:
                return content
        raise KeyError(digest)

    def tags(self, name: str) -> list[str]:
        """The tags of a repository, in lexical order; none where there is no repository."""
        path = distribution.tags_path(self._path(name))
        found: list[str] = []
        last = ""
        while (content := self._read(f"{path}?n=1000{last}")) is not None:
            page = json.loads(content)["tags"] or []
            found += page
            if len(page) < 1000:  # noqa: PLR2004 - the page that was asked for
                break
            last = f"&last={page[-1]}"
        return sorted(found)

    def fail(
        self,
        method: str,
        path: str,
        status: int,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next `times` requests of `method` (`*`: any) to `path` with `status`.

        `path` is a part of the path with its query, a pattern of the whole path
        (`/v2/*/blobs/*`), or a regular expression that is searched for in it.
        """
        self._own().faults.fail(method, path, status, times, headers=headers)

    def cut(self, after_bytes: int, times: int = 1) -> None:
        """Close the connection after `after_bytes` of the next `times` bodies; shorter ones pass.

        It counts the bodies of requests, and blobs and manifests in answers.
        """
        self._own().faults.cut(after_bytes, times)

    def stall(self, seconds: float) -> None:
        """Wait `seconds` before answering each request from now on."""
        self._own().faults.stall(seconds)

    def _own(self) -> Server:
        if self._server is None:
            import pytest

            pytest.skip("faults and requests are the embedded registry's alone")
        return self._server

    def _path(self, name: str) -> str:
        """A repository's path; a name without this registry's host is below the prefix."""
        host, slash, path = name.partition("/")
        if slash and host == self.host:
            return path
        return f"{self.prefix}/{name}"

    def _repositories(self) -> Iterator[str]:
        """This test's repositories: those that `name` gave, then any others below its prefix."""
        yield from list(self._named)
        below = f"{self.prefix}/"
        content = self._read(f"/v2/_catalog?n=1000&last={self.prefix}")
        for name in json.loads(content)["repositories"] or [] if content else []:
            if name.startswith(below) and name not in self._named:
                yield name

    def _read(self, path: str) -> bytes | None:
        """The body of a GET; None where the registry answers with an error."""
        if self._server:
            return self._server.ask(path)
        from urllib.error import HTTPError
        from urllib.request import Request, urlopen

        accept = {"Accept": ", ".join(media_types.MANIFESTS)}
        request = Request(self.url + path, headers=accept)  # noqa: S310 - what was asked for
        try:
            with urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - as above
                return bytes(answer.read())
        except HTTPError as error:
            error.close()
            return None


@contextmanager
def oci_registry() -> Iterator[TestRegistry]:
    """A fresh registry while the block runs: the fixture's counterpart without pytest."""
    with own_cache(), Server() as server:
        yield TestRegistry(server.url, server)


@contextmanager
def own_cache() -> Iterator[None]:
    """While the block runs, give pushes that name no cache an empty one, the command's too.

    They then know of no earlier push, and leave nothing in the user's cache.
    """
    before = os.environ.get(_CACHE)
    with tempfile.TemporaryDirectory(prefix="towline-cache-") as folder:
        os.environ[_CACHE] = f"{folder}/knowledge.sqlite"
        try:
            yield
        finally:
            os.environ.pop(_CACHE, None)
            if before is not None:
                os.environ[_CACHE] = before
