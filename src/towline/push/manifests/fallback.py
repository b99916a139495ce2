"""Puts an image in another format when a registry refuses the type of its manifest.

Tried in order: the other family of formats (docker's or OCI's), then signed schema 1, where that is
allowed. Only where the user named no format, and for one registry alone: with several, one of them
would hold another digest than the others.
"""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Literal

from towline.errors import TowlineError
from towline.knowledge.base import KnowledgeError
from towline.knowledge.open import kept
from towline.push.image import in_memory
from towline.push.manifests import build, put
from towline.push.manifests.build import FORMATS, SCHEMA1, CannotConvert, Documents
from towline.registry.manifests import refuses_type
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import EMPTY_LAYER_DIFF_ID
from towline.spec.manifest import RawManifest
from towline.spec.media_types import Format
from towline.spec.schema1_builder import (
    EMPTY_LAYER,
    EMPTY_LAYER_DIGEST,
    SIGNATURE_SIZE,
    Draft,
    PublicKey,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from towline.errors import RegistryError
    from towline.push.image import Blob
    from towline.push.target import Tag
    from towline.spec.schema1_builder import Unsigned

_SCHEMA1_HINT = "add `allow_schema1=True`, should the registry be so old that it takes nothing else"

KEY_FILE = "schema1-key.pem"
_HALF = SIGNATURE_SIZE // 2


_Form = Format | Literal["schema1"]
_NAMES: dict[_Form, str] = {"oci": FORMATS["oci"], "docker": FORMATS["docker"], "schema1": SCHEMA1}


class Fallback:
    """Another form for the documents of one tag, which one target has refused."""

    def __init__(self, tag: Tag) -> None:
        self._tag = tag
        self._target = tag.target

    def put(
        self, documents: Documents, refusal: RegistryError, send: Callable[[Blob], None]
    ) -> Documents:
        """Convert documents of a refused type and put them, in one form after the other.

        Returns the documents that were taken. `send` uploads a blob that is not in the tree. Raises
        one error, whose message has all refusals.
        """
        if hint := self._never():
            raise _hinted(refusal, hint) from None
        said, hint = [refusal.message], refusal.hint
        last: TowlineError = refusal
        for form in self._forms(documents):
            try:
                converted = self._converted(form, send)
                put.put(self._target, self._tag.reference, converted)
            except CannotConvert as cannot:
                said.append(f"it cannot be converted: {cannot}")
                hint = hint or cannot.hint
            except TowlineError as error:
                last = error
                said.append(f"converted to {_NAMES[form]}: {_said_anew(error, refusal)}")
                if not refuses_type(error):  # another form would meet the same error
                    break
            else:
                answer = " ".join(str(part) for part in (refusal.status, refusal.code) if part)
                self._warn(documents, form, f" ({answer})")
                return converted
        else:
            hint = hint or self._schema1_hint()
        # Of the kind of the last error, or of the first refusal if all are refusals.
        failure = _hinted(refusal if refuses_type(last) else last, hint)
        failure.args = ("; ".join(said),)
        raise failure from None

    def standing(self, documents: Documents, digest: str) -> Documents | None:
        """The converted documents with that digest, if an earlier push has put them; else None."""
        if self._never():
            return None
        for form in self._forms(documents):
            try:
                converted = self._converted(form)
            except CannotConvert:
                continue
            if converted.top.digest == digest:
                self._warn(documents, form)
                return converted
        return None

    def _never(self) -> str | None:
        """A hint where nothing may be converted; None where it may."""
        wish = self._target.wish
        if wish.preserve_digests:
            return "leave out `preserve_digests`: then the manifest may be converted"
        if fmt := wish.format:
            return f"leave out `format='{fmt}'`: then the manifest may be converted"
        if not self._target.alone:
            host = self._target.repository.name.host
            return f"push to {host} by itself: then the manifest may be converted"
        return None

    def _forms(self, documents: Documents) -> list[_Form]:
        """The forms to try, in order."""
        schema1: list[_Form] = ["schema1"] if self._target.wish.allow_schema1 else []
        return [*build.families(documents), *schema1]

    def _converted(self, form: _Form, send: Callable[[Blob], None] | None = None) -> Documents:
        """The documents in another form; without `send`, schema 1 is not signed.

        Raises CannotConvert, and the errors of sending a blob.
        """
        if form != "schema1":
            found = build.to_family(self._tag.tree, self._tag.made, form)
            return found._replace(differs="converted")
        unsigned = self._schema1()
        if send is None:
            # Digest and size are those of the payload, whatever the signature and its time.
            top = RawManifest(unsigned.payload, media_types.SCHEMA1_SIGNED, unsigned.payload)
            return Documents(top, differs="converted")
        # Steps without a layer share one empty blob in schema 1, which the image does not have.
        if unsigned.lists_empty_layer:
            stored = Descriptor(media_types.DOCKER_LAYER_GZIP, EMPTY_LAYER_DIGEST, len(EMPTY_LAYER))
            send(in_memory(EMPTY_LAYER, stored, EMPTY_LAYER_DIFF_ID, is_layer=True))
        environ = self._target.resources.environ
        signed = sign(unsigned.payload, environ, self._target.warn)
        return Documents(signed, differs="converted")

    def _schema1(self) -> Unsigned:
        path, name = self._target.repository.name.path, self._tag.reference.tag
        if name is None:
            raise CannotConvert("signed schema 1 names its tag, and there is none")
        return build.to_schema1(self._tag.tree, self._tag.made, name=path, tag=name)

    def _schema1_hint(self) -> str | None:
        if self._target.wish.allow_schema1:
            return None
        try:
            self._schema1()
        except CannotConvert:
            return None
        return _SCHEMA1_HINT

    def _warn(self, documents: Documents, form: _Form, said: str = "") -> None:
        loss = ""
        if form == "schema1":
            loss = ", which most registries have given up"
        elif build.loses_annotations(self._tag.tree, form):
            loss = " and has no annotations"
        name = self._target.repository.name
        refused: Format = media_types.family(documents.top.media_type)
        message = (
            f"{name.host} refused {FORMATS[refused]}{said}: what is pushed to {name} was "
            f"converted to {_NAMES[form]}{loss}, so its digest is another one"
        )
        if message not in self._target.warnings:
            self._target.warn(message)


def _said_anew(error: TowlineError, refusal: RegistryError) -> str:
    """What an error says without the words that the first refusal has, too."""
    if error.message == refusal.message:
        return "the same"
    about, colon, _ = refusal.message.partition(": ")
    return error.message.removeprefix(about + colon)


def _hinted(error: TowlineError, hint: str | None) -> TowlineError:
    """A copy of the error, with the hint if it has none. Others may hold the error itself."""
    hinted = copy.copy(error)
    hinted.hint = error.hint or hint
    return hinted


# Nobody has to trust the key that signs: registries of that time only check that the signature fits
# the key beside it. It is made once and kept in the user's data folder; where it cannot be kept, a
# key for a single push does as well.


def sign(payload: bytes, environ: Mapping[str, str], warn: Callable[[str], None]) -> RawManifest:
    """The manifest of schema 1 with a signature (libtrust's JWS, with the present time)."""
    from cryptography.hazmat.primitives.asymmetric import utils
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    key = _key(environ, warn)
    numbers = key.public_key().public_numbers()
    draft = Draft(payload, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    signature = utils.decode_dss_signature(key.sign(draft.signed_bytes, ECDSA(SHA256())))
    content = draft.sealed(
        PublicKey(_half(numbers.x), _half(numbers.y)), b"".join(map(_half, signature))
    )
    return RawManifest(content, media_types.SCHEMA1_SIGNED, payload)


def _half(number: int) -> bytes:
    return number.to_bytes(_HALF, "big")


def _key(environ: Mapping[str, str], warn: Callable[[str], None]) -> EllipticCurvePrivateKey:
    """The user's key; one for this push alone where it cannot be kept or read."""
    from cryptography.hazmat.primitives.asymmetric import ec

    fresh = ec.generate_private_key(ec.SECP256R1())
    try:
        return _parsed_key(kept(environ, KEY_FILE, _pem(fresh)))
    except (KnowledgeError, OSError):
        return fresh
    except ValueError as error:
        warn(f"the key in {KEY_FILE} of the user's data folder is of no use: {error}")
        return fresh


def _pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _parsed_key(pem: bytes) -> EllipticCurvePrivateKey:
    """Parse a key. Raises ValueError for anything but one on P-256."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise ValueError("it cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("it is no key on the curve P-256")  # noqa: TRY004 - bad data
    return key
