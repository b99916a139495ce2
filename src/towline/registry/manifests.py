"""Manifests at a registry (distribution-spec, end-3 and end-7): look at, get and put them.

What an answer leaves open is settled by a second look: whether bytes that contradict their digest
are good, and what is under a tag after a PUT whose answer was lost, or names no digest or another
one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import AuthError, NetworkError, RegistryError, TowlineError
from towline.registry import errors
from towline.registry.access import Access
from towline.registry.transport import Call
from towline.spec import distribution, media_types, reading
from towline.spec.descriptor import Descriptor
from towline.spec.manifest import MAX_SIZE, RawManifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.context import Context
    from towline.reference import RepositoryName
    from towline.spec.digest import Digest
    from towline.wire.message import Response

# Distribution 2.8 answers 404 of an OCI manifest to `*/*`: the exact types are listed.
ACCEPT_MANIFESTS = ("Accept", ", ".join(media_types.MANIFESTS))
MANIFEST_READ_MAX = 4 * MAX_SIZE
"""Bytes of a manifest that are read; some registries take more than all must."""
_LOST = frozenset({408, 499, *range(500, 600)})
"""Refusals by somebody who may have passed the request on, or have carried it out."""
_MISTAKES = frozenset({distribution.DIGEST_INVALID, distribution.MANIFEST_INVALID})
"""Codes for bytes that are not what they say; something on the way may have altered them."""
_ABSENT = ""
"""Stands in the place of a digest: nothing is under the tag."""
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
"""Codes with which registries refuse a type; None: no code came."""
_BLOBS_UNKNOWN = frozenset({distribution.MANIFEST_BLOB_UNKNOWN, distribution.BLOB_UNKNOWN})
_LACKING = r"unknown blob|blob unknown|blob .*(?:not found|does not exist)"


class Unclear(NamedTuple):
    """The answer does not say; ask in another way."""

    status: int


class Got(NamedTuple):
    """A manifest, and what came with it."""

    manifest: RawManifest
    named: Digest | None
    """Its digest, as the registry says, if it says anything."""
    etag: str | None
    """For the `If-Match` of a PUT that replaces exactly this."""


def place(name: RepositoryName, target: str) -> str:
    """A tag or digest of that repository, as references have it."""
    return f"{name}@{target}" if ":" in target else f"{name}:{target}"


class Manifests(Access):
    """What a repository does with manifests."""

    def head_manifest(self, target: str, context: Context) -> Descriptor | None:
        """What lies under a tag or digest; None: nothing."""
        found = self.look_at(target, context)
        if not isinstance(found, Unclear):
            return found
        if found.status == 403 and self.side == "destination":
            return None  # Artifactory says so of a tag that is not there
        manifest = self.get_manifest(target, context)
        return manifest.descriptor() if manifest else None

    def get_manifest(self, target: str, context: Context) -> RawManifest | None:
        """A manifest or index whose bytes agree with its digest; None: there is none."""
        found = self.get(target, context)
        return found.manifest if found else None

    def put_manifest(self, target: str, manifest: RawManifest, context: Context) -> None:
        """Put a manifest under a tag or its digest (distribution-spec, end-7).

        Where the answer is lost, or names no digest or another one, the tag is looked at. An
        error's `aftermath` says what was left under the tag.
        """
        _Putting(self, context, target, manifest).carry_out()

    def put_tags(
        self, manifest: RawManifest, tags: Sequence[str], context: Context
    ) -> frozenset[str]:
        """Put a manifest under several tags by one request (end-7b); the tags said to be set."""
        action = f"put the manifest of {self.name} under {len(tags)} tags"
        query = "&".join(f"tag={tag}" for tag in tags)
        path = f"{distribution.manifest_path(self.name.path, manifest.digest)}?{query}"
        headers = (("Content-Type", manifest.media_type),)
        facts = self.facts
        facts.tried.add("tags_together")
        try:
            call = Call("PUT", path, action, headers, manifest.content)
            with self.answer(call, context) as response:
                errors.check_success(response, action)
                # In one header or in several: zot and olareg send one for each tag.
                said = ",".join(response.headers.all(distribution.OCI_TAG)).split(",")
                other = errors.named_instead(response, manifest.digest)
        except RegistryError as error:
            # Who has taken some before has other reasons.
            if facts.tags_together is None and not error.transient:
                facts.tags_together = False
            raise
        named = () if other else (tag.strip() for tag in said)
        found = frozenset(tags).intersection(named)
        facts.tags_together = bool(found)
        return found

    def look_at(self, target: str, context: Context) -> Descriptor | Unclear | None:
        """HEAD a tag or digest (end-3). None: nothing is there; Unclear: it is not said."""
        if self.facts.head_refused:  # it does not answer HEAD for manifests: not asked again
            return Unclear(501)
        action = f"look at {place(self.name, target)}"
        path = distribution.manifest_path(self.name.path, target)
        call = Call("HEAD", path, action, (ACCEPT_MANIFESTS,), follow=True)
        with self.answer(call, context) as response:
            if response.status == 404:
                return None
            if errors.says_nothing(response):
                self.facts.head_refused = response.status in {400, 405, 501}
                return Unclear(response.status)
            if not response.ok:
                raise errors.refusal(response, action)
            digest = errors.named(response)
            size = response.headers.number("Content-Length")
            # ECR names no digest, Cloud Run no length.
            if digest is None or not size or errors.is_page(response):
                return Unclear(response.status)
            return Descriptor(response.media_type, digest, size)

    def get(self, target: str, context: Context) -> Got | None:
        """GET a tag or digest. None: nothing is there.

        Raises AuthError, NetworkError, and RegistryError also for bytes that were altered.
        """
        found = self.ask_for_manifest(target, context)
        if found is None or ":" in target or _agrees(found.manifest, found.named):
            return found
        # Bytes and header disagree. Does the registry have the bytes under their own digest? Then
        # the header is wrong, else the bytes were altered.
        digest = found.manifest.digest
        try:
            there = self.ask_for_manifest(digest, context)
        except (AuthError, RegistryError):
            there = None
        if there is None:
            raise RegistryError(
                f"what came for {self.name}:{target} has the digest {digest}, but {self.name.host} "
                f"names {found.named}",
                transient=True,
                side=self.side,
                hint=errors.ALTERED,
            )
        return found

    def ask_for_manifest(
        self, target: str, context: Context, *, checked: bool = True
    ) -> Got | None:
        """end-3. None: there is none.

        Refuses bytes with another digest than was asked for, unless `checked` is False: then the
        caller wants to know what is there, whatever it is.
        """
        from towline.spec import schema1

        action = f"get {place(self.name, target)}"
        path = distribution.manifest_path(self.name.path, target)
        headers = (ACCEPT_MANIFESTS,)
        call = Call("GET", path, action, headers, limit=MANIFEST_READ_MAX, follow=True)
        with self.answer(call, context) as response:
            if response.status == 404:
                return None
            errors.check_success(response, action)
            if response.truncated:
                raise RegistryError(f"cannot {action}: it is larger than {MANIFEST_READ_MAX} bytes")
            # The document's own type counts before the header: proxies rewrite that.
            own = reading.mapping(response.body).get("mediaType")
            media_type = own if isinstance(own, str) and own else response.media_type
            manifest = schema1.raw(response.body, media_type)
            if checked and target.startswith("sha256:") and manifest.digest != target:
                raise RegistryError(
                    f"cannot {action}: what came has the digest {manifest.digest}", transient=True
                )
            return Got(manifest, errors.named(response), response.headers.get("ETag"))

    def send_manifest(
        self,
        target: str,
        manifest: RawManifest,
        context: Context,
        *,
        if_match: str | None = None,
        fresh: bool = False,
    ) -> Response:
        """end-7. With `if_match` the registry replaces only what has that `ETag`."""
        action = f"put the manifest of {place(self.name, target)}"
        path = distribution.manifest_path(self.name.path, target)
        match = (("If-Match", if_match),) if if_match else ()
        # The type exactly as the document has it, without parameters.
        headers = (("Content-Type", manifest.media_type), *match)
        call = Call("PUT", path, action, headers, manifest.content, fresh=fresh)
        with self.answer(call, context) as response:
            errors.check_success(response, action)
            return response


def _agrees(manifest: RawManifest, named: Digest | None) -> bool:
    if named is None or named.algorithm != manifest.digest.algorithm or named == manifest.digest:
        return True
    # A signed schema 1 has the digest of its payload, and its type may have been lost on the way.
    from towline.spec import schema1

    return schema1.raw(manifest.content, media_types.SCHEMA1_SIGNED).digest == named


class _Putting:
    """One attempt to put a manifest under a tag or its digest."""

    def __init__(
        self, repository: Manifests, context: Context, target: str, manifest: RawManifest
    ) -> None:
        self._repository = repository
        self._context = context
        self._target = target
        self._manifest = manifest
        self._aftermath: str | None = None
        self._is_tag = ":" not in target
        self._where = place(repository.name, target)
        self._how_to_look = f"(`towline digest {self._where}` shows what it holds)"

    def carry_out(self) -> None:
        """Put the manifest, and look at the tag where the answer leaves something open.

        An error's `aftermath` says what was left under the tag.
        """
        answer = self._put()
        digest = self._manifest.digest
        if answer is None or errors.named(answer) == digest:
            return
        found = self._standing()
        if found is None and errors.named(answer) is None and answer.status == 201:
            # ECR and many others name no digest, and some show manifests only to those who may
            # pull: believed.
            return
        if found != digest and (given := self._given()) is not None:
            found = given  # a HEAD may lag behind or name a wrong digest: the bytes decide
        if found != digest:
            raise self._altered(answer, found)

    def _put(self, *, fresh: bool = False) -> Response | None:
        """Send the manifest. None: the answer was no success, but the manifest is in place."""
        try:
            return self._repository.send_manifest(
                self._target, self._manifest, self._context, fresh=fresh
            )
        except TowlineError as error:
            if self._is_settled(error):
                return None
            if isinstance(error, NetworkError) and error.stale and not fresh:
                # The registry had closed the kept connection, and the tag shows that nothing
                # came of it: that was no attempt.
                return self._put(fresh=True)
            # A 415 is about the type, though zot and Quay say MANIFEST_INVALID with it.
            refused = error if isinstance(error, RegistryError) and error.status != 415 else None
            if refused and refused.code in _MISTAKES and not lacks_blobs(refused):
                # It may have been altered on the way: try again, once.
                error.transient |= self._repository.is_first_mistake(self._manifest.digest)
            error.aftermath = self._aftermath
            raise

    def _is_settled(self, error: TowlineError) -> bool:
        """Whether the manifest is in place although the PUT failed; if not, notes the aftermath."""
        # Harbor says 412 of a tag that may not be moved, Quay 409, ECR 400 `TAG_INVALID` and
        # "immutable" in its words: it may hold the manifest already.
        immutable = isinstance(error, RegistryError | AuthError) and (
            error.status in {409, 412} or errors.is_immutable(error.message.lower())
        )
        lost = is_lost(error)
        if not lost and not immutable:
            return False
        found = self._standing()
        if found is not None:
            damaged = found == self._repository.damaged.get(self._target)
            self._aftermath = self._left(found) if damaged else ""
        elif lost and self._is_tag:
            self._aftermath = f"{self._where} may have been written {self._how_to_look}"
        return found == self._manifest.digest

    def _standing(self) -> str | None:
        """The digest of what is there now, or `_ABSENT`; None: it cannot be told."""
        try:
            found = self._repository.look_at(self._target, self._context)
        except NetworkError:
            return None
        except TowlineError:
            return self._given()
        if isinstance(found, Unclear):
            return self._given()
        return found.digest if found else _ABSENT

    def _given(self) -> str | None:
        """The same as `_standing`, by the bytes that are there."""
        try:
            found = self._repository.ask_for_manifest(self._target, self._context, checked=False)
        except TowlineError:
            return None
        return found.manifest.digest if found else _ABSENT

    def _altered(self, answer: Response, found: str | None) -> RegistryError:
        """The error for a PUT that was taken, after which something else, or nothing, is there."""
        names, hint = "names no digest", "ask whoever runs the registry why it said yes to it"
        if named := errors.named(answer):
            names, hint = f"names {named}", errors.ALTERED
        left = self._left(found)
        error = RegistryError(
            f"the manifest of {self._where} was sent as {self._manifest.digest}, but "
            f"{self._repository.name.host} {names}; {left}",
            status=answer.status,
            transient=True,
            side=self._repository.side,
            hint=hint,
        )
        error.aftermath = left if found != _ABSENT and self._is_tag else ""
        if found and self._is_tag:
            self._repository.damaged[self._target] = found
        return error

    def _left(self, found: str | None) -> str:
        if found is None:
            return f"{self._where} may hold something else now {self._how_to_look}"
        if found == _ABSENT:
            return f"nothing is at {self._where}"
        return f"{self._where} now holds {found}, which is not what was pushed"


def lacks_blobs(error: Exception) -> bool:
    """Whether a manifest was refused because blobs that it lists are missing."""
    if not isinstance(error, RegistryError):
        return False
    # Some say MANIFEST_INVALID, and only their words speak of a blob.
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


def is_lost(error: TowlineError) -> bool:
    """Whether the manifest may have been stored in spite of the error."""
    # `beside`: the request for a token failed, and the manifest was never sent.
    if isinstance(error, NetworkError):
        return error.sent and not error.beside
    if error.beside or not isinstance(error, RegistryError | AuthError):
        return False
    # Harbor stores the manifest before its own records: a 500 may leave it in place. A redirect
    # has neither taken nor refused it.
    return error.status is None or error.status < 400 or error.status in _LOST
