"""The help: of all of towline, which the manual page shows too, and of one command."""

from __future__ import annotations

import os

# As in towline/__init__.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from towline.cli.options import Command

_COLUMN = 24
"""Where the text of an option begins."""
ABOUT = "Pushes container images to registries, without a daemon."
EXAMPLES = (
    "towline push image.tar registry.example/team/app:1.2",
    "docker save app:1 | towline push - registry.example/team/app:1",
    "towline plan image.tar registry.example/team/app:1.2",
)
VARIABLES = (
    ("TOWLINE_<OPTION>", "any option, as TOWLINE_JOBS=3; the command line wins"),
    ("TOWLINE_USERNAME, TOWLINE_PASSWORD", "for the destination's host"),
    ("TOWLINE_CACHE_KEY", "signs what is remembered in a shared cache"),
    ("DOCKER_CONFIG, REGISTRY_AUTH_FILE, …", "where logins are"),
    ("HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "proxies"),
    ("SSL_CERT_FILE, SSL_CERT_DIR", "which authorities are trusted"),
    ("TMPDIR", "where a pipe is spooled"),
    ("NO_COLOR", "no colours"),
)
CODES = (
    ("0", "done"),
    ("1", "anything else"),
    ("2", "usage: options, image names"),
    ("3", "the source is missing or broken"),
    ("4", "the credentials: 401, or denied"),
    ("5", "the registry refused"),
    ("6", "no answer: name, connect, TLS, time-out"),
    ("7", "some of several failed"),
    ("130, 143", "SIGINT, SIGTERM"),
)


def page(commands: Mapping[str, str]) -> list[str]:
    """The lines of `towline --help`."""
    return [
        "usage: towline COMMAND …",
        "",
        ABOUT,
        "",
        *_table(commands.items()),
        "",
        "examples:",
        *(f"  {example}" for example in EXAMPLES),
        "",
        "environment:",
        *_table(VARIABLES),
        "",
        "exit codes:",
        *_table(CODES),
        "",
        "towline COMMAND --help tells more, towline --version which this is.",
        f"All of it: {documentation()}",
    ]


def of(name: str, command: Command) -> Iterator[str]:
    """The lines of `towline NAME --help`, for the width of the terminal."""
    import shutil  # with it come three compressors
    from textwrap import wrap

    width = max(shutil.get_terminal_size().columns - 2 - _COLUMN, 11)
    yield usage(name, command)
    yield ""
    yield command.about
    for group in command.options:
        yield ""
        yield f"{group.title}:"
        for option in group.options:
            value = f"[={option.metavar}]" if option.bare else f" {option.metavar or ''}"
            shown = f"  {', '.join(option.spellings)}{value}".rstrip()
            first, *more = wrap(option.help, width)
            if len(shown) > _COLUMN - 2:
                yield shown
                shown = ""
            yield f"{shown:<{_COLUMN}}{first}"
            yield from (" " * _COLUMN + line for line in more)


def usage(name: str, command: Command) -> str:
    """The first line of a command's help."""
    return f"usage: towline {name} {command.usage}".rstrip()


def documentation() -> str:
    """The folder of the documentation: in the installed package, or in a clone."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib costs start-up
    installed = os.path.join(package, "docs")  # noqa: PTH118 - as above
    if os.path.isdir(installed):  # noqa: PTH112 - as above
        return installed
    return os.path.normpath(os.path.join(package, "../../docs"))  # noqa: PTH118 - as above


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    pairs = list(rows)
    width = max(len(name) for name, _ in pairs)
    return [f"  {name:<{width}}  {text}" for name, text in pairs]
