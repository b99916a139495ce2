from __future__ import annotations

import pytest

from towline.registry.capabilities import HostFacts, MiB
from towline.registry.upload.strategy import Expected, choose
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

SMALL = Expected(Descriptor(media_types.OCI_LAYER, Digest.of(b""), 8 * MiB), 0)
LARGE = Expected(Descriptor(media_types.OCI_LAYER, Digest.of(b""), 300 * MiB), 0)
STREAMED = Expected(None, 8 * MiB)
LARGE_STREAMED = Expected(None, 300 * MiB)
NO_PATCH = HostFacts(patch_refused=True)
NO_PUT = HostFacts(put_refused=True)
NO_CHUNKS = HostFacts(chunks_refused=True)
LENGTH = HostFacts(length_wanted=True)
LENGTH_BUT_NO_CHUNKS = HostFacts(length_wanted=True, chunks_refused=True)
LIMITED = HostFacts(body_max=4 * MiB)
SURVIVING = HostFacts(chunks_survive=True)
LOSING_BODIES = HostFacts(bodies_survive=False)
LOSING_ALL = HostFacts(bodies_survive=False, chunks_survive=False)
MEDIUM = SMALL._replace(known=Descriptor(media_types.OCI_LAYER, Digest.of(b""), 17 * MiB))


@pytest.mark.parametrize(
    ("facts", "blob", "start", "chunk_size", "shape"),
    [
        (HostFacts(), SMALL, 0, None, "put"),
        (HostFacts(), LARGE, 0, None, "put"),
        (HostFacts(), STREAMED, 0, None, "patch"),
        (NO_PUT, SMALL, 0, None, "patch"),
        (NO_PATCH, SMALL, 0, None, "put"),
        (NO_PATCH, SMALL, 0, MiB, "put"),
        (NO_PATCH, STREAMED, 0, None, "held"),
        (NO_PATCH, STREAMED, 0, MiB, "held"),
        (LENGTH, SMALL, 0, None, "put"),
        (LENGTH, STREAMED, 0, None, "chunk"),
        (LENGTH_BUT_NO_CHUNKS, STREAMED, 0, None, "held"),
    ],
)
def test_a_blob_goes_in_one_body_wherever_that_is_taken(
    facts: HostFacts, blob: Expected, start: int, chunk_size: int | None, shape: str
) -> None:
    assert choose(facts, blob, start, chunk_size) == shape


@pytest.mark.parametrize(
    ("facts", "blob", "start", "chunk_size", "shape"),
    [
        (HostFacts(), SMALL, 0, 4 * MiB, "chunk"),
        (HostFacts(), SMALL, 0, 8 * MiB, "put"),
        (HostFacts(), STREAMED, 0, 8 * MiB, "chunk"),
        (NO_CHUNKS, STREAMED, 0, 8 * MiB, "patch"),
        (NO_CHUNKS, SMALL, 0, 4 * MiB, "put"),
        (LIMITED, SMALL, 0, None, "chunk"),
        (LIMITED, STREAMED, 0, None, "chunk"),
        (HostFacts(body_max=8 * MiB), SMALL, 0, None, "put"),
        (HostFacts(body_max=4 * MiB, chunks_refused=True), SMALL, 0, None, "chunk"),
    ],
)
def test_a_limit_that_is_known_or_wished_for_is_kept_by_chunks(
    facts: HostFacts, blob: Expected, start: int, chunk_size: int | None, shape: str
) -> None:
    assert choose(facts, blob, start, chunk_size) == shape


@pytest.mark.parametrize(
    ("facts", "blob", "shape"),
    [
        (SURVIVING, LARGE, "chunk"),
        (SURVIVING, LARGE_STREAMED, "chunk"),
        (SURVIVING, SMALL, "put"),
        (SURVIVING, STREAMED, "patch"),
        (SURVIVING, MEDIUM, "put"),
        (LOSING_BODIES, MEDIUM, "chunk"),
        (LOSING_BODIES, SMALL, "put"),
        (HostFacts(bodies_survive=False, chunks_survive=True), MEDIUM, "chunk"),
        (LOSING_ALL, LARGE, "put"),
        (HostFacts(bodies_survive=False, chunks_refused=True), LARGE, "put"),
    ],
)
def test_a_large_blob_goes_in_chunks_where_they_are_known_to_survive_a_cut(
    facts: HostFacts, blob: Expected, shape: str
) -> None:
    assert choose(facts, blob, 0, None) == shape


@pytest.mark.parametrize(
    ("facts", "blob", "chunk_size", "shape"),
    [
        (HostFacts(), SMALL, None, "patch"),
        (HostFacts(), STREAMED, None, "chunk"),
        (LIMITED, SMALL, None, "patch"),
        (HostFacts(), SMALL, 2 * MiB, "chunk"),
    ],
)
def test_what_goes_on_after_a_cut_goes_by_patch_and_says_how_much_it_is(
    facts: HostFacts, blob: Expected, chunk_size: int | None, shape: str
) -> None:
    assert choose(facts, blob, 5 * MiB, chunk_size) == shape
