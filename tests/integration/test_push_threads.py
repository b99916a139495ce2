"""How many threads a push takes, and what it says where it gets none; in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from random import Random
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.processes import until
from tests.support.scripted import HANG, running, scripted
from tests.support.unsteady import Unsteady
from towline.server import Server
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

MOST = 8 * (2 * 8 + 4) + 64 + 4 * 13 + 32 + 64
"""Of 8 pushes two for each target, and one for each host to connect to; for manifests; for each
host; for blobs; and for compressing, of which a large machine has more."""
_MANY = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import towline

images, hosts = sys.argv[1].split(), sys.argv[2].split()
most, over = 0, threading.Event()

def count():
    global most
    while not over.wait(0.002):
        most = max(most, threading.active_count())

counting = threading.Thread(target=count)
counting.start()
with towline.Pusher(cache="none") as pusher, ThreadPoolExecutor(len(images)) as threads:
    def push(number):
        places = [f"{host}/app{number}/{part}:1" for host in hosts for part in range(2)]
        return pusher.push(images[number], places)
    assert all(len(done) == 2 * len(hosts) for done in threads.map(push, range(len(images))))
over.set()
counting.join()
print(most - len(images) - 2)  # without those who only ask for pushes, and this count itself
"""
_FEW = """
import resource, sys, threading
from towline.cli.main import main

more = int(sys.argv.pop(1))
threading.stack_size(1 << 30)  # of address space, which is what runs out
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (more << 30) + (1 << 29),) * 2)
sys.exit(main())
"""


def test_many_images_for_several_registries_take_few_threads(tmp_path: Path) -> None:
    random = Random(3)  # noqa: S311 - no secret
    layers = [{f"f{n}": random.randbytes(4000)} for n in range(40)]
    images = [
        str(make_image(tmp_path / f"{n}.tar", [{"own": bytes([n])}, *layers[n : n + 30]]).path)
        for n in range(8)
    ]
    with ExitStack() as stack:
        hosts = [stack.enter_context(Server()).host for _ in range(4)]
        command = [sys.executable, "-c", _MANY, " ".join(images), " ".join(hosts)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MOST


def test_threads_of_places_that_were_written_to_do_not_stay(tmp_path: Path) -> None:
    """A program may live for days, and write archive after archive through one `Pusher`."""
    make_image(tmp_path / "image.tar", [{"large": Random(1).randbytes(2 << 20)}])  # noqa: S311 - no secret
    before = threading.active_count()
    with towline.Pusher(cache="none") as pusher:
        for number in range(4):
            pusher.copy(f"{tmp_path}/image.tar", f"oci-archive:{tmp_path}/{number}.tar")
        until(lambda: threading.active_count() <= before)
        again = pusher.copy(f"{tmp_path}/image.tar", f"oci-archive:{tmp_path}/0.tar")
    assert again.status == "unchanged"


@pytest.mark.parametrize("more", [0, 1, 2, 3, 5, 8])
@pytest.mark.parametrize("count", [1, 2])
def test_where_no_thread_can_be_started_one_sentence_says_so(
    more: int, count: int, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", [{f"f{n}": bytes([n]) * 99_999} for n in range(8)])
    with running(Unsteady) as one, running(Unsteady) as other:
        places = [f"{registry.host}/app:1" for registry in (one, other)[:count]]
        command = [sys.executable, "-c", _FEW, f"{more}", "push", str(made.path), *places]
        done = subprocess.run(
            [*command, "--cache=none"], capture_output=True, text=True, check=False, timeout=20
        )
        assert not any(one.repository("app").manifests for one in (one, other))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("towline: error: ")]
    if len(said) > 1:  # one for each target, and how many have failed
        assert said.pop() == f"towline: error: {count} of {count} pushes failed"
        assert len(said) == count
    assert all(line.endswith("the system lets this process start no thread") for line in said)


def test_a_signal_is_heard_where_no_thread_can_be_started_for_the_cancelling(
    tmp_path: Path,
) -> None:
    made = make_image(tmp_path / "image.tar")
    with scripted() as registry:
        registry.on("HEAD", "/manifests/", HANG)
        command = [sys.executable, "-c", _FEW, "2", "push", str(made.path), f"{registry.host}/app"]
        with subprocess.Popen([*command, "--cache=none"], stderr=subprocess.PIPE) as process:
            while not registry.requests("HEAD"):
                time.sleep(0.01)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
        assert time.monotonic() - began < 5
    assert process.returncode == 130
    assert b"Traceback" not in said
