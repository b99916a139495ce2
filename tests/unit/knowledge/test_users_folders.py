from __future__ import annotations

import stat
import threading
from typing import TYPE_CHECKING

import pytest

from towline.knowledge.base import KnowledgeError
from towline.knowledge.open import default_cache_path, machine_id

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"HOME": "/home/me"}, "/home/me/.cache/towline/knowledge.sqlite"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/c"}, "/c/towline/knowledge.sqlite"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/towline/knowledge.sqlite"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "relative"}, "/h/.cache/towline/knowledge.sqlite"),
        ({"HOME": "/h", "XDG_CACHE_HOME": ""}, "/h/.cache/towline/knowledge.sqlite"),
    ],
)
def test_the_cache_is_where_the_user_keeps_caches(environ: dict[str, str], path: str) -> None:
    assert str(default_cache_path(environ)) == path


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "relative", "XDG_CACHE_HOME": "x"}])
def test_without_a_home_there_is_no_place(environ: dict[str, str]) -> None:
    with pytest.raises(KnowledgeError, match="neither XDG_CACHE_HOME nor HOME is an absolute path"):
        default_cache_path(environ)


def test_a_machines_id_is_made_once_and_is_the_users_secret(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    made = machine_id(environ)
    assert len(made) == 32
    assert machine_id(environ) == made
    folder = tmp_path / ".local" / "share" / "towline"
    assert [file.name for file in folder.iterdir()] == ["machine-id"]
    assert stat.S_IMODE((folder / "machine-id").stat().st_mode) == 0o600
    assert machine_id({"HOME": "/nowhere", "XDG_DATA_HOME": str(folder.parent)}) == made


def test_whoever_is_quicker_makes_the_id_for_all(tmp_path: Path) -> None:
    made: set[bytes] = set()
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        made.add(machine_id({"HOME": str(tmp_path)}))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


@pytest.mark.parametrize("home", ["", "/proc/nowhere"])
def test_without_a_place_the_id_lasts_for_the_process_alone(home: str) -> None:
    assert machine_id({"HOME": home}) != machine_id({"HOME": home})


@pytest.mark.parametrize("content", [b"", b"no hex", b"\xff", b"ab"])
def test_a_damaged_id_is_no_id(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "towline"
    folder.mkdir()
    (folder / "machine-id").write_bytes(content)
    environ = {"XDG_DATA_HOME": str(tmp_path)}
    assert len(machine_id(environ)) == 32
    assert machine_id(environ) != machine_id(environ)
