"""The options, as data: names, aliases, what they take, and the sentence of `--help`.

`dest` is the library's keyword. What a value means is the library's to say (sizes, profiles,
references); here stands only what has to be known to read a command line. An option that was not
given stays absent, so that every default has one home, the library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


def text(value: str) -> str:
    """Anything."""
    return value


def whole(least: int) -> Callable[[str], int]:
    """A whole number, `least` or more."""

    def convert(value: str) -> int:
        if not (value.isascii() and value.isdigit()) or int(value) < least:
            msg = f"takes a whole number, {least} or more"
            raise ValueError(msg)
        return int(value)

    return convert


def seconds(value: str) -> float:
    """A time above 0."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        msg = "takes a number of seconds above 0"
        raise ValueError(msg)
    return number


def one_of(*words: str) -> Callable[[str], str]:
    """One of a few words."""

    def convert(value: str) -> str:
        if value not in words:
            msg = f"takes one of {', '.join(words)}"
            raise ValueError(msg)
        return value

    return convert


def switch(value: str) -> bool:
    """On or off, as people write it in variables."""
    word = value.strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    msg = "takes true or false"
    raise ValueError(msg)


def verify(value: str) -> str | None:
    """`head` or `full`; as a variable also on or off."""
    if value in {"head", "full"}:
        return value
    try:
        return "head" if switch(value) else None
    except ValueError:
        msg = "takes head or full"
        raise ValueError(msg) from None


def _skip(value: str) -> str | None:
    return "skip" if switch(value) else None


def _quiet(value: str) -> str | None:
    return "none" if switch(value) else None


