"""Puts manifests: children first, the tag last; in another form where their type is refused.

Called only when every blob that the documents list is confirmed. Two pushes of one Pusher that put
the same document in the same place at the same time put it once: two writers of one tag can make a
registry forget one of them.
"""

from __future__ import annotations

import copy
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Literal

from towline.errors import Cancelled, RegistryError, TowlineError
from towline.push.image import Blob, Tree, in_memory
from towline.push.manifests import build
from towline.push.manifests.build import FORMATS, SCHEMA1, CannotConvert, Documents
from towline.push.target import Target
from towline.registry.manifests import is_lost, lacks_blobs, refuses_type
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import EMPTY_LAYER_DIFF_ID
from towline.spec.manifest import RawManifest, parse
from towline.spec.media_types import Format
from towline.transfers.threads import not_begun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from towline.push.plan import Delivered
    from towline.push.target import TargetPush
    from towline.reference import Reference
    from towline.spec.digest import Digest
    from towline.spec.schema1 import Unsigned
    from towline.transfers.single_flight import Flight

TOGETHER = 10
"""Tags by one request: who takes several should take as many; zot takes 46."""
_FOREIGN_HINT = (
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


def put(target: TargetPush, reference: Reference, documents: Documents) -> None:
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


def put_together(target: TargetPush, references: Sequence[Reference], documents: Documents) -> None:
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


def _put_children(target: TargetPush, documents: Documents) -> None:
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
        self, target: TargetPush, reference: str, manifest: RawManifest, doubt: str | None = None
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
        from towline.transfers.single_flight import Restart  # an unchanged push puts nothing

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
        target = Target(self._target.resources, self._target.repository, flight.context)
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
                error.transient, error.hint = False, _FOREIGN_HINT
            raise


_SCHEMA1_HINT = "add `allow_schema1=True`, should the registry be so old that it takes nothing else"
_Form = Format | Literal["schema1"]
_NAMES: dict[_Form, str] = {"oci": FORMATS["oci"], "docker": FORMATS["docker"], "schema1": SCHEMA1}


class TaggedImage:
    """The image of a tag, in the form that is wanted or in another that the registry takes.

    Tried are, in order, the wanted form, the other family (docker's or OCI's), and signed schema 1,
    where that is allowed. Only where the user named no format, and for one registry alone: with
    several, one of them would hold another digest than the others.

    A registry that was seen to refuse a family of formats may hold the image in the other form.
    That counts as the same image, so that the same push is not refused and converted each time.
    """

    def __init__(
        self,
        target: TargetPush,
        reference: Reference,
        tree: Tree,
        delivered: Mapping[str, Delivered],
    ) -> None:
        """`delivered`: all blobs of the tree, by their keys."""
        self.target = target
        self.reference = reference
        self.tree = tree
        # Only these: the target may have those of a thousand other tags.
        self.made = {blob.key: delivered[blob.key].made for blob in tree.blobs}
        """The tree's blobs as they are at the target, by their keys."""
        self.documents = build.documents(tree, self.made, target.wish.format)
        """In the form that is wanted."""

    @property
    def family(self) -> Format:
        """The family of formats that is wanted."""
        return media_types.family(self.documents.top.media_type)

    def form_of(self, digest: str) -> Documents | None:
        """The image's documents with that digest; None: it is another image's."""
        if self.documents.top.digest == digest:
            return self.documents
        # In another form only where an earlier push may have put it so.
        if not self.target.repository.facts.refuses(self.family) or self._never_converted():
            return None
        for form in self._forms():
            try:
                converted = self._converted(form)
            except CannotConvert:
                continue
            if converted.top.digest == digest:
                self._warn_of_form(form)
                return converted
        return None

    def put(self, send: Callable[[Blob], None]) -> Documents:
        """Put the documents; where their type is refused, convert them and put those.

        Returns the documents that were put. `send` uploads a blob that is not in the tree. Raises
        the error of the last attempt, and Cancelled.
        """
        placed = self.documents
        try:
            put(self.target, self.reference, placed)
        except RegistryError as refusal:
            if not refuses_type(refusal):
                raise
            placed = self._put_converted(refusal, send)
        refused = placed.top.media_type != self.documents.top.media_type
        self.target.repository.facts.note_format(self.family, refused=refused)
        return placed

    def _put_converted(self, refusal: RegistryError, send: Callable[[Blob], None]) -> Documents:
        """Put the documents in one other form after the other, until one is taken.

        Raises one error, whose message has all refusals.
        """
        if hint := self._never_converted():
            raise _hinted(refusal, hint) from None
        said, hint = [refusal.message], refusal.hint
        last: TowlineError = refusal
        for form in self._forms():
            try:
                converted = self._converted(form, send)
                put(self.target, self.reference, converted)
            except CannotConvert as cannot:
                said.append(f"it cannot be converted: {cannot}")
                hint = hint or cannot.hint
            except TowlineError as error:
                last, about = error, "".join(refusal.message.partition(": ")[:2])
                same = error.message == refusal.message
                anew = "the same" if same else error.message.removeprefix(about)
                said.append(f"converted to {_NAMES[form]}: {anew}")
                if not refuses_type(error):  # another form would meet the same error
                    break
            else:
                answer = " ".join(str(part) for part in (refusal.status, refusal.code) if part)
                self._warn_of_form(form, f" ({answer})")
                return converted
        else:
            if not self.target.wish.allow_schema1:
                with suppress(CannotConvert):
                    self._schema1()
                    hint = hint or _SCHEMA1_HINT
        # Of the kind of the last error, or of the first refusal if all are refusals.
        failure = _hinted(refusal if refuses_type(last) else last, hint)
        failure.args = ("; ".join(said),)
        raise failure from None

    def _never_converted(self) -> str | None:
        """A hint where nothing may be converted; None where it may."""
        wish = self.target.wish
        if wish.preserve_digests:
            return "leave out `preserve_digests`: then the manifest may be converted"
        if fmt := wish.format:
            return f"leave out `format='{fmt}'`: then the manifest may be converted"
        if not self.target.alone:
            host = self.target.repository.name.host
            return f"push to {host} by itself: then the manifest may be converted"
        return None

    def _forms(self) -> list[_Form]:
        """The forms to try, in order."""
        schema1: list[_Form] = ["schema1"] if self.target.wish.allow_schema1 else []
        return [*build.families(self.documents), *schema1]

    def _converted(self, form: _Form, send: Callable[[Blob], None] | None = None) -> Documents:
        """The documents in another form; without `send`, schema 1 is not signed.

        Raises CannotConvert, and the errors of sending a blob.
        """
        if form != "schema1":
            found = build.to_family(self.tree, self.made, form)
            return found._replace(differs="converted")
        unsigned = self._schema1()
        if send is None:
            # Digest and size are those of the payload, whatever the signature and its time.
            top = RawManifest(unsigned.payload, media_types.SCHEMA1_SIGNED, unsigned.payload)
            return Documents(top, differs="converted")
        from towline.knowledge.open import signing_key
        from towline.spec.schema1 import EMPTY_LAYER, EMPTY_LAYER_DIGEST, sign

        # Steps without a layer share one empty blob in schema 1, which the image does not have.
        if unsigned.lists_empty_layer:
            stored = Descriptor(media_types.DOCKER_LAYER_GZIP, EMPTY_LAYER_DIGEST, len(EMPTY_LAYER))
            send(in_memory(EMPTY_LAYER, stored, EMPTY_LAYER_DIFF_ID, is_layer=True))
        key = signing_key(self.target.resources.environ, self.target.warn)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return Documents(sign(unsigned.payload, key, now), differs="converted")

    def _schema1(self) -> Unsigned:
        path, name = self.target.repository.name.path, self.reference.tag
        if name is None:
            raise CannotConvert("signed schema 1 names its tag, and there is none")
        return build.to_schema1(self.tree, self.made, name=path, tag=name)

    def _warn_of_form(self, form: _Form, said: str = "") -> None:
        loss = ""
        if form == "schema1":
            loss = ", which most registries have given up"
        elif build.loses_annotations(self.tree, form):
            loss = " and has no annotations"
        name = self.target.repository.name
        self.target.warn(
            f"{name.host} refused {FORMATS[self.family]}{said}: what is pushed to {name} was "
            f"converted to {_NAMES[form]}{loss}, so its digest is another one"
        )


def _hinted(error: TowlineError, hint: str | None) -> TowlineError:
    """A copy of the error, with the hint if it has none. Others may hold the error itself."""
    hinted = copy.copy(error)
    hinted.hint = error.hint or hint
    return hinted
