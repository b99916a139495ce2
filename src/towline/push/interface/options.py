"""The options of a push as values, checked before anything is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from towline import reference as references
from towline.errors import UsageError
from towline.layers import profile as profiles
from towline.push.interface.signatures import Attestations, Format, IfExists, PushOptions, Verify
from towline.sources.select import parse_platform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from towline.layers.profile import Profile
    from towline.push.interface.signatures import Creds, PusherOptions
    from towline.reference import Reference
    from towline.spec import media_types
    from towline.spec.descriptor import Platform


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
        given = dict(map(_pair, (given,) if isinstance(given, str) else given))
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


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"`annotation` needs a key and a value, not {text!r}", hint=_KEY_VALUE)
    return name, value


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
    """Raise UsageError for an unknown keyword, which only a type checker would notice."""
    for name in options:
        if name not in kind.__annotations__:
            raise UsageError(f"there is no option {name!r}")


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
    if not _is_number(jobs, int) or jobs < 1:
        raise UsageError(f"`jobs` must be a whole number, at least 1, not {jobs!r}")
    if not _is_number(retries, int) or retries < 0:
        raise UsageError(f"`retries` must be a whole number, 0 or more, not {retries!r}")
    if not _is_number(timeout, int, float) or not 0 < timeout < _FOR_EVER:
        raise UsageError(f"`timeout` must be a number above 0 seconds, not {timeout!r}")
    return Limits(jobs, retries, timeout)


_FOR_EVER = float("inf")


def _is_number(value: object, *kinds: type) -> bool:
    """Whether the value is a number: a program without a type checker may give a text."""
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
    return options.get("environ", os.environ)
