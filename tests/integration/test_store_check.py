"""Damage of every kind is found, mended or named, and never used."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from support.archives import archive, directory, file, symlink
from support.session import temporary_directory

import containerlib as cl
from containerlib._util import file_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containerlib import Engine, Image

pytestmark = [pytest.mark.root]

BIG = os.urandom(1 << 16)


@attrs.frozen
class Stock:
    """A store with one image of two layers, in pieces.

    Attributes:
        layers: Files of the layers' blobs, lowest first.
        snapshots: Directories of the snapshots, lowest first.
        reference: The file of its name.
    """

    engine: Engine
    image: Image
    layers: list[Path]
    snapshots: list[Path]
    manifest: Path
    config: Path
    reference: Path

    @property
    def root(self) -> Path:
        """Directory of the store."""
        return Path(self.engine.root)

    def check(self, *, deep: bool = False) -> list[tuple[str, str]]:
        """Return kind and path, below the root, of everything that is found."""
        found = self.engine.check(deep=deep)
        return [(damage.kind, str(Path(damage.path).relative_to(self.root))) for damage in found]


def two_layers() -> io.BytesIO:
    """Return an archive as docker writes it: an image of two layers called ``t:1``."""
    passwd = file(b"etc/passwd", b"root:x:0:0::/:/x\n")
    first = archive(directory(b"d"), file(b"d/a", BIG), passwd, symlink(b"l", b"d"))
    second = archive(file(b"d/b", b"two"), file(b"d/.wh.a", b""))
    from hashlib import sha256  # noqa: PLC0415

    config = json.dumps(
        {
            "os": "linux",
            "architecture": os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64"),
            "config": {"Cmd": ["/x"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{sha256(layer).hexdigest()}" for layer in (first, second)],
            },
        }
    ).encode()
    manifest = json.dumps(
        [{"Config": "config.json", "RepoTags": ["t:1"], "Layers": ["1.tar", "2.tar"]}]
    ).encode()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in (
            ("config.json", config),
            ("1.tar", first),
            ("2.tar", second),
            ("manifest.json", manifest),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    data.seek(0)
    return data


def load(engine: Engine) -> Image:
    """Load the image of two layers."""
    from containerlib.image import archive_load  # noqa: PLC0415

    archive_load.load(engine._session.stores, two_layers())
    return engine.images.get("t:1")


@pytest.fixture
def stock(engine: Engine) -> Iterator[Stock]:
    """Return a store with one image."""
    image = load(engine)
    root = Path(engine.root)

    def blob(digest: object) -> Path:
        return root / "blobs" / str(digest).replace(":", "/")

    yield Stock(
        engine,
        image,
        layers=[blob(layer.digest) for layer in image.layers],
        snapshots=[Path(path).parent for path in reversed(image.record.lowers)],
        manifest=blob(image.digest),
        config=blob(image.id),
        reference=next((root / "references").glob("*.json")),
    )


def test_nothing_is_wrong(stock: Stock) -> None:
    """A store that nobody has damaged has no findings, however deep one looks, and looking changes nothing."""
    before = sorted(str(path) for path in stock.root.rglob("*"))
    assert stock.check() == stock.check(deep=True) == []
    assert sorted(str(path) for path in stock.root.rglob("*") if path.parent.name != "locks") == [
        path for path in before if "/locks/" not in path
    ]
    assert stock.engine.repair() == cl.RepairReport()


def test_an_empty_store(engine: Engine) -> None:
    """A store that does not exist yet is in order, and is not made by looking at it."""
    assert engine.check(deep=True) == ()
    assert engine.repair() == cl.RepairReport()
    assert not os.path.exists(engine.root)
