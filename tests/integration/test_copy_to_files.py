"""Copies to layouts and archives, which others read, and which are whole or are not there."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support.subjects import signature
from towline.cli.main import main
from towline.server import Server
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from towline.testing import TestRegistry

BIG = b"".join(hashlib.sha256(str(n).encode()).digest() * 2 for n in range(20_000))
LAYERS = [{"etc/os-release": b"ID=towline\n", "usr/lib/big": BIG}, {"app/hello": b"hello\n"}]
BESIDE = {"home", "image", "index"}
"""What lies in the folder of each test."""
BOTH = ["linux/amd64", "linux/arm64"]


class Source:
    """A registry with an index under `app:1`, and an image under `app:one`."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.host = server.url.partition("//")[2]
        self.index = make_image(folder / "index", LAYERS, BOTH, "oci", attestations=True).digest
        towline.push(folder / "index", f"{self.host}/app:1")
        self.image = make_image(folder / "image", LAYERS, format="oci").digest
        towline.push(folder / "image", f"{self.host}/app:one")
        self.mark = server.log.count

    def asked(self) -> list[str]:
        """Method and path of each request since this was asked before."""
        found = [f"{one.method} {one.path}" for one in self.server.log.since(self.mark)]
        self.mark = self.server.log.count
        return found


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    with Server() as server:
        yield Source(server, tmp_path)


def copied(source: str, destination: str, **options: Any) -> towline.PushResult:
    result = towline.copy(source, destination, **options)
    assert isinstance(result, towline.PushResult)
    return result


def test_a_layout_has_the_index_byte_for_byte_and_is_pushed_to_the_same_digest(
    source: Source, tmp_path: Path, oci_registry: TestRegistry
) -> None:
    result = copied(f"{source.host}/app:1", f"oci:{tmp_path}/out:1")
    assert (result.reference, result.tag) == (f"oci:{tmp_path}/out:1", "1")
    assert (result.digest, result.status) == (source.index, "pushed")
    assert result.pinned == f"oci:{tmp_path}/out@{source.index}"
    back = towline.push(f"oci:{tmp_path}/out:1", f"{oci_registry.name('app')}:1")
    assert back.digest == source.index
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_what_a_layout_has_is_not_fetched_again_and_equal_tags_are_left_alone(
    source: Source, tmp_path: Path
) -> None:
    copied(f"{source.host}/app:one", f"oci:{tmp_path}/out:one")
    source.asked()
    again = copied(f"{source.host}/app:one", f"oci:{tmp_path}/out:one")
    assert (again.status, source.asked()) == ("unchanged", ["HEAD /v2/app/manifests/one"])
    whole = copied(f"{source.host}/app:1", f"oci:{tmp_path}/out")
    assert whole.reference == f"oci:{tmp_path}/out:latest"
    shared = {layer.digest for layer in whole.layers if layer.outcome == "exists"}
    assert shared
    assert not [one for one in source.asked() if one.rpartition("/")[2] in shared]
    listed = json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"]
    names = [each["annotations"]["org.opencontainers.image.ref.name"] for each in listed]
    assert names == ["one", "latest"]


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "cut"])
def test_a_layout_that_lacks_a_blob_or_a_part_of_one_is_made_whole(
    source: Source, tmp_path: Path, *, lost: bool
) -> None:
    result = copied(f"{source.host}/app:one", f"oci:{tmp_path}/out:one")
    digest = result.layers[0].digest
    path = tmp_path / "out" / "blobs" / "sha256" / digest.partition(":")[2]
    whole = path.read_bytes()
    if lost:
        path.unlink()
    else:
        os.truncate(path, 10)  # what else writes layouts may have been killed in the middle
    source.asked()
    plan = towline.plan(f"docker://{source.host}/app:one", f"oci:{tmp_path}/out:one")
    again = copied(f"{source.host}/app:one", f"oci:{tmp_path}/out:one")
    assert again.digest == source.image
    for found in (plan, again):
        assert [layer.outcome for layer in found.layers] == ["pushed", "exists"]
    assert [one for one in source.asked() if "/blobs/" in one and digest in one]
    assert path.read_bytes() == whole


def test_a_layout_keeps_what_others_have_put_there(source: Source, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "image", tmp_path / "out")
    path = tmp_path / "out" / "index.json"
    before = json.loads(path.read_bytes())
    before["annotations"] = {"whose": "others"}
    before["manifests"][0]["annotations"] |= {"theirs": "too"}
    path.write_text(json.dumps(before))
    copied(f"{source.host}/app:1", f"oci:{tmp_path}/out:new")
    after = json.loads(path.read_bytes())
    assert after["annotations"] == {"whose": "others"}
    assert after["manifests"][:-1] == before["manifests"]


