"""The commands and their options as data: their names, what they take, and their part of `--help`.

`dest` is the library's keyword. The library reads most values (sizes, profiles, references); this
module knows only what reading a command line needs. An option that is not given is absent from the
namespace, so that each default is in one place, the library.
"""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple


def whole(least: int) -> Callable[[str], int]:
    """A converter to a whole number of `least` or more; it raises ValueError for anything else."""

    def convert(value: str) -> int:
        if not (value.isascii() and value.isdigit()) or int(value) < least:
            raise ValueError(f"takes a whole number, {least} or more")
        return int(value)

    return convert


def seconds(value: str) -> float:
    """A number of seconds above 0; raises ValueError for anything else."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError("takes a number of seconds above 0")
    return number


def switch(value: str) -> bool:
    """On or off, as people write it in variables; raises ValueError for anything else."""
    word = value.strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError("takes true or false")


def verify(value: str) -> str | None:
    """`head` or `full`; in a variable also on (`head`) or off (None)."""
    if value in {"head", "full"}:
        return value
    try:
        return "head" if switch(value) else None
    except ValueError:
        raise ValueError("takes head or full") from None


class Option(NamedTuple):
    """One option."""

    spelled: str
    """Its names as documented, the long one last: `-j, --jobs`."""
    help: str
    metavar: str | None = None
    """None: it is on or off and takes no value."""
    convert: Callable[[str], object] | None = None
    """Text to value, where that is neither a switch, a choice nor just text; raises ValueError."""
    aliases: tuple[str, ...] = ()
    """Names that other tools have for it."""
    bare: str | None = None
    """The value when the option is given without one; any other value then needs `=`."""
    repeatable: bool = False
    spreads: bool = False
    """Whether it takes all words up to the next option."""
    secret: bool = False
    """Whether its value must not be shown in messages."""
    keyword: str | None = None
    """The library's keyword, where it is not the long name."""
    typed_only: bool = False
    """Whether no variable sets it here, since the library reads the variable itself."""

    @property
    def names(self) -> tuple[str, ...]:
        """The documented names, the long one last."""
        return tuple(self.spelled.split(", "))

    @property
    def spellings(self) -> tuple[str, ...]:
        """All names and aliases."""
        return (*self.names, *self.aliases)

    @property
    def name(self) -> str:
        """The long name."""
        return self.names[-1]

    @property
    def dest(self) -> str:
        """The library's keyword."""
        return self.keyword or self.name.removeprefix("--").replace("-", "_")

    @property
    def choices(self) -> list[str] | None:
        """The words that it takes, where its metavar is a list of them."""
        words = (self.metavar or "").split("|")
        return words if len(words) > 1 and all(map(str.islower, words)) else None

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set it."""
        if self.typed_only:
            return ()
        longs = (name for name in (self.name, *self.aliases) if name.startswith("--"))
        told = tuple("TOWLINE_" + name[2:].replace("-", "_").upper() for name in longs)
        return (*told, "TOWLINE_Q") if "-q" in self.names else told  # known by its short name

    def value_of(self, written: str) -> object:
        """The value of a text (`true` for a switch); raises ValueError that says what it takes."""
        if self.convert:
            return self.convert(written)
        if self.metavar is None:
            return switch(written)
        if self.choices and written not in self.choices:
            raise ValueError(f"takes one of {', '.join(self.choices)}")
        return written


class Group:
    """Options under one heading of `--help`."""

    def __init__(self, title: str, *options: Option) -> None:
        self.title = title
        self.options = options


class Arguments(SimpleNamespace):
    """What was given to a command: options by their keywords, and the other words."""

    command: str
    words: list[str]
    typed: set[str]
    """Keywords that were typed rather than set by a variable."""
    strangers: list[str]
    """Warnings about `TOWLINE_…` variables that do not exist."""

    def __contains__(self, keyword: object) -> bool:
        return keyword in vars(self)


class Command(NamedTuple):
    """One command: its function, its part of `--help`, and the words and options that it takes."""

    run: Callable[[Arguments], int]
    """Carries the command out and gives its exit code."""
    usage: str
    about: str
    options: tuple[Group, ...] = ()
    words: int | None = None
    """The most words besides options that it takes; None for any number."""
    needs: str = ""
    """What the first word names (for the error without one); empty where it needs none."""

    @property
    def every(self) -> list[Option]:
        """All options that it takes."""
        return [option for group in self.options for option in group.options]


PLATFORM = Option(
    "--platform",
    "this platform alone (repeatable; default all)",
    "OS/ARCH[/VARIANT]",
    repeatable=True,
)
ATTESTATIONS = Option(
    "--attestations", "what an index says of its images (default keep)", "keep|drop"
)
BY_DIGEST = Option("--by-digest", "put the manifest under its digest only, without a tag")
ALL_TAGS = Option("-a, --all-tags", "every tag that the source holds")
WHAT = Group("what is pushed", ALL_TAGS, PLATFORM, ATTESTATIONS, BY_DIGEST)
ENGINE = Group(
    "the engine",
    Option(
        "--engine",
        "where the Docker engine is: unix://, tcp:// or ssh:// (default: as docker finds it)",
        "URL",
    ),
)
WHICH_COPIED = Group(
    "what of it is copied",
    Option(
        "--tags",
        "of all tags those that fit one of these patterns (repeatable)",
        "GLOB",
        repeatable=True,
    ),
    Option(
        "--omit-from",
        "to an OCI archive: leave out the layers that this image has (repeatable)",
        "REF|PATH",
        repeatable=True,
    ),
)
WHICH = Group("which of it", PLATFORM, ATTESTATIONS)
FORM = Group(
    "as what",
    Option(
        "-f, --format",
        "the manifest's format (auto: the source's, converted where a registry wants it)",
        "auto|docker|oci",
    ),
    Option("--preserve-digests", "refuse any change of bytes"),
    Option("--allow-schema1", "signed schema 1 as the last fallback"),
    Option(
        "--compression",
        "gzip, gzip:best, zstd[:1-19], none, auto (default gzip; layers that came compressed keep "
        "theirs unless one but auto is named)",
        "PROFILE",
    ),
    Option(
        "--annotation",
        "annotate what goes under the tag (repeatable)",
        "[manifest:|index:]K=V",
        repeatable=True,
    ),
)
HOW = Group(
    "how",
    Option("-j, --jobs", "uploads at once to any one registry host (default 5)", "N", whole(1)),
    Option(
        "--chunk-size",
        "send larger layers in chunks of this size, as 16M (auto: where one body is not taken)",
        "SIZE|auto",
    ),
    Option("--limit-rate", "bytes a second, all uploads together, as 2M", "RATE"),
)
PATIENCE = Group(
    "patience",
    Option(
        "--retries",
        "attempts in a row without progress, after the first (default 4)",
        "N",
        whole(0),
        aliases=("--retry-times",),
    ),
    Option("--timeout", "without a byte either way (default 30)", "SECONDS", seconds),
)
CACHE = Option(
    "--cache",
    "where what registries hold is remembered: a SQLite file (default: in the user's cache "
    "directory), redis://, rediss:// or unix://",
    "PATH|URL|none",
)
KNOWLEDGE = Group(
    "knowledge",
    CACHE,
    Option(
        "--cache-from",
        "learn from this image at the registry too (repeatable)",
        "REF",
        repeatable=True,
    ),
    Option("--no-learn", "learn nothing from the registry, believe no other machine"),
)
EXISTING = Group(
    "existing tags",
    Option(
        "--if-exists",
        "what to do with a tag that exists (default overwrite)",
        "overwrite|same|skip|fail",
    ),
    Option(
        "--no-clobber",
        "the same as --if-exists skip",
        convert=lambda value: "skip" if switch(value) else None,
        keyword="if_exists",
    ),
)
TRANSPORT = Group(
    "transport",
    Option("--plain-http", "http at once, no https try"),
    Option("--insecure", "leave certificates unchecked (never http)"),
    Option(
        "--tls-verify",
        "false: as --insecure, and http for a registry on this machine",
        "true|false",
        switch,
        aliases=("--dest-tls-verify",),
        bare="true",
    ),
    Option("--ca", "trust these authorities as well (PEM)", "FILE"),
    Option("--cert", "the client certificate (PEM)", "FILE"),
    Option("--key", "its key (PEM)", "FILE"),
)
CREDENTIALS = Group(
    "credentials",
    Option(
        "--creds",
        "for the registry's host alone",
        "USER:PASSWORD",
        aliases=("--dest-creds",),
        secret=True,
    ),
    Option("-u, --username", "with --password-stdin", "USER", typed_only=True),
    Option("--password-stdin", "read it from standard input"),
    Option("--src-creds", "for the source's host", "USER:PASSWORD", secret=True),
    Option("--authfile", "read credentials from this file first", "FILE"),
)
DEBUG = Option("--debug", "show tracebacks and a redacted log of what goes over the wire")
STDERR = Group(
    "standard error",
    Option(
        "--progress",
        "how progress is shown (auto: bars on a terminal, else plain)",
        "auto|tty|plain|json|none",
    ),
    Option(
        "-q, --quiet",
        "the same as --progress none; warnings and errors stay",
        convert=lambda value: "none" if switch(value) else None,
        keyword="progress",
    ),
    DEBUG,
)
MESSAGES = Group("standard error", DEBUG)
OUTPUT = Option("--output", "how the result is printed", "text|json")
RESULT = Group(
    "the result",
    OUTPUT,
    Option(
        "--digest-file", "write the digest here, one line a tag", "FILE", aliases=("--digestfile",)
    ),
)
PRINTED = Group("the result", OUTPUT)
VERIFY = Option(
    "--verify",
    "afterwards: ask for the manifest and every blob, or read all of it back",
    "head|full",
    verify,
    bare="head",
)
CHECK_DIFFIDS = Option(
    "--check-diffids", "decompress layers that came compressed, beside the sending, and check them"
)
TRACE = Option(
    "--trace", "write down where the time went: .json for Perfetto, .html a page", "FILE"
)
AFTER = Group(
    "checks",
    Option("--dry-run", "GET and HEAD only: say what would be sent"),
    Option("--check-push", "with that, open an upload session and give it back as well"),
    VERIFY,
    CHECK_DIFFIDS,
    Option("--referrers", "push what refers to the image too"),
    TRACE,
)
_TO = Option(
    "--to",
    "REGISTRY/REPOSITORY[:TAG]; several may follow",
    "DESTINATION",
    repeatable=True,
    spreads=True,
)

REACH = (PATIENCE, TRANSPORT, CREDENTIALS)
"""The options of every command that talks to a registry."""
_MADE = (FORM, ENGINE, HOW, PATIENCE, KNOWLEDGE, EXISTING, TRANSPORT, CREDENTIALS)
"""Options of all commands that make an image and send it."""
PUSH = (WHAT, *_MADE, AFTER, RESULT, STDERR)
COPY = (WHAT, WHICH_COPIED, *PUSH[1:])
INDEX = (
    Group("where to", _TO, BY_DIGEST),
    WHICH,
    *_MADE,
    Group("checks", VERIFY, CHECK_DIFFIDS, TRACE),
    RESULT,
    STDERR,
)


def keywords() -> set[str]:
    """Every keyword."""
    return {option.dest for group in COPY for option in group.options}


def variables() -> set[str]:
    """The environment variables that these options or the library read."""
    every = (option for group in (*COPY, *INDEX) for option in group.options)
    beside = {"TOWLINE_USERNAME", "TOWLINE_PASSWORD", "TOWLINE_CACHE_KEY"}
    return beside.union(*(option.variables for option in every))
