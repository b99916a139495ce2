"""Across an air gap: archives without the layers that the other side has."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

import towline
from towline.cli.main import main
from towline.server import Server
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Place

BASE = {"base": b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(20_000))}
BOTH = ["linux/amd64", "linux/arm64"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A registry with two releases, of which the second has one layer more."""
    with Server() as server:
        host = server.url.partition("//")[2]
        for tag, layers in {"1": [BASE], "2": [BASE, {"new": b"new"}]}.items():
            made = make_image(tmp_path / tag, layers, BOTH, "oci")
            towline.push(made.path, f"{host}/app:{tag}")
        yield host


def copied(source: str, destination: str, **options: Any) -> towline.PushResult:
    result = towline.copy(source, destination, **options)
    assert isinstance(result, towline.PushResult)
    return result


@pytest.mark.parametrize("path", [False, True], ids=["reference", "path"])
def test_a_sparse_archive_is_pushed_to_the_same_digest_where_the_rest_is(
    host: str, registry: Place, tmp_path: Path, *, path: bool
) -> None:
    name = registry.name("app")
    copied(f"{host}/app:1", f"{name}:1")
    full = copied(f"{host}/app:2", f"oci-archive:{tmp_path}/full.tar:2")
    omit_from = str(tmp_path / "1") if path else f"{host}/app:1"
    sparse = copied(f"{host}/app:2", f"oci-archive:{tmp_path}/s.tar:2", omit_from=omit_from)
    assert sparse.digest == full.digest
    sizes = [(tmp_path / file).stat().st_size for file in ("s.tar", "full.tar")]
    assert sizes[0] < sizes[1] / 10
    pushed = towline.push(tmp_path / "s.tar", f"{name}:2", cache="none")
    assert isinstance(pushed, towline.PushResult)
    assert pushed.digest == full.digest
    assert [layer.outcome for layer in pushed.layers][:1] == ["exists"]


def test_an_image_whose_layers_are_all_there_keeps_its_place_in_the_index(
    host: str, registry: Place, tmp_path: Path
) -> None:
    """Beside a whole one it is not taken for one of which an engine had nothing."""
    mixed = make_image(tmp_path / "mixed", [{"own": b"x"}], ["linux/s390x"], "oci")
    towline.push(mixed.path, f"{host}/app:own")
    index = towline.index([f"{host}/app:1", f"{host}/app:own"], f"{host}/app:3")
    assert isinstance(index, towline.PushResult)
    copied(f"{host}/app:1", f"{registry.name('app')}:1")
    to = f"oci-archive:{tmp_path}/s.tar:3"
    assert copied(f"{host}/app:3", to, omit_from=f"{host}/app:1").digest == index.digest
    back = towline.push(to, f"{registry.name('app')}:3")
    assert isinstance(back, towline.PushResult)
    assert back.digest == index.digest


def test_what_is_missing_after_all_is_named_before_any_tag(
    host: str, registry: Place, tmp_path: Path
) -> None:
    to = f"oci-archive:{tmp_path}/s.tar:2"
    result = copied(f"{host}/app:2", to, omit_from=f"{host}/app:1")
    with pytest.raises(towline.SourceError, match=result.layers[0].digest):
        towline.push(to, f"{registry.name('app')}:2", cache="none")
    assert not [one for one in registry.requests() if one[0] == "PUT" and "/manifests/" in one[1]]


def test_a_line_says_how_much_was_left_out(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = f"oci-archive:{tmp_path}/s.tar:2"
    layer = towline.inspect(
        f"docker://{host}/app@" + copied(f"{host}/app:2", to).manifests[0].digest
    ).layers[0]
    assert main(["copy", f"{host}/app:2", to, "--omit-from", f"{host}/app:1"]) == 0
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "left out" in one]
    assert line == (
        f"towline: note: left out of oci-archive:{tmp_path}/s.tar: 1 layer of {layer.size} bytes "
        f"in all, which {host}/app:1 has"
    )


def test_a_line_says_that_nothing_was_left_out(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--compression", "zstd", "--omit-from", f"{host}/app:1"]
    assert main(["copy", f"{host}/app:2", f"oci-archive:{tmp_path}/s.tar", *words]) == 0
    told = (
        f"towline: note: nothing is left out of oci-archive:{tmp_path}/s.tar: "
        f"no layer of it is in {host}/app:1"
    )
    assert told in capsys.readouterr().err.splitlines()


def test_it_is_the_same_bytes_each_time_also_after_a_whole_one(host: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        to = f"oci-archive:{tmp_path}/{name}.tar:2"
        if name == "b":
            copied(f"{host}/app:2", to)
        copied(f"{host}/app:2", to, omit_from=f"{host}/app:1")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    whole = copied(f"{host}/app:2", f"oci-archive:{tmp_path}/a.tar:2")
    assert whole.status == "pushed"


def test_an_image_to_leave_out_that_cannot_be_read_names_its_side_once(
    host: str, tmp_path: Path
) -> None:
    to, nowhere = f"oci-archive:{tmp_path}/s.tar", "127.0.0.1:1/app:1"
    with pytest.raises(towline.NetworkError, match=r"^at the source: cannot connect to"):
        copied(f"{host}/app:2", to, omit_from=nowhere, retries=0)


@pytest.mark.parametrize("to", ["docker-archive:x.tar", "oci:x", "reg.example/app:1"])
def test_it_is_for_oci_archives_alone(host: str, to: str) -> None:
    with pytest.raises(towline.UsageError, match="`omit_from` is for OCI archives"):
        copied(f"{host}/app:2", to, omit_from=f"{host}/app:1")
