"""All durable file writes of the library: nothing is visible under its final name before it is complete.

A file is written below a temporary name in the directory of its final name and then renamed. Each step is
announced to `failpoint`, so that tests can end the process or break the disk there, because no other module
of the store writes, renames or removes what lasts. A full disk and a read-only one are errors of ours from
here on. Knows nothing of blobs or records: paths and bytes in, files out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from containerlib._util.disk_error import translated
from containerlib._util.failpoint import reach

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import BinaryIO, Self

__all__ = [
    "TEMPORARY_PREFIX",
    "PendingFile",
    "append",
    "collect_temporary_files",
    "empty_file",
    "make_directory",
    "move",
    "open_lasting",
    "publish_file",
    "remove_file",
    "rename_directory",
    "sync_directory",
    "sync_filesystem",
    "temporary_name",
    "write_atomic",
]

TEMPORARY_PREFIX = ".tmp-"
"""Names with this prefix are unfinished; after a crash they may be deleted by anyone."""

_LASTING_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def _step(name: str, path: str) -> Iterator[None]:
    """Do one durable step on `path`."""
    with translated(path):
        reach(name, path)
        yield


def temporary_name() -> str:
    """Return a file name that no one can guess and no one else uses."""
    return f"{TEMPORARY_PREFIX}{os.getpid()}-{os.urandom(8).hex()}"


def make_directory(path: str, mode: int = 0o700) -> None:
    """Make `path` and its missing parents, each with exactly `mode` whatever the umask is.

    A directory that exists is left as it is: its mode is its owner's decision.

    Raises:
        NotADirectoryError: A component of `path` exists and is not a directory.
    """
    try:
        with translated(path):
            os.mkdir(path, mode)
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if parent in {"", path}:
            raise
        make_directory(parent, mode)
        make_directory(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise NotADirectoryError(f"{path!r} exists and is not a directory") from None
    else:
        with _step("make directory", path):
            os.chmod(path, mode)


def sync_directory(path: str) -> None:
    """Make the names in directory `path` durable."""
    with _step("sync directory", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem() -> None:
    """Make everything written so far durable, for trees too large to sync file by file."""
    with _step("sync file system", "/"):
        # The standard library has no syncfs(2), which would spare the other file systems of the host.
        os.sync()


def rename_directory(source: str, target: str, *, durable: bool) -> bool:
    """Give the directory `source` its final name, or say that another one has it already.

    Returns:
        True if the rename happened; False if `target` exists, in which case `source` is untouched.
    """
    try:
        with _step("rename directory", target):
            os.rename(source, target)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY}:
            return False
        raise
    if durable:
        sync_directory(os.path.dirname(target))
    return True


def move(source: str, target: str) -> bool:
    """Give the file or directory `source` the name `target`, which nothing has; say whether it was there.

    For getting things out of sight: nothing is synced.
    """
    try:
        with _step("move", source):
            os.rename(source, target)
    except FileNotFoundError:
        return False
    return True


def append(fd: int, data: bytes | memoryview, path: str) -> None:
    """Write `data` at the end of the open file `fd`, which is at `path`; a part of it only in a crash."""
    rest = memoryview(data)
    with _step("append", path):
        while rest:
            rest = rest[os.write(fd, rest) :]


def open_lasting(path: str) -> int:
    """Open the file at `path` for reading and writing; what is missing of it and its directory is made."""
    with _step("create", path):
        try:
            return os.open(path, _LASTING_FLAGS, 0o600)
        except FileNotFoundError:
            make_directory(os.path.dirname(path))
            return os.open(path, _LASTING_FLAGS, 0o600)


def empty_file(fd: int, path: str) -> None:
    """Let the open file `fd`, which is at `path`, have no content, and go to its beginning."""
    with _step("empty", path):
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)


def publish_file(source: str, target: str) -> None:
    """Give the complete file `source` its final name, in place of what has it."""
    with _step("rename", target):
        os.rename(source, target)


def remove_file(path: str) -> bool:
    """Remove the file at `path`; return whether it was there."""
    try:
        with _step("remove", path):
            os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def write_atomic(path: str, data: bytes, *, durable: bool) -> None:
    """Replace the file at `path` by one that holds `data`, mode 0600, in one step.

    Readers see the old content or the new, never a part. The directory is made if it is missing.

    Args:
        path: Final name.
        data: The whole content.
        durable: Whether content and name must survive a power loss once this returns.

    Cost: one create, one write, one rename; two syncs more if durable.
    """
    with PendingFile(os.path.dirname(path)) as pending:
        pending.write(data)
        pending.commit(path, durable=durable)


def collect_temporary_files(directory: str) -> int:
    """Remove the unfinished files of dead processes in `directory`; return how many there were."""
    count = 0
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return 0
    for name in names:
        if name.startswith(TEMPORARY_PREFIX):
            with contextlib.suppress(FileNotFoundError):
                count += _collect(os.path.join(directory, name))
    return count


def _collect(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_file(path)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


class PendingFile:
    """A file being written, invisible until `commit`.

    Leaving the context without a commit removes it. A crash leaves a file with `TEMPORARY_PREFIX`; while its
    writer lives it is locked, so `collect_temporary_files` can tell.
    """

    __slots__ = ("_fd", "_path")

    def __init__(self, directory: str) -> None:
        self._fd = -1
        self._path = ""
        while self._fd < 0:
            self._path = os.path.join(directory, temporary_name())
            try:
                with _step("create", self._path):
                    fd = os.open(self._path, _CREATE_FLAGS, 0o600)
            except FileNotFoundError:
                make_directory(directory)
                continue
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                self._fd = fd
            else:
                os.close(fd)  # collected between the two calls
        os.fchmod(self._fd, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def open(self) -> BinaryIO:
        """Open for reading what has been written, and what comes; the caller closes it."""
        return open(f"/proc/self/fd/{self._fd}", "rb", buffering=0)

    def write(self, data: bytes | memoryview) -> int:
        """Append all of `data`; return its length, as file objects do."""
        append(self._fd, data, self._path)
        return len(data)

    def commit(self, path: str, *, durable: bool) -> None:
        """Give the file its final name `path`, in the directory it was opened in; replaces what is there."""
        if durable:
            with _step("sync", path):
                os.fsync(self._fd)
        with _step("rename", path):
            os.rename(self._path, path)
        self._close()
        if durable:
            sync_directory(os.path.dirname(path))

    def discard(self) -> None:
        """Remove the file unless it was committed; safe to call again."""
        if self._fd >= 0:
            try:
                remove_file(self._path)
            finally:
                self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)
