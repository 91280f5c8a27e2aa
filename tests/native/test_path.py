"""Resolution below a root: no path and no link leads out, with openat2 and with the walk that replaces it."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support import enosys
from support.checkout import CHECKOUT
from support.exchange import exchanging
from support.session import temporary_directory

from containerlib._native.path import kernel_features, open_in_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.enosys

INSIDE, OUTSIDE = b"inside", b"outside"


@pytest.fixture
def base() -> Iterator[Path]:
    """Return a directory with a canary and, beside it, a root full of ways to get there."""
    with temporary_directory("path") as base:
        (base / "secret").write_bytes(OUTSIDE)
        (base / "canary").mkdir()
        (base / "canary" / "file").write_bytes(OUTSIDE)
        root = base / "root"
        (root / "a" / "b" / "c").mkdir(parents=True)
        (root / "a" / "file").write_bytes(INSIDE)
        (root / "file").write_bytes(INSIDE)
        for name, target in {
            "up": "../../../..",
            "absolute": str(base),
            "slash": "/",
            "relative": "a",
            "chain": "relative/b/../../slash/a",
            "dangling": "nowhere",
            "loop": "loop",
            "ping": "pong",
            "pong": "ping",
            "a/b/back": "../../../../canary",
            "long": "./" * 2000 + "file",
        }.items():
            (root / name).symlink_to(target)
        yield base


@pytest.fixture
def root(base: Path) -> Iterator[int]:
    """Return a descriptor of the root."""
    fd = os.open(base / "root", os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def read(root: int, path: str, *, no_symlinks: bool = False) -> bytes:
    """Open a file below the root and read it."""
    with open(open_in_root(root, path, os.O_RDONLY, no_symlinks=no_symlinks), "rb") as file:
        return file.read()


def code(root: int, path: str, flags: int = os.O_PATH, *, no_symlinks: bool = False) -> str:
    """Name the error that opening gives."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - any of them, by number
        os.close(open_in_root(root, path, flags, no_symlinks=no_symlinks))
    return errno.errorcode[caught.value.errno or 0]


@pytest.mark.parametrize(
    "path",
    [
        "file",
        "/file",
        "//file",
        "./file",
        "a/../file",
        "../file",
        "../../../../../../file",
        "/../file",
        "a/b/c/../../../file",
        "slash/file",
        "slash/../../file",
        "up/file",
        "up/../up/file",
        "relative/file",
        "relative/b/c/../../file",
        "chain/file",
        "chain/../file",
        "slash/slash/slash/relative/../file",
        "long",
    ],
)
def test_every_way_up_ends_at_the_root(root: int, path: str) -> None:
    """Links and `..` that lead above the root stay in it, as with chroot."""
    assert read(root, path) == INSIDE


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("secret", "ENOENT"),
        ("../secret", "ENOENT"),
        ("up/secret", "ENOENT"),
        ("absolute", "ENOENT"),
        ("absolute/secret", "ENOENT"),
        ("absolute/canary/file", "ENOENT"),
        ("a/b/back", "ENOENT"),
        ("a/b/back/file", "ENOENT"),
        ("dangling", "ENOENT"),
        ("file/below", "ENOTDIR"),
        ("file/..", "ENOTDIR"),
        ("file/.", "ENOTDIR"),
        ("loop", "ELOOP"),
        ("ping", "ELOOP"),
        ("loop/file", "ELOOP"),
        ("x" * 256, "ENAMETOOLONG"),
        ("a/" * 2048, "ENAMETOOLONG"),
        ("x" * 5000, "ENAMETOOLONG"),
    ],
)
def test_what_is_not_below_the_root_is_not_there(root: int, path: str, expected: str) -> None:
    """The canary beside the root cannot be named; loops and lengths end in the kernel's own errors."""
    assert code(root, path) == expected


def test_a_directory_is_asked_for(root: int) -> None:
    """O_DIRECTORY refuses a file, and takes a link to a directory."""
    assert code(root, "file", os.O_PATH | os.O_DIRECTORY) == "ENOTDIR"
    os.close(open_in_root(root, "relative", os.O_PATH | os.O_DIRECTORY))


