"""The library's functions: one method of `Pusher` each, with a pusher made for the call.

`_function` and `_index_function` let type checkers see them as `edge` has methods seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, Unpack, cast, overload

from towline.context import Cancel
from towline.findings import InspectResult, PlanResult
from towline.push.interface.options import PusherOptions, PushOptions, Several, Source
from towline.push.pusher import Pusher
from towline.results import PushResult


class Options(PusherOptions, PushOptions, total=False):
    """Keywords of the functions that make a `Pusher` for one push."""


R = TypeVar("R")


class _Function(Protocol[R]):
    """Of the package: the same with a `Pusher`'s keywords too."""

    @overload
    def __call__(
        self,
        source: Source,
        destination: str,
        *,
        all_tags: Literal[False] = False,
        **options: Unpack[Options],
    ) -> R: ...
    @overload
    def __call__(
        self,
        source: Source,
        destination: Several,
        *,
        all_tags: bool = False,
        **options: Unpack[Options],
    ) -> list[R]: ...
    @overload
    def __call__(
        self,
        source: Source,
        destination: str,
        *,
        all_tags: Literal[True],
        **options: Unpack[Options],
    ) -> list[R]: ...
    @overload
    def __call__(
        self,
        source: Source,
        destination: str | Several,
        *,
        all_tags: bool = False,
        **options: Unpack[Options],
    ) -> R | list[R]: ...


class _IndexFunction(Protocol[R]):
    """`towline.index`: the same with a `Pusher`'s keywords too."""

    @overload
    def __call__(
        self, sources: Source | Sequence[Source], destination: str, **options: Unpack[Options]
    ) -> R: ...
    @overload
    def __call__(
        self, sources: Source | Sequence[Source], destination: Several, **options: Unpack[Options]
    ) -> list[R]: ...
    @overload
    def __call__(
        self,
        sources: Source | Sequence[Source],
        destination: str | Several,
        **options: Unpack[Options],
    ) -> R | list[R]: ...


def _function(called: Callable[..., R | list[R]]) -> _Function[R]:
    """Let a function of the package be seen so."""
    return cast("_Function[R]", called)


def _index_function(called: Callable[..., R | list[R]]) -> _IndexFunction[R]:
    """Let `towline.index` be seen so."""
    return cast("_IndexFunction[R]", called)


@_function
def push(
    source: Source,
    destination: str | Several,
    *,
    all_tags: bool = False,
    **options: Unpack[Options],
) -> PushResult | list[PushResult]:
    """Push an image to a destination, `REGISTRY/REPOSITORY[:TAG]`, or to several.

    One destination as a text gives a result; several, or `all_tags` (every tag that the source
    holds), a list of them. See `Pusher.push` for what it does and raises; whoever pushes more than
    once makes a `Pusher`.

    Keywords:
        platform: Of an index these alone, as `OS/ARCH` or `OS/ARCH/VARIANT`.
        attestations: What an index says of its images: `keep` it, or `drop` it.
        format: `auto`, or `docker` or `oci`, which are never converted.
        allow_schema1: Push signed schema 1 where a registry takes nothing else (extra `schema1`).
        by_digest: Put the manifest under its digest alone, without a tag.
        preserve_digests: Refuse any change of bytes of what has a manifest.
        tags: With `all_tags`: patterns, such as `1.*`; only tags that fit one of them are pushed.
        compression: `gzip` (the default), `gzip:best`, `none`, `zstd[:1-19]`, `auto`. Layers that
            came compressed keep theirs unless one but `auto` is named.
        annotation: What is added to the document under the tag, as `K=V` or a mapping; with
            `manifest:` or `index:` before the key to each image's manifest, or to the index.
        verify: Afterwards, ask for everything (`head` or True), or read it back, DiffIDs too
            (`full`).
        check_diffids: Decompress layers that came compressed, beside the sending, and check them
            before any tag.
        cache_from: References at the destination's registry to learn layers from.
        if_exists: What to do with a tag that exists: `overwrite`; `same`: fine if absent or this
            digest; `skip`: leave it alone; `fail`.
        omit_from: For copies to OCI archives: leave out the layers that this image, at a registry
            or in a file, has: they are where the archive is pushed to.
        referrers: Bring along what refers to the images: signatures, SBOMs, attestations.
        no_learn: Learn nothing from the registry, and believe no other machine.
        check_push: For `plan` alone: open an upload session and give it back, to see whether one is
            let in.
        trace: Write down there where the time went: `.json`, a Chrome trace, or `.html`, a page.
        cancel: A switch that any thread may throw.
        jobs: Uploads at once to any one registry host (5).
        retries: Attempts in a row without progress, after the first (4).
        chunk_size: Send larger layers in chunks of so many bytes, also as `16M`; `auto`: where one
            body is not taken.
        limit_rate: Bytes a second that all uploads together may send, also as `2M`.
        timeout: Seconds without a byte either way (30).
        cache: Where what registries hold is remembered: a path, `redis://`, `rediss://`, `unix://`,
            or `none`.
        plain_http: Speak http at once, without trying https.
        insecure: Leave certificates unchecked (never http).
        tls_verify: False is `insecure`, and http for a registry on this machine.
        ca: A file of authorities to trust as well (PEM).
        cert: The client's certificate (PEM).
        key: Its key (PEM).
        creds: `USER:PASSWORD` or a pair, for the destination's host alone; or a function, which is
            asked for each host.
        src_creds: The same for the host of a source that is in a registry.
        authfile: A file of logins that is read first.
        engine: Where the Docker engine is: `unix://`, `tcp://` or `ssh://`; else as docker finds
            it.
        on_event: Called with each event, from any thread.
        log: Called with each line of the redacted wire log, from any thread.
        environ: Read instead of the process's environment.

    """
    settings, wishes = _apart(options)
    with Pusher(**settings) as pusher:
        return pusher.push(source, destination, all_tags=all_tags, **wishes)


