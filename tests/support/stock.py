"""A store with one image of two layers, in pieces, for tests that damage it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from support.archives import archive, directory, file, symlink

if TYPE_CHECKING:
    from containerlib import Engine, Image

__all__ = ["BIG", "NAME", "Stock", "load_two_layers", "take_stock", "two_layers"]

NAME = "docker.io/library/t:1"
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


def two_layers(name: str = "t:1", upper: bytes = b"two") -> io.BytesIO:
    """Return an archive as docker writes it: an image of two layers, of which only the upper may differ."""
    passwd = file(b"etc/passwd", b"root:x:0:0::/:/x\n")
    first = archive(directory(b"d"), file(b"d/a", BIG), passwd, symlink(b"l", b"d"))
    second = archive(file(b"d/b", upper), file(b"d/.wh.a", b""))
    config = json.dumps(
        {
            "os": "linux",
            "architecture": os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64"),
            "config": {"Cmd": ["/x"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in (first, second)],
            },
        }
    ).encode()
    manifest = json.dumps(
        [{"Config": "config.json", "RepoTags": [name], "Layers": ["1.tar", "2.tar"]}]
    ).encode()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for member, content in (
            ("config.json", config),
            ("1.tar", first),
            ("2.tar", second),
            ("manifest.json", manifest),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    data.seek(0)
    return data


def load_two_layers(engine: Engine, name: str = "t:1", upper: bytes = b"two") -> Image:
    """Load the image of two layers under a name."""
    from containerlib.image import archive_load  # noqa: PLC0415

    archive_load.load(engine._session.stores, two_layers(name, upper))
    return engine.images.get(name)


def take_stock(engine: Engine) -> Stock:
    """Load the image, and return where everything of it lies."""
    image = load_two_layers(engine)
    root = Path(engine.root)

    def blob(digest: object) -> Path:
        return root / "blobs" / str(digest).replace(":", "/")

    return Stock(
        engine,
        image,
        layers=[blob(layer.digest) for layer in image.layers],
        snapshots=[Path(path).parent for path in reversed(image.record.lowers)],
        manifest=blob(image.digest),
        config=blob(image.id),
        reference=next((root / "references").glob("*.json")),
    )
