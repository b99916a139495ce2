"""How fast a large cache answers: a look-up among a million entries, an opening, a record.

    python -m benchmarks.knowledge [--entries N]

The entries are those of many images of a few layers, most layers known from one repository and
some from fifty. Half the look-ups are for layers that the cache does not know.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

from towline.knowledge.base import MAX_ENTRIES, Entry, Signer
from towline.knowledge.sqlite import SqliteKnowledge
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENTRIES = 1_000_000
ASKED = 2000
LIMIT = 1e-3
"""Seconds that a look-up may take."""
_SIGNER = Signer(b"benchmark", shared=False)


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds, but for the first two."""

    entries: int
    bytes: int
    look_up: float
    look_up_p99: float
    image: float
    """Of 20 layers, in one call."""
    open: float
    """And the first look-up."""
    record: float
    count: float
    """All of `cache stats`."""


def measured(entries: int = ENTRIES) -> Figures:
    """Fill a cache in a temporary folder, and ask it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "knowledge.sqlite"
        known = _fill(path, entries)
        chance = random.Random(7)  # noqa: S311 - no secret
        store = SqliteKnowledge(path, _SIGNER)
        try:
            asked = [*chance.sample(known, ASKED // 2), *map(_diff_id, range(-ASKED // 2, 0))]
            chance.shuffle(asked)
            look_ups = [_seconds(partial(store.entries, [one])) for one in asked]
            images = [chance.sample(known, 20) for _ in range(100)]
            image = median(_seconds(partial(store.entries, one)) for one in images)
            fresh = [_entry(_diff_id(-5000 - number), 0) for number in range(500)]
            record = median(_seconds(partial(store.record, [one])) for one in fresh)
            stats = store.stats()
            count = _seconds(store.stats)
        finally:
            store.close()
        opening = median(_seconds(partial(_ask_anew, path, one)) for one in asked[:50])
        p99 = quantiles(look_ups, n=100)[-1]
        return Figures(
            stats.entries, stats.bytes, median(look_ups), p99, image, opening, record, count
        )


def table(figures: Figures) -> str:
    """For people."""
    verdict = "reached" if figures.look_up_p99 <= LIMIT else "MISSED"
    p99 = f"{_ms(figures.look_up_p99)} (target {_ms(LIMIT)}: {verdict})"
    return "\n".join(
        [
            f"cache of {figures.entries:,} entries, {figures.bytes / 1e6:.0f} MB:",
            f"  look-up of a layer {_ms(figures.look_up)}, 99 of 100 within {p99}",
            f"  look-up of 20 layers {_ms(figures.image)}",
            f"  opening and first look-up {_ms(figures.open)}",
            f"  record {_ms(figures.record)}",
            f"  count all {_ms(figures.count)}",
        ]
    )


def _fill(path: Path, entries: int) -> list[Digest]:
    store = SqliteKnowledge(path, _SIGNER)
    known: list[Digest] = []
    batch: list[Entry] = []
    for entry in _entries(entries):
        if not known or known[-1] != entry.diff_id:
            known.append(entry.diff_id)
        batch.append(entry)
        if len(batch) == 10_000:
            store.record(batch)
            batch.clear()
    store.record(batch)
    store.close()
    return known


def _entries(count: int) -> Iterator[Entry]:
    """Every fortieth layer is a base that fifty repositories share."""
    made = number = 0
    while made < count:
        for repository in range(MAX_ENTRIES if number % 40 == 0 else 1):
            yield _entry(_diff_id(number), repository)
            made += 1
        number += 1


def _diff_id(number: int) -> Digest:
    return Digest.of(b"layer %d" % number)


def _entry(diff_id: Digest, repository: int) -> Entry:
    return Entry(
        diff_id=diff_id,
        digest=Digest.of(diff_id.encode()),
        size=12345,
        media_type="application/vnd.docker.image.rootfs.diff.tar.gzip",
        compression="gzip",
        profile="gzip/2@x86-64",
        repository=f"registry.example:5000/team-{repository}/service",
        account="5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    )


def _ask_anew(path: Path, diff_id: Digest) -> None:
    store = SqliteKnowledge(path, _SIGNER)
    store.entries([diff_id])
    store.close()


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.knowledge", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--entries", type=int, default=ENTRIES, help="(%(default)s)")
    print(table(measured(parser.parse_args().entries)))


if __name__ == "__main__":
    main()
