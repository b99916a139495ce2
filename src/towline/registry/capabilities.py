"""What a registry host has turned out to do or not to do, so that nobody asks it twice.

These facts only save requests: one that is wrong is found out again, and costs time at worst. The
address of a token service is not among them. A password is sent there, so the registry itself is
asked for it in each run.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Literal

from towline.spec import reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from towline.spec.media_types import Format

Shape = Literal["put", "patch", "chunk"]
"""How a body goes: all of it in one PUT, all of it in one PATCH, or as one of several PATCHes."""
Offer = Literal["posts", "tags_together"]
"""What a registry may offer, and is found out by trying: a field of `HostFacts`."""

MiB = 1 << 20
CHUNK = 16 * MiB
"""Bytes of a chunk where nobody says otherwise."""
# GHCR takes chunks of up to 4 MiB, nginx by default bodies of up to 1 MiB.
_SMALLER = (CHUNK, 4 * MiB, MiB, 1 << 18, 1 << 16)
"""Bytes to come down to; below the last, a refusal must have another cause than the size."""
_PARTS_OF_ECR = 5 * MiB
"""Bytes of the least chunk at ECR, but for the last: smaller ones are a `LayerPartTooSmall`."""
TRIES = 2
"""Failures in a row after which the shape of a body, not chance, may be the cause."""
_SAID = r"(\d+(?:\.\d+)?)\s*(kib|kb|k|mib|mb|m)\b"
_UNITS = {"k": 1 << 10, "m": MiB}
REMEMBERED = 7 * 24 * 3600.0
"""Seconds for which facts count after the last was found out: a proxy's limits may be changed."""
_SEEN, _RATE = "seen", "rate"
_TELLING = 8 << 20
"""Bytes that must have been sent for a rate to be noted: fewer take as long as their requests."""
_REFUSES = {
    "patch_refused": "no PATCH: a large layer that is compressed on the way is read twice",
    "put_refused": "no PUT with a body: every blob goes by PATCH",
    "chunks_refused": "no blob in chunks: every layer goes in one body",
    "docker_refused": "no manifests of docker's format",
    "oci_refused": "no OCI manifests",
}
_SURVIVAL = {True: "chunks_survive", False: "bodies_survive"}
"""The fact of uploads in chunks, and of those in one body."""


