"""Chooses the profile that compresses each layer, and says what a smaller one would have saved.

With `auto` the choice is made when a layer is about to be read: the profile in which the layer was
made before, else the smallest that this machine makes as fast as the host takes it.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from towline.layers import profile as profiles
from towline.layers.encoders import encoder_of
from towline.transfers.threads import processors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from towline.context import Cancel
    from towline.knowledge.base import Entry
    from towline.layers.profile import Profile
    from towline.push.image import Blob
    from towline.push.upload.blob_upload import BlobUpload
    from towline.spec.digest import Digest

MiB = 1 << 20
_TELLING = 16 * MiB
"""Bytes sent from which a rate is known: the first 4 MiB are in the system's buffers at once."""
_TELLING_SECONDS = 1.0
"""Seconds after which it is known in any case."""
_WORTH_WAITING = 64 * MiB
"""Bytes of a large layer, which waits until an earlier one has shown the rate."""
_LOOK = 0.05
"""Seconds between two looks at the rates."""
_LONG = 5.0
"""Seconds of a push that is worth a line about what bounded it."""
_SAMPLED_FROM = 3.0
"""Seconds after which blocks are sampled: a short push is told nothing."""
_SAMPLED = 16
"""One of so many blocks is compressed by the other profile too, while the processors are idle."""
_WORTH_TELLING = 0.05
"""The share of the bytes that the other profile must save."""


class _Seen:
    """The bytes sent to a host since the first layer was read for it."""

    def __init__(self, upload: BlobUpload) -> None:
        context = self._context = upload.context
        self._facts = upload.repository.facts
        self._before = context.meter.sent_bytes
        self._began = context.clock()

    @property
    def seconds(self) -> float:
        """Seconds since then."""
        return self._context.clock() - self._began

    @property
    def rate(self) -> float | None:
        """Bytes a second, in this push or else the last one; None while that is not known."""
        sent, seconds = self._context.meter.sent_bytes - self._before, self.seconds
        telling = sent >= _TELLING or seconds >= _TELLING_SECONDS
        return sent / seconds if telling and sent else self._facts.rate


class Choice:
    """The choice for one push. Safe from any thread."""

    def __init__(
        self, wished: Profile, known: Mapping[Digest, Sequence[Entry]], *, zstd: bool
    ) -> None:
        """`zstd`: whether all manifests may be OCI."""
        self._wished = wished
        self._known = known
        self._zstd = zstd
        self._lock = Lock()
        self._seen: dict[str, _Seen] = {}
        self._chosen: dict[str, Profile] = {}
        self._busy = 0.0
        """Seconds that encoders have worked."""
        self._blocks = 0
        self._sampled = self._smaller = 0
        """Bytes of the sampled blocks, by the profile in use and by the other one."""

    def profile(self, blob: Blob, uploads: Sequence[BlobUpload], cancel: Cancel) -> Profile:
        """The profile for a layer that is about to be read for these uploads.

        It is the same each time that the layer is read in this push. Raises Cancelled.
        """
        hosts = {upload.repository.name.host: upload for upload in uploads}
        with self._lock:
            first = [host for host in hosts if host not in self._seen]
            self._seen |= {host: _Seen(hosts[host]) for host in first}
            chosen = self._chosen.get(blob.key)
        if self._wished is not profiles.AUTO:
            return self._wished
        if chosen is None:
            # The first layer never waits: it is what shows the rate.
            if not first and blob.size >= _WORTH_WAITING:
                self._wait_for_rates(hosts, cancel)
            chosen = self._begun(uploads) or self._made_before(blob) or self._fed(hosts)
        # No rate is known. A large layer is most of what a slow link will see of the push, so its
        # size counts; a small one is done soon.
        if chosen is None:
            large = blob.size >= _WORTH_WAITING
            chosen = profiles.parse("gzip:best" if large else profiles.DEFAULT)
        # Another thread may have chosen for the same layer: its choice stands.
        with self._lock:
            return self._chosen.setdefault(blob.key, chosen)

    def _wait_for_rates(self, hosts: Iterable[str], cancel: Cancel) -> None:
        """Wait until the first layer has shown how fast the link is, for a second at most."""
        while any(
            self._seen[host].rate is None and self._seen[host].seconds < _TELLING_SECONDS
            for host in hosts
        ):
            cancel.wait(_LOOK)

    def _begun(self, uploads: Sequence[BlobUpload]) -> Profile | None:
        """The profile of an upload that an earlier process has left; None: there is none."""
        begun = (each.profile for each in uploads if each.profile is not profiles.AUTO)
        return next(filter(self._may_be, begun), None)

    def _made_before(self, blob: Blob) -> Profile | None:
        """The profile of the newest blob that we have made of the layer; None: there is none."""
        ours = (each for each in reversed(self._known.get(blob.identity, ())) if not each.learned)
        made = (profiles.of_record(each.profile) for each in ours)
        return next((found for found in made if found and self._may_be(found)), None)

    def _may_be(self, profile: Profile) -> bool:
        return profile.compression != "zstd" or self._zstd

    def _fed(self, hosts: Iterable[str]) -> Profile | None:
        """The smallest profile that keeps the fastest host busy; None: a rate is not known."""
        rates = [self._seen[host].rate for host in hosts]
        known = [rate for rate in rates if rate is not None]
        if len(known) < len(rates):
            return None
        return profiles.smallest(max(known), processors(), zstd=self._zstd)

    # What another profile would have saved.

    def look(self, block: memoryview, size: int, seconds: float) -> None:
        """Note that an encoder has made `size` bytes of a block in so many seconds."""
        with self._lock:
            self._busy += seconds
            self._blocks += 1
            seen = max(self._seen.values(), key=lambda one: one.seconds)
            sample = not self._blocks % _SAMPLED and seen.seconds > _SAMPLED_FROM
        if not sample or self._wished is profiles.AUTO or self._idle(seen.seconds) < 1 / 2:
            return
        other = self._fed(self._seen)
        if encoder := other and encoder_of(other):
            smaller = len(encoder.encode(block[:0], block))
            with self._lock:
                self._sampled += size
                self._smaller += min(size, smaller)

    def _idle(self, seconds: float) -> float:
        """The share of the time in which encoders had nothing to do."""
        return 1 - self._busy / (seconds * processors())

    def told(self) -> str | None:
        """A sentence about what `auto` would have saved; None: nothing worth a line."""
        seconds = max((seen.seconds for seen in self._seen.values()), default=0.0)
        if not self._sampled or seconds < _LONG or (idle := self._idle(seconds)) < 1 / 2:
            return None
        saved = 1 - self._smaller / self._sampled
        if saved < _WORTH_TELLING:
            return None
        return (
            f"the link was the limit, and the processors were idle for {idle:.0%} of the time: "
            f"the compression `auto` would have sent about {saved:.0%} less"
        )
