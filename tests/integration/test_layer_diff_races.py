"""Upper directories that change while they are read: whole layers or typed errors, and never a way out."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import stat
import threading
from typing import TYPE_CHECKING

import pytest
from support.session import temporary_directory
from support.trees import Overlay, applied

from containerlib.errors import InvalidInputError, UnsafePath
from containerlib.layer.diff import write_diff
from containerlib.layer.tar_reader import TarReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
def place() -> Iterator[Overlay]:
    """Give an overlay's directories, and check that no descriptor stays open."""
    before = len(os.listdir("/proc/self/fd"))
    with temporary_directory("v") as base:
        yield Overlay(base)
    assert len(os.listdir("/proc/self/fd")) == before


class Meddler:
    """A sink that changes the tree when the first bytes arrive: when the walk is over and reading begins."""

    def __init__(self, change: object) -> None:
        self.data = b""
        self._change = change

    def write(self, data: bytes, /) -> int:
        """Keep the bytes."""
        if not self.data:
            self._change()  # type: ignore[operator]
        self.data += data
        return len(data)


def swap_for_link(path: Path) -> None:
    """Replace a file or directory by a link to the canary."""
    path.rename(f"{path}.old")
    path.symlink_to("../../canary" if path.name == "file" else "../canary")


MEDDLING = {
    "file removed": lambda top: (top / "z" / "file").unlink(),
    "file becomes a link": lambda top: swap_for_link(top / "z" / "file"),
    "file becomes a pipe": lambda top: ((top / "z" / "file").unlink(), os.mkfifo(top / "z" / "file")),
    "file becomes a device": lambda top: (
        (top / "z" / "file").unlink(),
        os.mknod(top / "z" / "file", stat.S_IFCHR, os.makedev(1, 5)),
    ),
    "file becomes another": lambda top: (
        (top / "z" / "n").write_bytes(b"n"),
        (top / "z" / "n").rename(top / "z" / "file"),
    ),
    "file becomes a directory": lambda top: ((top / "z" / "file").unlink(), (top / "z" / "file").mkdir()),
    "directory removed": lambda top: shutil.rmtree(top / "z"),
}


@pytest.mark.parametrize("how", MEDDLING)
def test_changes_while_it_is_read(place: Overlay, how: str) -> None:
    """What is exchanged under the reader is an error, and no link leads it out of the directory."""
    (place.base / "canary").mkdir()
    (place.base / "canary" / "file").write_bytes(b"secret of the host")
    (place.upper / "z").mkdir()
    (place.upper / "z" / "file").write_bytes(b"data")
    (place.upper / "a").write_bytes(b"data")
    sink = Meddler(lambda: MEDDLING[how](place.upper))
    with pytest.raises((InvalidInputError, UnsafePath)):
        write_diff(str(place.upper), sink)
    assert b"secret" not in sink.data


def test_directory_that_becomes_a_link(place: Overlay) -> None:
    """A directory that was walked and is then exchanged for a link is read as it was, or not at all."""
    (place.base / "canary").mkdir()
    for number in range(300):
        (place.upper / f"{number}").mkdir()
        (place.upper / f"{number}" / "file").write_bytes(b"of the container")
        (place.base / "canary" / "file").write_bytes(b"secret of the host")

    def swap() -> None:
        for number in range(300):
            swap_for_link(place.upper / f"{number}")

    sink = Meddler(swap)
    with pytest.raises((InvalidInputError, UnsafePath), match="link"):
        write_diff(str(place.upper), sink)
    assert b"secret" not in sink.data


def test_file_that_changes_its_length(place: Overlay) -> None:
    """A file that grows is written as long as it was when it was opened; one that shrinks is an error."""
    (place.upper / "a").write_bytes(b"data")
    (place.upper / "log").write_bytes(bytes(100_000))
    sink = Meddler(lambda: os.truncate(place.upper / "log", 300_000))
    write_diff(str(place.upper), sink)
    assert [entry.size for entry in TarReader(io.BytesIO(sink.data))] == [4, 300_000]

    class Cutter(Meddler):
        def write(self, data: bytes, /) -> int:
            if len(data) == 1 << 20:
                os.truncate(place.upper / "log", 10)
            return super().write(data)

    os.truncate(place.upper / "log", 3 << 20)
    with pytest.raises(InvalidInputError, match="changed while it was read"):
        write_diff(str(place.upper), Cutter(lambda: None))


def meddle(top: Path, numbers: random.Random) -> None:
    """Do one random thing to a small tree."""
    path, other = (top / numbers.choice("abc") / numbers.choice(["file", "x"]) for _ in range(2))
    actions = (
        lambda: path.write_bytes(b"x" * numbers.choice([10, 100_000])),
        lambda: path.rename(other),
        path.unlink,
        lambda: path.parent.rename(other.parent),
        lambda: path.symlink_to("../../canary/file"),
        lambda: path.parent.symlink_to("../canary"),
    )
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        numbers.choice(actions)()


def test_writers_beside_the_reader(place: Overlay) -> None:
    """While others write, a layer is whole and holds nothing of the host, or there is a typed error."""
    (place.base / "canary").mkdir()
    (place.base / "canary" / "file").write_bytes(b"secret of the host")
    end = threading.Event()

    def write(seed: int) -> None:
        numbers = random.Random(seed)  # noqa: S311 - an order, not a secret
        while not end.is_set():
            meddle(place.upper, numbers)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
    for writer in writers:
        writer.start()
    try:
        for number in range(400):
            with contextlib.suppress(InvalidInputError, UnsafePath):
                data = place.diff()
                assert b"secret" not in data
                list(TarReader(io.BytesIO(data)))
                if number % 20 == 0:
                    applied(data, place.base / f"again-{number}")
    finally:
        end.set()
        for writer in writers:
            writer.join()
    list(TarReader(io.BytesIO(place.diff())))
