"""A small ext4 that fills up, which allocates later than it is written to, unlike file systems in memory."""

from __future__ import annotations

import errno
import io
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.archives import archive, file
from support.capabilities import need
from support.session import temporary_directory, tracked_root
from support.stock import load_two_layers

import containerlib as cl
from containerlib._native.path import sync_filesystem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine

pytestmark = [pytest.mark.root]

DISK_BYTES = 12 << 20
STEP_BYTES = 64 << 10
OLD = "docker.io/library/old:1"


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return where an ext4 of a few MiB is mounted."""
    need(request.config, "peers", ("mkfs.ext4",))
    with temporary_directory("x") as base:
        image, mount = base / "image", base / "m"
        mount.mkdir()
        with image.open("wb") as out:
            out.truncate(DISK_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        done = subprocess.run(
            ["mount", "-o", "loop", image, mount], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no loop device: {done.stderr.strip()}")
        try:
            yield mount
        finally:
            subprocess.run(["umount", mount], check=True)


@pytest.fixture
def engine(disk: Path) -> Iterator[Engine]:
    """Return an engine whose store lies there, with an image."""
    with (
        temporary_directory("e") as base,
        tracked_root(base / "n"),
        cl.Engine(disk / "r", base / "n") as made,
    ):
        load_two_layers(made, OLD, b"one")
        yield made


def leave(disk: Path, room_bytes: int) -> None:
    """Fill the disk up but for so many bytes."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    sync_filesystem(str(disk))
    info = os.statvfs(disk)
    with ballast.open("wb") as out:
        size = info.f_bavail * info.f_frsize - room_bytes
        while size > 0:
            try:
                os.posix_fallocate(out.fileno(), 0, size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size -= info.f_frsize
            else:
                return


def test_full_at_any_size(disk: Path, engine: Engine) -> None:
    """However little room is left, making an image fails cleanly, and succeeds as soon as there is enough."""
    data = archive(file(b"a", os.urandom(300_000)), *(file(b"f%d" % number) for number in range(50)))
    blobs = sorted(path.name for path in (disk / "r" / "blobs").rglob("*"))
    failures = 0
    for room in range(0, 2 << 20, STEP_BYTES):
        leave(disk, room)
        try:
            engine.images.from_tar(io.BytesIO(data), reference="new:1")
        except cl.StoreFull:
            failures += 1
        else:
            break
        assert sorted(path.name for path in (disk / "r" / "blobs").rglob("*")) == blobs, room
        assert engine.check() == (), room
        assert engine.images.get(OLD).references == (OLD,)
    assert failures > 3
    assert engine.check(deep=False) == ()
    leave(disk, 0)
    assert engine.images.remove("new:1").deleted
    assert engine.prune(all=True).images.untagged == (OLD,)
    (disk / "ballast").unlink()
    assert engine.check(deep=True) == ()
    assert engine.images.list() == []
