"""Passes to repositories that stall and fail at random: no deadlock, and every blob exact.

The push's own parts run: passes, dispatcher, slots, settlers, feed, streams, joining, retrying.
Only the repositories are made up. `SOAK_RUNS` asks for more runs, `SOAK_FROM` for others.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.support.layers import BytesReader, sample
from tests.support.places import Host, Place, habits, seeded
from towline.context import Cancel, Context
from towline.errors import Cancelled, TowlineError
from towline.layers import profile
from towline.layers.lanes import Patience
from towline.push.deliver import Delivered, Delivery
from towline.push.engine import Engine
from towline.push.jobs import Job
from towline.push.options import PusherOptions, Wish
from towline.push.passes import Passes
from towline.push.plan import Ask, Candidate, Mount, Send
from towline.push.settlers import Settlers
from towline.push.wanted import Blob
from towline.reference import RepositoryName
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest
from towline.transfers.retry import Attempts, Policy
from towline.transfers.shared import Restart, Watch
from towline.wire.secrets import Secrets

if TYPE_CHECKING:
    from random import Random

    from towline.push.plan import Step

SAMPLE = sample(4 << 20, "passes")
ENOUGH = 60.0
"""Seconds after which a run counts as stuck."""
RUNS = int(os.environ.get("SOAK_RUNS", "100"))
SHARES = 10
"""Tests that the runs are spread over, so that a failure is told early."""
AT_ONCE = 5
FIRST = int(os.environ.get("SOAK_FROM", "0"))


class Target:
    """A push's view of one repository: joins, waits, joins again, as `push.arrivals` does."""

    def __init__(self, run: Run, place: Place, patience: float) -> None:
        self.place = place
        self.context = Context(cancel=Cancel())
        self.patience = Patience(patience)
        self.outcomes: dict[Blob, Delivered | BaseException] = {}
        self._run = run
        self._watches: dict[Blob, Watch[Delivered]] = {}
        self._ended: queue.SimpleQueue[Blob | None] = queue.SimpleQueue()

    def join(self, blob: Blob) -> Job | None:
        engine = self._run.engine
        key = (str(self.place.name), blob.key)
        watch = engine.transfers.join(key, self.context)
        self._watches[blob] = watch
        watch.on_done(lambda: self._ended.put(blob))
        if watch.started is None:
            return None
        delivery = Delivery(
            blob,
            self.place,
            self._run.steps(blob, self.place),
            profile=self._run.wish.profile,
            context=watch.started.context,
            forget=lambda _diff_id, _digest, _name: None,
        )
        return Job(key, delivery, watch.started, Attempts(engine.policy), self.patience)

    def wait(self) -> None:
        with self.context.cancel.on_cancel(lambda: self._ended.put(None)):
            while self._watches:
                blob = self._ended.get(timeout=ENOUGH)
                if blob is None:
                    break
                self._take(blob, self._watches.pop(blob))
        for blob, watch in self._watches.items():
            watch.leave()
            self.outcomes[blob] = Cancelled()

    def _take(self, blob: Blob, watch: Watch[Delivered]) -> None:
        try:
            self.outcomes[blob] = watch.result()
        except Restart:
            if job := self.join(blob):
                self._run.passes.start([job])
        except (TowlineError, Cancelled) as error:
            self.outcomes[blob] = error


