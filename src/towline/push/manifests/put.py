"""Puts manifests in place: children first, the tag last.

Called when every blob that the documents list is confirmed, and never before. Two pushes that put
the same document in the same place at the same moment put it once.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from towline.errors import Cancelled, TowlineError
from towline.registry.manifests import lacks_blobs
from towline.spec import media_types
from towline.spec.manifest import parse
from towline.transfers.single_flight import Restart
from towline.transfers.threads import not_begun

if TYPE_CHECKING:
    from towline.push.manifests.build import Documents
    from towline.push.target import Target
    from towline.reference import Reference
    from towline.spec.manifest import RawManifest
    from towline.transfers.single_flight import Flight


FOREIGN = (
    "the registry takes no layers that lie elsewhere: let it take their urls (in distribution, "
    "validation.manifests.urls.allow), or push to another"
)


def wants_foreign(error: TowlineError, manifest: RawManifest) -> bool:
    """Whether a registry misses a foreign layer: those are never sent, so that nothing heals it."""
    if not lacks_blobs(error) or manifest.media_type not in media_types.MANIFESTS:
        return False
    layers = getattr(parse(manifest.content, manifest.media_type), "layers", ())
    foreign = (layer for layer in layers if media_types.is_foreign(layer.media_type))
    return any(layer.digest in error.message for layer in foreign)


def put(target: Target, reference: Reference, documents: Documents) -> None:
    """Put all documents, each with retries. Raises what the last attempt raised, and Cancelled."""
    # GitLab refuses what refers to a sibling before that is there (BuildKit makes such).
    for child in sorted(dict.fromkeys(documents.children), key=_refers):
        _Put(target, child.digest, child).wait()
    top = _Put(target, reference.tag or documents.top.digest, documents.top)
    try:
        top.wait()
    except Cancelled:
        if top.begun:
            target.in_doubt.append(reference)
        raise
    except TowlineError as error:
        if error.aftermath:
            target.in_doubt.append(reference)
        raise
    target.written.append(reference)


def _refers(manifest: RawManifest) -> bool:
    return parse(manifest.content, manifest.media_type).subject is not None


class _Put:
    """One document on its way to one place."""

    def __init__(self, target: Target, reference: str, manifest: RawManifest) -> None:
        self.begun = False
        """Whether anything of it was sent, as far as is known."""
        self._aftermath: str | None = None
        """What the attempts so far have left behind; see `TowlineError.aftermath`."""
        self._target = target
        self._reference = reference
        self._manifest = manifest

    def wait(self) -> None:
        """Put it, or join one who does. Raises what the last attempt raised, and Cancelled."""
        target, resources = self._target, self._target.resources
        repository = target.repository
        name, account = str(repository.name), repository.account
        key = (name, account, self._reference, self._manifest.digest)
        while True:
            watch = resources.manifest_flights.join(key, target.watcher())
            if not watch.leads:
                self.begun = True
            else:
                threads = resources.put_threads(repository.name.host)
                if error := not_begun(threads.submit(partial(self._carry_out, watch.flight))):
                    watch.flight.failed(error)
            try:
                watch.result()
            except Restart:
                continue
            return

    def _carry_out(self, flight: Flight[None]) -> None:
        target = replace(self._target, context=flight.context)
        try:
            target.retry("the manifest", partial(self._attempt, flight))
            if ":" not in self._reference:
                self._aftermath = f"{target.repository.name}:{self._reference} was written"
            self._announce(target)
        except TowlineError as error:
            flight.failed(self._told(error))
        except BaseException as error:  # noqa: BLE001 - it is for the watchers, whatever it is
            flight.failed(error)
        else:
            flight.done(None)

    def _announce(self, target: Target) -> None:
        """Have the registry list it under what it refers to (distribution-spec, "Referrers")."""
        if self._manifest.media_type not in media_types.MANIFESTS:
            return  # signed schema 1 refers to nothing
        parsed = parse(self._manifest.content, self._manifest.media_type)
        if parsed.subject is None:
            return
        announce = target.repository.announce_referrer
        subject = parsed.subject.digest
        target.retry(
            "the list of referrers", partial(announce, self._manifest, subject, target.context)
        )

    def _attempt(self, flight: Flight[None]) -> None:
        if not flight.wanted:
            raise Cancelled
        self.begun = True
        put_manifest = self._target.repository.put_manifest
        try:
            put_manifest(self._reference, self._manifest, flight.context)
        except TowlineError as error:
            if error.aftermath is not None:
                self._aftermath = error.aftermath
            if wants_foreign(error, self._manifest):
                error.transient, error.hint = False, FOREIGN
            raise

    def _told(self, error: TowlineError) -> TowlineError:
        """The error that ends it, with what this or an earlier attempt has left behind."""
        left = error.aftermath = self._aftermath
        if left and left not in error.message:
            error.args = (f"{error.message}; {left}",)
        return error
