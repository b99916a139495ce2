"""The pushes that are measured: what, over which link, by whom, and what is to be reached."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from benchmarks import document, links, made, pushes, report
from benchmarks.peers import KNOWN, SkippedError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.links import Link
    from benchmarks.peers import Place


class Limit(NamedTuple):
    """What a figure is not to exceed."""

    pusher: str
    figure: Literal["wall", "cpu", "peak", "requests"]
    """The first two as a ratio to who is compared with, the third in MB."""
    most: float
    again: bool = False
    """Of the second turn."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case."""

    title: str
    make: Callable[[Path], None] | None
    """Of its image; None: the real one."""
    pushers: tuple[str, ...]
    """As `peers.ready` and `pushes` take them."""
    link: Link = links.direct
    beside: str | None = None
    """Whom the others are compared with; None: the fastest that is not towline."""
    limits: tuple[Limit, ...] = ()
    """What is to be reached."""
    again: str | None = None
    """What the same push once more is called, where that is measured."""
    copied: Literal["", "tag", "tags"] = ""
    """It is copied from a registry: its tag, or all of its tags."""


_BEST = "towline --compression=gzip:best"
_AUTO = "towline --compression=auto"
_ZSTD = "towline --format=oci --compression=zstd:9"

CASES: Mapping[str, Case] = {
    "first": Case(
        "the real image, loopback",
        None,
        ("towline", "crane", "skopeo", "docker", "buildah"),
        limits=(Limit("towline", "wall", 0.32),),
        again="the same again",
    ),
    "one": Case(
        "one layer of 4.3 GB, loopback",
        made.one,
        ("towline", "skopeo", "crane"),
        limits=(Limit("towline", "wall", 0.75),),
    ),
    "weights": Case(
        "one layer of 4.3 GB that does not compress, loopback",
        made.weights,
        ("towline", "skopeo"),
        limits=(Limit("towline", "wall", 0.6),),
    ),
    "several": Case("four layers of 1.1 GB, loopback", made.several, ("towline", "skopeo")),
    "slow": Case(
        "the real image, 100 Mbit/s",
        None,
        (
            "towline",
            _BEST,
            _AUTO,
            f"{_AUTO}{KNOWN}",
            f"{_AUTO} --format=oci",
            f"{_AUTO} --format=oci{KNOWN}",
            _ZSTD,
            "skopeo",
        ),
        links.narrow("100mbit"),
        limits=(
            Limit(_BEST, "wall", 0.96),
            Limit(_AUTO, "wall", 0.98),
            Limit(f"{_AUTO}{KNOWN}", "wall", 0.96),
            Limit(f"{_AUTO} --format=oci", "wall", 0.88),
            Limit(f"{_AUTO} --format=oci{KNOWN}", "wall", 0.80),
        ),
    ),
    "layout": Case(
        "an OCI layout of gzip layers, loopback",
        made.layout,
        ("towline", "oras", "crane", "skopeo"),
        limits=(Limit("towline", "wall", 1.3),),
    ),
    "small": Case(
        "30 small layers, 20 ms round trip",
        made.small,
        ("towline", "skopeo", "crane"),
        links.late(0.02),
        limits=(Limit("towline", "wall", 0.65), Limit("towline", "requests", 71)),
    ),
    "three": Case(
        "the real image to three registries at once, loopback",
        None,
        ("towline", "towline x3"),
        beside="towline",
        limits=(Limit("towline x3", "cpu", 1.2),),
    ),
    "copy": Case(
        "the real image of gzip layers, from registry to registry",
        made.layout,
        ("towline", "crane", "oras", "skopeo"),
        limits=(
            Limit("towline", "wall", 0.9),
            Limit("towline", "requests", 4, again=True),
        ),
        again="the same copy again",
        copied="tag",
    ),
    "copies": Case(
        "the same image from a registry to three at once",
        made.layout,
        ("towline", "towline x3"),
        beside="towline",
        limits=(Limit("towline x3", "cpu", 1.3),),
        copied="tag",
    ),
    "tags": Case(
        f"{made.TAGS} images on {made.BASE} shared layers, from registry to registry",
        made.tags,
        ("towline", "skopeo", "crane"),
        beside="skopeo",
        limits=(Limit("towline", "wall", 0.5), Limit("towline", "wall", 0.2, again=True)),
        again=f"the same {made.TAGS} tags again",
        copied="tags",
    ),
    "memory": Case(
        "memory, by profile: one layer of 4.3 GB, loopback",
        made.one,
        ("towline", _BEST, "towline --compression=none", "towline --compression=zstd:3"),
        beside="towline",
        limits=(
            Limit("towline", "peak", 64),
            Limit(_BEST, "peak", 64),
        ),
    ),
}


def measured(name: str, place: Place, options: Namespace) -> dict[str, object]:
    """Measure one case, print its table, and write it into the documentation."""
    case = CASES[name]
    try:
        server = place.program("docker-registry")
        image = made.kept(options.folder, case.make)
        layers = ", ".join(f"{size / 1e6:.1f}" for size in image.layers[:8])
        print(f"{case.title}: {image.size / 1e6:.0f} MB in {len(image.layers)} layers: {layers} MB")
        place = replace(place, image=image.path)
        if case.copied:
            place = replace(place, source=pushes.filled(server, place, case.copied))
        wanted = [
            each for each in case.pushers if not options.only or each.split()[0] in options.only
        ]
        peers = pushes.gathered(place, wanted)
        turns = (case.title, *([case.again] if case.again else ()))
        course = pushes.Course(server, place, image, case.link, turns)
        runs = pushes.run(course, peers, warmup=options.warmup, rounds=options.rounds)
    except SkippedError as why:
        print(f"{name} is not measured: {why}")
        return {"not_measured": str(why)}
    tables = [
        report.Rows(turn, tuple(run for run in runs if run.case == turn), case.beside)
        for turn in turns
    ]
    reached = judged(case, tables)
    for rows in tables:
        print(f"\n{rows.case}\n{report.aligned(report.cells(rows))}")
    print("\n".join(("", *reached)))
    versions = {name: peer.version for name, peer in peers.ready.items()}
    if options.write:
        document.write(
            options.write, name, tables, (*reached, document.told(options.machine, versions))
        )
    return {
        "image": {"size": image.size, "layers": image.layers},
        "versions": versions,
        "not_measured": peers.out,
        "runs": [asdict(run) for run in runs],
        "reached": reached,
    }


def judged(case: Case, tables: Sequence[report.Rows]) -> list[str]:
    """A sentence for each limit of which there is a figure."""
    sentences = []
    for pusher, figure, most, again in case.limits:
        value = tables[again].figure(pusher, figure)
        if value is not None:
            word = "reached" if value <= most else "MISSED"
            unit = " MB" if figure == "peak" else ""
            unit += " (again)" if again else ""
            sentences.append(f"{pusher}: {figure} {value:.2f} of at most {most}{unit}: {word}")
    return sentences
