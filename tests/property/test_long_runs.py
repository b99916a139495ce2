"""Many pushes through one `Pusher`, at once, and of many processes: nothing grows, nothing is lost.

`SOAK_PUSHES`, `SOAK_PROCESSES` and `SOAK_AT_ONCE` ask for more.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import towline
from tests.support.serving import serving
from towline.testing import make_image

if TYPE_CHECKING:
    from towline.testing import TestRegistry

KiB = 1 << 10
PUSHES = int(os.environ.get("SOAK_PUSHES", "60"))
PROCESSES = int(os.environ.get("SOAK_PROCESSES", "6"))
AT_ONCE = int(os.environ.get("SOAK_AT_ONCE", "16"))
ROOM = 8 << 10
"""KiB that a process may grow by after its first third, whatever it has pushed."""
THREADS, CONNECTIONS = 64, 32
"""More than all of a `Pusher` that has one host."""


def image(folder: Path, number: int) -> Path:
    """A small one of its own, which shares a layer with all others."""
    own = Random(number).randbytes(200 * KiB)  # noqa: S311 - no secret
    path = folder / f"{number}.tar"
    make_image(path, layers=[{"shared": bytes(50 * KiB)}, {"own": own}], names=[f"app:{number}"])
    return path


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_one_pusher_grows_by_nothing_from_push_to_push(tmp_path: Path) -> None:
    threads, files, memory = threading.active_count(), descriptors(), []
    with serving(tmp_path / "registry") as registry, towline.Pusher() as pusher:
        for number in range(PUSHES):
            path = image(tmp_path, number)
            result = pusher.push(path, f"{registry.host}/app:{number % 7}")
            assert result.status == "pushed"
            path.unlink()
            if number in {PUSHES // 3, PUSHES - 1}:
                memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        assert threading.active_count() <= threads + THREADS
        assert descriptors() <= files + CONNECTIONS
    assert memory[1] <= memory[0] + ROOM


def test_many_pushes_at_once_share_what_they_have_in_common(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    paths = [image(tmp_path, number) for number in range(AT_ONCE)]
    name = oci_registry.name("app")
    with towline.Pusher() as pusher, ThreadPoolExecutor(AT_ONCE) as threads:
        places = [f"{name}:{number}" for number in range(AT_ONCE)]
        results = list(threads.map(pusher.push, paths, places))
    outcomes = [layer.outcome for result in results for layer in result.layers]
    assert outcomes.count("pushed") >= AT_ONCE + 1
    sent = sum(result.sent_bytes for result in results)
    assert sent < AT_ONCE * 210 * KiB + 60 * KiB
    assert len(oci_registry.tags("app")) == AT_ONCE


PUSH = textwrap.dedent("""
    import sys
    import towline

    warned = []
    path, place, cache, turns = sys.argv[1:]
    for turn in range(int(turns)):
        with towline.Pusher(cache=cache, on_event=warned.append) as pusher:
            pusher.push(path, f"{place}-{turn}")
    print([event.message for event in warned if isinstance(event, towline.Warned)])
""")


def test_many_processes_keep_one_cache(oci_registry: TestRegistry, tmp_path: Path) -> None:
    name, cache, turns = oci_registry.name("app"), tmp_path / "cache.sqlite", 3
    with ExitStack() as stack:
        running = []
        for number in range(PROCESSES):
            words = [image(tmp_path, number), f"{name}:{number}", cache, str(turns)]
            process = subprocess.Popen(
                [sys.executable, "-c", PUSH, *map(str, words)], stdout=subprocess.PIPE, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            running.append(process)
        said = [process.communicate(timeout=300)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0] * PROCESSES
    assert said == ["[]"] * PROCESSES
    assert len(oci_registry.tags("app")) == PROCESSES * turns
    known = towline.push(tmp_path / "0.tar", f"{name}:again", cache=cache)
    assert known.sent_bytes == 0