def test_the_empty_path_and_the_slash_are_the_root(base: Path, root: int) -> None:
    """The root itself can be opened by every one of its names."""
    for path in ("", "/", ".", "..", "slash", "up", "a/.."):
        fd = open_in_root(root, path, os.O_PATH)
        assert os.path.samestat(os.fstat(fd), (base / "root").stat()), path
        os.close(fd)


def test_no_symlinks_means_none(root: int) -> None:
    """With no_symlinks a link anywhere on the way is refused, and `..` is not."""
    assert read(root, "a/../file", no_symlinks=True) == INSIDE
    for path in ("relative/file", "slash/file", "loop", "dangling"):
        assert code(root, path, no_symlinks=True) == "ELOOP"


def test_a_link_itself_can_be_opened(base: Path, root: int) -> None:
    """With O_NOFOLLOW the last link is what is opened, and the ones before it are followed."""
    fd = open_in_root(root, "slash/absolute", os.O_PATH | os.O_NOFOLLOW)
    assert os.readlink("", dir_fd=fd) == str(base)
    os.close(fd)


def test_magic_links_are_refused(base: Path) -> None:
    """Links of /proc that lead by object and not by name are not followed, wherever they would lead."""
    outside = os.open(base / "canary", os.O_PATH)
    host = os.open("/", os.O_PATH)
    own = f"/proc/{os.getpid()}"
    magic = [f"{own}/fd/{outside}", f"{own}/fd/{outside}/file", f"/proc/self/fd/{outside}", "/proc/self/root"]
    magic += [
        "/proc/self/cwd",
        "/proc/self/exe",
        "/proc/self/root/etc",
        "/proc/self/ns/net",
        f"{own}/task/{os.getpid()}/cwd",
    ]
    assert {path: code(host, path) for path in magic} == dict.fromkeys(magic, "ELOOP")
    # Proc's ordinary links are no magic.
    for path in ("/proc/self", "/proc/self/fd", "/proc/mounts", "/proc/thread-self/status"):
        os.close(open_in_root(host, path, os.O_PATH))
    os.close(outside)
    os.close(host)


def test_deep_paths_stay_inside(base: Path) -> None:
    """A hundred levels down and up again is the same file."""
    fd = os.open(base / "root", os.O_PATH)
    deep = "d/" * 100
    (base / "root" / deep).mkdir(parents=True)
    assert read(fd, deep + "../" * 100 + "file") == INSIDE
    assert read(fd, deep + "../" * 300 + "file") == INSIDE
    os.close(fd)


@pytest.mark.parametrize("target", ["../canary", "absolute"])
def test_an_exchanged_directory_never_leads_out(base: Path, root: int, target: str) -> None:
    """While a directory and a link to the canary change places, a path gives the one file or an error."""
    trap = base / "root" / "trap"
    trap.symlink_to(base / "canary" if target == "absolute" else target)
    seen = set()
    with exchanging(base / "root" / "a", trap) as count:
        for _ in range(2000):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                seen.add(read(root, "a/file"))
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                seen.add(read(root, "a/b/../file"))
    assert count[0] > 0
    assert seen <= {INSIDE}


def test_an_exchanged_parent_never_leads_out(base: Path, root: int) -> None:
    """While the directory above is exchanged, `..` does not climb out of the root."""
    (base / "root" / "other" / "b").mkdir(parents=True)
    (base / "root" / "other" / "file").write_bytes(INSIDE)
    with exchanging(base / "root" / "a", base / "root" / "other"):
        for _ in range(2000):
            assert read(root, "a/b/../../file") == INSIDE
            assert code(root, "a/b/../../../secret") in {"ENOENT", "EAGAIN"}


@pytest.mark.skipif(bool(enosys.ACTIVE), reason="is the inner run")
@pytest.mark.root
def test_the_walk_gives_the_same_answers() -> None:
    """Without openat2 every test of this module passes as well."""
    assert "openat2" in kernel_features()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--enosys=openat2", __file__]
    inner = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert inner.returncode == 0, inner.stdout


def test_what_is_tested_is_what_was_asked_for() -> None:
    """Where openat2 is to be missing, it is."""
    assert not {"openat2"} & kernel_features() & set(enosys.ACTIVE)
