"""The options of a push as values, checked before anything is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

from towline import reference as references
from towline.context import Cancel
from towline.errors import UsageError
from towline.events import Emit
from towline.layers import profile as profiles
from towline.sources import platforms

if TYPE_CHECKING:
    from towline.layers.profile import Profile
    from towline.reference import Reference
    from towline.spec import media_types
    from towline.spec.descriptor import Platform

Creds = str | tuple[str, str]
Verify = Literal["head", "full"]
Attestations = Literal["keep", "drop"]
IfExists = Literal["overwrite", "same", "skip", "fail"]
Format = Literal["auto", "docker", "oci"]
_FORMATS: dict[str, media_types.Format | None] = {"auto": None, "docker": "docker", "oci": "oci"}


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
    """With `all_tags` of a repository at a registry: those that fit one of these patterns."""
    compression: str
    """Of layers that are not compressed yet: `gzip`, `none`, `zstd` or `zstd:1` to `zstd:19`."""
    verify: bool | Verify
    """Afterwards, ask for everything (`head` or True), or read it back, DiffIDs too (`full`)."""
    check_diffids: bool
    """Decompress layers that came compressed, beside the sending, and check them before any tag."""
    cache_from: str | Sequence[str]
    """References at the destination's registry to learn layers from."""
    if_exists: IfExists
    """What to do with a tag that exists: `overwrite`; `same`: fine if absent or this digest;
    `skip`: leave it alone; `fail`."""
    no_learn: bool
    """Learn nothing from the registry, and believe no other machine."""
    check_push: bool
    """For `plan` alone: open an upload session and give it back, to see whether one is let in."""
    cancel: Cancel
    """A switch that any thread may throw."""


class Options(PusherOptions, PushOptions, total=False):
    """Keywords of the functions that make a `Pusher` for one push."""


class Wish(NamedTuple):
    """What one push was asked to do."""

    profile: Profile
    explicit_profile: bool = False
    format: media_types.Format | None = None
    verify: Verify | None = None
    check_diffids: bool = False
    cache_from: tuple[Reference, ...] = ()
    origins: tuple[Reference, ...] = ()
    """Where an engine has its image from, or has put it."""
    learn: bool = True
    if_exists: IfExists = "overwrite"
    allow_schema1: bool = False
    platforms: tuple[Platform, ...] = ()
    """Empty: all that there are."""
    attestations: bool = True
    by_digest: bool = False
    preserve_digests: bool = False
    tags: tuple[str, ...] = ()
    """Patterns; empty: all that there are."""

    @property
    def as_it_is(self) -> bool:
        """Whether the source's own digest is what is wanted, and a look at the tag is enough."""
        changed = self.platforms or self.format or self.explicit_profile or not self.attestations
        return not (changed or self.verify or self.check_diffids)


def wish(options: PushOptions, *, all_tags: bool = False) -> Wish:
    """Check the keywords of a push. Raises UsageError."""
    known(options, PushOptions)
    if options.get("tags") and not all_tags:
        raise UsageError("`tags` picks among all tags", hint="add `all_tags=True`")
    compression = options.get("compression")
    return Wish(
        profile=profiles.parse("gzip" if compression is None else compression),
        explicit_profile=compression is not None,
        format=_format(options.get("format", "auto")),
        verify=_verify(options.get("verify", False)),
        check_diffids=options.get("check_diffids", False),
        cache_from=tuple(references.parse(text) for text in several(options.get("cache_from"))),
        learn=not options.get("no_learn", False),
        if_exists=_if_exists(options.get("if_exists", "overwrite")),
        allow_schema1=_schema1(options.get("allow_schema1", False)),
        platforms=tuple(platforms.parse(text) for text in several(options.get("platform"))),
        attestations=_attestations(options.get("attestations", "keep")),
        by_digest=options.get("by_digest", False),
        preserve_digests=options.get("preserve_digests", False),
        tags=tuple(several(options.get("tags"))),
    )