class Option(NamedTuple):
    """One option."""

    names: tuple[str, ...]
    """As documented; the long one last."""
    aliases: tuple[str, ...] = ()
    """Other spellings that users' fingers know."""
    help: str = ""
    metavar: str | None = None
    """None: it is on or off and takes no value."""
    convert: Callable[[str], object] = text
    """Text to value; raises ValueError with what it takes. A switch gets `true`."""
    bare: str | None = None
    """The value when it stands alone; a value then needs `=`."""
    repeatable: bool = False
    secret: bool = False
    """Its value is never shown."""
    keyword: str | None = None
    """Where it is kept, if not under its own name."""
    typed_only: bool = False
    """No variable sets it here: the library reads that one itself."""

    @property
    def name(self) -> str:
        """The long name."""
        return self.names[-1]

    @property
    def dest(self) -> str:
        """The library's keyword."""
        return self.keyword or self.name.removeprefix("--").replace("-", "_")

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set it."""
        if self.typed_only:
            return ()
        longs = (name for name in (self.name, *self.aliases) if name.startswith("--"))
        told = tuple("TOWLINE_" + name[2:].replace("-", "_").upper() for name in longs)
        return (*told, "TOWLINE_Q") if "-q" in self.names else told  # known by its short name


def flag(*names: str, help: str = "", **more: object) -> Option:  # noqa: A002 - as argparse says it
    """An option that is on or off."""
    convert = more.pop("convert", switch)
    return Option(names=names, help=help, convert=convert, **more)  # type: ignore[arg-type]  # any field


def given(*names: str, metavar: str, help: str = "", **more: object) -> Option:  # noqa: A002 - see flag
    """An option that takes a value."""
    return Option(names=names, metavar=metavar, help=help, **more)  # type: ignore[arg-type]  # any field


class Group(NamedTuple):
    """Options that belong together, under one heading of `--help`."""

    title: str
    options: tuple[Option, ...]


PLATFORM = given(
    "--platform",
    metavar="OS/ARCH[/VARIANT]",
    help="this platform alone (repeatable; default all)",
    repeatable=True,
)
ATTESTATIONS = given(
    "--attestations",
    metavar="keep|drop",
    convert=one_of("keep", "drop"),
    help="what an index says of its images (default keep)",
)
BY_DIGEST = flag("--by-digest", help="put the manifest under its digest only, without a tag")
WHAT = Group(
    "what is pushed",
    (
        flag("-a", "--all-tags", help="every tag that the source holds"),
        PLATFORM,
        ATTESTATIONS,
        BY_DIGEST,
    ),
)
ENGINE = Group(
    "the engine",
    (
        given(
            "--engine",
            metavar="URL",
            help="where the Docker engine is: unix://, tcp:// or ssh:// (default: as docker "
            "finds it)",
        ),
    ),
)
WHICH_TAGS = Group(
    "which tags",
    (
        given(
            "--tags",
            metavar="GLOB",
            help="with -a: tags that fit one of these patterns (repeatable)",
            repeatable=True,
        ),
    ),
)
WHICH = Group("which of it", (PLATFORM, ATTESTATIONS))
FORM = Group(
    "as what",
    (
        given(
            "-f",
            "--format",
            metavar="auto|docker|oci",
            convert=one_of("auto", "docker", "oci"),
            help="the manifest's format (auto: the source's, converted where a registry wants it)",
        ),
        flag("--preserve-digests", help="refuse any change of bytes"),
        flag("--allow-schema1", help="signed schema 1 as the last fallback"),
        given(
            "--compression",
            metavar="PROFILE",
            help="of layers that are not compressed yet: gzip, zstd[:1-19], none",
        ),
        given(
            "--annotation",
            metavar="[manifest:|index:]K=V",
            help="annotate what goes under the tag (repeatable)",
            repeatable=True,
        ),
    ),
)
HOW = Group(
    "how",
    (
        given(
            "-j",
            "--jobs",
            metavar="N",
            convert=whole(1),
            help="uploads at once to any one registry host (default 5)",
        ),
        given(
            "--chunk-size",
            metavar="SIZE|auto",
            help="send larger layers in chunks of this size (auto: where one body is not taken)",
        ),
        given("--limit-rate", metavar="RATE", help="bytes a second, all uploads together"),
    ),
)
PATIENCE = Group(
    "patience",
    (
        given(
            "--retries",
            aliases=("--retry-times",),
            metavar="N",
            convert=whole(0),
            help="attempts in a row without progress, after the first (default 4)",
        ),
        given(
            "--timeout",
            metavar="SECONDS",
            convert=seconds,
            help="without a byte either way (default 30)",
        ),
    ),
)
CACHE = given(
    "--cache",
    metavar="PATH|URL|none",
    help="where what registries hold is remembered: a SQLite file (default: in the user's cache "
    "directory), redis://, rediss:// or unix://",
)
KNOWLEDGE = Group(
    "knowledge",
    (
        CACHE,
        given(
            "--cache-from",
            metavar="REF",
            help="learn from this image at the registry too (repeatable)",
            repeatable=True,
        ),
        flag("--no-learn", help="learn nothing from the registry, believe no other machine"),
    ),
)
EXISTING = Group(
    "existing tags",
    (
        given(
            "--if-exists",
            metavar="overwrite|same|skip|fail",
            convert=one_of("overwrite", "same", "skip", "fail"),
            help="what to do with a tag that exists (default overwrite)",
        ),
        flag(
            "--no-clobber",
            help="the same as --if-exists skip",
            convert=_skip,
            keyword="if_exists",
        ),
    ),
)
TRANSPORT = Group(
    "transport",
    (
        flag("--plain-http", help="http at once, no https try"),
        flag("--insecure", help="leave certificates unchecked (never http)"),
        given(
            "--tls-verify",
            aliases=("--dest-tls-verify",),
            metavar="true|false",
            convert=switch,
            bare="true",
            help="false: as --insecure, and http for a registry on this machine",
        ),
        given("--ca", metavar="FILE", help="trust these authorities as well (PEM)"),
        given("--cert", metavar="FILE", help="the client certificate (PEM)"),
        given("--key", metavar="FILE", help="its key (PEM)"),
    ),
)
CREDENTIALS = Group(
    "credentials",
    (
        given(
            "--creds",
            aliases=("--dest-creds",),
            metavar="USER:PASSWORD",
            secret=True,
            help="for the registry's host alone",
        ),
        given("-u", "--username", metavar="USER", help="with --password-stdin", typed_only=True),
        flag("--password-stdin", help="read it from standard input", typed_only=True),
        given("--src-creds", metavar="USER:PASSWORD", secret=True, help="for the source's host"),
        given("--authfile", metavar="FILE", help="read credentials from this file first"),
    ),
)
LOGIN = Group(
    "the login",
    (
        given("-u", "--username", metavar="USER", help="else asked for", typed_only=True),
        flag(
            "--password-stdin",
            help="read it from standard input; else it is asked for on the terminal",
            typed_only=True,
        ),
        given("--authfile", metavar="FILE", help="keep it in this file (default: Docker's)"),
    ),
)
LOGOUT = Group(
    "the login",
    (given("--authfile", metavar="FILE", help="forget it in this file (default: Docker's)"),),
)
DEBUG = flag("--debug", help="show tracebacks and a redacted log of what goes over the wire")
STDERR = Group(
    "standard error",
    (
        given(
            "--progress",
            metavar="auto|tty|plain|json|none",
            convert=one_of("auto", "tty", "plain", "json", "none"),
            help="how progress is shown (auto: bars on a terminal, else plain)",
        ),
        flag(
            "-q",
            "--quiet",
            help="the same as --progress none; warnings and errors stay",
            convert=_quiet,
            keyword="progress",
        ),
        DEBUG,
    ),
)
MESSAGES = Group("standard error", (DEBUG,))
OUTPUT = given(
    "--output",
    metavar="text|json",
    convert=one_of("text", "json"),
    help="how the result is printed",
)
RESULT = Group(
    "the result",
    (
        OUTPUT,
        given(
            "--digest-file",
            aliases=("--digestfile",),
            metavar="FILE",
            help="write the digest here, one line a tag",
        ),
    ),
)
PRINTED = Group("the result", (OUTPUT,))
VERIFY = given(
    "--verify",
    metavar="head|full",
    convert=verify,
    bare="head",
    help="afterwards: ask for the manifest and every blob, or read all of it back",
)
CHECK_DIFFIDS = flag(
    "--check-diffids",
    help="decompress layers that came compressed, beside the sending, and check them",
)
AFTER = Group(
    "checks",
    (
        flag("--dry-run", help="GET and HEAD only: say what would be sent"),
        flag("--check-push", help="with that, open an upload session and give it back as well"),
        VERIFY,
        CHECK_DIFFIDS,
        flag("--referrers", help="push what refers to the image too"),
        given("--trace", metavar="FILE", help="write down where the time went"),
    ),
)
REACH = (PATIENCE, TRANSPORT, CREDENTIALS)
"""What every command that talks to a registry takes."""
PUSH = (
    WHAT,
    FORM,
    ENGINE,
    HOW,
    PATIENCE,
    KNOWLEDGE,
    EXISTING,
    TRANSPORT,
    CREDENTIALS,
    AFTER,
    RESULT,
    STDERR,
)

COPY = (WHAT, WHICH_TAGS, *PUSH[1:])
INDEX = (
    Group(
        "where to",
        (
            given(
                "--to",
                metavar="DESTINATION",
                help="REGISTRY/REPOSITORY[:TAG]; several may follow",
                repeatable=True,
                typed_only=True,
            ),
            BY_DIGEST,
        ),
    ),
    WHICH,
    FORM,
    ENGINE,
    HOW,
    PATIENCE,
    KNOWLEDGE,
    EXISTING,
    TRANSPORT,
    CREDENTIALS,
    Group("checks", (VERIFY, CHECK_DIFFIDS)),
    RESULT,
    STDERR,
)

ALL = frozenset(option.dest for group in (*COPY, LOGIN) for option in group.options)
"""Every keyword."""
PUSHER = frozenset(
    option.dest
    for group in (ENGINE, HOW, PATIENCE, TRANSPORT, CREDENTIALS)
    for option in group.options
) | {"cache"}
"""The keywords that a `Pusher` takes; the rest are its `push`'s."""
VARIABLES = frozenset(
    name for group in (*PUSH, LOGIN) for option in group.options for name in option.variables
) | {"TOWLINE_USERNAME", "TOWLINE_PASSWORD", "TOWLINE_CACHE_KEY"}
"""The variables that any of these, or the library, is read from."""
COMMAND_ONLY = frozenset(
    {
        "command",
        "debug",
        "digest_file",
        "dry_run",
        "output",
        "password_stdin",
        "progress",
        "account",
        "strangers",
        "to",
        "typed",
        "username",
        "words",
    }
)
"""The command's alone."""
