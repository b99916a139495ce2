"""Manifests at a registry (distribution-spec, end-3 and end-7): looked at, got, and put in place.

What the answers leave open is settled by looking: bytes that do not agree with the digest that is
said of them, a PUT whose answer is lost (the manifest may be in place), one that names no digest,
or another one (it may not be, or not as it was sent).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import AuthError, NetworkError, RegistryError, TowlineError
from towline.registry import errors
from towline.registry.call import Call, Unclear, says_nothing
from towline.spec import distribution, media_types, reading
from towline.spec.descriptor import Descriptor
from towline.spec.manifest import MAX_SIZE

if TYPE_CHECKING:
    from towline.reference import RepositoryName
    from towline.registry.transport import Conversation
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest
    from towline.wire.message import Response

# Distribution 2.8 answers 404 of an OCI manifest to `*/*`: the exact types are listed.
ACCEPT_MANIFESTS = ("Accept", ", ".join(media_types.MANIFESTS))
MANIFEST_READ_MAX = 4 * MAX_SIZE
"""Bytes of a manifest that are read; some registries take more than all must."""
_LOST = frozenset({408, 499, *range(500, 600)})
"""Refusals by somebody who may have passed the request on, or have carried it out."""
_MISTAKES = frozenset({distribution.DIGEST_INVALID, distribution.MANIFEST_INVALID})
_ABSENT = ""
"""Stands where a digest would: nothing is there."""
_TYPE_CODES = frozenset(
    {
        None,
        distribution.UNSUPPORTED,
        distribution.MANIFEST_INVALID,
        distribution.MANIFEST_UNKNOWN,
        distribution.TAG_INVALID,
        distribution.UNKNOWN,
    }
)
_BLOBS_UNKNOWN = frozenset({distribution.MANIFEST_BLOB_UNKNOWN, distribution.BLOB_UNKNOWN})
_LACKING = r"unknown blob|blob unknown|blob .*(?:not found|does not exist)"


class Put(NamedTuple):
    """A manifest was taken."""

    status: int
    digest: Digest | None
    """As the registry says, if it says anything."""


class Got(NamedTuple):
    """A manifest, and what came with it."""

    manifest: RawManifest
    named: Digest | None
    """Its digest, as the registry says, if it says anything."""
    etag: str | None
    """To change it by."""


def place(name: RepositoryName, target: str) -> str:
    """A tag or digest of that repository, as references have it."""
    return f"{name}@{target}" if ":" in target else f"{name}:{target}"


def put_manifest(
    name: RepositoryName, target: str, manifest: RawManifest, *, if_match: str | None = None
) -> Call[Put]:
    """end-7; with `if_match` only in the place of what has that `ETag`."""
    action = f"put the manifest of {place(name, target)}"

    def read(response: Response) -> Put:
        errors.check_success(response, action)
        return Put(response.status, errors.named(response))

    path = distribution.manifest_path(name.path, target)
    match = (("If-Match", if_match),) if if_match else ()
    headers = (("Content-Type", manifest.media_type), *match)
    return Call("PUT", path, action, read, headers, manifest.content)


def head_manifest(name: RepositoryName, target: str) -> Call[Descriptor | Unclear | None]:
    """end-3 by HEAD. None: there is none."""
    action = f"look at {place(name, target)}"

    def read(response: Response) -> Descriptor | Unclear | None:
        if response.status == 404:
            return None
        if says_nothing(response):
            return Unclear(response.status)
        if not response.ok:
            raise errors.refusal(response, action)
        digest = errors.named(response)
        size = response.headers.number("Content-Length")
        # ECR names no digest, Cloud Run no length.
        if digest is None or not size or errors.is_page(response):
            return Unclear(response.status)
        return Descriptor(response.media_type, digest, size)

    path = distribution.manifest_path(name.path, target)
    return Call("HEAD", path, action, read, (ACCEPT_MANIFESTS,), follow=True)


def get_manifest(name: RepositoryName, target: str, *, checked: bool = True) -> Call[Got | None]:
    """end-3. None: there is none. What has another digest than was asked for is refused.

    Unless `checked` is False: it is asked what lies there, whatever it is.
    """
    from towline.spec import schema1

    action = f"get {place(name, target)}"

    def read(response: Response) -> Got | None:
        if response.status == 404:
            return None
        errors.check_success(response, action)
        if response.truncated:
            raise RegistryError(f"cannot {action}: it is larger than {MANIFEST_READ_MAX} bytes")
        manifest = schema1.raw(response.body, _media_type(response))
        if checked and target.startswith("sha256:") and manifest.digest != target:
            raise RegistryError(
                f"cannot {action}: what came has the digest {manifest.digest}", transient=True
            )
        return Got(manifest, errors.named(response), response.headers.get("ETag"))

    path = distribution.manifest_path(name.path, target)
    return Call(
        "GET", path, action, read, (ACCEPT_MANIFESTS,), limit=MANIFEST_READ_MAX, follow=True
    )


def _media_type(response: Response) -> str:
    """The document's own type counts: proxies rewrite the header."""
    try:
        document = reading.document(response.body)
    except ValueError:
        return response.media_type
    own = document.get("mediaType") if isinstance(document, dict) else None
    return own if isinstance(own, str) and own else response.media_type