class HostFacts:
    """What one host takes and does.

    Threads change it without a lock: each field is a single value, and a lost change is found out
    again. Those with a type here are stored for later runs.
    """

    patch_refused: bool = False
    """It takes no PATCH: blobs go as one PUT, for which digest and size must be known."""
    put_refused: bool = False
    """It takes no PUT with a body: blobs go as PATCH and an empty PUT."""
    chunks_refused: bool = False
    """It takes no blob in several PATCHes."""
    length_wanted: bool = False
    """It takes no body of open length."""
    body_max: int | None = None
    """Bytes of the largest body that it, or what stands before it, may take."""
    chunk_min: int = 0
    """Bytes of the least chunk, but for the last."""
    head_refused: bool = False
    """It does not answer HEAD for manifests."""
    bodies_survive: bool | None = None
    """Whether an upload in one body was resumed after a cut; None: not tried yet."""
    chunks_survive: bool | None = None
    """Whether one in chunks was resumed after its acknowledged chunks; None: not tried yet."""
    docker_refused: bool = False
    """It takes no manifests of docker's format (schema 2), but others."""
    oci_refused: bool = False
    """It takes no OCI manifests, but others."""
    mounts: bool = False
    """It has linked a blob from another repository."""
    posts: bool | None = None
    """Whether it takes a whole blob in the POST of an upload (end-4b); None: not tried."""
    tags_together: bool | None = None
    """Whether it sets several tags by one PUT of a manifest; None: not tried."""

    def __init__(self, **known: bool | int) -> None:
        """`known`: facts by their names."""
        # No dataclass: that would be made anew at each start, which takes a millisecond.
        vars(self).update(known)
        self.chunks_kept = False
        """It has kept a blob that came in several chunks; in this run."""
        self.failures: Counter[Shape] = Counter()
        """Bodies of a shape that were cut or met a server's error in a row; of this run."""
        self.tried: set[Offer] = set()
        """Offers that were tried in this run, whether or not that has told anything."""
        self.rate: int | None = None
        """Bytes a second at which blobs went there the last time, for plans to estimate by."""
        self._has_news_of_rate = False
        self._before = self._values()

    def _values(self) -> dict[str, str]:
        values = {name: getattr(self, name) for name in HostFacts.__annotations__}
        return {name: "" if value is None else str(int(value)) for name, value in values.items()}

    @classmethod
    def recalled(cls, facts: Mapping[str, str], now: float) -> HostFacts:
        """The facts that an earlier run stored, none if they are older than a week.

        `now`: seconds since the epoch.
        """
        # A shared cache may say anything: each value is checked like an answer.
        read = {name: reading.number(text) for name, text in facts.items()}
        numbers = {name: value for name, value in read.items() if value is not None}
        found = cls()
        found.rate = numbers.get(_RATE) or None
        if not 0 <= now - numbers.get(_SEEN, 0) <= REMEMBERED:
            return found
        for name, kind in cls.__annotations__.items():
            if kind.startswith("bool") and name in numbers:
                setattr(found, name, bool(numbers[name]))
        # With both refused no blob could be sent any more: one is tried again.
        found.put_refused &= not found.patch_refused
        # A chunk is held in memory, whatever somebody has written down.
        found.chunk_min = min(numbers.get("chunk_min", 0), CHUNK)
        body_max = numbers.get("body_max", 0)
        found.body_max = body_max if body_max >= _SMALLER[-1] else None
        found._before = found._values()
        return found

    def note_rate(self, sent_bytes: int, seconds: float) -> None:
        """Note that blobs of `sent_bytes` in all were sent in so many seconds."""
        if sent_bytes >= _TELLING and seconds > 0:
            self.rate, self._has_news_of_rate = round(sent_bytes / seconds) or 1, True

    def seconds(self, size: int) -> float | None:
        """Seconds that sending `size` bytes would take; None where no rate is known."""
        return size / self.rate if self.rate else None

    def news(self, now: float) -> dict[str, str]:
        """What is to be stored for a later run: what was found out in this one."""
        # What was only recalled keeps its date: after a week it is found out again.
        facts = self.to_recall(now) if self._values() != self._before else {}
        return {**facts, _RATE: str(self.rate)} if self._has_news_of_rate else facts

    def to_recall(self, now: float) -> dict[str, str]:
        """The facts for a later run, also those that are not so: a store keeps what is left out."""
        return {**self._values(), _SEEN: str(int(now))}

    def offers(self, offer: Offer) -> bool | None:
        """Whether the host offers it; None: not known, and worth a try.

        A try that tells nothing is the last one of this run, and none for a later run: what hangs
        on it, or breaks down over it, would do so each time; what failed by chance will not.
        """
        known: bool | None = getattr(self, offer)
        return False if known is None and offer in self.tried else known

    def note_cut(self, *, in_chunks: bool, went_on: bool) -> None:
        """Note whether a cut upload was resumed. One that was counts more than any that was not."""
        setattr(self, _SURVIVAL[in_chunks], went_on or bool(getattr(self, _SURVIVAL[in_chunks])))

    def goes_on(self, *, in_chunks: bool) -> bool | None:
        """Whether a cut upload can be resumed there; None: not tried yet."""
        known: bool | None = getattr(self, _SURVIVAL[in_chunks])
        return known

    @property
    def resumes(self) -> bool | None:
        """Whether an upload that was cut has gone on there; None: not known."""
        known = {self.bodies_survive, self.chunks_survive}
        return True in known or (False if False in known else None)

    def failed(self, shape: Shape, after: int) -> None:
        """Count a body that failed. `after`: the count when that body began."""
        # So that several that are cut side by side count as one.
        self.failures[shape] = max(self.failures[shape], after + 1)

    def taken(self, shape: Shape) -> None:
        """Note that a body of this shape was accepted."""
        self.failures[shape] = 0
        if shape == "patch" and self.failures["put"] >= TRIES:
            # Older Artifactory breaks down over a PUT with a body. Should it have been chance,
            # going by PATCH costs one request a blob.
            self.put_refused = True

    @property
    def takes_chunks(self) -> bool:
        """Whether a blob may go in several PATCHes, as far as is known."""
        return not self.chunks_refused and self.failures["chunk"] < TRIES

    @property
    def takes_puts(self) -> bool:
        """Whether a PUT with a whole blob is likely to be accepted."""
        return not self.put_refused and self.failures["put"] < TRIES

    def kept(self, size: int, chunk: int, *, in_chunks: bool) -> None:
        """Note that a blob of `size` bytes was committed: in chunks of `chunk`, or in one body."""
        if in_chunks:
            self.chunks_kept, self.failures["chunk"] = True, 0
        elif self.failures["chunk"] >= TRIES and size > chunk:
            # Google's registries and ECR Public: chunks fail, and a larger body goes through.
            # Only that shows that chunks are at fault.
            self.chunks_refused = True
            if self.body_max is not None and size > self.body_max:
                # The limit is that of the other shape (PUT or PATCH) alone.
                self.body_max = None

    def refuses(self, fmt: Format) -> bool:
        """Whether a manifest of that format was refused when last tried."""
        return bool(getattr(self, f"{fmt}_refused"))

    def note_format(self, fmt: Format, *, refused: bool) -> None:
        """Note whether a manifest of that format was refused."""
        setattr(self, f"{fmt}_refused", refused)

    def limits(self) -> list[str]:
        """The limits of the host as phrases; each completes "HOST takes …"."""
        found = []
        if self.body_max is not None:
            found.append(f"no body of more than about {self.body_max} bytes: layers go in chunks")
        elif self.length_wanted:
            found.append("no body of open length: layers go in chunks")
        if self.chunk_min:
            found.append(f"no chunk of less than {self.chunk_min} bytes")
        found += [words for name, words in _REFUSES.items() if getattr(self, name)]
        return found

    def shape_refused(self, shape: Shape) -> bool:
        """Note that the host refuses this shape of body. Returns whether another one is left."""
        match shape:
            case "chunk" if self.body_max is None:
                self.chunks_refused = True
                return True
            case "chunk":
                # One body was too large before, by PUT or by PATCH: the other may have no limit.
                self.failures["chunk"] = TRIES
                return self._has_ways()
            case "put":
                self.put_refused = True
            case "patch":
                self.patch_refused = True
        return not (self.put_refused and self.patch_refused)

    def _has_ways(self) -> bool:
        """Whether a PUT or a PATCH with a whole blob has not been given up."""
        return self.takes_puts or (not self.patch_refused and self.failures["patch"] < TRIES)

    def too_large(self, shape: Shape, size: int | None, words: str = "") -> bool:
        """Note that a body of `size` bytes (None: of open length) was too large.

        `words`: the refusal, which may name a limit. Returns whether a smaller body, or another
        shape, may pass.
        """
        if shape != "chunk" and not self.takes_chunks:
            # Chunks are no way out: the other shape of one body may be.
            self.failures[shape] = TRIES
            if self._has_ways():
                return True
            if self.failures["chunk"] >= TRIES:
                # Every shape has failed. Some of it may have been chance: the next blob tries anew.
                self.failures.clear()
                return False
        smaller = [step for step in _SMALLER if size is None or step < size]
        words = words.lower()
        if "large" in words or "limit" in words or "exceed" in words:
            # GHCR: "request body is too large … 4.00MiB".
            named = [int(float(n) * _UNITS[unit[0]]) for n, unit in re.findall(_SAID, words)]
            smaller = sorted(limit for limit in named if size is None or limit < size)[:1] + smaller
        if not smaller or smaller[0] < self.chunk_min:
            return False
        self.body_max = min(smaller[0], self.body_max or smaller[0])
        return True

    def too_small(self, size: int) -> bool:
        """Note that a chunk of `size` bytes was too small. Returns whether a larger one may do."""
        self.wants_chunks_of(_PARTS_OF_ECR)
        return size < self.chunk_min

    def wants_chunks_of(self, least: int) -> None:
        """Note the least bytes of a chunk."""
        if least > CHUNK:  # too much to hold in memory until it is acknowledged
            self.chunks_refused = True
        else:
            self.chunk_min = max(self.chunk_min, least)

    def chunk(self, wanted: int | None) -> int:
        """Bytes of a chunk, within what the host takes. `wanted`: what the user asks for."""
        size = wanted or CHUNK
        return max(self.chunk_min, min(size, self.body_max or size))
