"""The image that is pushed: three big layers and three tiny ones, about 1.2 GB, made once and kept.

Its bytes are those of real programs, libraries and documents: files of this machine, and wheels
where pip can download them. A machine that has less gives a smaller image; the report says how
large it was. The archive is laid out as today's `docker save` does it: an OCI layout with
uncompressed layers, and `manifest.json` beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MB = 1_000_000
NAME = "towline-bench:1"
WHEELS = ("numpy", "scipy", "pyarrow")
PACKAGES_SIZE = 320 * MB
EPOCH = 1_700_000_000
"""Time of every member, so that the same files give the same image."""


@dataclass(frozen=True, slots=True)
class Image:
    """A made archive."""

    path: Path
    size: int
    """Bytes of the archive."""
    layers: tuple[int, ...]
    """Bytes of each uncompressed layer, base first."""


@dataclass(frozen=True, slots=True)
class _Layer:
    path: Path
    size: int
    diff_id: str
    """Hex digits alone."""


class _Hashing:
    """A file that hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self._file.write(data)


def kept(path: Path, say: Callable[[str], None]) -> Image:
    """The image at that path, made now if it is not there yet."""
    if not path.exists():
        say(f"making the image (once, kept as {path})")
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="making-") as making:
            made = _archive(_layers(Path(making), say), Path(making) / "image.tar")
            made.rename(path)
    return opened(path)


def opened(path: Path) -> Image:
    """An archive of anybody's making, by its `manifest.json`."""
    with tarfile.open(path) as archive:
        members = {member.name: member for member in archive.getmembers()}
        file = archive.extractfile(members["manifest.json"])
        listed = json.load(cast("BinaryIO", file))[0]["Layers"]
    return Image(path, path.stat().st_size, tuple(members[name].size for name in listed))


def _layers(folder: Path, say: Callable[[str], None]) -> list[_Layer]:
    makers: list[tuple[str, Callable[[tarfile.TarFile], None]]] = [
        ("lib", lambda tar: _add_files(tar, _sample(("/usr/lib", "/usr/bin"), 590 * MB))),
        ("etc", lambda tar: _add_bytes(tar, "etc/app.conf", b"listen = 8080\n" * 40)),
        ("share", lambda tar: _add_files(tar, _sample(("/usr/share", "/usr/libexec"), 330 * MB))),
        ("packages", lambda tar: _add_packages(tar, folder, say)),
        ("app", lambda tar: _add_files(tar, _sample((str(Path(json.__file__).parent),), MB))),
        ("release", lambda tar: _add_bytes(tar, "etc/release", b"1\n")),
    ]
    layers = []
    for name, fill in makers:
        layers.append(_layer(folder / f"{name}.tar", fill))
        say(f"  layer {name}: {layers[-1].size / MB:.1f} MB")
    return layers


def _layer(path: Path, fill: Callable[[tarfile.TarFile], None]) -> _Layer:
    with path.open("wb") as file:
        hashing = _Hashing(file)
        with tarfile.open(
            fileobj=cast("BinaryIO", hashing), mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 20
        ) as tar:
            fill(tar)
    return _Layer(path, hashing.size, hashing.hash.hexdigest())


def _sample(roots: tuple[str, ...], limit: int) -> list[Path]:
    """Regular files below the roots, spread evenly over them, up to that many bytes in all."""
    ranked = sorted((hashlib.sha256(str(path).encode()).digest(), path) for path in _files(roots))
    chosen, total = [], 0
    for _, path in ranked:
        size = path.stat().st_size
        if total + size <= limit:
            chosen.append(path)
            total += size
    return sorted(chosen)


def _files(roots: tuple[str, ...]) -> Iterator[Path]:
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name)
                if stat.S_ISREG(path.lstat().st_mode) and os.access(path, os.R_OK):
                    yield path


def _add_files(tar: tarfile.TarFile, paths: list[Path]) -> None:
    for path in paths:
        with path.open("rb") as file:
            member = tarfile.TarInfo(str(path).lstrip("/"))
            member.size = os.fstat(file.fileno()).st_size
            member.mode, member.mtime = 0o755 if os.access(path, os.X_OK) else 0o644, EPOCH
            tar.addfile(member, file)


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(data), EPOCH
    tar.addfile(member, BytesIO(data))


def _add_packages(tar: tarfile.TarFile, folder: Path, say: Callable[[str], None]) -> None:
    wheels = _download(folder / "wheels")
    if not wheels:
        say("  no wheels from pip here: files of the machine instead")
        roots = ("/usr/local", "/opt", sys.base_prefix)
        _add_files(tar, _sample(roots, PACKAGES_SIZE))
    for wheel in wheels:
        _add_wheel(tar, wheel)


def _download(into: Path) -> list[Path]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--no-deps", "--dest", into, *WHEELS], capture_output=True, check=False
    )
    return sorted(into.glob("*.whl")) if done.returncode == 0 else []


def _add_wheel(tar: tarfile.TarFile, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        for info in packed.infolist():
            if not info.is_dir():
                _add_bytes(tar, f"usr/lib/python3/dist-packages/{info.filename}", packed.read(info))


def _archive(layers: list[_Layer], path: Path) -> Path:
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2023-11-14T22:13:20Z",
            "config": {"Cmd": ["/bin/true"]},
            "history": [{"created_by": layer.path.stem} for layer in layers],
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{x.diff_id}" for x in layers]},
        }
    )
    blobs = [f"blobs/sha256/{layer.diff_id}" for layer in layers]
    manifest = _json(_manifest(config, layers))
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for layer, name in zip(layers, blobs, strict=True):
            _move(tar, layer, name)
        _add_bytes(tar, f"blobs/sha256/{_hex(config)}", config)
        _add_bytes(tar, f"blobs/sha256/{_hex(manifest)}", manifest)
        _add_bytes(tar, "index.json", _json(_index(manifest)))
        _add_bytes(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        listed = {"Config": f"blobs/sha256/{_hex(config)}", "RepoTags": [NAME], "Layers": blobs}
        _add_bytes(tar, "manifest.json", _json([listed]))
    return path


def _move(tar: tarfile.TarFile, layer: _Layer, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = layer.size, EPOCH
    with layer.path.open("rb") as file:
        tar.addfile(member, file)
    layer.path.unlink()


def _manifest(config: bytes, layers: list[_Layer]) -> dict[str, object]:
    oci = "application/vnd.oci.image."
    return {
        "schemaVersion": 2,
        "mediaType": f"{oci}manifest.v1+json",
        "config": _descriptor(f"{oci}config.v1+json", _hex(config), len(config)),
        "layers": [_descriptor(f"{oci}layer.v1.tar", x.diff_id, x.size) for x in layers],
    }


def _index(manifest: bytes) -> dict[str, object]:
    listed = _descriptor(
        "application/vnd.oci.image.manifest.v1+json", _hex(manifest), len(manifest)
    )
    names = {
        "io.containerd.image.name": f"docker.io/library/{NAME}",
        "org.opencontainers.image.ref.name": NAME.partition(":")[2],
    }
    return {"schemaVersion": 2, "manifests": [{**listed, "annotations": names}]}


def _descriptor(media_type: str, hex_digits: str, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{hex_digits}", "size": size}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
