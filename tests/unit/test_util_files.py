from __future__ import annotations

import contextlib
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from containerlib._util import file_lock
from containerlib._util.atomic_file import (
    TEMPORARY_PREFIX,
    PendingFile,
    collect_temporary_files,
    make_directory,
    rename_directory,
    write_atomic,
)
from containerlib._util.remove_tree import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=[0o000, 0o777])
def any_umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test under the widest and the narrowest umask."""
    old = os.umask(request.param)
    yield
    os.umask(old)


@pytest.mark.usefixtures("any_umask")
def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    """Files are 0600 and directories 0700 under any umask."""
    write_atomic(f"{tmp_path}/a/b/file", b"x", durable=True)
    assert stat.S_IMODE(os.stat(f"{tmp_path}/a/b/file").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(f"{tmp_path}/a").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(f"{tmp_path}/a/b").st_mode) == 0o700


def test_replacing_leaves_one_file(tmp_path: Path) -> None:
    """A second write replaces the first and leaves nothing beside it."""
    path = f"{tmp_path}/file"
    write_atomic(path, b"old", durable=False)
    write_atomic(path, b"new", durable=False)
    assert os.listdir(tmp_path) == ["file"]
    with open(path, "rb") as file:
        assert file.read() == b"new"


def test_uncommitted_file_is_gone(tmp_path: Path) -> None:
    """Leaving the context without a commit leaves nothing."""
    with PendingFile(str(tmp_path)) as pending:
        pending.write(b"x")
        assert len(os.listdir(tmp_path)) == 1
    pending.discard()
    assert os.listdir(tmp_path) == []


def test_dead_writers_are_collected(tmp_path: Path) -> None:
    """Only temporary files that no live writer holds are collected."""
    (tmp_path / f"{TEMPORARY_PREFIX}dead").write_bytes(b"x")
    (tmp_path / "other").write_bytes(b"x")
    with PendingFile(str(tmp_path)):
        assert collect_temporary_files(str(tmp_path)) == 1
        assert len(os.listdir(tmp_path)) == 2
    assert collect_temporary_files(f"{tmp_path}/missing") == 0


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """A file where a directory is needed is reported, not replaced."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        make_directory(f"{tmp_path}/file")


def test_directory_name_is_given_once(tmp_path: Path) -> None:
    """Of two directories for one name the first wins and the second stays."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(b"")
    assert rename_directory(f"{tmp_path}/a", f"{tmp_path}/final", durable=True)
    assert not rename_directory(f"{tmp_path}/b", f"{tmp_path}/final", durable=True)
    assert sorted(os.listdir(tmp_path)) == ["b", "final"]
    with pytest.raises(FileNotFoundError):
        rename_directory(f"{tmp_path}/missing", f"{tmp_path}/x", durable=False)


def test_lock_excludes_threads(tmp_path: Path) -> None:
    """Two threads never hold the same lock at once, even though each unlinks its file at the end."""
    path = f"{tmp_path}/locks/x"
    inside: list[int] = []
    most = []

    def work() -> None:
        for _ in range(100):
            with file_lock.locked(path):
                inside.append(1)
                most.append(len(inside))
                inside.pop()
                os.unlink(path)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1


def test_lock_can_be_tried(tmp_path: Path) -> None:
    """A held lock is not acquired without waiting, except by another reader."""
    path = f"{tmp_path}/x"
    with file_lock.locked(path, shared=True):
        assert file_lock.acquire(path, blocking=False) is None
        fd = file_lock.acquire(path, shared=True, blocking=False)
        assert fd is not None
        os.close(fd)


def test_deep_trees_are_removed(tmp_path: Path) -> None:
    """A tree deeper than any path or descriptor limit is removed, links are not followed."""
    canary = tmp_path / "canary"
    canary.write_bytes(b"safe")
    top = tmp_path / "top"
    top.mkdir()
    os.symlink(tmp_path, top / "link")
    fd = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=fd)
        child = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=child))
        os.close(fd)
        fd = child
    os.close(fd)
    remove_tree(str(top))
    remove_tree(str(top))
    remove_tree(f"{tmp_path}/missing/x")
    assert os.listdir(tmp_path) == ["canary"]


def test_tree_is_removed_by_several_at_once(tmp_path: Path) -> None:
    """Removers of the same tree do not disturb each other."""
    for _ in range(10):
        for name in ("a/b/c/d", "a/e/f", "g/h"):
            (tmp_path / "top" / name).mkdir(parents=True)
            (tmp_path / "top" / name / "file").write_bytes(b"")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(remove_tree, [f"{tmp_path}/top"] * 4))
        assert os.listdir(tmp_path) == []


def test_whoever_writes_into_a_tree_is_outlasted(tmp_path: Path) -> None:
    """A tree into which somebody writes until a moment later is removed all the same."""
    (tmp_path / "top" / "sub").mkdir(parents=True)
    fd = os.open(tmp_path / "top" / "sub", os.O_RDONLY)
    made = []

    def write() -> None:
        with contextlib.suppress(FileNotFoundError):
            for number in range(3000):
                os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
                made.append(number)

    thread = threading.Thread(target=write)
    thread.start()
    while not made:
        pass
    remove_tree(f"{tmp_path}/top")
    thread.join()
    os.close(fd)
    assert os.listdir(tmp_path) == []
