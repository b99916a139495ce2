"""`towline inspect`: what an image or index is, as it lies where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.cli import looking, options, output
from towline.cli.arguments import add
from towline.cli.printable import one_line
from towline.cli.progress import figures

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from towline.cli.arguments import Parser
    from towline.push.result import InspectResult

USAGE = "SOURCE [OPTION...]"
ABOUT = """\
Show what an image or index is: a path, docker-daemon:NAME, or else a reference at a registry.
Of a source that holds several images their names are listed."""
WORDS = 1


def add_arguments(parser: Parser) -> None:
    """Its options."""
    add(parser, options.ENGINE)
    looking.add_reach(parser)
    add(parser, options.PRINTED)


def run(args: argparse.Namespace) -> int:
    """Inspect, and print."""
    source = looking.word(args, "image")
    with looking.pusher(args) as (pusher, cancel):
        result = pusher.inspect(source, cancel=cancel)
    if getattr(args, "output", "text") == "json":
        output.write_json(result.as_dict())
    else:
        output.write(_lines(result))
    return 0


def _lines(result: InspectResult) -> Iterator[str]:
    facts = {
        "reference": result.reference,
        "digest": result.digest,
        "media type": result.media_type,
        "size": figures.counted(result.size, "byte") if result.size is not None else None,
        "platform": result.platform,
    }
    for name, value in facts.items():
        if value is not None:
            yield f"{name + ':':<12}{one_line(value)}"
    if result.images:
        yield figures.counted(len(result.images), "image") + ":"
    for name in result.images:
        yield f"  {one_line(name)}"
    if result.layers:
        yield figures.counted(len(result.layers), "layer") + ":"
    for layer in result.layers:
        digest = layer.digest or layer.diff_id
        size = "not here" if layer.size is None else figures.size(layer.size)
        yield f"  {digest}  {size}  {one_line(layer.media_type)}"
    if result.manifests:
        yield figures.counted(len(result.manifests), "manifest") + ":"
    for child in result.manifests:
        yield f"  {child.digest}  {one_line(child.platform or '-')}  {one_line(child.media_type)}"
