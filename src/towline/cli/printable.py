"""Makes foreign text (of archives, registries, file names) safe to show on a terminal."""

from __future__ import annotations

import re

_KEYWORD = r"`([a-z_0-9]+)(?:=(True|'[^']*'))?`"


def one_line(text: str) -> str:
    """The text on one line, with U+FFFD for each character that cannot be printed.

    Escape sequences would move the cursor or change the terminal.
    """
    lines = text.splitlines()
    if len(lines) > 1:
        text = " ".join(lines)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def spelled(text: str) -> str:
    """The text with the library's keywords as options: `no_learn=True` becomes `--no-learn`."""
    if "`" not in text:
        return text
    from towline.cli.options import ALL

    def option(match: re.Match[str]) -> str:
        keyword, value = match.groups()
        if keyword not in ALL:
            return match[0]
        given = " " + value.strip("'") if value and value != "True" else ""
        return f"`--{keyword.replace('_', '-')}{given}`"

    return re.sub(_KEYWORD, option, text)
