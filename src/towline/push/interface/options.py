"""The options of a push: the library's keywords, and their values, checked before all else."""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, Literal, NamedTuple, TypedDict, get_args

import towline
from towline import reference as references
from towline.context import Cancel
from towline.errors import UsageError
from towline.layers import profile as profiles
from towline.layers.profile import Profile
from towline.push.interface.option_types import check_types
from towline.reference import Reference
from towline.sources.select import parse_platform
from towline.spec import media_types
from towline.spec.descriptor import Platform

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
    on_event: "Callable[[towline.Event], None]"
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
    """`gzip` (the default), `gzip:best`, `none`, `zstd[:1-19]`, `auto`. Layers that came compressed
    keep theirs unless one but `auto` is named."""
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


_KEY_VALUE = "write KEY=VALUE, manifest:KEY=VALUE or index:KEY=VALUE"


class Annotations(NamedTuple):
    """Annotations that are asked for, by the documents that they go into.

    Docker's formats have none, so a document that gets one is made in OCI's (`build`).
    """

    top: Mapping[str, str]
    """The one under the tag, whichever that is."""
    images: Mapping[str, str]
    """The manifest of each image."""
    indexes: Mapping[str, str]


class Wish(NamedTuple):
    """The options of one push, checked."""

    profile: Profile
    explicit_profile: bool = False
    format: media_types.Format | None = None
    verify: Verify | None = None
    check_diffids: bool = False
    cache_from: tuple[Reference, ...] = ()
    learn: bool = True
    if_exists: IfExists = "overwrite"
    allow_schema1: bool = False
    platforms: tuple[Platform, ...] = ()
    """Empty: all platforms."""
    attestations: bool = True
    all_tags: bool = False
    by_digest: bool = False
    preserve_digests: bool = False
    annotations: Annotations | None = None
    tags: tuple[str, ...] = ()
    """Patterns of tags; empty: all tags."""
    referrers: bool = False
    omit_from: tuple[str, ...] = ()
    """Images whose layers are left out of an archive."""

    @property
    def as_it_is(self) -> bool:
        """Whether the source's own digest is wanted, so that a HEAD of the tag can end the push."""
        kept = self.attestations and not self.annotations
        changed = self.platforms or self.format or self.explicit_profile or not kept
        more = self.verify or self.check_diffids or self.referrers or self.omit_from
        return not (changed or more)


def wish(options: PushOptions, *, all_tags: bool = False) -> Wish:
    """Check the keywords of a push. Raises UsageError."""
    known(options, PushOptions)
    check_types({"all_tags": all_tags})
    if options.get("tags") and not all_tags:
        raise UsageError("`tags` picks among all tags", hint="add `all_tags=True`")
    if options.get("allow_schema1"):
        _require_cryptography()
    compression = options.get("compression")
    fmt = _one_of(Format, "format", options.get("format", "auto"))
    verify = options.get("verify", False)
    if not isinstance(verify, bool):
        verify = _one_of(Verify, "verify", verify)
    annotations = None
    if options.get("annotation"):
        annotations = _annotations(options["annotation"])
        if fmt == "docker":
            msg = "docker's manifest formats have no annotations"
            raise UsageError(msg, hint="use `format='oci'`")
    kept = options.get("attestations", "keep")
    profile = profiles.parse(profiles.DEFAULT if compression is None else compression)
    return Wish(
        profile=profile,
        explicit_profile=compression is not None and profile is not profiles.AUTO,
        format=None if fmt == "auto" else fmt,
        verify="head" if verify is True else verify or None,
        check_diffids=options.get("check_diffids", False),
        cache_from=tuple(references.parse(text) for text in several(options.get("cache_from"))),
        learn=not options.get("no_learn", False),
        if_exists=_one_of(IfExists, "if_exists", options.get("if_exists", "overwrite")),
        allow_schema1=options.get("allow_schema1", False),
        platforms=tuple(parse_platform(text) for text in several(options.get("platform"))),
        attestations=_one_of(Attestations, "attestations", kept) == "keep",
        all_tags=all_tags,
        by_digest=options.get("by_digest", False),
        preserve_digests=options.get("preserve_digests", False),
        annotations=annotations,
        tags=tuple(several(options.get("tags"))),
        referrers=options.get("referrers", False),
        omit_from=tuple(several(options.get("omit_from"))),
    )


def _annotations(given: str | Sequence[str] | Mapping[str, str]) -> Annotations:
    """Read `[manifest:|index:]K=V`, one or several, or a mapping. Raises UsageError."""
    if not isinstance(given, Mapping):
        pairs = [text.partition("=") for text in several(given)]
        for text in (name for name, equals, _ in pairs if not equals):
            msg = f"`annotation` needs a key and a value, not {text!r}"
            raise UsageError(msg, hint=_KEY_VALUE)
        given = {name: value for name, _, value in pairs}
    found: dict[str, dict[str, str]] = {"": {}, "manifest": {}, "index": {}}
    for name, value in given.items():
        if not all(isinstance(each, str) for each in (name, value)):
            # Clients that are written in Go would not read the manifest.
            raise UsageError(f"an annotation is a text, not {value!r}", hint=_KEY_VALUE)
        where, colon, key = name.partition(":")
        if not colon or not where.startswith(("manifest", "index")):
            where, key = "", name
        # Buildx's `manifest-descriptor:` and `manifest[PLATFORM]:` are none of ours, and no keys.
        if where not in found or not key:
            raise UsageError(f"{name!r} is no annotation's key", hint=_KEY_VALUE)
        found[where][key] = value
    return Annotations(found[""], found["manifest"], found["index"])


