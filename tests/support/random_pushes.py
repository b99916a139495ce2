"""Pushes of one `Pusher` at random, everything of them from one seed, and what must be true after.

Some images, of shared layers, plain or stored; some registries with troubles of their own; some
pushes at once, to several repositories and tags; one of them cancelled. Whatever happens: each tag
is whole and right or absent, nothing is sent without need, and nobody waits for ever.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import towline
from tests.support import readback
from tests.support.quick import quick
from tests.support.raw_client import sha256
from tests.support.scripted import running
from tests.support.sources import Counted
from tests.support.unsteady import KINDS, Script, Trouble, Unsteady
from towline.push.resources import AT_ONCE
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.unsteady import Kind, Mounts
    from towline.testing.image_formats import Made

KiB = 1 << 10
STUCK = 60.0
"""Seconds after which a push counts as stuck."""
SECOND = 1.0
"""What a cancelled push may take."""
LOADED = 2.0
"""What a busy machine may add."""
BUDGET = 2.0
"""Seconds that a target may cost the others."""
BUSY_MACHINE = "the cache is too slow; going on without it"
LATE = 5.0
"""Seconds that the answer to a body may take where a target is late."""
TIMEOUT = 3.0
HEALS = 3
"""Failures of one registry, which all heal: one less than there are retries."""

BUSY = tuple(Trouble(status=status) for status in (500, 502, 503))
PAUSES = (Trouble(status=429, retry_after=0), Trouble(status=503, retry_after=1))
GONE = Trouble(hang_up=True)
MUTE = (Trouble(swallow=0), Trouble(swallow=20))
HANGS = Trouble(hang=True, wait=TIMEOUT + LATE)
SLOW = (Trouble(wait=0.05), Trouble(wait=0.3))
SLOW_BODY = (Trouble(block_wait=0.01), Trouble(block_wait=0.04))
CUT = tuple(
    Trouble(cut_after=size, keeps=keeps) for size in (1, 9000, 60_000) for keeps in (True, False)
)
TROUBLES: dict[Kind, tuple[Trouble, ...]] = {
    "ask": (*BUSY, *PAUSES, GONE, HANGS, *SLOW),
    "open": (*BUSY, *PAUSES, GONE, *MUTE, HANGS, *SLOW),
    "send": (
        *BUSY,
        Trouble(status=500, early=True),
        *PAUSES,
        *CUT,
        *MUTE,
        Trouble(lose=True),
        Trouble(wait=LATE),
        *SLOW,
        *SLOW_BODY,
    ),
    "commit": (*BUSY, GONE, *MUTE, Trouble(lose=True), Trouble(wait=LATE), *SLOW),
    "look": (*BUSY, GONE, *SLOW),
    "tag": (*BUSY, *PAUSES, GONE, *MUTE, *SLOW),
}
DENIED = Trouble(status=403)
FOR_GOOD: tuple[tuple[dict[Kind, Trouble], type[towline.TowlineError]], ...] = (
    ({"open": DENIED}, towline.AuthError),
    ({"tag": DENIED}, towline.AuthError),
    (dict.fromkeys(("send", "commit"), Trouble(status=413)), towline.RegistryError),
    ({"tag": Trouble(status=500)}, towline.RegistryError),
    (dict.fromkeys([*KINDS.values(), "other"], GONE), towline.NetworkError),
)
"""What always fails, and with what the push to it ends."""


@dataclass
class Planned:
    """One call of `Pusher.push`."""

    image: Made
    content: bytes
    places: list[tuple[int, str, str]]
    """Registry, repository, tag."""
    delay: float
    options: dict[str, Any]
    cancel: towline.Cancel = field(default_factory=towline.Cancel)
    may_be_cancelled: bool = False


@dataclass
class Came:
    """What it came to."""

    outcomes: list[towline.PushResult | towline.TowlineError]
    cancelled: towline.TransferCancelled | None
    began: float
    ended: float
    read: int


@dataclass
class Figures:
    """What one or many seeds came to."""

    ends: Counter[str] = field(default_factory=Counter)
    """Targets by how their pushes ended, where nobody cancelled."""
    layers: Counter[str] = field(default_factory=Counter)
    """The outcomes of their layers."""
    requests: int = 0
    sent: int = 0
    """Bytes of blobs that registries received."""
    read: int = 0
    """Bytes of archives."""

    def __add__(self, other: Figures) -> Figures:
        return Figures(*(getattr(self, one) + getattr(other, one) for one in self.as_dict()))

    def as_dict(self) -> dict[str, Any]:
        return vars(self)

    @classmethod
    def of(cls, told: dict[str, Any]) -> Figures:
        """The inverse of `as_dict`, also by way of JSON."""
        return cls(**{**told, "ends": Counter(told["ends"]), "layers": Counter(told["layers"])})


class Pushes:
    """All pushes of one seed."""

    def __init__(self, seed: int, folder: Path, stack: ExitStack) -> None:
        self.random = Random(f"pushes {seed}")  # noqa: S311 - to be repeated, not secret
        random = self.random
        self.jobs = random.randint(1, 5)
        self.large = random.random() < 0.1
        """Layers of many blocks, one push of them, and nothing that makes them go again: in the
        sums of all seeds that would say too much."""
        self.registries = [
            stack.enter_context(running(Unsteady)) for _ in range(random.randint(1, 4))
        ]
        self.ends: dict[int, type[towline.TowlineError]] = {}
        """How pushes to a registry end that always fails."""
        for number, registry in enumerate(self.registries):
            registry.script = self._script(number)
        self.pushes = self._pushes(folder)
        self.cancelled_at: float | None = None
        self._give_up_somewhere()
        self.told: dict[str, float] = {}
        """When each tag was told of."""
        cache = random.choice(("none", "none", str(folder / "cache.db")))
        self.pusher = quick(
            towline.Pusher(
                cache=cache,
                jobs=self.jobs,
                retries=HEALS + 1,
                timeout=TIMEOUT,
                plain_http=True,
                on_event=self._hear,
            )
        )
        self.came: dict[int, Came] = {}
        self.closed_at = 0.0

    # What is to happen.

    def _script(self, number: int) -> Script:
        random = self.random
        how: tuple[Mounts, ...] = ("yes", "yes", "yes", "session", "no")
        mounts = random.choice(how)
        pace = random.choice((0.0, 0.0, 0.0, 0.01))
        script = Script(mounts=mounts, saves=number % 2 == 1, pace=pace)
        nature = random.random()
        if nature < 0.1:
            script.saves = False  # one might spare it the request that fails
            script.always, self.ends[number] = random.choice(FOR_GOOD)
        elif nature < 0.6:
            for _ in range(random.randint(1, HEALS)):
                kind = random.choice(list(TROUBLES))
                trouble = random.choice(TROUBLES[kind])
                if not self.large or trouble in (*SLOW, *SLOW_BODY):
                    script.troubles[kind, random.randint(1, 10)] = trouble
        return script

    def _pushes(self, folder: Path) -> list[Planned]:
        random = self.random
        layers = [self._layer() for _ in range(random.randint(1, 4 if self.large else 12))]
        images = [self._image(folder / f"{n}.tar", layers) for n in range(random.randint(1, 3))]
        count = 1 if self.large else random.randint(1, 4)
        return [self._push(number, images) for number in range(count)]

    def _layer(self) -> dict[str, bytes]:
        random = self.random
        if random.random() < 0.1:
            return {}
        most = 2500 if self.large else random.choice((64, 64, 64, 64, 256))
        size = random.randint(1, most * KiB)
        noise = random.randbytes(size // 2)
        return {f"file{random.randrange(1000)}": noise + bytes(size - len(noise))}

    def _image(self, path: Path, layers: Sequence[dict[str, bytes]]) -> Made:
        chosen = self.random.choices(layers, k=self.random.randint(1, len(layers)))
        form = self.random.choice(("docker", "docker", "docker-containerd", "oci-archive"))
        return make_image(path, chosen, format=form)  # type: ignore[arg-type]  # a literal of it

    def _push(self, number: int, images: Sequence[Made]) -> Planned:
        random = self.random
        image = random.choice(images)
        places = {
            (random.randrange(len(self.registries)), f"app{random.randrange(3)}", f"t{number}")
            for _ in range(random.choice((1, 1, 2, 3, 5)))
        }
        ordered = sorted(places)
        if random.random() < 0.2:
            ordered += [(host, name, f"{tag}b") for host, name, tag in ordered]
        options = {}
        if (compression := random.choice((None, None, "gzip", "zstd:1", "none"))) is not None:
            options["compression"] = compression
        delay = random.choice((0.0, 0.0, random.random() * 0.1))
        return Planned(image, image.path.read_bytes(), ordered, delay, options)

    def _give_up_somewhere(self) -> None:
        random = self.random
        if random.random() > 0.3:
            return
        push = random.choice(self.pushes)
        push.may_be_cancelled = True
        registry = self.registries[push.places[0][0]]
        at, wait = random.randint(1, 30), random.choice((0.0, 0.0, 0.05))

        def give_up(number: int) -> None:
            if number == at:
                self.cancelled_at = time.monotonic()
                push.cancel.cancel()
                registry.ended.wait(wait)

        registry.on_request = give_up

    def _hear(self, event: towline.Event) -> None:
        if isinstance(event, towline.TagPushed):
            self.told[event.reference] = time.monotonic()

    # What happens.

    def carry_out(self) -> None:
        threads = [
            threading.Thread(target=self._carry_out, args=(number,), daemon=True)
            for number in range(len(self.pushes))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(STUCK)
            assert not thread.is_alive(), "a push is stuck"
        closing = threading.Thread(target=self.pusher.close, daemon=True)
        closing.start()
        closing.join(STUCK)
        assert not closing.is_alive(), "the closing is stuck"
        self.closed_at = time.monotonic()

    def _carry_out(self, number: int) -> None:
        push = self.pushes[number]
        push.cancel._event.wait(push.delay)
        source = Counted(push.content)
        began = time.monotonic()
        cancelled = None
        outcomes: list[towline.PushResult | towline.TowlineError]
        try:
            outcomes = list(
                self.pusher.push(source, self.names(push), cancel=push.cancel, **push.options)
            )
        except towline.TransferCancelled as error:
            outcomes, cancelled = [], error
        except towline.PartialFailure as error:
            outcomes = [each for each in error.results if not isinstance(each, towline.PlanResult)]
        except towline.TowlineError as error:
            outcomes = [error]
        self.came[number] = Came(outcomes, cancelled, began, time.monotonic(), source.count)

    def name(self, place: tuple[int, str, str]) -> str:
        host, repository, tag = place
        return f"{self.registries[host].host}/{repository}:{tag}"

    def names(self, push: Planned) -> list[str]:
        return [self.name(place) for place in push.places]

    # What must be true.

    def check(self) -> None:
        assert len(self.came) == len(self.pushes), "a push ended with what is no error of ours"
        for number, push in enumerate(self.pushes):
            came = self.came[number]
            if came.cancelled:
                self.check_cancelled(push, came)
            else:
                self.check_outcomes(push, came)
        for number, registry in enumerate(self.registries):
            self.check_registry(number, registry)
        self.check_sums()

    def check_outcomes(self, push: Planned, came: Came) -> None:
        """Each target fails where it must, and only there; no tag is there that failed."""
        assert len(came.outcomes) == len(push.places)
        for place, outcome in zip(push.places, came.outcomes, strict=True):
            host, repository, tag = place
            there = self.registries[host].repository(repository).manifests.get(tag)
            if host in self.ends:
                assert isinstance(outcome, self.ends[host]), repr(outcome)
                assert there is None
                continue
            assert isinstance(outcome, towline.PushResult), repr(outcome)
            assert outcome.reference == self.name(place)
            assert there
            assert outcome.digest == "sha256:" + hashlib.sha256(there[1]).hexdigest()
            warned = [one for one in outcome.warnings if one != BUSY_MACHINE]
            assert all("compressed in different ways" in one for one in warned), warned
        self.check_nobody_waited(push, came)

    def check_nobody_waited(self, push: Planned, came: Came) -> None:
        """Where one registry alone is late, the others have their tags in time."""
        scripts = [registry.script for registry in self.registries]
        late = {
            host
            for host, script in enumerate(scripts)
            if any(one.wait == LATE for one in script.troubles.values())
        }
        if not late or not all(s.sound for host, s in enumerate(scripts) if host not in late):
            return
        if len(self.pushes) > 1:  # another push may hold what this one needs
            return
        for place in push.places:
            if place[0] not in late:
                seconds = self.told[self.name(place)] - came.began
                assert seconds < BUDGET + LOADED, f"a late registry cost {seconds:.1f} seconds"

    def check_cancelled(self, push: Planned, came: Came) -> None:
        """It left at once, sent no manifest any more, and names each tag that it may have put."""
        assert push.may_be_cancelled
        assert self.cancelled_at
        assert came.ended - self.cancelled_at < SECOND + LOADED
        for place in push.places:
            host, repository, tag = place
            registry = self.registries[host]
            path = f"/v2/{repository}/manifests/{tag}"
            for one in registry.log:
                puts = one.method == "PUT" and (
                    one.target == path or f"tag={tag}" in re.split("[?&]", one.target)
                )
                late = one.at >= self.cancelled_at + SECOND / 2
                assert not (puts and late), "put after the cancel"
            if tag in registry.repository(repository).manifests:
                assert self.name(place) in str(came.cancelled), "a tag is there and not named"

    def check_registry(self, number: int, registry: Unsteady) -> None:
        assert not registry.premature, "a manifest came before its blobs"
        assert all(one.at <= self.closed_at for one in registry.log), "asked after the end"
        self.check_tags(number, registry)
        if not registry.script.sound or any(push.may_be_cancelled for push in self.pushes):
            return
        small = AT_ONCE if self.jobs > 1 else 0
        assert registry.most <= self.jobs + small, "more uploads at once than there are jobs"
        assert not registry.sessions, "a session was left open"
        for repository in registry.repositories.values():
            assert set(repository.commits.values()) <= {1}, "a blob was sent twice"
        blobs = [len(r.blobs[d]) for r in registry.repositories.values() for d in r.commits]
        if not any(self.is_late(host) for host in range(len(self.registries))):
            sent = registry.received - sum(registry.in_vain)
            assert sent == sum(blobs), "more was sent than what is there"
            assert len(registry.in_vain) <= 1, "one blob finds out whether it is taken at once"

    def is_late(self, host: int) -> bool:
        return any(one.wait >= SECOND for one in self.registries[host].script.troubles.values())

    def check_tags(self, number: int, registry: Unsteady) -> None:
        """Every tag is the image that it is to be, byte for byte."""
        for push in self.pushes:
            (image,) = push.image.images
            for host, name, tag in push.places:
                repository = registry.repository(name)
                if host != number or tag not in repository.manifests:
                    continue
                document = json.loads(repository.manifests[tag][1])
                assert repository.blobs[document["config"]["digest"]] == image.config
                found = []
                for layer in document["layers"]:
                    blob = repository.blobs[layer["digest"]]
                    assert (sha256(blob), len(blob)) == (layer["digest"], layer["size"])
                    found.append(sha256(readback.plain(blob, layer["mediaType"])))
                assert found == list(image.diff_ids)

    def check_sums(self) -> None:
        """Where nothing failed, the results say what the registries counted."""
        sound = all(registry.script.sound for registry in self.registries)
        if not sound or any(came.cancelled for came in self.came.values()):
            return
        results = [one for came in self.came.values() for one in came.outcomes]
        told = [one for one in results if isinstance(one, towline.PushResult)]
        assert sum(one.sent_bytes for one in told) == sum(one.received for one in self.registries)
        assert sum(one.requests for one in told) == sum(len(one.log) for one in self.registries)

    def figures(self) -> Figures:
        figures = Figures(
            requests=sum(len(registry.log) for registry in self.registries),
            sent=sum(registry.received for registry in self.registries),
            read=sum(came.read for came in self.came.values()),
        )
        for number, push in enumerate(self.pushes):
            if push.may_be_cancelled:
                continue
            for outcome in self.came[number].outcomes:
                figures.ends[type(outcome).__name__] += 1
                if isinstance(outcome, towline.PushResult):
                    figures.layers.update(layer.outcome for layer in outcome.layers)
        return figures


def once(seed: int, folder: Path) -> Figures:
    """Carry out the pushes of one seed, and check them."""
    folder.mkdir()
    with ExitStack() as stack:
        pushes = Pushes(seed, folder, stack)
        try:
            pushes.carry_out()
            pushes.check()
            return pushes.figures()
        except BaseException:
            print(f"seed {seed}")  # noqa: T201 - what is needed to see it again
            raise
