"""Images that were built, and how a store of their blobs is written in the formats of archives."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from towline import reference
from towline.sources.oci_layout import path_of
from towline.spec import gojson, media_types
from towline.spec.digest import Digest
from towline.spec.manifest import RawManifest, build_index
from towline.testing.blob_store import BlobStore, MadeLayer, PackedFile, add_file, entry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from towline.spec.media_types import Compression

Form = Literal["docker", "docker-containerd", "docker-legacy", "oci", "oci-archive"]

_LAYOUT = gojson.encode({"imageLayoutVersion": "1.0.0"})


@dataclass(frozen=True, slots=True)
class MadeImage:
    """One built image, of one platform."""

    platform: str
    config: bytes
    layers: tuple[MadeLayer, ...]
    manifest: RawManifest
    """As in the archive; a legacy docker archive contains no manifest."""

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The layers' DiffIDs, base first."""
        return tuple(layer.diff_id for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Made:
    """What `make_image` has built: the images of one or more platforms, under some names."""

    path: Path
    names: tuple[str, ...]
    images: tuple[MadeImage, ...]
    """The images that the archive contains, in the order of the index."""
    root: RawManifest
    """The index, or the manifest of the only image."""

    @property
    def digest(self) -> Digest:
        """Digest of `root`."""
        return self.root.digest

    @property
    def config(self) -> bytes:
        """The config of the first image."""
        return self.images[0].config

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The DiffIDs of the first image, base first."""
        return self.images[0].diff_ids


def write(
    form: Form, store: BlobStore, made: Sequence[Made], path: Path, archive: Compression
) -> None:
    """Write the images of the store to `path`; `archive` compresses the file as a whole."""
    if form == "oci":
        path.mkdir(parents=True, exist_ok=True)
        shutil.copytree(store.root / "blobs", path / "blobs", dirs_exist_ok=True)
        (path / "oci-layout").write_bytes(_LAYOUT)
        (path / "index.json").write_bytes(_index(made))
        return
    with path.open("wb") as file, PackedFile(file, archive).tar() as tar:
        if form == "docker-legacy":
            _fill_legacy(tar, store, made)
        else:
            _fill_layout(tar, store, made, saved_by_docker=form != "oci-archive")


def _index(made: Sequence[Made]) -> bytes:
    """The content of `index.json`, with names as containerd writes them."""
    listed = []
    for each in made:
        for name in each.names or (None,):
            annotations = {}
            if name is not None:
                annotations["org.opencontainers.image.ref.name"] = name
                if "/" in name or ":" in name:
                    full = reference.parse(name)
                    annotations["io.containerd.image.name"] = str(full)
                    annotations["org.opencontainers.image.ref.name"] = full.target
            listed.append(each.root.descriptor()._replace(annotations=annotations))
    return build_index("oci", listed).content


def _fill_layout(
    tar: tarfile.TarFile, store: BlobStore, made: Sequence[Made], *, saved_by_docker: bool
) -> None:
    """Write a layout into the tar; docker adds `manifest.json`, which its older releases read."""
    for folder in ("blobs", "blobs/sha256"):
        tar.addfile(entry(folder, kind=tarfile.DIRTYPE, mode=0o755))
    for name in store.names():
        add_file(tar, name, store.root / name)
    add_file(tar, "index.json", _index(made))
    if saved_by_docker:
        listed = [
            {
                "Config": path_of(Digest.of(image.config)),
                "RepoTags": list(each.names) or None,
                "Layers": [path_of(layer.blob.digest) for layer in image.layers],
                "LayerSources": {layer.diff_id: layer.blob.as_json() for layer in image.layers},
            }
            for each in made
            for image in each.images
        ]
        add_file(tar, "manifest.json", gojson.encode(listed))
    add_file(tar, "oci-layout", _LAYOUT)


def _fill_legacy(tar: tarfile.TarFile, store: BlobStore, made: Sequence[Made]) -> None:
    """Write `manifest.json` without an index, and a folder for each layer.

    A layer that is in the tar already is a symbolic link, as docker before 25 writes it.
    """
    listed: list[dict[str, Any]] = []
    written: dict[str, str] = {}  # DiffID to the path of its layer
    for each in made:
        for image in each.images:
            config = f"{Digest.of(image.config).hex}.json"
            add_file(tar, config, image.config)
            layers = _add_layers(tar, store, image, written)
            names = list(each.names) or None
            listed.append({"Config": config, "RepoTags": names, "Layers": layers})
    add_file(tar, "manifest.json", gojson.encode(listed))


def _add_layers(
    tar: tarfile.TarFile, store: BlobStore, image: MadeImage, written: dict[str, str]
) -> list[str]:
    """Put an image's layers into the tar, unless they are in it; gives the paths of all."""
    paths, chain = [], ""
    for layer in image.layers:
        digest = layer.blob.digest
        first = written.get(layer.diff_id)
        if layer.blob.media_type != media_types.OCI_LAYER:
            end = "zst" if layer.blob.media_type == media_types.OCI_LAYER_ZSTD else "gz"
            path = f"{digest.hex}.tar.{end}"
        else:
            chain = hashlib.sha256(f"{chain} {layer.diff_id}".encode()).hexdigest()
            path = f"{chain}/layer.tar"
            if first != path:
                tar.addfile(entry(chain, kind=tarfile.DIRTYPE, mode=0o755))
                add_file(tar, f"{chain}/VERSION", b"1.0")
        if first is None:
            add_file(tar, path, store.path(digest))
            written[layer.diff_id] = path
        elif first != path:
            tar.addfile(entry(path, kind=tarfile.SYMTYPE, mode=0o777, target=f"../{first}"))
        paths.append(path)
    return paths
