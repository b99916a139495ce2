"""Tags named after an image: `sha256-HEX` and the like hold its signatures, SBOMs, attestations.

The tag without an ending holds the list of referrers, at registries without the referrers API
(distribution-spec, "Referrers Tag Schema"). cosign's tags have an ending and one manifest each.
"""

from __future__ import annotations

import re

from towline.spec.digest import Digest

_COSIGN = (".sig", ".att", ".sbom")
_NAMED_AFTER = r"(sha256)-([0-9a-f]{64})(?:\.sig|\.att|\.sbom)?"


def tag_of(subject: Digest) -> str:
    """The tag that holds the list of the manifests that refer to `subject`."""
    # Cut as the specification says: a sha512 digest would be longer than a tag may be.
    return f"{subject.algorithm[:32]}-{subject.hex[:64]}"


def is_list(tag: str) -> bool:
    """Whether a tag is one that holds a list of referrers."""
    subject = subject_of(tag)
    return subject is not None and tag_of(subject) == tag


def cosign_tags(subject: Digest) -> tuple[str, ...]:
    """The tags under which cosign puts signatures, attestations and SBOMs of `subject`."""
    return tuple(f"{tag_of(subject)}{ending}" for ending in _COSIGN)


def subject_of(tag: str) -> Digest | None:
    """The digest that a tag is named after; None for any other tag."""
    match = re.fullmatch(_NAMED_AFTER, tag)
    return Digest(f"{match[1]}:{match[2]}") if match else None
