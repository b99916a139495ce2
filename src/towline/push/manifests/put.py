"""Puts manifests: children first, the tag last.

Called only when every blob that the documents list is confirmed. Two pushes of one Pusher that put
the same document in the same place at the same time put it once: two writers of one tag can make a
registry forget one of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from towline.errors import Cancelled, TowlineError
from towline.registry.manifests import is_lost, lacks_blobs
from towline.spec import media_types
from towline.spec.manifest import parse
from towline.transfers.single_flight import Restart
from towline.transfers.threads import not_begun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.push.manifests.build import Documents
    from towline.push.target import Target
    from towline.reference import Reference
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest
    from towline.transfers.single_flight import Flight


TOGETHER = 10
"""Tags by one request: who takes several should take as many; zot takes 46."""
FOREIGN = (
    "the registry takes no layers that lie elsewhere: let it take their urls (in distribution, "
    "validation.manifests.urls.allow), or push to another"
)


def wants_foreign(error: TowlineError, manifest: RawManifest) -> bool:
    """Whether a registry wants a foreign layer as a blob. Such layers are never sent."""
    if not lacks_blobs(error) or manifest.media_type not in media_types.MANIFESTS:
        return False
    layers = getattr(parse(manifest.content, manifest.media_type), "layers", ())
    foreign = (layer for layer in layers if media_types.is_foreign(layer.media_type))
    return any(layer.digest in error.message for layer in foreign)


def put(target: Target, reference: Reference, documents: Documents) -> None:
    """Put all documents, each with retries. Raises the error of the last attempt, and Cancelled.

    Notes at the target whether its tag was written, or may have been.
    """
    digest = documents.top.digest
    if target.written.get(reference) == digest:
        return  # together with others
    _put_children(target, documents)
    doubt = f"{reference} may have been written" if reference in target.in_doubt else None
    top = _Put(target, reference.tag or digest, documents.top, doubt)
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
    target.written[reference] = digest


def put_together(target: Target, references: Sequence[Reference], documents: Documents) -> None:
    """Put all documents, the last under several tags by one request (distribution-spec, end-7b).

    Tried once: a tag that is not among those written afterwards is to be put by itself. Raises what
    the attempt raised, and Cancelled.
    """
    top = documents.top
    if top.media_type not in media_types.MANIFESTS or _subject(top):
        return  # it names its tag, or is to be announced
    if top.digest not in target.written.values():  # else its children are there
        _put_children(target, documents)
    target.context.cancel.check()
    tags = [str(reference.tag) for reference in references]
    try:
        named = target.registry.put_tags(top, tags, target.context)
    except Cancelled:
        target.in_doubt += references
        raise
    except TowlineError as error:
        if is_lost(error):
            target.in_doubt += references
        raise
    target.written |= {each: top.digest for each in references if each.tag in named}


def _put_children(target: Target, documents: Documents) -> None:
    # GitLab refuses a manifest whose `subject`, a sibling of it, is not there yet; BuildKit makes
    # such indexes.
    children = dict.fromkeys(documents.children)
    for child in sorted(children, key=lambda child: _subject(child) is not None):
        _Put(target, child.digest, child).wait()


def _subject(manifest: RawManifest) -> Digest | None:
    """The manifest that this one refers to, if any; signed schema 1 refers to nothing."""
    if manifest.media_type not in media_types.MANIFESTS:
        return None
    subject = parse(manifest.content, manifest.media_type).subject
    return subject.digest if subject else None


class _Put:
    """The PUT of one document under a tag or its digest."""

    def __init__(
        self, target: Target, reference: str, manifest: RawManifest, doubt: str | None = None
    ) -> None:
        self.begun = False
        """Whether any of it may have been sent."""
        self._aftermath = doubt
        """What the attempts so far have left under the tag; see `TowlineError.aftermath`."""
        self._target = target
        self._reference = reference
        self._manifest = manifest

    def wait(self) -> None:
        """Put it, or wait for another push that does. Raises as `put` does."""
        target, resources = self._target, self._target.resources
        repository = target.repository
        name, account = str(repository.name), repository.account
        key = (name, account, self._reference, self._manifest.digest)
        while True:
            watch = resources.manifest_flights.join(key, target.watcher())
            if not watch.leads:
                self.begun = True  # by the push that leads, for all we know
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
            target.retry("the manifest", self._attempt, flight)
            if ":" not in self._reference:
                self._aftermath = f"{target.repository.name}:{self._reference} was written"
            # Have it listed under its subject (distribution-spec, "Listing Referrers").
            if subject := _subject(self._manifest):
                announce, what = target.repository.announce_referrer, "the list of referrers"
                target.retry(what, announce, self._manifest, subject, target.context)
        except TowlineError as error:
            # What this or an earlier attempt has left under the tag.
            left = error.aftermath = self._aftermath
            if left and left not in error.message:
                error.args = (f"{error.message}; {left}",)
            flight.failed(error)
        except BaseException as error:  # noqa: BLE001 - a thread's end: the watchers get it
            flight.failed(error)
        else:
            flight.done(None)

    def _attempt(self, flight: Flight[None]) -> None:
        # After a cancel no manifest is sent, even if the switch has not come through yet.
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
