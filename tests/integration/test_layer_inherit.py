"""Layers that say nothing of the directories that their files lie in."""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING

import pytest
from support.archives import archive, directory, file, member, symlink

from containerlib.image.assemble import complete_image
from containerlib.store.stores import Stores

if TYPE_CHECKING:
    from pathlib import Path

    from containerlib import Engine
    from containerlib.image.image_record import ImageRecord

pytestmark = [pytest.mark.root]


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """Give empty stores."""
    return Stores.open(f"{tmp_path}/root", f"{tmp_path}/run", durable=False)


def stacked(stores: Stores, *layers: bytes) -> ImageRecord:
    """Make an image of these layers."""
    with stores.leases.acquire("test") as lease:
        return complete_image(stores, lease, [stores.content.put(layer) for layer in layers])


def look(image: ImageRecord, path: str) -> tuple[int, int, int, int]:
    """Return mode, owner and time of a directory in the uppermost layer."""
    info = os.stat(f"{image.lowers[0]}/{path}")
    return stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, int(info.st_mtime)


BASE = archive(
    directory(b"tmp", mode=0o1777, mtime=5),
    directory(b"home", mode=0o711, uid=3, gid=4, mtime=6),
    directory(b"home/ann", mode=0o700, uid=1000, gid=1000, mtime=7),
    directory(b"gone", mode=0o700, mtime=8),
    directory(b"hidden/in", mode=0o700, mtime=9),
    directory(b"hidden", mode=0o755, mtime=9),
    symlink(b"link", b"tmp"),
)


def test_directories_are_what_they_are_below(stores: Stores) -> None:
    """Mode, owner and time come from the uppermost layer that has the directory."""
    image = stacked(stores, BASE, archive(file(b"etc/x")), archive(file(b"tmp/x"), file(b"home/ann/.rc")))
    assert look(image, "tmp") == (0o1777, 0, 0, 5)
    assert look(image, "home") == (0o711, 3, 4, 6)
    assert look(image, "home/ann") == (0o700, 1000, 1000, 7)


def test_what_is_nowhere_below(stores: Stores) -> None:
    """A directory that no layer has is root's, with the same time everywhere."""
    image = stacked(stores, BASE, archive(file(b"new/er/x"), file(b"home/bob/x")))
    assert look(image, "new") == look(image, "new/er") == look(image, "home/bob") == (0o755, 0, 0, 0)
    assert look(image, "home") == (0o711, 3, 4, 6)


def test_what_was_removed_gives_nothing(stores: Stores) -> None:
    """A directory that was removed in between, or is hidden, or is a link by now, is made anew."""
    removed = archive(
        file(b".wh.gone"), directory(b"hidden"), file(b"hidden/.wh..wh..opq"), file(b"home"), file(b"other")
    )
    image = stacked(
        stores, BASE, removed, archive(file(b"gone/x"), file(b"hidden/in/x"), file(b"home/ann/x"))
    )
    for path in ("gone", "hidden/in", "home", "home/ann"):
        assert look(image, path) == (0o755, 0, 0, 0), path


def test_an_own_entry_decides(stores: Stores) -> None:
    """A layer that says how a directory shall be is taken at its word, wherever it says so."""
    image = stacked(stores, BASE, archive(file(b"tmp/x"), directory(b"tmp", mode=0o700, mtime=11)))
    assert look(image, "tmp") == (0o700, 0, 0, 11)


def test_a_container_sees_it(engine: Engine) -> None:
    """Everybody can still write to /tmp in an image whose last layer brings a file there."""
    base = engine.images.from_host(["sh", "ls"])
    out = io.BytesIO()
    base.export(out)
    stores = Stores.open(engine.root, engine.run_root)
    tree = out.getvalue()
    with stores.leases.acquire("test") as lease:
        layers = [
            stores.content.put(data) for data in (tree, BASE, archive(file(b"tmp/x"), member(b"tmp/p", b"6")))
        ]
        made = complete_image(stores, lease, layers, reference="layered:1")
    image = engine.images.get(str(made.id))
    result = image.call(["/bin/sh", "-c", "echo hi > /tmp/mine && ls /tmp"], user="1000")
    assert result.text.split() == ["mine", "p", "x"], result.stderr
    assert engine.check(deep=True) == ()