def known(options: Mapping[str, object], kind: type[PushOptions | PusherOptions]) -> None:
    """Raises UsageError for a keyword that there is not, which a TypedDict does not stop."""
    for name in options:
        if name not in kind.__annotations__:
            raise UsageError(f"there is no option {name!r}")


def _format(text: str) -> media_types.Format | None:
    if text not in _FORMATS:
        raise UsageError(f"no manifest format is called {text!r}", hint="use auto, docker or oci")
    return _FORMATS[text]


def _attestations(text: str) -> bool:
    if text not in {"keep", "drop"}:
        raise UsageError(f"attestations cannot be {text!r}", hint="use keep or drop")
    return text == "keep"


def _verify(value: bool | str) -> Verify | None:  # noqa: FBT001 - a value, not a flag
    match value:
        case False:
            return None
        case True | "head":
            return "head"
        case "full":
            return "full"
    raise UsageError(f"verify cannot be {value!r}", hint="use head or full")


def _schema1(allowed: bool) -> bool:  # noqa: FBT001 - a value, not a flag
    if allowed:
        from towline.push.manifests import schema1

        schema1.require()
    return allowed


def _if_exists(value: str) -> IfExists:
    match value:
        case "overwrite" | "same" | "skip" | "fail":
            return value
    raise UsageError(f"if_exists cannot be {value!r}", hint="use overwrite, same, skip or fail")


class Limits(NamedTuple):
    """How much at once, how long, how often."""

    jobs: int = 5
    retries: int = 4
    timeout: float = 30.0


def limits(options: PusherOptions) -> Limits:
    """Those that were given. Raises UsageError."""
    usual = Limits()
    jobs = options.get("jobs", usual.jobs)
    retries = options.get("retries", usual.retries)
    timeout = options.get("timeout", usual.timeout)
    if not _is_number(jobs, int) or jobs < 1:
        raise UsageError(f"`jobs` must be a whole number, at least 1, not {jobs!r}")
    if not _is_number(retries, int) or retries < 0:
        raise UsageError(f"`retries` must be a whole number, 0 or more, not {retries!r}")
    if not _is_number(timeout, int, float) or not 0 < timeout < _FOR_EVER:
        raise UsageError(f"`timeout` must be a number above 0 seconds, not {timeout!r}")
    return Limits(jobs, retries, timeout)


_FOR_EVER = float("inf")


def _is_number(value: object, *kinds: type) -> bool:
    """A program may give a text, where a type checker has not stopped it."""
    return isinstance(value, kinds)


def several(value: str | Sequence[str] | None) -> Sequence[str]:
    """The values of an option that may be given more than once."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def account(
    creds: Creds | Callable[[str], Creds | None] | None,
) -> tuple[str, str] | Callable[[str], tuple[str, str] | None] | None:
    """What `creds` says: a pair, or a function from a host to one. Raises UsageError."""
    if callable(creds):
        ask = creds
        return lambda host: pair(ask(host), "creds")
    return pair(creds, "creds")


def pair(creds: Creds | None, option: str) -> tuple[str, str] | None:
    """`USER:PASSWORD`, or the two already apart. Raises UsageError for anything else."""
    if creds is None:
        return None
    parts = creds.split(":", 1) if isinstance(creds, str) else creds
    match list(parts):
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
        number = value
    if number < 1:
        raise UsageError(
            f"`{option}` must be a number of bytes, not {value!r}", hint="as in 16M: use K, M or G"
        )
    return number


def chunk_size(value: int | str) -> int | None:
    """Bytes of a chunk; None for `auto`: one body wherever that is taken. Raises UsageError."""
    return None if value == "auto" else size(value, "chunk_size")


def rate(value: int | str | None) -> int | None:
    """Bytes a second; None: as many as there are. Raises UsageError."""
    return None if value is None else size(value, "limit_rate")


def given_to_one_host(options: PusherOptions) -> str | None:
    """What names an account for the one host of the destinations; None: nothing does."""
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
    return options.get("environ", os.environ)
