"""A manifest put in its place: what the answer leaves open is settled by looking there.

An answer that is lost may be of a manifest that is in place; one that names no digest, or another
one, may be of a manifest that is not, or not as it was sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.errors import AuthError, NetworkError, RegistryError, TowlineError
from towline.registry import hints
from towline.registry.manifests import looked_at
from towline.registry.refusals import lacks_blobs
from towline.registry.requests import manifests
from towline.registry.requests.blobs import Unclear
from towline.spec import distribution

if TYPE_CHECKING:
    from towline.registry.conversation import Conversation
    from towline.registry.requests.blobs import Call
    from towline.spec.manifest import RawManifest

_CREATED, _BAD_REQUEST, _TYPE_REFUSED = 201, 400, 415
_LOST = frozenset({408, 499, *range(500, 600)})
"""Refusals by somebody who may have passed the request on, or have carried it out."""
_IMMUTABLE = frozenset({409, 412})
_MISTAKES = frozenset({distribution.DIGEST_INVALID, distribution.MANIFEST_INVALID})
_NOTHING = ""
"""In the place of a digest."""


class Putting:
    """One attempt to put a manifest under a tag or its digest."""

    def __init__(
        self, talk: Conversation, target: str, manifest: RawManifest, damaged: dict[str, str]
    ) -> None:
        """`damaged`: by tag, the digest of what was altered on the way there; to be added to."""
        self._talk = talk
        self._target = target
        self._manifest = manifest
        self._damaged = damaged
        self._aftermath: str | None = None
        self._is_tag = ":" not in target
        self._where = manifests.place(talk.name, target)

    def carry_out(self) -> None:
        """Raises AuthError, RegistryError, NetworkError, with their `aftermath`."""
        put = self._put(manifests.put_manifest(self._talk.name, self._target, self._manifest))
        digest = self._manifest.digest
        if put is None or put.digest == digest:
            return
        found = self._standing()
        if found is None and put.digest is None and put.status == _CREATED:
            return  # many name no digest, and some show manifests only to those who may pull
        if found != digest and (given := self._given()) is not None:
            found = given  # whatever digest is said to be theirs, the bytes decide
        if found != digest:
            raise self._altered(put, found)

    def _put(self, call: Call[manifests.Put]) -> manifests.Put | None:
        """None: whatever the answer was, the manifest is in place."""
        try:
            return self._talk.call(call)
        except TowlineError as error:
            if self._is_settled(error):
                return None
            if isinstance(error, NetworkError) and error.stale and not call.fresh:
                # It went into a connection that nobody held any more: that was no attempt.
                return self._put(call._replace(fresh=True))
            self._judge(error)
            error.aftermath = self._aftermath
            raise

    def _is_settled(self, error: TowlineError) -> bool:
        """Whether the manifest is in place all the same; if not, notes what is known of that."""
        lost = _is_lost(error)
        if not lost and not _is_of_an_immutable_tag(error):
            return False
        found = self._standing()
        if found is not None:
            damaged = found == self._damaged.get(self._target)
            self._aftermath = self._left(found) if damaged else ""
        elif lost and self._is_tag:
            self._aftermath = f"{self._where} may have been written {self._how_to_look}"
        return found == self._manifest.digest

    def _judge(self, error: TowlineError) -> None:
        """A manifest that is no valid one may have been altered on the way: once."""
        if not isinstance(error, RegistryError) or error.status == _TYPE_REFUSED:
            return
        if lacks_blobs(error):
            return
        mistaken = self._talk.mistaken
        if error.code in _MISTAKES and self._manifest.digest not in mistaken:
            mistaken.add(self._manifest.digest)
            error.transient = True

    def _standing(self) -> str | None:
        """The digest of what lies there, or nothing; None: nobody can tell."""
        try:
            found = looked_at(self._talk, self._target)
        except NetworkError:
            return None
        except TowlineError:
            return self._given()
        if isinstance(found, Unclear):
            return self._given()
        return found.digest if found else _NOTHING

    def _given(self) -> str | None:
        """Likewise, of the bytes that lie there."""
        call = manifests.get_manifest(self._talk.name, self._target, checked=False)
        try:
            found = self._talk.call(call)
        except TowlineError:
            return None
        return found.manifest.digest if found else _NOTHING

    @property
    def _how_to_look(self) -> str:
        return f"(`towline digest {self._where}` shows what it holds)"

    def _altered(self, put: manifests.Put, found: str | None) -> RegistryError:
        host = self._talk.name.host
        if put.digest:
            names, hint = f"names {put.digest}", "check what lies between here and the registry"
            hint += ": it changes what is sent"
        else:
            names, hint = "names no digest", "ask whoever runs the registry why it said yes to it"
        left = self._left(found)
        error = RegistryError(
            f"the manifest of {self._where} was sent as {self._manifest.digest}, but {host} "
            f"{names}; {left}",
            status=put.status,
            transient=True,
            hint=hint,
        )
        error.aftermath = left if found != _NOTHING and self._is_tag else ""
        if found and self._is_tag:
            self._damaged[self._target] = found
        return error

    def _left(self, found: str | None) -> str:
        if found is None:
            return f"{self._where} may hold something else now {self._how_to_look}"
        if found == _NOTHING:
            return f"nothing is at {self._where}"
        return f"{self._where} now holds {found}, which is not what was pushed"


def _is_lost(error: TowlineError) -> bool:
    """Whether the manifest may be in place because its answer is not the registry's last word."""
    if error.beside:
        return False
    if isinstance(error, NetworkError):
        return error.sent
    if not isinstance(error, RegistryError | AuthError):
        return False
    # A redirect has neither taken nor refused it.
    return error.status is None or error.status < _BAD_REQUEST or error.status in _LOST


def _is_of_an_immutable_tag(error: TowlineError) -> bool:
    """Whether the tag may not be moved, so that it may hold the manifest already."""
    if not isinstance(error, RegistryError | AuthError):
        return False
    return error.status in _IMMUTABLE or hints.is_immutable(error.message.lower())
