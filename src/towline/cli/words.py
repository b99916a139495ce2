"""Finds the source and the destinations among the words of a push or copy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from towline.errors import InvalidReference, SourceError, TowlineError, UsageError
from towline.sources import location as locations
from towline.sources.location import DAEMON, REGISTRY

if TYPE_CHECKING:
    from towline.cli.options import Arguments

_ENDINGS = (".tar", ".tgz", ".gz", ".zst")
_SOURCES = {"push": 1, "plan": 1, "copy": 1, "inspect": 1, "digest": 1, "index": None}
"""How many of a command's first words are sources; None: all of them."""


def source_and_destinations(args: Arguments) -> tuple[str, list[str]]:
    """The source and destinations of a push; a source that is no file is an engine's image.

    Raises UsageError where a word is missing or cannot be what its place means.
    """
    if not args.words:
        hint = f"towline {args.command} image.tar REGISTRY/REPOSITORY:TAG"
        raise UsageError("nothing is named to be pushed", hint=hint)
    source, *destinations = args.words
    if not destinations:
        return _alone(args.command, source)
    _check_source_options(args, source)
    from towline.push.interface.destinations import check_at_registry

    for word in destinations:
        check_at_registry(word)
    if not _names_an_image(source):
        return source, destinations
    for word in destinations:
        if _exists(word):
            hint = f"the source comes first: towline {args.command} {word} {source}"
            raise UsageError(f"{word} is a path, and no destination", hint=hint)
    return f"{DAEMON}{source}", destinations


def copied(args: Arguments) -> tuple[str, list[str]]:
    """The source and destinations of a copy; a bare word names an image at a registry.

    Raises UsageError where a word is missing or wrong.
    """
    from towline.push.interface.destinations import meant

    if not args.words:
        hint = "towline copy REGISTRY/REPOSITORY:TAG REGISTRY/REPOSITORY:TAG"
        raise UsageError("nothing is named to be copied", hint=hint)
    word, *destinations = args.words
    source = meant(word).text
    if not destinations:
        hint = f"towline copy {word} REGISTRY/REPOSITORY:TAG"
        raise UsageError(f"no destination is named for {word}", hint=hint)
    _check_source_options(args, source)
    return source, destinations


def check_files(args: Arguments) -> None:
    """Raise UsageError where an option's file would replace a source, a destination or another."""
    options = ("digest_file", "trace")
    outputs = {f"--{name.replace('_', '-')}": getattr(args, name, "") for name in options}
    if not any(outputs.values()):
        return
    from towline.push.interface.destinations import check_outputs

    words = [(locations.parse(word), word) for word in (*args.words, *getattr(args, "to", []))]
    # A bare word that is no file is an image's name.
    files = [
        (location.path, word)
        for location, word in words
        if location.in_files and (location.transport or _exists(word))
    ]
    check_outputs({option: file for option, file in outputs.items() if file}, files)


def reference(args: Arguments) -> str:
    """The full name of a push's only destination, for events of errors; empty for any other."""
    from towline import reference as references

    if args.command not in {"push", "plan"} or len(args.words) not in {1, 2}:
        return ""
    try:
        found = references.parse(args.words[-1].removeprefix(DAEMON))
    except UsageError:
        return ""
    return str(found.with_tag(None if "all_tags" in args else found.target))


def explain(error: BaseException, args: Arguments) -> None:
    """Add to an error of a source that there is no such file, or that skopeo alone may read it."""
    if not isinstance(error, TowlineError) or args.command not in _SOURCES:
        return
    from towline.push.interface.destinations import only_skopeos
    from towline.reference import HUB

    pushed, alone = args.command in {"push", "plan"}, args.command in {"inspect", "digest"}
    for source in args.words[: _SOURCES[args.command]]:
        named = isinstance(error, SourceError) and error.message.startswith(f"{source} ")
        if named and pushed and len(args.words) > 1 and _names_an_image(source):
            error.args = (f"there is no file {source}, and {error.message}",)
            piped = f"docker save {source} | towline push - "
            if error.hint and error.hint.startswith(piped):
                error.hint = piped + " ".join(args.words[1:])
        if not only_skopeos(source) or _exists(source):
            continue
        # `dir:x` may be an image's name, too: an engine (for a push) or the Hub was asked for it.
        asked = HUB in error.message and not pushed and (alone or error.side == "source")
        if named or asked or (isinstance(error, InvalidReference) and error.text == source):
            error.hint = f"if it is skopeo's: skopeo copy {source} oci:DIR, then name oci:DIR here"


def _check_source_options(args: Arguments, source: str) -> None:
    """Raise UsageError for a typed `--src-creds` where the source is not at a registry.

    Its variable may be set for many commands, and is then no error.
    """
    if "src_creds" in args.typed and not source.startswith(REGISTRY):
        message = f"`--src-creds` is for a source in a registry, which `{source}` is not"
        raise UsageError(message, hint="--creds is for the destination's registry")


def _names_an_image(text: str) -> bool:
    """Whether the text is a valid image name, no file, and without an ending that files have."""
    from towline import reference as references

    # `app.tar` is an image's name too, but who types it means a file.
    if locations.parse(text).transport or text.endswith(_ENDINGS) or _exists(text):
        return False
    try:
        references.parse(text)
    except UsageError:
        return False
    return True


def _alone(command: str, name: str) -> tuple[str, list[str]]:
    """The source and destination of a push of one word: an engine's image, to where its name says.

    Raises UsageError where the word is a file, or has a digest.
    """
    from towline import reference as references

    location = locations.parse(name)
    image = location.transport in {None, "docker-daemon"} and name != "-" and not _exists(name)
    # `oci:DIR` is an image named oci, too: the folder decides.
    if not image and (location.transport != "oci" or _exists(location.path)):
        hint = f"towline {command} {name} REGISTRY/REPOSITORY:TAG"
        raise UsageError(f"no destination is named for {name}", hint=hint)
    name = name.removeprefix(DAEMON)
    parsed = references.parse(name)
    if parsed.digest:
        raise UsageError("cannot push a digest reference")
    return f"{DAEMON}{name}", [str(parsed)]


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - pathlib's raises where nobody may look
