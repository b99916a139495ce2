"""A proxy before a real registry that refuses manifests of some types."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.support.forwarding import forwarded
from tests.support.scripted import Asked, Reply, Scripted, complaint, running
from towline.spec import media_types

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

OCI = frozenset({media_types.OCI_MANIFEST, media_types.OCI_INDEX})
DOCKER = frozenset({media_types.DOCKER_MANIFEST, media_types.DOCKER_LIST})
REFUSAL = complaint(415, "MANIFEST_INVALID", "manifest invalid")


def refuse(registry: Scripted, types: Collection[str], refusal: Reply = REFUSAL) -> None:
    """Have it answer so to every manifest of these types."""

    def answer(asked: Asked) -> Reply | None:
        return refusal if asked.header("Content-Type") in types else None

    registry.on("PUT", r"/manifests/", answer, forever=True)


class Choosy(Scripted):
    """What no rule is for goes to the registry `behind`."""

    behind = ""

    def sound(self, asked: Asked) -> Reply:
        status, fields, body = forwarded(
            self.behind, asked.method, asked.target, asked.headers, asked.body
        )
        return Reply(status, tuple(fields), body)


@contextlib.contextmanager
def before(host: str, types: Collection[str], refusal: Reply = REFUSAL) -> Iterator[Choosy]:
    """Run one before the registry at `host`."""
    with running(Choosy) as proxy:
        proxy.behind = host
        refuse(proxy, types, refusal)
        yield proxy
