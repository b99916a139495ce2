"""Tags named after a manifest, under which lies what refers to it: signatures, SBOMs, attestations.

One holds a list where a registry has none of its own (distribution-spec, "Referrers Tag Schema");
cosign has others, with one manifest each.
"""

from __future__ import annotations

import re

from towline.spec.digest import Digest

_COSIGN = (".sig", ".att", ".sbom")
_NAMED_AFTER = r"(sha256)-([0-9a-f]{64})(?:\.sig|\.att|\.sbom)?"


def tag_of(subject: Digest) -> str:
    """The tag that holds the list."""
    return f"{subject.algorithm[:32]}-{subject.hex[:64]}"


def is_list(tag: str) -> bool:
    """Whether a tag is one that holds such a list."""
    subject = subject_of(tag)
    return subject is not None and tag_of(subject) == tag


def cosign_tags(subject: Digest) -> tuple[str, ...]:
    """Where cosign puts what it makes."""
    return tuple(f"{tag_of(subject)}{ending}" for ending in _COSIGN)


def subject_of(tag: str) -> Digest | None:
    """What a tag is named after; None for those of images."""
    match = re.fullmatch(_NAMED_AFTER, tag)
    return Digest(f"{match[1]}:{match[2]}") if match else None
