"""What archives, registries and file names say, made fit to be shown: nothing moves the cursor."""

from __future__ import annotations


def one_line(text: str) -> str:
    """On one line, with a mark for each character that cannot be printed."""
    lines = text.splitlines()
    if len(lines) > 1:
        text = " ".join(lines)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
