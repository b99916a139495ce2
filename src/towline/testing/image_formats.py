"""Arranges a store of blobs as the tools do that save images."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from typing import TYPE_CHECKING, Any, Literal

from towline import reference
from towline.spec import gojson, media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest
from towline.testing.blob_store import PackedFile, entry, link

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from towline.spec.compression import Compression
    from towline.testing.blob_store import BlobStore, MadeLayer
    from towline.testing.made import Made, MadeImage

Form = Literal["docker", "docker-containerd", "docker-legacy", "oci", "oci-archive"]

_LAYOUT = gojson.encode({"imageLayoutVersion": "1.0.0"})


def write(
    form: Form, store: BlobStore, made: Sequence[Made], path: Path, archive: Compression
) -> None:
    """Write the images of the store to `path`; `archive` compresses the file as a whole."""
    if form == "oci":
        _write_folder(store, made, path)
        return
    fill: Callable[[tarfile.TarFile], None]
    if form == "docker-legacy":
        fill = _Legacy(store, made).fill
    else:
        fill = _Layout(store, made, saved_by_docker=form != "oci-archive").fill
    with path.open("wb") as file:
        packed = PackedFile(file, archive)
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
            fill(tar)
        packed.finish()


def _write_folder(store: BlobStore, made: Sequence[Made], path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    shutil.copytree(store.root / "blobs", path / "blobs", dirs_exist_ok=True)
    (path / "oci-layout").write_bytes(_LAYOUT)
    (path / "index.json").write_bytes(_index(made))


def _index(made: Sequence[Made]) -> bytes:
    listed = [_root(each, name).as_json() for each in made for name in each.names or (None,)]
    return gojson.encode(
        {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": listed}
    )


def _root(made: Made, name: str | None) -> Descriptor:
    """What `index.json` says of an image; its names as containerd writes them."""
    annotations = {}
    if name is not None:
        annotations["org.opencontainers.image.ref.name"] = name
        if "/" in name or ":" in name:
            full = reference.parse(name)
            annotations["io.containerd.image.name"] = str(full)
            annotations["org.opencontainers.image.ref.name"] = full.target
    raw = made.root
    return Descriptor(raw.media_type, raw.digest, raw.size, annotations=annotations)


class _Layout:
    """A layout in a tar; docker adds the list that its older releases read."""

    def __init__(self, store: BlobStore, made: Sequence[Made], *, saved_by_docker: bool) -> None:
        self._store = store
        self._made = made
        self._saved_by_docker = saved_by_docker

    def fill(self, tar: tarfile.TarFile) -> None:
        _add_folders(tar, "blobs", "blobs/sha256")
        for name in self._store.names():
            _add_file(tar, name, self._store.root / name)
        _add(tar, "index.json", _index(self._made))
        if self._saved_by_docker:
            listed = [self._listed(made, image) for made in self._made for image in made.images]
            _add(tar, "manifest.json", gojson.encode(listed))
        _add(tar, "oci-layout", _LAYOUT)

    @staticmethod
    def _listed(made: Made, image: MadeImage) -> dict[str, Any]:
        blobs = [layer.blob for layer in image.layers]
        return {
            "Config": _blob(Digest.of(image.config)),
            "RepoTags": list(made.names) or None,
            "Layers": [_blob(blob.digest) for blob in blobs],
            "LayerSources": {layer.diff_id: layer.blob.as_json() for layer in image.layers},
        }


class _Legacy:
    """`manifest.json` alone, a folder for each layer; the same layer twice is a link."""

    def __init__(self, store: BlobStore, made: Sequence[Made]) -> None:
        self._store = store
        self._made = made
        self._written: dict[str, str] = {}
        """DiffID to the path of its layer."""

    def fill(self, tar: tarfile.TarFile) -> None:
        listed = [self._image(tar, made, image) for made in self._made for image in made.images]
        _add(tar, "manifest.json", gojson.encode(listed))

    def _image(self, tar: tarfile.TarFile, made: Made, image: MadeImage) -> dict[str, Any]:
        config = f"{Digest.of(image.config).hex}.json"
        _add(tar, config, image.config)
        paths = []
        parent = ""
        for layer in image.layers:
            if layer.blob.media_type == media_types.OCI_LAYER:
                parent = hashlib.sha256(f"{parent} {layer.diff_id}".encode()).hexdigest()
                paths.append(self._layer(tar, layer, parent))
            else:
                paths.append(self._named_by_digest(tar, layer))
        return {"Config": config, "RepoTags": list(made.names) or None, "Layers": paths}

    def _layer(self, tar: tarfile.TarFile, layer: MadeLayer, name: str) -> str:
        path = f"{name}/layer.tar"
        if self._written.get(layer.diff_id) == path:
            return path
        _add_folders(tar, name)
        _add(tar, f"{name}/VERSION", b"1.0")
        if layer.diff_id in self._written:
            tar.addfile(link(path, f"../{self._written[layer.diff_id]}"))
        else:
            _add_file(tar, path, self._store.path(layer.blob.digest))
            self._written[layer.diff_id] = path
        return path

    def _named_by_digest(self, tar: tarfile.TarFile, layer: MadeLayer) -> str:
        end = "zst" if layer.blob.media_type == media_types.OCI_LAYER_ZSTD else "gz"
        path = f"{layer.blob.digest.hex}.tar.{end}"
        if layer.diff_id not in self._written:
            _add_file(tar, path, self._store.path(layer.blob.digest))
            self._written[layer.diff_id] = path
        return path


def _blob(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _add_folders(tar: tarfile.TarFile, *names: str) -> None:
    for name in names:
        tar.addfile(entry(name, kind=tarfile.DIRTYPE, mode=0o755))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(entry(name, len(content)), io.BytesIO(content))


def _add_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    with path.open("rb") as file:
        tar.addfile(entry(name, path.stat().st_size), file)
