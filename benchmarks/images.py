"""The images that pulling and pushing are measured with: an OCI layout, made once and kept in the cache.

Four layers: a root file system of Debian, a toolchain of 20,000 files from Debian's packages, 60 MB that no
compressor makes smaller, 3,000 small files. A second image has the same layers but for the last one.

It must not know who transfers them. In: apt's own configuration. Out: a `Layout`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from measure import CHECKOUT

sys.path.append(os.path.join(CHECKOUT, "tests"))
from support.debian_image import cached, debian_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Layout", "benchmark_layout", "small_files"]

PACKAGES = ["golang-1.19-src", "libllvm14", "gcc-12", "cpp-12", "libgcc-12-dev", "libstdc++-12-dev"]
PACKAGES += ["libc6-dev", "linux-libc-dev", "libboost1.74-dev"]
TOOLCHAIN_FILES, SMALL_FILES, RANDOM_FILES, RANDOM_BYTES = 20_000, 3_000, 6, 10_000_000
_VERSION = 1
_MTIME = "@1700000000"
_KIND = "application/vnd.oci.image"


@dataclass(frozen=True)
class Layout:
    """A layout with the images `first` and `second`."""

    path: Path

    def manifest(self, tag: str) -> dict[str, Any]:
        """Return the manifest of one image."""
        index = json.loads((self.path / "index.json").read_bytes())
        digests = {
            entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"]
            for entry in index["manifests"]
        }
        found: dict[str, Any] = json.loads(self.blob(digests[tag]).read_bytes())
        return found

    def blob(self, digest: str) -> Path:
        """Return the file of a blob."""
        return self.path / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def facts(self) -> dict[str, Any]:
        """Return what the image `first` is made of: sizes in bytes, layer by layer."""
        layers = [layer["size"] for layer in self.manifest("first")["layers"]]
        facts: dict[str, Any] = json.loads((self.path / "facts.json").read_bytes())
        return {"compressed": layers, **facts}


def benchmark_layout() -> Layout:
    """Return the layout, made now if the cache does not have it: takes two minutes, and 400 MB stay."""
    base = debian_root(("python3",))
    inputs = [_VERSION, base.name, PACKAGES, TOOLCHAIN_FILES, SMALL_FILES, RANDOM_FILES, RANDOM_BYTES]
    return Layout(cached("benchmark", inputs, lambda path: _make(path, base)))


def small_files(directory: Path, count: int, seed: str) -> None:
    """Fill `directory` with small files of text, a hundred in each directory."""
    source = random.Random(seed)  # noqa: S311 - the same each time is the point
    for number in range(count):
        path = directory / f"d{number // 100:03}" / f"file-{number:05}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(source.randint(50, 1500)).hex().encode())


def _make(path: Path, base: Path) -> None:
    (path / "blobs" / "sha256").mkdir(parents=True)
    work = path / "work"
    fillings: dict[str, Callable[[Path], None]] = {
        "toolchain": _fill_toolchain,
        "random": _fill_random,
        "small-1": lambda tree: small_files(tree / "srv" / "small", SMALL_FILES, "1"),
        "small-2": lambda tree: small_files(tree / "srv" / "small", SMALL_FILES, "2"),
    }
    archives = {"debian": base}
    for name, fill in fillings.items():
        tree = work / name
        tree.mkdir(parents=True)
        fill(tree)
        archives[name] = _archive(tree, work / f"{name}.tar")
        shutil.rmtree(tree)
    layers = {name: _add_layer(path, tar) for name, tar in archives.items()}
    common = ["debian", "toolchain", "random"]
    sizes = [os.path.getsize(archives[name]) for name in (*common, "small-1")]
    (path / "facts.json").write_text(json.dumps({"uncompressed": sizes}), encoding="ascii")
    manifests = []
    for tag, last in (("first", "small-1"), ("second", "small-2")):
        entry = _add_image(path, [layers[name] for name in (*common, last)])
        manifests.append({**entry, "annotations": {"org.opencontainers.image.ref.name": tag}})
    index = {"schemaVersion": 2, "manifests": manifests}
    (path / "index.json").write_text(json.dumps(index), encoding="ascii")
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="ascii")
    shutil.rmtree(work)


def _fill_toolchain(tree: Path) -> None:
    """Unpack the packages; of the last one as many files as still fit."""
    downloads = tree.with_suffix(".debs")
    downloads.mkdir()
    subprocess.run(["apt-get", "-qq", "download", *PACKAGES], cwd=downloads, check=True, capture_output=True)
    for name in PACKAGES:
        (package,) = downloads.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, tree], check=True)
    shutil.rmtree(downloads)
    assert os.listdir(tree) == ["usr"], "a package brings a directory where Debian's root has a link"
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    spare = [path for path in files if "boost" in str(path)]
    for path in spare[::-1][: len(files) - TOOLCHAIN_FILES]:
        path.unlink()


def _fill_random(tree: Path) -> None:
    source = random.Random("random")  # noqa: S311 - the same each time is the point
    (tree / "srv").mkdir()
    for number in range(RANDOM_FILES):
        (tree / "srv" / f"random-{number}").write_bytes(source.randbytes(RANDOM_BYTES))


def _archive(tree: Path, tar: Path) -> Path:
    options = ["--sort=name", f"--mtime={_MTIME}", "--owner=0", "--group=0", "--numeric-owner"]
    subprocess.run(["tar", "-C", tree, "-cf", tar, *options, "--format=pax", "."], check=True)
    return tar


def _add(path: Path, data: bytes, kind: str) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (path / "blobs" / "sha256" / digest).write_bytes(data)
    return {"mediaType": f"{_KIND}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}


def _add_layer(path: Path, tar: Path) -> tuple[dict[str, Any], str]:
    """Store a layer compressed as the engines compress. Returns its descriptor and its diff id."""
    packed = subprocess.run(["gzip", "-6", "-n", "-c", tar], check=True, capture_output=True).stdout
    with open(tar, "rb") as file:
        diff_id = hashlib.file_digest(file, "sha256").hexdigest()
    return _add(path, packed, "layer.v1.tar+gzip"), f"sha256:{diff_id}"


def _add_image(path: Path, layers: list[tuple[dict[str, Any], str]]) -> dict[str, Any]:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = {
        "os": "linux",
        "architecture": architecture,
        "config": {"Cmd": ["python3"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_KIND}.manifest.v1+json",
        "config": _add(path, json.dumps(config).encode(), "config.v1+json"),
        "layers": [descriptor for descriptor, _ in layers],
    }
    return _add(path, json.dumps(manifest).encode(), "manifest.v1+json")
