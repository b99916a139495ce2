"""The key of a transfer: where the bytes go, as whom, and which bytes, each by itself enough.

That two images come out whole is no proof of it: other checks heal a key that says too little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from towline.layers import profile as profiles
from towline.push.image import Blob
from towline.push.upload.target_blobs import transfer_key
from towline.reference import RepositoryName
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Hashable

DIFF_ID = Digest("sha256:" + "d" * 64)


def layer(stored: str = "", diff_id: Digest = DIFF_ID) -> Blob:
    """A layer that goes as it lies in the source, under that digest, or one to be compressed."""
    digest = Digest("sha256:" + stored * 64) if stored else None
    found = Descriptor(media_types.OCI_LAYER_GZIP, digest, 9) if digest else None
    return Blob(diff_id, found, 9, lambda: pytest.fail("a key opens nothing"), is_layer=True)


def key(
    host: str = "reg.example:5000",
    path: str = "team/app",
    account: str = "me",
    blob: Blob | None = None,
    profile: str = "gzip",
) -> Hashable:
    name = RepositoryName(host, path)
    return transfer_key(name, account, blob or layer(), profiles.parse(profile))


def test_the_same_to_the_same_place_is_one_transfer_whichever_push_asks() -> None:
    assert key() == key()
    assert key(blob=layer("a")) == key(blob=layer("a"))
    assert len({key(), key(), key(blob=layer("a")), key(blob=layer("a"))}) == 2


@pytest.mark.parametrize("blob", [layer(), layer("a")], ids=["compressed", "as it is"])
def test_another_place_or_account_is_another_transfer(blob: Blob) -> None:
    keys = [
        key(blob=blob),
        key("other.example:5000", blob=blob),
        key("reg.example:5001", blob=blob),
        key("reg.example", blob=blob),
        key(path="team/other", blob=blob),
        key(account="", blob=blob),
        key(account="another", blob=blob),
    ]
    assert len(set(keys)) == len(keys)


def test_two_blobs_of_one_diff_id_are_two_transfers() -> None:
    keys = [key(blob=layer("a")), key(blob=layer("b")), key(blob=layer())]
    assert len(set(keys)) == 3


def test_each_way_to_compress_a_layer_is_a_transfer_of_its_own() -> None:
    profiles_there = ("gzip", "zstd", "zstd:4")
    assert len({key(profile=profile) for profile in profiles_there}) == 3


def test_two_layers_to_be_compressed_are_two_transfers() -> None:
    assert key() != key(blob=layer(diff_id=Digest("sha256:" + "e" * 64)))


def test_how_others_are_compressed_says_nothing_of_a_blob_that_goes_as_it_is() -> None:
    assert key(blob=layer("a"), profile="gzip") == key(blob=layer("a"), profile="zstd")


def test_a_layer_that_is_unpacked_and_its_plain_tar_are_one_transfer() -> None:
    assert key(profile="none") == key(blob=layer("d"), profile="none")
