"""`towline inspect`, `digest` and `tags`: what an image is, and what a registry has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.cli import options, output, wording
from towline.cli.options import Arguments, Command
from towline.cli.pusher import opened, push_options
from towline.cli.wording import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.findings import InspectResult


def _inspect(args: Arguments) -> int:
    with opened(args) as (pusher, cancel):
        result = pusher.inspect(args.words[0], cancel=cancel)
    output.write_as(args, result.as_dict, _lines(result))
    return 0


def _lines(result: InspectResult) -> Iterator[str]:
    facts = {
        "reference": result.reference,
        "digest": result.digest,
        "media type": result.media_type,
        "size": wording.counted(result.size, "byte") if result.size is not None else None,
        "platform": result.platform,
    }
    for name, value in facts.items():
        if value is not None:
            yield f"{name + ':':<12}{one_line(value)}"
    if result.images:
        yield wording.counted(len(result.images), "image") + ":"
    for name in result.images:
        yield f"  {one_line(name)}"
    if result.layers:
        yield wording.counted(len(result.layers), "layer") + ":"
    for layer in result.layers:
        digest = layer.digest or layer.diff_id
        size = "not here" if layer.size is None else wording.size(layer.size)
        yield f"  {digest}  {size}  {one_line(layer.media_type)}"
    if result.manifests:
        yield wording.counted(len(result.manifests), "manifest") + ":"
    for child in result.manifests:
        yield f"  {child.digest}  {one_line(child.platform or '-')}  {one_line(child.media_type)}"


def _digest(args: Arguments) -> int:
    with opened(args) as (pusher, cancel):
        found = pusher.digest(args.words[0], **push_options(args), cancel=cancel)
    output.write([found])
    return 0


def _tags(args: Arguments) -> int:
    with opened(args) as (pusher, cancel):
        found = pusher.tags(args.words[0], cancel=cancel)
    output.write_as(args, lambda: found, found)
    return 0


INSPECT = Command(
    _inspect,
    "SOURCE [OPTION...]",
    """\
Show what an image or index is: a path, docker-daemon:NAME, or else a reference at a registry.
Of a source that holds several images their names are listed.""",
    (options.ENGINE, *options.REACH, options.MESSAGES, options.PRINTED),
    words=1,
    needs="image",
)
DIGEST = Command(
    _digest,
    "SOURCE [OPTION...]",
    """\
Print the digest of an image: a path, docker-daemon:NAME, or else a reference at a registry.

Of an image here it is the digest that a push with these options to an empty registry would have.\
""",
    (options.WHICH, options.FORM, options.ENGINE, *options.REACH, options.MESSAGES),
    words=1,
    needs="image",
)
TAGS = Command(
    _tags,
    "REPOSITORY [OPTION...]",
    "List the tags of REGISTRY/REPOSITORY, one a line.",
    (*options.REACH, options.MESSAGES, options.PRINTED),
    words=1,
    needs="repository",
)