def _require_cryptography() -> None:
    """Raise UsageError if the package that signs schema 1 is not installed, without loading it."""
    from importlib.util import find_spec

    if find_spec("cryptography") is None:
        raise UsageError(
            "signed schema 1 needs the package `cryptography`, which is not installed",
            hint="pip install 'towline[schema1]' (in a clone '.[schema1]'), or leave out "
            "`allow_schema1=True`",
        )


def known(options: Mapping[str, object], kind: type[PushOptions | PusherOptions]) -> None:
    """Raise UsageError for an unknown keyword, or a value of another type than its own.

    Only a type checker would notice either.
    """
    for name in options:
        if name not in kind.__annotations__:
            raise UsageError(f"there is no option {name!r}")
    check_types(options)


def _one_of(kind: Any, option: str, value: str) -> Any:  # noqa: ANN401 - a Literal, and one of its words
    words: tuple[str, ...] = get_args(kind)
    if value not in words:
        listed = f"{', '.join(words[:-1])} or {words[-1]}"
        raise UsageError(f"{option} cannot be {value!r}", hint=f"use {listed}")
    return value


class Limits(NamedTuple):
    """The numbers of a `Pusher`: uploads at once, retries, seconds without a byte."""

    jobs: int = 5
    """As docker's `max-concurrent-uploads`."""
    retries: int = 4
    """With the first attempt five, as docker makes."""
    timeout: float = 30.0
    """Seconds without a byte either way (decisions 2 and 13)."""


def limits(options: PusherOptions) -> Limits:
    """The numbers that were given. Raises UsageError."""
    usual = Limits()
    jobs = options.get("jobs", usual.jobs)
    retries = options.get("retries", usual.retries)
    timeout = options.get("timeout", usual.timeout)
    # A program without a type checker may give a text.
    if not _is_number(jobs, int) or jobs < 1:
        raise UsageError(f"`jobs` must be a whole number, at least 1, not {jobs!r}")
    if not _is_number(retries, int) or retries < 0:
        raise UsageError(f"`retries` must be a whole number, 0 or more, not {retries!r}")
    if not _is_number(timeout, int, float) or not 0 < timeout < math.inf:
        raise UsageError(f"`timeout` must be a number above 0 seconds, not {timeout!r}")
    return Limits(jobs, retries, timeout)


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds)


def several(value: str | Sequence[str] | None) -> Sequence[str]:
    """The values of an option that may be given more than once."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def account(
    creds: Creds | Callable[[str], Creds | None] | None,
) -> tuple[str, str] | Callable[[str], tuple[str, str] | None] | None:
    """The value of `creds`: a pair, or a function from a host to one. Raises UsageError."""
    if callable(creds):
        ask = creds
        return lambda host: pair(ask(host), "creds")
    return pair(creds, "creds")


def pair(creds: Creds | None, option: str) -> tuple[str, str] | None:
    """User and password, of `USER:PASSWORD` or of a pair. Raises UsageError for anything else."""
    if creds is None:
        return None
    # Whoever has no type checker may give anything.
    match creds.split(":", 1) if isinstance(creds, str) else creds:
        case [str(user), str(password)] if user:
            return user, password
    raise UsageError(f"`{option}` must be USER:PASSWORD", hint="give a user, a colon, a password")


_SIZE = r"(?i)(\d+(?:\.\d+)?)([KMG]?)"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(value: int | str, option: str) -> int:
    """Bytes: a number, or a text of a number and K, M or G (powers of 1024).

    Raises UsageError, also for less than one byte.
    """
    if isinstance(value, str):
        match = re.fullmatch(_SIZE, value.strip())
        number = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    else:
        number = value if _is_number(value, int) else 0
    if number < 1:
        raise UsageError(
            f"`{option}` must be a number of bytes, not {value!r}", hint="as in 16M: use K, M or G"
        )
    return number


def chunk_size(value: int | str) -> int | None:
    """Bytes of a chunk; None (`auto`): one body wherever that is taken. Raises UsageError."""
    return None if value == "auto" else size(value, "chunk_size")


def rate(value: int | str | None) -> int | None:
    """Bytes a second; None: as many as there are. Raises UsageError."""
    return None if value is None else size(value, "limit_rate")


def given_to_one_host(options: PusherOptions) -> str | None:
    """The option or variable that gives an account for one host alone; None: none does."""
    creds = options.get("creds")
    if callable(creds):
        return None
    if creds:
        return "`creds`"
    environ = environment(options)
    named = environ.get("TOWLINE_USERNAME") and environ.get("TOWLINE_PASSWORD") is not None
    return "TOWLINE_USERNAME" if named else None


def environment(options: PusherOptions) -> Mapping[str, str]:
    """The variables that configure a pusher."""
    given = options.get("environ")
    return os.environ if given is None else given
