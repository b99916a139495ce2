"""A copy from registry to registry: byte for byte, and with no more asked than is needed."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest

import towline
from tests.support import readback
from tests.support.scripted import Reply, scripted
from towline.cli.main import main
from towline.server import Server
from towline.server.auth import Guard
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Place
    from tests.support.scripted import Asked
    from towline.testing import TestRegistry
    from towline.testing.image_formats import Made

BIG = b"".join(hashlib.sha256(str(n).encode()).digest() * 2 for n in range(20_000))
"""Over a megabyte that compresses to half of it."""
LAYERS = [{"etc/os-release": b"ID=towline\n", "usr/lib/big": BIG}, {"app/hello": b"hello\n"}]
BOTH = ["linux/amd64", "linux/arm64"]
TIMEOUT = 20.0
"""Seconds after which what has not come is taken for lost."""


class Source:
    """A registry to copy from, with an index under `app:1`, and what it was asked."""

    def __init__(self, server: Server, made: Made) -> None:
        self.server = server
        self.host = server.url.partition("//")[2]
        self.digest = made.digest
        towline.push(made.path, f"{self.host}/app:1", cache="none")
        self.mark = server.log.count

    @property
    def asked(self) -> list[str]:
        """Method and path of each request since the push."""
        return [f"{one.method} {one.path}" for one in self.server.log.since(self.mark)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = tmp_path_factory.mktemp("image") / "image"
    return make_image(path, LAYERS, BOTH, "oci", attestations=True)


@pytest.fixture
def source(made: Made) -> Iterator[Source]:
    with Server() as server:
        yield Source(server, made)


def copied(*words: Any, **options: Any) -> towline.PushResult:
    result = towline.copy(*words, **options)
    assert isinstance(result, towline.PushResult)
    return result


def test_an_index_is_copied_byte_for_byte(source: Source, registry: Place) -> None:
    result = copied(f"{source.host}/app:1", f"{registry.name('app')}:2")
    there = readback.read(registry.url, registry.path("app"), "2")
    assert isinstance(there, readback.Index)
    assert there.digest == result.digest == source.digest
    assert (result.status, result.digest_differs) == ("pushed", None)
    assert {layer.outcome for layer in result.layers} == {"pushed"}
    assert {layer.compression for layer in result.layers} == {"source"}


def test_what_is_there_already_costs_one_head_at_each_end(
    source: Source, oci_registry: TestRegistry
) -> None:
    name = f"{oci_registry.name('app')}:1"
    copied(f"{source.host}/app:1", name)
    asked, before = len(source.asked), len(oci_registry.requests)
    result = copied(f"{source.host}/app:1", name)
    assert (result.status, result.digest, result.requests) == ("unchanged", source.digest, 2)
    assert source.asked[asked:] == ["HEAD /v2/app/manifests/1"]
    assert [one.method for one in oci_registry.requests[before:]] == ["HEAD"]


def test_blobs_go_by_one_post_and_at_most_one_put_and_are_read_once_for_several(
    source: Source, oci_registry: TestRegistry
) -> None:
    with Server() as other:
        names = [f"{oci_registry.name('app')}:1", f"{other.url.partition('//')[2]}/app:1"]
        results = towline.copy(f"{source.host}/app:1", names)
        assert [result.digest for result in results] == [source.digest] * 2
        asked = other.log.since(0)
    assert "PATCH" not in {one.method for one in asked}
    posts = [one for one in asked if one.method == "POST"]
    whole = [one for one in posts if "digest=" in one.path]
    puts = [one for one in asked if one.method == "PUT" and "/blobs/" in one.path]
    assert len(whole) + len(puts) == len(posts)
    read = [one for one in source.asked if "/blobs/" in one]
    assert Counter(read).most_common(1)[0][1] == 1


def test_within_one_registry_no_byte_of_a_blob_moves(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image", LAYERS, BOTH, "oci")
    towline.push(made.path, f"{registry.name('app')}:1")
    result = copied(f"{registry.name('app')}:1", f"{registry.name('other')}:1", cache="none")
    assert result.digest == made.digest
    assert result.sent_bytes == 0
    assert {layer.outcome for layer in result.layers} == {"mounted"}
    assert readback.read(registry.url, registry.path("other"), "1").digest == made.digest


def test_one_platform_is_copied_and_no_other_is_read(
    source: Source, oci_registry: TestRegistry
) -> None:
    name = oci_registry.name("app")
    result = copied(f"{source.host}/app:1", f"{name}:1", platform="linux/arm64")
    assert result.digest_differs == "platforms"
    assert oci_registry.manifest(f"{name}:1")["mediaType"].endswith("manifest.v1+json")
    read = [one for one in source.asked if one.startswith("GET /v2/app/manifests/")]
    assert len(read) == 3  # the index, the image, what is said of it


def test_all_tags_that_fit_are_copied_and_equal_ones_read_no_manifest(
    source: Source, registry: Place, tmp_path: Path
) -> None:
    for tag in ("2", "2.1", "edge"):
        made = make_image(tmp_path / tag, [{"tag": tag.encode()}], format="oci")
        towline.push(made.path, f"{source.host}/app:{tag}")
    name = registry.name("app")
    results = towline.copy(f"{source.host}/app", name, all_tags=True, tags=["2*", "1"])
    assert [result.tag for result in results] == ["1", "2", "2.1"]
    assert towline.tags(name) == ["1", "2", "2.1"]
    source.mark = source.server.log.count
    again = towline.copy(f"{source.host}/app", name, all_tags=True, tags=["2*", "1"])
    assert {result.status for result in again} == {"unchanged"}
    assert sum(result.requests for result in again) <= 2 * 3 + 1
    assert {one.partition(" ")[0] for one in source.asked if "manifests" in one} == {"HEAD"}


def test_of_all_tags_neither_end_waits_for_the_other(tmp_path: Path) -> None:
    made = make_image(tmp_path / "image", LAYERS, format="oci")
    with scripted() as source, scripted() as destination:
        for registry in (source, destination):
            towline.push(made.path, [f"{registry.host}/app:{tag}" for tag in "12"], cache="none")
        asked_there = threading.Event()

        def there(asked: Asked) -> Reply:
            asked_there.set()
            return destination.sound(asked)

        def here(asked: Asked) -> Reply:
            return source.sound(asked) if asked_there.wait(TIMEOUT) else Reply(500)

        destination.on("HEAD", "/manifests/", there, forever=True)
        source.on("HEAD", "/manifests/", here, forever=True)
        results = towline.copy(
            f"{source.host}/app", f"{destination.host}/app", all_tags=True, cache="none"
        )
    assert [(result.tag, result.status) for result in results] == [
        ("1", "unchanged"),
        ("2", "unchanged"),
    ]


def test_a_tag_of_nothing_keeps_no_other_from_being_copied(
    source: Source, oci_registry: TestRegistry
) -> None:
    towline.tag(f"{source.host}/app:1", ["2", "3"])
    towline.copy(f"{source.host}/app:1", f"{oci_registry.name('app')}:1")
    source.server.faults.fail("HEAD", "/v2/app/manifests/2", 404, times=99)
    source.server.faults.fail("GET", "/v2/app/manifests/2", 404, times=99)
    with pytest.raises(towline.PartialFailure) as caught:
        towline.copy(f"{source.host}/app", oci_registry.name("app"), all_tags=True)
    one, two, three = caught.value.results
    assert isinstance(one, towline.PushResult)
    assert isinstance(three, towline.PushResult)
    assert (one.status, three.status) == ("unchanged", "pushed")
    assert isinstance(two, towline.SourceError)
    assert two.message.endswith(f"tag does not exist: {source.host}/app:2")
    assert oci_registry.tags("app") == ["1", "3"]


@pytest.mark.parametrize("asked", ["tag", "manifest", "config"])
def test_a_tag_that_cannot_be_read_keeps_no_other_from_being_copied(
    source: Source, oci_registry: TestRegistry, tmp_path: Path, asked: str
) -> None:
    for tag in "23":
        made = make_image(tmp_path / tag, [{"tag": tag.encode()}], format="oci")
        towline.push(made.path, f"{source.host}/app:{tag}")
    there = readback.read(source.server.url, "app", "2")
    path = {
        "tag": "manifests/2",
        "manifest": f"manifests/{there.digest}",
        "config": f"blobs/{there.manifest['config']['digest']}",
    }[asked]
    for method in ("HEAD", "GET"):
        source.server.faults.fail(method, f"/v2/app/{path}", 500, times=99)
    before = source.server.log.count
    with towline.Pusher(retries=0) as pusher, pytest.raises(towline.PartialFailure) as caught:
        pusher.copy(f"{source.host}/app", oci_registry.name("app"), all_tags=True)
    one, two, three = caught.value.results
    assert isinstance(two, towline.RegistryError)
    assert two.message.startswith("at the source: ")
    assert [getattr(each, "status", "") for each in (one, two, three)] == ["pushed", 500, "pushed"]
    assert oci_registry.tags("app") == ["1", "3"]
    refused = [one for one in source.server.log.since(before) if one.path == f"/v2/app/{path}"]
    assert len(refused) == 1, "what was refused is not asked for once more"


def test_patterns_alone_mean_all_tags_that_fit(
    source: Source, oci_registry: TestRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    towline.tag(f"{source.host}/app:1", ["1.1", "2"])
    name = oci_registry.name("app")
    assert main(["copy", f"{source.host}/app", name, "--tags", "1*", "--output", "json"]) == 0
    assert [result["tag"] for result in json.loads(capsys.readouterr().out)] == ["1", "1.1"]
    assert oci_registry.tags("app") == ["1", "1.1"]


def test_a_push_takes_an_image_of_a_registry_too(source: Source, registry: Place) -> None:
    result = towline.push(f"docker://{source.host}/app:1", f"{registry.name('app')}:1")
    assert result.digest == source.digest
    by_digest = f"docker://{source.host}/app@{source.digest}"
    plan = towline.plan(by_digest, f"{registry.name('app')}:1")
    assert (plan.status, plan.send_bytes) == ("unchanged", 0)
    fresh = towline.plan(by_digest, f"{registry.name('other')}:1", cache="none")
    assert (fresh.status, fresh.digest) == ("pushed", source.digest)
    assert fresh.send_bytes > 0


def test_layers_are_compressed_anew_where_that_is_asked_for_and_nowhere_else(
    source: Source, registry: Place
) -> None:
    name = registry.name("app")
    before = copied(f"{source.host}/app:1", f"{name}:1")
    after = copied(f"{source.host}/app:1", f"{name}:zstd", compression="zstd")
    assert after.digest_differs == "recompressed"
    mine = [layer for layer in after.layers if layer.diff_id]
    assert [layer.diff_id for layer in mine] == [
        one.diff_id for one in before.layers if one.diff_id
    ]
    assert {layer.compression for layer in mine} == {"zstd:3"}
    index = readback.read(registry.url, registry.path("app"), "zstd")
    assert index.digest == after.digest


def test_what_is_to_be_kept_as_it_is_is_refused_where_it_would_change(
    source: Source, oci_registry: TestRegistry
) -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"format": "docker"}, "`preserve_digests` keeps sha256:"),
        ({"compression": "zstd"}, "`preserve_digests` keeps sha256:"),
        (
            {"platform": ["linux/amd64", "linux/arm64"], "attestations": "drop"},
            f"`preserve_digests` keeps {source.digest} as it is",
        ),
    ]
    for change, told in changes:
        with pytest.raises(towline.UsageError, match=told):
            copied(
                f"{source.host}/app:1",
                f"{oci_registry.name('app')}:1",
                preserve_digests=True,
                **change,
            )
    assert not [one for one in oci_registry.requests if one.method != "HEAD"]
    kept = copied(f"{source.host}/app:1", f"{oci_registry.name('app')}:1", preserve_digests=True)
    assert kept.digest == source.digest


def test_a_tag_that_is_to_stay_is_left_alone_without_reading_the_source(
    source: Source, oci_registry: TestRegistry, tmp_path: Path
) -> None:
    name = f"{oci_registry.name('app')}:1"
    made = make_image(tmp_path / "other", [{"a": b"b"}], format="oci")
    towline.push(made.path, name)
    result = copied(f"{source.host}/app:1", name, if_exists="skip")
    assert (result.status, result.digest) == ("skipped", made.digest)
    with pytest.raises(towline.RegistryError, match="exists already"):
        copied(f"{source.host}/app:1", name, if_exists="fail")
    assert {one.partition(" ")[0] for one in source.asked} == {"HEAD"}


def test_what_is_missing_at_the_source_is_said_so_and_nothing_is_written(
    source: Source, oci_registry: TestRegistry, tmp_path: Path
) -> None:
    name = oci_registry.name("app")
    with pytest.raises(towline.SourceError, match=r"tag does not exist: .*/app:none"):
        copied(f"{source.host}/app:none", f"{name}:1")
    with pytest.raises(towline.SourceError, match=r"no tags to push for .*/none: .*NAME_UNKNOWN"):
        towline.copy(f"{source.host}/none", name, all_tags=True)
    with pytest.raises(towline.SourceError, match=r"no tags to push for .* fits v\*"):
        towline.copy(f"{source.host}/app", name, all_tags=True, tags="v*")
    made = make_image(tmp_path / "torn", [{"a": b"b" * 99}], format="oci")
    towline.push(made.path, f"{source.host}/torn:1")
    manifest = json.loads(readback.fetch(f"{source.server.url}/v2/torn/manifests/1")[0])
    layer = manifest["layers"][0]["digest"]
    source.server.faults.fail("GET", f"/v2/torn/blobs/{layer}", 404)
    with pytest.raises(towline.SourceError, match=f"lacks the blob {layer}"):
        copied(f"{source.host}/torn:1", f"{name}:1")
    assert not [one for one in oci_registry.requests if "PUT" in one.method and "manif" in one.path]


def test_errors_say_which_side_they_are_of(source: Source, oci_registry: TestRegistry) -> None:
    name = f"{oci_registry.name('app')}:1"
    source.server.faults.fail("HEAD", "/v2/app/manifests/1", 403)
    source.server.faults.fail("GET", "/v2/app/manifests/1", 403)
    with pytest.raises(towline.AuthError, match=r"^at the source: "):
        copied(f"{source.host}/app:1", name)
    oci_registry.fail("POST", "/v2/.*", 403, times=99)
    with pytest.raises(towline.AuthError, match=r"^at the destination: "):
        copied(f"{source.host}/app:1", name)


@pytest.mark.parametrize("cut", [100_000, 300_000])
def test_a_read_that_breaks_again_and_again_goes_on_where_it_stopped(
    cut: int, tmp_path: Path, oci_registry: TestRegistry
) -> None:
    with Server() as server:
        host = server.url.partition("//")[2]
        big = {"big": b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(60_000))}
        made = make_image(tmp_path / "image", [big], format="oci")
        towline.push(made.path, f"{host}/app:1")
        mark = server.log.count
        server.faults.cut(cut, times=1000)
        result = copied(f"{host}/app:1", f"{oci_registry.name('app')}:1", retries=1)
        asked = [one for one in server.log.since(mark) if "/blobs/" in one.path]
    assert result.digest == made.digest
    size = result.layers[0].size
    assert size > 3 * cut
    layer = [one for one in asked if result.layers[0].digest in one.path]
    starts = [one.headers.get("range", "bytes=0-") for one in layer]
    assert starts == [f"bytes={at}-" for at in range(0, size, cut)]
    assert result.sent_bytes < size + 10_000


def test_a_copy_of_a_tag_onto_itself_is_refused(source: Source) -> None:
    with pytest.raises(towline.UsageError, match="the same"):
        copied(f"{source.host}/app:1", f"{source.host}/app:1")
    with pytest.raises(towline.UsageError, match="the same"):
        towline.copy(f"{source.host}/app", f"{source.host}/app", all_tags=True)
    with pytest.raises(towline.UsageError, match="has no tag"):
        towline.copy(f"{source.host}/app:1", f"{source.host}/other", all_tags=True)


def test_the_command_copies_and_says_what_a_bare_word_is(  # noqa: PLR0917 - fixtures
    made: Made,
    source: Source,
    registry: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = registry.name("app")
    assert main(["copy", f"{source.host}/app:1", f"{name}:1", "-q"]) == 0
    assert capsys.readouterr().out == f"{name}@{source.digest}\n"
    assert main(["copy", f"{source.host}/app:1", f"{name}:1", "--dry-run"]) == 0
    assert f"unchanged: {source.digest}" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image").symlink_to(made.path)
    assert main(["copy", "image", f"{name}:1"]) == 2
    assert "hint: ./image is the path, docker://image the image" in capsys.readouterr().err
    assert main(["copy", "./image", f"{name}:2", "-q"]) == 0
    assert capsys.readouterr().out == f"{name}@{source.digest}\n"


def test_a_dry_run_of_all_tags_says_what_would_move(
    source: Source, registry: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    name = registry.name("app")
    copied(f"{source.host}/app:1", f"{name}:1")
    copied(f"{source.host}/app:1", f"{source.host}/app:2", platform="linux/arm64")
    before = len(registry.requests())
    command = ["copy", "-a", f"{source.host}/app", name, "--dry-run", "--output", "json"]
    assert main(command) == 0
    one, two = json.loads(capsys.readouterr().out)
    assert (one["tag"], one["status"], one["send_bytes"]) == ("1", "unchanged", 0)
    assert (two["tag"], two["status"]) == ("2", "pushed")
    assert two["digest"] != source.digest
    asked = {method for method, _ in registry.requests()[before:]}
    assert asked <= {"GET", "HEAD"}


def test_each_side_has_an_account_of_its_own(tmp_path: Path) -> None:
    made = make_image(tmp_path / "image", LAYERS, format="oci")
    people = [("from", "word"), ("to", "other")]
    for user, password in people:
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
        (tmp_path / user).write_text(f"{user}:{hashed}\n")
    doors = [Guard(tmp_path / user) for user, _ in people]
    with Server(guard=doors[0]) as one, Server(guard=doors[1]) as two:
        hosts = [server.url.partition("//")[2] for server in (one, two)]
        accounts = dict(zip(hosts, people, strict=True))
        names = [f"{host}/app:1" for host in hosts]
        asked: list[str] = []

        def creds(host: str) -> tuple[str, str] | None:
            asked.append(host)
            return accounts.get(host)

        towline.push(made.path, names[0], creds=creds)
        assert copied(*names, creds=creds).digest == made.digest
        assert set(asked) == set(hosts)
        other = f"{hosts[1]}/app:2"
        assert copied(names[0], other, src_creds="from:word", creds="to:other").digest
        with pytest.raises(towline.AuthError, match=r"^at the source: "):
            copied(names[0], other, src_creds="to:other", creds="to:other")
        with pytest.raises(towline.AuthError) as refused:
            copied(names[0], other, creds="to:other")
        assert "`src_creds='USER:PASSWORD'`" in str(refused.value.hint)
        # An account belongs to a host, whichever end it is.
        assert copied(other, f"{hosts[1]}/else:2", creds="to:other").status == "pushed"
        assert towline.index(other, f"{hosts[1]}/else:3", creds="to:other").status == "pushed"
