"""How the library's functions are called: their keywords, and what they give.

`method` says once what a caller of `Pusher.push`, `copy` and `plan` gets, a result for one
destination and a list for several; `index_method` says it of `index`. They change nothing but what
type checkers and editors see. `api` says the same of the functions, whose keywords are more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Literal, Protocol, TypedDict, TypeVar, Unpack, cast, overload

from towline.context import Cancel
from towline.events import Emit

Source = str | os.PathLike[str] | BinaryIO
"""A path, a text of the command line's grammar, or an open binary file."""
Several = list[str] | tuple[str, ...]
"""Several destinations; not any sequence, since a text is one too."""
Creds = str | tuple[str, str]
Verify = Literal["head", "full"]
Attestations = Literal["keep", "drop"]
IfExists = Literal["overwrite", "same", "skip", "fail"]
Format = Literal["auto", "docker", "oci"]


class PusherOptions(TypedDict, total=False):
    """Keywords of `Pusher`: how, transport, credentials, cache, and who is told."""

    jobs: int
    """Uploads at once to any one registry host (5)."""
    retries: int
    """Attempts in a row without progress, after the first (4)."""
    chunk_size: int | str
    """Send larger layers in chunks of so many bytes, also as `16M`; `auto`: where one body is not
    taken."""
    limit_rate: int | str
    """Bytes a second that all uploads together may send, also as `2M`."""
    timeout: float
    """Seconds without a byte either way (30)."""
    cache: str | os.PathLike[str]
    """Where what registries hold is remembered: a path, `redis://`, `rediss://`, `unix://`, or
    `none`."""
    plain_http: bool
    """Speak http at once, without trying https."""
    insecure: bool
    """Leave certificates unchecked (never http)."""
    tls_verify: bool
    """False is `insecure`, and http for a registry on this machine."""
    ca: str | os.PathLike[str]
    """A file of authorities to trust as well (PEM)."""
    cert: str | os.PathLike[str]
    """The client's certificate (PEM)."""
    key: str | os.PathLike[str]
    """Its key (PEM)."""
    creds: Creds | Callable[[str], Creds | None]
    """`USER:PASSWORD` or a pair, for the destination's host alone; or a function, which is asked
    for each host."""
    src_creds: Creds
    """The same for the host of a source that is in a registry."""
    authfile: str | os.PathLike[str]
    """A file of logins that is read first."""
    engine: str
    """Where the Docker engine is: `unix://`, `tcp://` or `ssh://`; else as docker finds it."""
    on_event: Emit
    """Called with each event, from any thread."""
    log: Callable[[str], None]
    """Called with each line of the redacted wire log, from any thread."""
    environ: Mapping[str, str]
    """Read instead of the process's environment."""


class PushOptions(TypedDict, total=False):
    """Keywords of one push."""

    platform: str | Sequence[str]
    """Of an index these alone, as `OS/ARCH` or `OS/ARCH/VARIANT`."""
    attestations: Attestations
    """What an index says of its images: `keep` it, or `drop` it."""
    format: Format
    """`auto`, or `docker` or `oci`, which are never converted."""
    allow_schema1: bool
    """Push signed schema 1 where a registry takes nothing else (extra `schema1`)."""
    by_digest: bool
    """Put the manifest under its digest alone, without a tag."""
    preserve_digests: bool
    """Refuse any change of bytes of what has a manifest."""
    tags: str | Sequence[str]
    """With `all_tags`: patterns, such as `1.*`; only tags that fit one of them are pushed."""
    compression: str
    """Of layers that are not compressed yet: `gzip`, `gzip:best`, `none`, `zstd[:1-19]`, `auto`."""
    annotation: str | Sequence[str] | Mapping[str, str]
    """What is added to the document under the tag, as `K=V` or a mapping; with `manifest:` or
    `index:` before the key to each image's manifest, or to the index."""
    verify: bool | Verify
    """Afterwards, ask for everything (`head` or True), or read it back, DiffIDs too (`full`)."""
    check_diffids: bool
    """Decompress layers that came compressed, beside the sending, and check them before any tag."""
    cache_from: str | Sequence[str]
    """References at the destination's registry to learn layers from."""
    if_exists: IfExists
    """What to do with a tag that exists: `overwrite`; `same`: fine if absent or this digest;
    `skip`: leave it alone; `fail`."""
    omit_from: str | Sequence[str]
    """For copies to OCI archives: leave out the layers that this image, at a registry or in a
    file, has: they are where the archive is pushed to."""
    referrers: bool
    """Bring along what refers to the images: signatures, SBOMs, attestations."""
    no_learn: bool
    """Learn nothing from the registry, and believe no other machine."""
    check_push: bool
    """For `plan` alone: open an upload session and give it back, to see whether one is let in."""
    trace: str | os.PathLike[str]
    """Write down there where the time went: `.json`, a Chrome trace, or `.html`, a page."""
    cancel: Cancel
    """A switch that any thread may throw."""


R = TypeVar("R")


class Method(Protocol[R]):
    """Of a `Pusher`."""

    @overload
    def __call__(
        self,
        source: Source,
        destination: str,
        *,
        all_tags: Literal[False] = False,
        **wishes: Unpack[PushOptions],
    ) -> R: ...
    @overload
    def __call__(
        self,
        source: Source,
        destination: Several,
        *,
        all_tags: bool = False,
        **wishes: Unpack[PushOptions],
    ) -> list[R]: ...
    @overload
    def __call__(
        self,
        source: Source,
        destination: str,
        *,
        all_tags: Literal[True],
        **wishes: Unpack[PushOptions],
    ) -> list[R]: ...
    @overload
    def __call__(
        self,
        source: Source,
        destination: str | Several,
        *,
        all_tags: bool = False,
        **wishes: Unpack[PushOptions],
    ) -> R | list[R]: ...


class IndexMethod(Protocol[R]):
    """`Pusher.index`."""

    @overload
    def __call__(
        self,
        sources: Source | Sequence[Source],
        destination: str,
        **wishes: Unpack[PushOptions],
    ) -> R: ...
    @overload
    def __call__(
        self,
        sources: Source | Sequence[Source],
        destination: Several,
        **wishes: Unpack[PushOptions],
    ) -> list[R]: ...
    @overload
    def __call__(
        self,
        sources: Source | Sequence[Source],
        destination: str | Several,
        **wishes: Unpack[PushOptions],
    ) -> R | list[R]: ...


def method(called: Callable[..., R | list[R]]) -> Method[R]:
    """Let a method of `Pusher` be seen so."""
    return cast("Method[R]", called)


def index_method(called: Callable[..., R | list[R]]) -> IndexMethod[R]:
    """Let `Pusher.index` be seen so."""
    return cast("IndexMethod[R]", called)