class Run:
    """One push, everything of it from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = seeded(seed)
        random = self.random
        options: PusherOptions = {"cache": "none", "jobs": random.randint(1, 5)}
        self.engine = Engine(options, lambda _: None, Secrets())
        self.engine.settlers = Settlers(random.randint(1, 16))
        self.engine.policy = Policy(retries=random.randint(0, 4), base=0.002, cap=0.01)
        self.wish = Wish(profile.parse(random.choice(("gzip", "zstd:1", "none"))))
        self.passes = Passes(self.engine, self.wish)
        count = random.randint(1, 20)
        self.blobs = [_blob(random, small=count > 4) for _ in range(random.randint(1, 20))]
        self.targets = self._targets(random, count)

    def _targets(self, random: Random, count: int) -> list[Target]:
        hosts = [f"reg{n}" for n in range(random.randint(1, count))]
        names = [RepositoryName(random.choice(hosts), f"app{n}") for n in range(count)]
        shared = {host: Host() for host in hosts}
        seed = random.random()
        # Repositories of one host behave alike: what is dead is mostly the whole of it.
        ways = {host: habits(random) for host in hosts}
        places = [Place(name, ways[name.host], seed, shared[name.host]) for name in names]
        for place in places:
            place.others = {one.name.path: one for one in places if one.host is place.host}
        self.patient = random.random() < 0.3
        """No target is ever left behind, in the middle of a write."""
        return [
            Target(self, place, ENOUGH if self.patient else random.random() / 10)
            for place in places
        ]

    def steps(self, blob: Blob, place: Place) -> list[Step]:
        """Questions whose answer is no, now and then one that is yes, and the sending."""
        random = seeded(f"{blob.identity} {place.name}")
        steps: list[Step] = []
        if blob.stored and random.random() < 0.3:
            found = Candidate(blob.stored.digest, blob.stored.size, "gzip", None)
            steps.append(Ask(found))
            if random.random() < 0.5:
                steps.append(Mount(found, place.name, ours=True))
        return [*steps, Send()]

    def carry_out(self) -> None:
        """Start everything as a push does; some targets are cancelled on the way."""
        random = self.random
        threads = []
        for blob in sorted(self.blobs, key=lambda blob: -blob.size):
            jobs = [job for target in self.targets if (job := target.join(blob))]
            self.passes.start(jobs)
        for target in self.targets:
            thread = threading.Thread(target=target.wait, daemon=True)
            thread.start()
            threads.append(thread)
        for target in self.targets:
            if random.random() < 0.1:
                threading.Timer(random.random() / 10, target.context.cancel.cancel).start()
        for thread in threads:
            thread.join(ENOUGH)
            assert not thread.is_alive(), "stuck"

    def check(self) -> None:
        """Every blob is exact where it is said to be, and nothing is left behind."""
        for target in self.targets:
            assert len(target.outcomes) == len(self.blobs), "a blob is without outcome"
            for blob, outcome in target.outcomes.items():
                if isinstance(outcome, Delivered):
                    self.check_blob(blob, target.place.blobs[outcome.made.digest])
                elif isinstance(outcome, Cancelled):
                    assert target.context.cancel.cancelled
                else:
                    assert isinstance(outcome, TowlineError)
                    assert target.place.habits.troubled, f"a sound registry failed: {outcome}"
        if self.patient:
            most = max(target.place.host.most for target in self.targets)
            assert most <= self.engine.limits.jobs, "more at once than there are slots"
        _until(lambda: not len(self.engine.transfers))
        _until(lambda: not any(target.place.sessions for target in self.targets))

    def check_blob(self, blob: Blob, content: bytes) -> None:
        digest = Digest.of(content)
        if blob.stored:
            assert digest == blob.stored.digest
            return
        made = {id(target): target.outcomes[blob] for target in self.targets}
        digests = {one.made.digest for one in made.values() if isinstance(one, Delivered)}
        assert digests == {digest}, "one push, one digest"


def _blob(random: Random, *, small: bool) -> Blob:
    size = random.randint(0, 1 << 16 if small else 3 << 20)
    start = random.randrange(1 << 20)
    content = SAMPLE[start : start + size] + random.randbytes(8)
    digest = Digest.of(content)
    stored = None
    if random.random() < 0.7:
        stored = Descriptor(media_types.OCI_LAYER_GZIP, digest, len(content))
    return Blob(digest, stored, len(content), lambda: BytesReader(content), is_layer=not stored)


def _until(met: object) -> None:
    assert callable(met)
    deadline = time.monotonic() + ENOUGH
    while not met():
        assert time.monotonic() < deadline, "never"
        time.sleep(0.002)


def once(seed: int) -> None:
    run = Run(seed)
    try:
        run.carry_out()
        run.check()
    except BaseException:
        print(f"seed {seed}")  # noqa: T201 - what is needed to see it again
        raise
    finally:
        run.engine.close()


BOUNDS = [FIRST + RUNS * share // SHARES for share in range(SHARES + 1)]


@pytest.mark.parametrize(("first", "end"), list(pairwise(BOUNDS)))
def test_passes_always_end_and_every_blob_is_exact_or_its_target_named(
    first: int, end: int
) -> None:
    with ThreadPoolExecutor(AT_ONCE) as threads:  # they wait more than they work
        for done in [threads.submit(once, seed) for seed in range(first, end)]:
            done.result()
