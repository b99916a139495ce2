"""The key that makes two transfers one. This project grew from a key that said too little."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from towline.layers.profile import Profile
    from towline.push.image import Blob
    from towline.reference import RepositoryName


def transfer_key(name: RepositoryName, account: str, blob: Blob, profile: Profile) -> Hashable:
    """The key of a blob's transfer: registry and repository, account, and what fixes the bytes."""
    # Without the host and its port, the same layer to two registries would be one transfer, and
    # one registry would lack it. Without what fixes the bytes, different blobs of one DiffID in
    # two images would be one. The profile counts only where it compresses the blob: a layer that
    # is unpacked is the plain tar that another push may have as it is. The scheme is not in it:
    # all pushes of a `Pusher` speak to a host in the same way.
    made_by = () if blob.stored or profile.compression == "none" else (profile.recorded,)
    return (str(name), account, blob.key, *made_by)
