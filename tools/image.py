"""Makes an image of towline and pushes it with towline; no Dockerfile, no daemon.

    make image ARGS="REGISTRY/REPOSITORY[:TAG] [--base REF]"

Without a base it has the files of the Python that runs this: its library, and what that links to.
A base has a Python of the same version, and is copied to the repository first, without a tag; its
layers stay as they are. towline and what it needs lie in /opt/towline. The same files make the same
image.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import towline
from towline.spec import gojson, manifest, media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest
from towline.testing.blob_store import BlobStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.testing.blob_store import Content

PACKAGES = "opt/towline"
PREFIX = "usr/local"
LIBRARIES = f"{PREFIX}/lib"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
NOT_NEEDED = {
    "__pycache__",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
}
"""Folders of Python's library."""
NOT_NEEDED_EITHER = ("config-", "_tkinter", "_test", "_ctypes_test", "_xx", "xx", "nis.")
"""How names begin of what nothing of towline uses, and X11 with it."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
ENVIRON = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": f"/{PACKAGES}",
}


def main() -> int:
    """Make it, push it, and print its name."""
    parser = argparse.ArgumentParser(prog="make image", description=__doc__)
    parser.add_argument("destination", metavar="REGISTRY/REPOSITORY[:TAG]")
    parser.add_argument("--base", metavar="REF", help="an image with a Python of this version")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            layout = BlobStore(Path(folder))
            layers: list[Descriptor] = []
            config = new_config()
            if arguments.base:
                layers, config = copied_base(arguments.base, arguments.destination)
            else:
                add(layout, python_files(), layers, config)
            add(layout, towline_files(), layers, config)
            write(layout, layers, config)
            result = towline.push(folder, arguments.destination)
    except towline.TowlineError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    print(result.pinned)
    return 0


def new_config() -> dict[str, Any]:
    """Of an image that runs on this machine's processor."""
    environ = {**ENVIRON, "PYTHONHOME": f"/{PREFIX}", "LD_LIBRARY_PATH": f"/{LIBRARIES}"}
    return {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "Env": [f"{name}={value}" for name, value in environ.items()],
            "Entrypoint": ["python3", "-m", "towline"],
        },
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [],
    }


def copied_base(base: str, destination: str) -> tuple[list[Descriptor], dict[str, Any]]:
    """Copy a base to where the image will be; its layers, and its config with ours in it."""
    config = new_config()
    repository = re.sub(r":[^/:]+$", "", destination)
    machine = f"linux/{config['architecture']}"
    found = towline.copy(base, repository, by_digest=True, platform=machine)
    told = towline.inspect(f"{repository}@{found.digest}")
    layers = [
        Descriptor(each.media_type, Digest(each.digest), each.size)
        for each in told.layers
        if each.digest and each.size is not None
    ]
    own = told.config or {}
    base_environ = own.get("config", {}).get("Env") or [f"PATH={ENVIRON['PATH']}"]
    ours = [f"{name}={value}" for name, value in ENVIRON.items() if name != "PATH"]
    config["config"]["Env"] = [*base_environ, *ours]
    return layers, {**own, "config": {**own.get("config", {}), **config["config"], "Cmd": None}}


def add(
    layout: BlobStore,
    files: dict[str, Content],
    layers: list[Descriptor],
    config: dict[str, Any],
) -> None:
    """One layer more."""
    made = layout.add_layer(dict(sorted(files.items())), "none")
    layers.append(made.blob)
    config["rootfs"]["diff_ids"].append(made.diff_id)
    config.setdefault("history", []).append({"created_by": "towline: make image"})


def write(layout: BlobStore, layers: list[Descriptor], config: dict[str, Any]) -> None:
    """What makes a layout of the layers."""
    stored = layout.add(gojson.encode(config), media_types.OCI_CONFIG)
    raw = manifest.build("oci", stored, layers)
    top = layout.add(raw.content, raw.media_type)
    (layout.root / "index.json").write_bytes(manifest.build_index("oci", [top]).content)


def python_files() -> dict[str, Content]:
    """The interpreter, its library without what towline never uses, and what it links to."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(sysconfig.get_path("stdlib"))
    program = Path(sys.executable).resolve()
    files: dict[str, Content] = {f"{PREFIX}/bin/python3": program}
    for path in below(library):
        files[f"{LIBRARIES}/{version}/{path.relative_to(library)}"] = path
    certificates = Path("/", CERTIFICATES)
    if certificates.exists():
        files[CERTIFICATES] = certificates
    return files | linked([program, *(path for path in files.values() if is_native(path))])


def towline_files() -> dict[str, Content]:
    """The package itself, and those that it needs."""
    root = Path(towline.__file__).parent
    files: dict[str, Content] = {
        f"{PACKAGES}/towline/{path.relative_to(root)}": path for path in below(root)
    }
    for distribution in needed("towline"):
        for each in distribution.files or ():
            path = Path(str(distribution.locate_file(each))).resolve()
            if ".." not in each.parts and "__pycache__" not in each.parts and path.is_file():
                files[f"{PACKAGES}/{each}"] = path
    return files | linked([path for path in files.values() if is_native(path)])


def needed(name: str, seen: frozenset[str] = frozenset()) -> Iterator[metadata.Distribution]:
    """What a package requires, without its extras, and what that requires."""
    for requirement in metadata.requires(name) or ():
        word, marker = (*requirement.split(";"), "")[:2]
        other = re.split(r"[^A-Za-z0-9._-]", word.strip())[0]
        if other not in seen and "extra" not in marker and is_installed(other):
            yield metadata.distribution(other)
            yield from needed(other, seen | {other})


def is_installed(name: str) -> bool:
    """A marker may say that it is for other systems or versions."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def below(folder: Path) -> Iterator[Path]:
    """The files that are of use in an image."""
    for path in sorted(folder.iterdir()):
        if path.name in NOT_NEEDED or path.name.startswith(NOT_NEEDED_EITHER):
            continue
        if path.is_dir():
            yield from below(path)
        elif path.suffix not in {".a", ".pyc"}:
            yield path


def is_native(path: Content) -> bool:
    """Whether it links to other libraries."""
    return isinstance(path, Path) and ".so" in path.suffixes


def linked(programs: list[Content]) -> dict[str, Content]:
    """The libraries of the system that these link to; the loader stays where they look for it."""
    files: dict[str, Content] = {}
    for program in programs:
        told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
        for line in told.stdout.splitlines():
            if match := re.fullmatch(r"\s*(\S+) => (/\S+) \(0x\w+\)", line):
                files[f"{LIBRARIES}/{match[1]}"] = Path(match[2]).resolve()
            elif match := re.fullmatch(r"\s*/(\S+) \(0x\w+\)", line):
                files[match[1]] = Path("/", match[1]).resolve()
    return files


if __name__ == "__main__":
    sys.exit(main())
