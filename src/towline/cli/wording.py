"""Makes text for people: foreign words that are safe on a terminal; sizes, times and counts."""

from __future__ import annotations

import re

_KEYWORD = r"`([a-z_0-9]+)(?:=(True|'[^']*'))?`"
_UNITS = ("B", "kB", "MB", "GB", "TB")
_MINUTE = 60
_HOUR = 3600


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
    from towline.cli.options import keywords

    known = keywords()

    def option(match: re.Match[str]) -> str:
        keyword, value = match.groups()
        if keyword not in known:
            return match[0]
        given = " " + value.strip("'") if value and value != "True" else ""
        return f"`--{keyword.replace('_', '-')}{given}`"

    return re.sub(_KEYWORD, option, text)


def size(count: float) -> str:
    """Bytes with a decimal unit and three digits: `12.3 MB`."""
    value = float(count)
    for unit in _UNITS:
        shown = f"{value:.0f}" if unit == "B" else f"{value:.3g}"
        if float(shown) < 1000 or unit == _UNITS[-1]:  # noqa: PLR2004 - the step between units
            return f"{shown} {unit}"
        value /= 1000
    raise AssertionError  # the last unit takes everything


def took(seconds: float) -> str:
    """A time that has passed: `1.2 s`, `2 min 5 s`."""
    return f"{seconds:.1f} s" if seconds < _MINUTE else left(seconds)


def left(seconds: float) -> str:
    """A time still to go, in whole seconds and at least one: `7 s`, `1 h 5 min`."""
    whole = max(1, round(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 request`, `17 requests`."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"
