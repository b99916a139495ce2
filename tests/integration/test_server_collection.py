"""What the embedded registry throws away, what it never does, and the index that it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.raw_client import RawClient, image, sha256
from towline.errors import TowlineError
from towline.server import Limits, Server
from towline.server.gc import collect_once
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

YESTERDAY = 24 * 3600.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def client(root: Path) -> Iterator[RawClient]:
    """Of a registry that runs on the root."""
    with Server(root) as server, RawClient(server.host) as client:
        yield client


def age(root: Path, *, seconds: float = YESTERDAY) -> None:
    """As if that much time had passed."""
    for path in root.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - seconds
            os.utime(path, (then, max(0.0, then)))


def stored(root: Path, data: bytes | str) -> bool:
    digest = Digest(data if isinstance(data, str) else sha256(data))
    return (root / "blobs" / digest.algorithm / digest.hex).exists()


def test_beside_a_server_what_nobody_asked_for_lately_goes(root: Path, client: RawClient) -> None:
    digest = client.put_image("app", "1", b"layer one")
    client.put_blob("app", b"never listed")
    age(root)
    client.put_blob("app", b"just pushed")
    swept = collect_once(root)
    assert (swept.blobs, swept.bytes) == (1, len(b"never listed"))
    assert client.ask("HEAD", f"/v2/app/blobs/{sha256(b'never listed')}").status == 404
    assert client.ask("HEAD", f"/v2/app/blobs/{sha256(b'just pushed')}").status == 200
    assert client.pull("app", "1")
    client.ask("HEAD", f"/v2/app/blobs/{sha256(b'layer one')}")
    client.ask("DELETE", f"/v2/app/manifests/{digest}")
    collect_once(root)
    assert stored(root, b"layer one")  # its time counts from the last question for it
    age(root)
    collect_once(root)
    assert not stored(root, b"layer one")
    assert not stored(root, digest)


def test_what_a_push_asked_for_is_there_when_its_manifest_comes(
    root: Path, client: RawClient
) -> None:
    client.put_blob("app", b"{}")
    client.put_blob("app", b"layer")
    age(root)
    for blob in (b"{}", b"layer"):
        assert client.ask("HEAD", f"/v2/app/blobs/{sha256(blob)}").status == 200
    collect_once(root)
    assert client.put_manifest("app", "1", image(b"{}", [b"layer"])).status == 201


def test_what_a_push_mounted_is_there_when_its_manifest_comes(
    root: Path, client: RawClient
) -> None:
    client.put_blob("base", b"{}")
    age(root)
    mount = f"/v2/app/blobs/uploads/?mount={sha256(b'{}')}&from=base"
    assert client.ask("POST", mount, b"").status == 201
    collect_once(root)
    assert client.put_manifest("app", "1", image(b"{}")).status == 201


def test_a_blob_listed_in_one_repository_leaves_the_others_that_no_longer_need_it(
    root: Path, client: RawClient
) -> None:
    client.put_image("app", "1", b"shared")
    client.put_blob("other", b"shared")
    age(root)
    collect_once(root)
    assert client.ask("HEAD", f"/v2/other/blobs/{sha256(b'shared')}").status == 404
    assert client.pull("app", "1")


def test_without_a_server_what_was_listed_goes_with_its_manifest_and_what_was_not_stays(
    root: Path,
) -> None:
    with Server(root) as server, RawClient(server.host) as client:
        digest = client.put_image("app", "1", b"layer")
        kept = client.put_image("app", "2", b"another")
        client.put_blob("app", b"its manifest comes tomorrow")
        client.ask("DELETE", f"/v2/app/manifests/{digest}")
    swept = collect_once(root)
    assert not stored(root, digest)
    assert not stored(root, b"layer")
    assert stored(root, kept)
    assert stored(root, b"another")
    assert stored(root, b"its manifest comes tomorrow")
    assert swept.blobs == 2  # the config is that of the other image too
    age(root)
    assert collect_once(root).blobs == 1


def test_children_of_an_index_stay_with_it(root: Path, client: RawClient) -> None:
    child = client.put_image("app", "child", b"layer")
    manifest = client.ask("GET", f"/v2/app/manifests/{child}").body
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": child,
                "size": len(manifest),
            }
        ],
    }
    assert client.put_manifest("app", "all", json.dumps(index).encode()).status == 201
    client.ask("DELETE", "/v2/app/manifests/child")
    age(root)
    assert collect_once(root).blobs == 0
    assert client.pull("app", child)


def test_the_index_tells_every_tag_after_a_collection_and_after_a_clean_stop(root: Path) -> None:
    def told() -> dict[str, str]:
        listed = json.loads((root / "index.json").read_bytes())["manifests"]
        name = "org.opencontainers.image.ref.name"
        return {entry["annotations"][name]: entry["digest"] for entry in listed}

    with Server(root) as server, RawClient(server.host) as client:
        one = client.put_image("app", "1", b"one")
        two = client.put_image("team/app", "2", b"two")
        collect_once(root)
        assert told() == {"app:1": one, "team/app:2": two}
        client.ask("DELETE", "/v2/app/manifests/1")
    assert told() == {"team/app:2": two}
    assert json.loads((root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_a_folder_without_a_registry_is_left_alone(root: Path) -> None:
    root.mkdir()
    with pytest.raises(TowlineError, match="holds no registry"):
        collect_once(root)
    assert not list(root.iterdir())


def test_somebodys_layout_is_left_alone(tmp_path: Path) -> None:
    """No repository holds what is in it, so that a collection would remove all of it."""
    layout = make_image(tmp_path / "layout", format="oci").path
    before = sorted(layout.rglob("*"))
    with pytest.raises(TowlineError, match="holds no registry"):
        collect_once(layout)
    with pytest.raises(TowlineError, match="holds blobs, and is no registry"):
        Server(layout)
    assert sorted(layout.rglob("*")) == before


def test_uploads_survive_a_restart_and_end_when_nobody_comes_back(root: Path) -> None:
    with Server(root) as server, RawClient(server.host) as client:
        session = client.open_upload("app")
        client.ask("PATCH", session, b"first ")
    with Server(root) as server, RawClient(server.host) as client:
        assert client.ask("GET", session).headers["range"] == "0-5"
        path = f"{session}?digest={sha256(b'first second')}"
        assert client.ask("PUT", path, b"second").status == 201
        session = client.open_upload("app")
    age(root)
    with Server(root, limits=Limits(session_seconds=60)) as server, RawClient(server.host) as again:
        assert again.ask("GET", session).refusal == (404, "BLOB_UPLOAD_UNKNOWN")
    assert not list((root / "uploads").iterdir())


def test_collections_and_pushes_at_once_wait_for_each_other_and_end(root: Path) -> None:
    with Server(root) as server, RawClient(server.host) as client:
        code = (
            "import sys\nfrom pathlib import Path\nfrom towline.server.gc import collect_once\n"
            "for _ in range(20): collect_once(Path(sys.argv[1]))"
        )
        with subprocess.Popen([sys.executable, "-c", code, str(root)]) as collecting:
            pushed, deadline = 0, time.monotonic() + 30
            while collecting.poll() is None and time.monotonic() < deadline:
                client.put_image("app", f"t{pushed % 5}", b"layer %d" % pushed)
                client.pull("app", f"t{pushed % 5}")
                pushed += 1
            assert collecting.wait(1) == 0
        assert pushed