@_function
def copy(
    source: Source,
    destination: str | Several,
    *,
    all_tags: bool = False,
    **options: Unpack[Options],
) -> PushResult | list[PushResult]:
    """Copy an image from a registry to others; takes what `push` takes. See `Pusher.copy`."""
    settings, wishes = _apart(options)
    with Pusher(**settings) as pusher:
        return pusher.copy(source, destination, all_tags=all_tags, **wishes)


@overload
def tag(
    reference: str, tags: str, *, cancel: Cancel | None = None, **options: Unpack[PusherOptions]
) -> PushResult: ...
@overload
def tag(
    reference: str, tags: Several, *, cancel: Cancel | None = None, **options: Unpack[PusherOptions]
) -> list[PushResult]: ...
def tag(
    reference: str,
    tags: str | Several,
    *,
    cancel: Cancel | None = None,
    **options: Unpack[PusherOptions],
) -> PushResult | list[PushResult]:
    """Set further tags to the manifest of a reference; see `Pusher.tag`."""
    with Pusher(**options) as pusher:
        return pusher.tag(reference, tags, cancel=cancel)


@_index_function
def index(
    sources: Source | Sequence[Source], destination: str | Several, **options: Unpack[Options]
) -> PushResult | list[PushResult]:
    """Build one index of several images, and push it; see `Pusher.index`."""
    settings, wishes = _apart(options)
    with Pusher(**settings) as pusher:
        return pusher.index(sources, destination, **wishes)


@_function
def plan(
    source: Source,
    destination: str | Several,
    *,
    all_tags: bool = False,
    **options: Unpack[Options],
) -> PlanResult | list[PlanResult]:
    """Tell what a push would do, and write nothing; takes what `push` takes. See `Pusher.plan`."""
    settings, wishes = _apart(options)
    with Pusher(**settings) as pusher:
        return pusher.plan(source, destination, all_tags=all_tags, **wishes)


def inspect(
    source: Source, *, cancel: Cancel | None = None, **options: Unpack[PusherOptions]
) -> InspectResult:
    """Describe an image or index, here or at a registry; see `Pusher.inspect`."""
    with Pusher(**options) as pusher:
        return pusher.inspect(source, cancel=cancel)


def tags(
    repository: str, *, cancel: Cancel | None = None, **options: Unpack[PusherOptions]
) -> list[str]:
    """The tags of a repository; see `Pusher.tags`."""
    with Pusher(**options) as pusher:
        return pusher.tags(repository, cancel=cancel)


def digest(source: Source, **options: Unpack[Options]) -> str:
    """The digest an image has, or would have; takes what `push` takes. See `Pusher.digest`."""
    settings, wishes = _apart(options)
    with Pusher(**settings) as pusher:
        return pusher.digest(source, **wishes)


def _apart(options: Mapping[str, Any]) -> tuple[PusherOptions, PushOptions]:
    """Split keywords into those of a `Pusher` and the rest; `push` refuses unknown ones."""
    settings = {key: options[key] for key in options if key in PusherOptions.__annotations__}
    wishes = {key: options[key] for key in options if key not in settings}
    return cast("PusherOptions", settings), cast("PushOptions", wishes)
