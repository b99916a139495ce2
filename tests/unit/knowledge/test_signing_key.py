"""Signing: one key for all times, nobody else's to read; without a place for it, one for once."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.signatures import verify
from towline.knowledge.open import KEY_FILE, signing_key
from towline.spec import media_types, schema1
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from pathlib import Path

TIME = "2026-11-29T12:00:00Z"
PAYLOAD = b'{\n   "schemaVersion": 1\n}'


def key_of(content: bytes) -> str:
    (entry,) = json.loads(content)["signatures"]
    return str(entry["header"]["jwk"]["kid"])


def signed(environ: dict[str, str], warnings: list[str] | None = None) -> bytes:
    warn = warnings.append if warnings is not None else pytest.fail
    return schema1.sign(PAYLOAD, signing_key(environ, warn), TIME).content


def test_what_is_signed_is_good_and_keeps_the_digest_of_its_payload(tmp_path: Path) -> None:
    key = signing_key({"HOME": str(tmp_path)}, pytest.fail)
    manifest = schema1.sign(PAYLOAD, key, TIME)
    assert verify(manifest.content) == PAYLOAD
    assert manifest.digest == manifest.descriptor().digest == Digest.of(PAYLOAD)
    assert manifest.size == manifest.descriptor().size == len(PAYLOAD)
    assert manifest.media_type == media_types.SCHEMA1_SIGNED


def test_the_key_is_made_once_and_is_the_users_secret(tmp_path: Path) -> None:
    first = signed({"HOME": str(tmp_path)})
    folder = tmp_path / ".local/share/towline"
    assert [file.name for file in folder.iterdir()] == [KEY_FILE]
    assert stat.S_IMODE((folder / KEY_FILE).stat().st_mode) == 0o600
    again = signed({"XDG_DATA_HOME": str(folder.parent), "HOME": "/nowhere"})
    assert key_of(again) == key_of(first)


def test_whoever_is_quicker_makes_the_key_for_all(tmp_path: Path) -> None:
    keys: set[str] = set()
    start = threading.Barrier(8)

    def sign() -> None:
        start.wait()
        keys.add(key_of(signed({"HOME": str(tmp_path)})))

    threads = [threading.Thread(target=sign) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 1


@pytest.mark.parametrize("home", ["", "/proc/nowhere"])
def test_without_a_place_a_key_serves_once(home: str) -> None:
    assert key_of(signed({"HOME": home})) != key_of(signed({"HOME": home}))


def other_curve() -> bytes:
    return ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize("content", [b"", b"no key", other_curve()])
def test_a_key_that_is_of_no_use_is_told_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "towline").mkdir()
    (tmp_path / "towline" / KEY_FILE).write_bytes(content)
    warnings: list[str] = []
    verify(signed({"XDG_DATA_HOME": str(tmp_path)}, warnings))
    (warning,) = warnings
    assert KEY_FILE in warning
    assert (tmp_path / "towline" / KEY_FILE).read_bytes() == content


WITHOUT = """
import sys
sys.modules["cryptography"] = None
import towline
try:
    towline.push("x.tar", "localhost:1/app", allow_schema1=True, cache="none")
except towline.UsageError as error:
    print(error, "|", error.hint)
"""


def test_without_the_package_that_signs_nothing_is_begun() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True
    )
    assert "needs the package `cryptography`" in run.stdout
    assert "| pip install 'towline[schema1]' (in a clone '.[schema1]')" in run.stdout


def test_what_signs_is_not_loaded_before_it_is_needed() -> None:
    code = (
        "import sys; from towline.push.interface import options;"
        "from towline.push.manifests import put; from towline.knowledge import open;"
        "from towline.spec import schema1; options.wish({'allow_schema1': True});"
        "print('cryptography' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