def lacks_blobs(error: Exception) -> bool:
    """Whether a manifest was refused because blobs that it lists are missing."""
    if not isinstance(error, RegistryError):
        return False
    said = re.search(_LACKING, error.message.lower())
    return error.code in _BLOBS_UNKNOWN or (
        error.code == distribution.MANIFEST_INVALID and said is not None
    )


def refuses_type(error: Exception) -> bool:
    """Whether a manifest may have been refused for its type (OCI, schema 2)."""
    # ECR says 405 `UNSUPPORTED`, Quay and zot 415, Gitea 501, distribution 2.0 400 `TAG_INVALID`,
    # proxies 404, many 400 `MANIFEST_INVALID`.
    return (
        isinstance(error, RegistryError)
        and error.status in {400, 404, 405, 415, 501}
        and error.code in _TYPE_CODES
        and not lacks_blobs(error)
        and not errors.is_immutable(error.message.lower())
    )


def look_at(talk: Conversation, target: str) -> Descriptor | Unclear | None:
    """HEAD a tag or digest: what is there, None if nothing is, Unclear if the answer does not say.

    Hosts that do not answer HEAD for manifests are not asked again. Raises AuthError,
    RegistryError, NetworkError.
    """
    if talk.facts.head_refused:
        return Unclear(501)
    found = talk.call(head_manifest(talk.name, target))
    if isinstance(found, Unclear):
        talk.facts.head_refused = found.status in {400, 405, 501}
    return found


def get(talk: Conversation, target: str) -> Got | None:
    """GET a tag or digest; None: there is nothing.

    Where the bytes contradict the digest header they are taken only if the registry has them under
    their own digest: else they were altered on the way. Raises AuthError, RegistryError,
    NetworkError.
    """
    found = talk.call(get_manifest(talk.name, target))
    if found is None or ":" in target or _agrees(found.manifest, found.named):
        return found
    digest = found.manifest.digest
    try:
        there = talk.call(get_manifest(talk.name, digest))
    except (AuthError, RegistryError):
        there = None
    if there is None:
        raise RegistryError(
            f"what came for {talk.name}:{target} has the digest {digest}, but {talk.name.host} "
            f"names {found.named}",
            transient=True,
            hint="check what lies between here and the registry: it changes what is sent",
        )
    return found


def _agrees(manifest: RawManifest, named: Digest | None) -> bool:
    if named is None or named.algorithm != manifest.digest.algorithm or named == manifest.digest:
        return True
    # One of schema 1 is not known by its type where something on the way has changed that.
    from towline.spec import schema1

    return schema1.raw(manifest.content, media_types.SCHEMA1_SIGNED).digest == named