def test_a_folder_with_other_things_in_it_is_left_alone(source: Source, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(towline.TowlineError, match="no OCI layout") as caught:
        copied(f"{source.host}/app:1", f"oci:{tmp_path}/mine:1")
    assert type(caught.value) is towline.TowlineError
    with pytest.raises(towline.TowlineError, match="it is a folder"):
        copied(f"{source.host}/app:1", f"oci-archive:{tmp_path}/mine")
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("link", ["to a name", "to the bytes"])
def test_links_in_a_layout_are_replaced_and_what_they_lead_to_stays(
    source: Source, tmp_path: Path, link: str
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    copied(f"{source.host}/app:one", f"oci:{out}:one")
    content = {}
    for path in [each for each in out.rglob("*") if each.is_file()]:
        led_to = elsewhere / path.name
        # Of the blob's own size, so that its size alone does not tell it from the blob.
        led_to.write_bytes(b"x" * path.stat().st_size if path.parent != out else path.read_bytes())
        content[led_to] = led_to.read_bytes()
        path.unlink()
        if link == "to a name":
            path.symlink_to(led_to)
        else:
            path.hardlink_to(led_to)
    if link == "to a name":  # what is read has to be in the folder
        (out / "index.json").unlink()
        shutil.copy(elsewhere / "index.json", out)
    else:  # a layout's own files are not hashed again: they are another's only by their links
        shutil.rmtree(out / "blobs")
    copied(f"{source.host}/app:one", f"oci:{out}:one")
    copied(f"{source.host}/app:1", f"oci:{out}:1")
    assert {path: path.read_bytes() for path in content} == content
    assert not any(path.is_symlink() for path in out.rglob("*"))
    for name, digest in (("one", source.image), ("1", source.index)):
        assert copied(f"oci:{out}:{name}", f"oci:{tmp_path}/again:{name}").digest == digest


@pytest.mark.parametrize("folder", ["blobs", "blobs/sha256"])
def test_a_layout_whose_blobs_are_elsewhere_is_refused(
    source: Source, tmp_path: Path, folder: str
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (out / folder).parent.mkdir(parents=True)
    elsewhere.mkdir()
    (out / folder).symlink_to(elsewhere)
    with pytest.raises(towline.TowlineError, match="its blobs/sha256 is a link that leaves it"):
        copied(f"{source.host}/app:one", f"oci:{out}:one")
    assert not [*elsewhere.iterdir()]


def test_an_archive_is_not_made_in_a_folder_that_another_has_linked(
    source: Source, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / ".out.tar.partial").symlink_to(elsewhere)
    with pytest.raises(towline.TowlineError, match=r"\.out\.tar\.partial is a link"):
        copied(f"{source.host}/app:one", f"oci-archive:{tmp_path}/out.tar:one")
    assert not [*elsewhere.iterdir()]
    assert not (tmp_path / "out.tar").exists()


def test_an_archive_is_the_same_bytes_each_time_and_leaves_nothing_beside_it(
    source: Source, tmp_path: Path, oci_registry: TestRegistry
) -> None:
    for name in ("a.tar", "b.tar"):
        result = copied(f"{source.host}/app:1", f"oci-archive:{tmp_path}/{name}:1")
        assert (result.digest, result.status) == (source.index, "pushed")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert {each.name for each in tmp_path.iterdir()} - BESIDE == {"a.tar", "b.tar"}
    back = towline.push(f"{tmp_path}/a.tar", f"{oci_registry.name('app')}:1")
    assert back.digest == source.index
    source.asked()
    again = copied(f"{source.host}/app:1", f"oci-archive:{tmp_path}/a.tar:1")
    assert (again.status, source.asked()) == ("unchanged", ["HEAD /v2/app/manifests/1"])


def test_an_archive_that_is_written_anew_takes_its_blobs_from_the_one_before(
    source: Source, tmp_path: Path
) -> None:
    copied(f"{source.host}/app:1", f"oci-archive:{tmp_path}/a.tar:1")
    source.asked()
    result = copied(f"{source.host}/app:1", f"oci-archive:{tmp_path}/a.tar:2")
    layers = {layer.digest for layer in result.layers}
    assert not [one for one in source.asked() if one.rpartition("/")[2] in layers]
    copied(f"{source.host}/app:1", f"oci-archive:{tmp_path}/b.tar:2")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_all_tags_go_into_one_archive_and_out_of_it(
    source: Source, tmp_path: Path, oci_registry: TestRegistry
) -> None:
    results = towline.copy(f"{source.host}/app", f"oci-archive:{tmp_path}/a.tar", all_tags=True)
    assert [result.tag for result in results] == ["1", "one"]
    towline.push(tmp_path / "a.tar", oci_registry.name("app"), all_tags=True)
    assert oci_registry.tags(oci_registry.name("app")) == ["1", "one"]


@pytest.mark.parametrize("form", ["docker", "docker-containerd", "oci-archive"])
@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_a_pipe_goes_into_files_and_the_same_again_changes_nothing(
    tmp_path: Path, form: Any, kind: str
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS, format=form)
    to = f"{kind}:{tmp_path}/to:app:1"
    digests = []
    for _ in range(2):
        with made.path.open("rb") as pipe:
            command = [sys.executable, "-m", "towline", "copy", "-", to, "-q", "--cache", "none"]
            with subprocess.Popen(["cat"], stdin=pipe, stdout=subprocess.PIPE) as cat:
                done = subprocess.run(
                    command, stdin=cat.stdout, capture_output=True, text=True, check=False
                )
        assert done.returncode == 0, done.stderr
        digests.append(done.stdout)
    assert digests[0] == digests[1]
    read = copied(str(made.path), f"{kind}:{tmp_path}/other:app:1", cache="none")
    assert digests[0].strip().endswith(read.digest)


def test_what_was_copied_is_read_back_when_that_is_asked_for(
    source: Source, tmp_path: Path
) -> None:
    for kind in ("oci", "oci-archive"):
        result = copied(f"{source.host}/app:1", f"{kind}:{tmp_path}/{kind}:1", verify="full")
        assert result.verified
        assert result.verified.diff_ids > 0


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_what_is_found_damaged_is_to_be_removed(source: Source, tmp_path: Path, kind: str) -> None:
    to = tmp_path / "out"
    digest = copied(f"{source.host}/app:one", f"{kind}:{to}:1").layers[0].digest
    blob = to if kind == "oci-archive" else to / "blobs" / "sha256" / digest.partition(":")[2]
    content = (source.server.root / "blobs" / digest.replace(":", "/")).read_bytes()
    blob.write_bytes(blob.read_bytes().replace(content, content[:-1] + b"x"))
    with pytest.raises(towline.RegistryError, match=f"gave other bytes for blob {digest}") as found:
        copied(f"{source.host}/app:one", f"{kind}:{to}:1", verify="full", retries=0)
    what = to if kind == "oci-archive" else f"its file below {to}/blobs"
    assert found.value.hint == f"remove {what}, then copy again: what is there is not fetched anew"
    blob.unlink()
    assert copied(f"{source.host}/app:one", f"{kind}:{to}:1", verify="full").verified


def test_a_place_that_is_of_another_kind_or_nowhere_is_said_so(
    source: Source, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for place, said, hint in [
        ("oci:{}/file", "it is a file", "use oci-archive:"),
        ("oci-archive:{}/folder", "it is a folder", "use oci:"),
        ("docker-archive:{}/none/d.tar", "no such file or directory", ""),
        ("oci-archive:{}/pipe", "it is no regular file", "name a file"),
        ("docker-archive:{}/pipe", "it is no regular file", "name a file"),
        ("oci-archive:{}/link", "it is no regular file", "name a file"),
    ]:
        with pytest.raises(towline.TowlineError, match=said) as caught:
            copied(f"{source.host}/app:one", place.format(tmp_path))
        assert (caught.value.hint or "").startswith(hint)
    assert not (tmp_path / "none").exists()
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(
    ("kind", "other"), [("oci-archive", "docker-archive"), ("docker-archive", "oci-archive")]
)
def test_an_archive_of_another_kind_is_not_replaced(
    source: Source, tmp_path: Path, kind: str, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.tar"
    copied(f"{source.host}/app:one", f"{other}:{file}:app:1")
    before = file.read_bytes()
    words = ["copy", f"docker://{source.host}/app:one", f"{kind}:{file}", "-q", "--cache", "none"]
    for more in ([], ["--dry-run"]):
        assert main([*words, *more]) == 1
        error, hint = capsys.readouterr().err.splitlines()
        assert error.startswith(f"towline: error: {kind}:{file}")
        assert error.endswith(f" cannot be used: the tar that is there is no {kind}")
        assert hint == "hint: name another file, or remove this one"
    assert file.read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} - BESIDE == {"a.tar"}


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_a_file_that_is_no_archive_is_not_replaced_unless_it_is_empty(
    source: Source, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "notes"
    words = ["copy", f"docker://{source.host}/app:one", f"{kind}:{file}:app:1", "-q"]
    for content in (b"of somebody\n", gzip.compress(b"of somebody\n"), bytes(10)):
        file.write_bytes(content)
        for more in ([], ["--dry-run"]):
            assert main([*words, *more, "--cache", "none"]) == 1
            error, hint = capsys.readouterr().err.splitlines()
            assert error.endswith(" cannot be used: the file that is there is no tar")
            assert hint == "hint: name another file, or remove this one"
        assert file.read_bytes() == content
    file.write_bytes(b"")  # as `mktemp` makes one
    assert main([*words, "--cache", "none"]) == 0
    assert tarfile.is_tarfile(file)
    assert {each.name for each in tmp_path.iterdir()} - BESIDE == {"notes"}


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_no_image_is_called_what_means_the_first_when_it_is_read(
    source: Source, tmp_path: Path, kind: str
) -> None:
    with pytest.raises(towline.UsageError, match="@0 is no name for an image in a layout"):
        copied(f"{source.host}/app:one", f"{kind}:{tmp_path}/out:@0")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("oci-archive:{}/a.tar:1", "docker-archive:{}/a.tar:x:1"),
        ("oci-archive:{}/a.tar:1", "oci-archive:{}/link.tar:1"),
    ],
    ids=["two kinds", "a link"],
)
def test_an_archive_is_not_written_twice_by_one_copy(
    source: Source, tmp_path: Path, one: str, other: str
) -> None:
    (tmp_path / "link.tar").symlink_to("a.tar")
    places = [one.format(tmp_path), other.format(tmp_path)]
    with pytest.raises(towline.UsageError, match="is written for one of them"):
        towline.copy(f"{source.host}/app:one", places)
    assert not (tmp_path / "a.tar").exists()


def test_a_link_to_an_archive_stays_a_link(source: Source, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "a.tar").symlink_to("large/a.tar")
    for tag in ("one", "two"):  # to a file that is not there yet, and to one that is
        result = copied(f"{source.host}/app:one", f"oci-archive:{tmp_path}/a.tar:{tag}")
        assert result.status == "pushed"
    assert (tmp_path / "a.tar").is_symlink()
    assert [each.name for each in (tmp_path / "large").iterdir()] == ["a.tar"]
    assert towline.digest(f"oci-archive:{tmp_path}/a.tar:two") == source.image


def test_an_archive_keeps_all_of_its_tags_when_one_of_them_is_new(
    source: Source, tmp_path: Path
) -> None:
    to = f"oci-archive:{tmp_path}/a.tar"
    towline.copy(f"{source.host}/app", to, all_tags=True, tags="one")
    with pytest.raises(towline.PartialFailure, match="holds 1 of these tags already"):
        towline.copy(f"{source.host}/app", to, all_tags=True, if_exists="skip")
    results = towline.copy(f"{source.host}/app", to, all_tags=True)
    assert [result.tag for result in results] == ["1", "one"]
    assert [towline.digest(f"{to}:{tag}") for tag in ("1", "one")] == [source.index, source.image]
    again = towline.copy(f"{source.host}/app", to, all_tags=True)
    assert {result.status for result in again} == {"unchanged"}


def test_an_archive_of_which_one_tag_fails_is_not_written(source: Source, tmp_path: Path) -> None:
    layer = towline.inspect(f"docker://{source.host}/app:one").layers[0].digest
    source.server.faults.fail("GET", f"/v2/app/blobs/{layer}", 404, times=99)
    with pytest.raises(towline.PartialFailure) as caught:
        towline.copy(f"{source.host}/app", f"oci-archive:{tmp_path}/a.tar", all_tags=True)
    assert all(isinstance(each, towline.SourceError) for each in caught.value.results)
    assert not (tmp_path / "a.tar").exists()


def test_an_archive_that_a_copy_is_writing_is_refused_to_another(
    source: Source, tmp_path: Path
) -> None:
    to = f"oci-archive:{tmp_path}/a.tar:1"
    refused: list[str] = []

    def meanwhile(event: towline.Event) -> None:
        if getattr(event, "status", "") == "Pushed":
            try:
                copied(f"{source.host}/app:one", to, cache="none")
            except towline.TowlineError as error:
                refused.append(error.message)

    result = copied(f"{source.host}/app:one", to, cache="none", on_event=meanwhile)
    assert result.status == "pushed"
    assert {*refused} == {f"{tmp_path}/a.tar is being written by another copy"}
    assert towline.digest(to) == source.image


def test_a_docker_archive_has_plain_layers_and_the_name_of_its_source(
    source: Source, tmp_path: Path, oci_registry: TestRegistry
) -> None:
    result = copied(f"{source.host}/app:one", f"docker-archive:{tmp_path}/d.tar")
    assert result.digest == source.image
    with tarfile.open(tmp_path / "d.tar") as tar:
        (listed,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]  # a file
        for layer, told in zip(listed["Layers"], result.layers, strict=True):
            content = tar.extractfile(layer).read()  # type: ignore[union-attr]  # a file
            assert "sha256:" + hashlib.sha256(content).hexdigest() == told.diff_id
    assert listed["RepoTags"] == [f"{source.host}/app:one"]
    back = towline.push(tmp_path / "d.tar", f"{oci_registry.name('app')}:1")
    assert [layer.diff_id for layer in back.layers] == [each.diff_id for each in result.layers]
    before = (tmp_path / "d.tar").read_bytes()
    copied(f"{source.host}/app:one", f"docker-archive:{tmp_path}/d.tar")
    assert (tmp_path / "d.tar").read_bytes() == before


def test_a_docker_archive_holds_one_platform_and_says_which_there_are(
    source: Source, tmp_path: Path
) -> None:
    with pytest.raises(towline.SourceError, match="linux/amd64, linux/arm64") as caught:
        copied(f"{source.host}/app:1", f"docker-archive:{tmp_path}/d.tar:app:1")
    assert caught.value.hint == "choose one: `platform='linux/amd64'`"
    copied(f"{source.host}/app:1", f"docker-archive:{tmp_path}/d.tar:app", platform="linux/arm64")
    told = towline.inspect(tmp_path / "d.tar")
    assert told.platform == "linux/arm64"


def test_a_docker_archive_holds_no_artifact(source: Source, tmp_path: Path) -> None:
    signature(tmp_path / "artifact", f"sha256:{'1' * 64}", 1)
    with pytest.raises(towline.SourceError) as caught:
        copied(str(tmp_path / "artifact"), f"docker-archive:{tmp_path}/d.tar:app:1")
    assert str(caught.value) == (
        f"docker-archive:{tmp_path}/d.tar:app:1 is to be one image, and the source is none"
    )


def test_one_read_serves_a_registry_a_layout_and_both_archives(
    source: Source, tmp_path: Path, oci_registry: TestRegistry
) -> None:
    places = [
        f"{oci_registry.name('app')}:1",
        f"oci:{tmp_path}/out:1",
        f"oci-archive:{tmp_path}/o.tar:1",
        f"docker-archive:{tmp_path}/d.tar:app:1",
    ]
    results = towline.copy(f"{source.host}/app:one", places)
    assert [result.digest for result in results] == [source.image] * 4
    read = [one for one in source.asked() if "GET /v2/app/blobs/" in one]
    assert len(read) == len(set(read))
    assert towline.digest(f"oci:{tmp_path}/out:1") == source.image


def test_a_full_disk_leaves_no_file_and_the_next_copy_goes_on(
    source: Source, tmp_path: Path
) -> None:
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from towline.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    to = tmp_path / "a.tar"
    words = ["copy", f"{source.host}/app:one", f"oci-archive:{to}:1", "--cache", "none", "-q"]
    command = [sys.executable, "-c", script, *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"cannot write {tmp_path}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not to.exists()
    source.asked()
    assert copied(f"{source.host}/app:one", f"oci-archive:{to}:1").digest == source.image
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_a_killed_copy_goes_on_with_what_has_come(
    source: Source, tmp_path: Path, kind: str
) -> None:
    to = tmp_path / "a.tar"
    words = ["copy", f"{source.host}/app:one", f"{kind}:{to}:app", "--cache", "none", "-q"]
    listed = towline.inspect(words[1]).layers
    layers = {str(layer.digest).partition(":")[2] for layer in listed}
    source.server.faults.stall(0.5)
    with subprocess.Popen([sys.executable, "-m", "towline", *words, "-j", "1"]) as killed:
        while not (came := layers & {each.name for each in tmp_path.glob(".a*/blobs/*/*")}):
            assert killed.poll() is None
            time.sleep(0.01)
        killed.kill()
    assert not to.exists()
    source.server.faults.stall(0)
    source.asked()
    assert copied(words[1], words[2]).digest == source.image
    fetched = {one.rpartition(":")[2] for one in source.asked() if one.startswith("GET")}
    assert not came & fetched
    assert layers - came <= fetched
    assert not list(tmp_path.glob(".a.tar*"))


def test_a_cancel_leaves_nothing_under_the_files_name(source: Source, tmp_path: Path) -> None:
    cancel = towline.Cancel()

    def on_event(event: towline.Event) -> None:
        if getattr(event, "status", "") == "Pushing":
            cancel.cancel()

    with towline.Pusher(on_event=on_event) as pusher, pytest.raises(towline.TransferCancelled):
        pusher.copy(f"{source.host}/app:one", f"oci-archive:{tmp_path}/a.tar:1", cancel=cancel)
    assert not (tmp_path / "a.tar").exists()
    assert not list(tmp_path.rglob("*.partial/**/*.partial"))


def test_two_that_write_one_layout_lose_no_image(source: Source, tmp_path: Path) -> None:
    names = [f"oci:{tmp_path}/out:{n}" for n in range(8)]
    threads = [
        threading.Thread(target=towline.copy, args=(f"{source.host}/app:one", name))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listed = json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"]
    assert len(listed) == len(names)


@pytest.mark.needs("skopeo")
def test_skopeo_reads_what_was_copied(source: Source, tmp_path: Path) -> None:
    places = [f"oci:{tmp_path}/out:1", f"oci-archive:{tmp_path}/o.tar:1"]
    archive = f"docker-archive:{tmp_path}/d.tar"
    towline.copy(f"{source.host}/app:one", [*places, f"{archive}:app:1"])
    for place in (*places, archive):
        shown = subprocess.run(
            ["skopeo", "inspect", "--raw", place], capture_output=True, check=True
        )
        if place != archive:
            assert "sha256:" + hashlib.sha256(shown.stdout).hexdigest() == source.image
        read = ["skopeo", "copy", "--insecure-policy", place, f"dir:{tmp_path}/read"]
        subprocess.run(read, capture_output=True, check=True)


def test_same_source_and_destination_and_options_that_make_no_sense_are_refused(
    source: Source, tmp_path: Path
) -> None:
    copied(f"{source.host}/app:one", f"oci:{tmp_path}/out:1")
    copied(f"oci:{tmp_path}/out:1", f"oci:{tmp_path}/out:2")
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        (f"oci:{tmp_path}/out:1", f"oci:{tmp_path}/out:1", {}),
        (f"./{tmp_path}/o.tar", f"oci-archive:./{tmp_path}/o.tar:2", {}),
        (f"{source.host}/app:one", f"oci:{tmp_path}/new", {"by_digest": True}),
        (f"{source.host}/app", f"oci:{tmp_path}/new:1", {"all_tags": True}),
        (f"{source.host}/app:one", f"docker-archive:{tmp_path}/d.tar", {"compression": "zstd"}),
        (f"{source.host}/app:one", f"docker-archive:{tmp_path}/d.tar", {"verify": True}),
        (f"{source.host}/app:one", "oci-archive:-", {}),
        (f"oci:{tmp_path}/out", f"docker-archive:{tmp_path}/d.tar", {"all_tags": True}),
    ]
    for one, other, options in wrong:
        with pytest.raises(towline.UsageError):
            towline.copy(one, other, **options)
    copied(f"oci:{tmp_path}/out:1", f"oci-archive:{tmp_path}/o.tar")
    with pytest.raises(towline.UsageError, match="are the same"):
        towline.copy(tmp_path / "o.tar", f"oci-archive:{tmp_path}/o.tar:2")
    with pytest.raises(towline.UsageError, match=r":app and .*:web, and is written"):
        towline.copy(
            f"{source.host}/app:one", [f"docker-archive:f.tar:{n}" for n in ("app", "web")]
        )
    with pytest.raises(towline.UsageError, match="a push goes to registries alone"):
        towline.push(f"oci:{tmp_path}/out:1", f"oci:{tmp_path}/new:1")


def test_the_command_writes_files_and_plans_them_without_a_trace(
    source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["copy", f"{source.host}/app:one", f"oci-archive:{tmp_path}/a.tar:1", "-q"]
    assert main([*words, "--dry-run"]) == 0
    assert {each.name for each in tmp_path.iterdir()} <= BESIDE
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out == f"oci-archive:{tmp_path}/a.tar@{source.image}\n"
