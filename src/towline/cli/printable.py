"""What archives, registries and file names say, made fit to be shown: nothing moves the cursor."""

from __future__ import annotations

import re

_KEYWORD = r"`([a-z_0-9]+)(?:=(True|'[^']*'))?`"


def one_line(text: str) -> str:
    """On one line, with a mark for each character that cannot be printed."""
    lines = text.splitlines()
    if len(lines) > 1:
        text = " ".join(lines)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def spelled(text: str) -> str:
    """With the library's keywords as this command's options: `no_learn=True` as `--no-learn`."""
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