class Putting:
    """One attempt to put a manifest under a tag or its digest."""

    def __init__(
        self, talk: Conversation, target: str, manifest: RawManifest, damaged: dict[str, str]
    ) -> None:
        """`damaged`: by tag, the digest of what a damaged PUT has left there; to be added to."""
        self._talk = talk
        self._target = target
        self._manifest = manifest
        self._damaged = damaged
        self._aftermath: str | None = None
        self._is_tag = ":" not in target
        self._where = place(talk.name, target)

    def carry_out(self) -> None:
        """Put it, and settle by looking what the answer leaves open.

        Raises AuthError, RegistryError, NetworkError, with their `aftermath`.
        """
        put = self._put(put_manifest(self._talk.name, self._target, self._manifest))
        digest = self._manifest.digest
        if put is None or put.digest == digest:
            return
        found = self._standing()
        if found is None and put.digest is None and put.status == 201:
            return  # many name no digest, and some show manifests only to those who may pull
        if found != digest and (given := self._given()) is not None:
            found = given  # whatever digest is said to be theirs, the bytes decide
        if found != digest:
            raise self._altered(put, found)

    def _put(self, call: Call[Put]) -> Put | None:
        """Send it; None: the answer was no success, but the manifest is in place."""
        try:
            return self._talk.call(call)
        except TowlineError as error:
            if self._is_settled(error):
                return None
            if isinstance(error, NetworkError) and error.stale and not call.fresh:
                # It went into a connection that nobody held any more: that was no attempt.
                return self._put(call._replace(fresh=True))
            mistaken, digest = self._talk.mistaken, self._manifest.digest
            refused = error if isinstance(error, RegistryError) and error.status != 415 else None
            if refused and refused.code in _MISTAKES and not lacks_blobs(refused):
                # It may have been altered on the way: try again, once.
                error.transient = error.transient or digest not in mistaken
                mistaken.add(digest)
            error.aftermath = self._aftermath
            raise

    def _is_settled(self, error: TowlineError) -> bool:
        """Whether the manifest is in place although the PUT failed; if not, notes the aftermath."""
        # Harbor says 412 of a tag that may not be moved, Quay 409, ECR 400 `TAG_INVALID` and
        # "immutable" in its words: it may hold the manifest already.
        immutable = isinstance(error, RegistryError | AuthError) and (
            error.status in {409, 412} or errors.is_immutable(error.message.lower())
        )
        lost = _is_lost(error)
        if not lost and not immutable:
            return False
        found = self._standing()
        if found is not None:
            damaged = found == self._damaged.get(self._target)
            self._aftermath = self._left(found) if damaged else ""
        elif lost and self._is_tag:
            self._aftermath = f"{self._where} may have been written {self._how_to_look}"
        return found == self._manifest.digest

    def _standing(self) -> str | None:
        """The digest of what is there now, or `_ABSENT`; None: it cannot be told."""
        try:
            found = look_at(self._talk, self._target)
        except NetworkError:
            return None
        except TowlineError:
            return self._given()
        if isinstance(found, Unclear):
            return self._given()
        return found.digest if found else _ABSENT

    def _given(self) -> str | None:
        """The same, by the bytes that are there."""
        try:
            found = self._talk.call(get_manifest(self._talk.name, self._target, checked=False))
        except TowlineError:
            return None
        return found.manifest.digest if found else _ABSENT

    @property
    def _how_to_look(self) -> str:
        return f"(`towline digest {self._where}` shows what it holds)"

    def _altered(self, put: Put, found: str | None) -> RegistryError:
        """The error for a PUT that was taken, after which something else, or nothing, is there."""
        names, hint = "names no digest", "ask whoever runs the registry why it said yes to it"
        if put.digest:
            names = f"names {put.digest}"
            hint = "check what lies between here and the registry: it changes what is sent"
        left = self._left(found)
        error = RegistryError(
            f"the manifest of {self._where} was sent as {self._manifest.digest}, but "
            f"{self._talk.name.host} {names}; {left}",
            status=put.status,
            transient=True,
            hint=hint,
        )
        error.aftermath = left if found != _ABSENT and self._is_tag else ""
        if found and self._is_tag:
            self._damaged[self._target] = found
        return error

    def _left(self, found: str | None) -> str:
        if found is None:
            return f"{self._where} may hold something else now {self._how_to_look}"
        if found == _ABSENT:
            return f"nothing is at {self._where}"
        return f"{self._where} now holds {found}, which is not what was pushed"


def _is_lost(error: TowlineError) -> bool:
    """Whether the error leaves open that the manifest was stored."""
    if isinstance(error, NetworkError):
        return error.sent and not error.beside
    if error.beside or not isinstance(error, RegistryError | AuthError):
        return False
    # Harbor stores the manifest before its own records: a 500 may leave it in place. A redirect
    # has neither taken nor refused it.
    return error.status is None or error.status < 400 or error.status in _LOST
