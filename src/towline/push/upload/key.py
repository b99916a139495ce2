"""What makes two transfers the same one: the project grew from a key that said too little."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from towline.layers.profile import Profile
    from towline.push.image import Blob
    from towline.reference import RepositoryName


def transfer_key(name: RepositoryName, account: str, blob: Blob, profile: Profile) -> Hashable:
    """Registry and full repository name, account, and what fixes the bytes.

    Without the host (it has its port) the same layer to two registries would be one transfer, and
    one of them would lack it; without the bytes, two images' different blobs of one DiffID would
    be. `profile` is how the push compresses, and counts only where the blob is compressed by it:
    what is unpacked is the plain tar that another push may have as it is. How a host is spoken to
    is the same for all pushes of a `Pusher`.
    """
    made_by = () if blob.stored or profile.compression == "none" else (profile.recorded,)
    return (str(name), account, blob.key, *made_by)
