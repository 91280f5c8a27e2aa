"""The root directory of a container, and paths below it, by descriptors and never by the host's paths.

While the container runs it is what its first process sees, mounts included; otherwise its layers, mounted
for that time in no place at all. Links that the container has made are followed inside it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib._native.path import filesystem_type, mount_overlay, open_in_root
from containerlib.container.start import renew_work
from containerlib.container.state import ContainerState, check_state
from containerlib.errors import ContainerFileError, InvalidOption, InvalidState, PathNotFound, UnsupportedHost
from containerlib.runtime.join import open_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.container.entry import ContainerEntry

__all__ = ["ContainerRoot", "check_path", "opened_root"]

_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_LIST = os.O_RDONLY | os.O_DIRECTORY
_MAX_LINKS = 40
_KERNEL_PLACES = ("/proc", "/sys", "/dev")
_RUNS = (ContainerState.RUNNING, ContainerState.PAUSED)
# proc, sysfs, cgroup, cgroup2, devpts, debugfs, tracefs, securityfs, bpf, configfs, pstore, efivarfs: reading
# and writing there does something, and is the container's own affair.
_KERNEL = frozenset(
    (
        *(0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x64626720),
        *(0x74726163, 0x73636673, 0xCAFE4A11, 0x62656570, 0x6165676C, 0xDE5E81E4),
    )
)


@frozen
class ContainerRoot:
    """The root directory, for the length of a block of `opened_root`.

    Attributes:
        fd: Descriptor of it.
        name: What the container is called, for messages.
        hidden: Directories and files, by device and number, on which something is mounted while it runs, and
            what: nothing is to be found there now.
        kernel: Directories on which the kernel's own file systems are mounted.
        targets: Paths of everything that is mounted only while it runs.
    """

    fd: int
    name: str
    hidden: dict[tuple[int, int], str]
    kernel: frozenset[tuple[int, int]]
    targets: tuple[str, ...] = ()

    def open(self, path: str, *, follow: bool = True) -> int:
        """Open what `path` names, with O_PATH; the caller closes it.

        Raises:
            PathNotFound: There is nothing.
            ContainerFileError: The kernel refuses, or it is the kernel's own, or not there now.
        """
        with self.telling(path):
            self._check_text(path)
            flags = os.O_PATH if follow else os.O_PATH | os.O_NOFOLLOW
            return self._checked(open_in_root(self.fd, path, flags), path)

    def directory(self, path: str) -> int:
        """Open a directory for reading; see `open`."""
        with self.telling(path):
            self._check_text(path)
            return self._checked(open_in_root(self.fd, path, _LIST), path)

    def place(self, path: str, *, follow: bool = True) -> tuple[int, str]:
        """Where something is or is to be made: its open directory, which the caller closes, and its name.

        Args:
            path: Path of it.
            follow: Whether a link of that name is followed, so that what it names is meant.

        Raises:
            PathNotFound: The directory does not exist.
            ContainerFileError: It is none, or a chain of links has no end.
        """
        at = path
        for _ in range(_MAX_LINKS):
            head, _, name = at.rstrip("/").rpartition("/")
            if name in {"", ".", ".."}:
                raise self.refusal(path, errno.EISDIR)
            with self.telling(path):
                self._check_text(at)
                fd = self.directory(head or "/")
                try:
                    if not follow or not stat.S_ISLNK(_mode_at(fd, name)):
                        return fd, name
                    target = os.readlink(name, dir_fd=fd)
                except BaseException:
                    os.close(fd)
                    raise
                os.close(fd)
            at = target if target.startswith("/") else f"{head}/{target}"
        with self.telling(path):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    @contextlib.contextmanager
    def telling(self, path: str) -> Iterator[None]:
        """Make the kernel's errors of a block those about `path`."""
        try:
            yield
        except (ContainerFileError, PathNotFound):
            raise
        except FileNotFoundError:
            raise PathNotFound(f"container {self.name!r} has no {path!r}", path=path) from None
        except OSError as error:
            if error.errno == errno.EROFS:
                reason = "it is read-only; mount it writable, or copy to another place"
            else:
                reason = error.strerror or str(error)
            raise self.refusal(path, error.errno or 0, reason) from None

    def refusal(self, path: str, number: int, reason: str = "") -> ContainerFileError:
        """The error that says why `path` cannot be used."""
        return ContainerFileError(
            f"{path!r} in container {self.name!r}: {reason or os.strerror(number)}", path=path, errno=number
        )

    def _check_text(self, path: str) -> None:
        """What is to be mounted somewhere need not be there yet."""
        normal = posixpath.normpath(path)
        for target in self.targets:
            if normal == target or normal.startswith(f"{target}/"):
                raise self._hidden(path, target)

    def _hidden(self, path: str, target: str) -> ContainerFileError:
        reason = f"lies on {target}, which is mounted only while it runs; start it first"
        return self.refusal(path, errno.EBUSY, reason)

    def _checked(self, fd: int, path: str) -> int:
        try:
            self._check(fd, path)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check(self, fd: int, path: str) -> None:
        if filesystem_type(fd) in _KERNEL:
            raise self.refusal(path, errno.EACCES, "belongs to the kernel; execute a command for that")
        hidden = self._mounted_over(fd) if self.hidden else None
        if hidden is not None:
            raise self._hidden(path, hidden)

    def _mounted_over(self, fd: int) -> str | None:
        """What is mounted on it or above it while the container runs. Nobody changes the tree meanwhile."""
        info = os.fstat(fd)
        found = self.hidden.get(_identity(info))
        if found is not None or not stat.S_ISDIR(info.st_mode):
            return found
        root = _identity(os.fstat(self.fd))
        at = os.open(".", _DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            while _identity(os.fstat(at)) != root:
                above = os.open("..", _DIRECTORY | os.O_CLOEXEC, dir_fd=at)
                os.close(at)
                at = above
                found = self.hidden.get(_identity(os.fstat(at)))
                if found is not None:
                    return found
        finally:
            os.close(at)
        return None


def check_path(path: object) -> str:
    """A path in a container as given by a caller.

    Raises:
        InvalidOption: It is not absolute, or holds a NUL character.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str) or not text.startswith("/") or "\0" in text:
        raise InvalidOption("path", path, "give an absolute path in the container")
    return text


@contextlib.contextmanager
def opened_root(entry: ContainerEntry) -> Iterator[ContainerRoot]:
    """Open the root of a container for the length of a block, in which one that does not run is not started.

    Raises:
        InvalidState: It was removed, is about to be started again, or keeps its layer in memory and does not
            run.
        ImageNotFound: Its image is gone.
        UnsupportedHost: It does not run, and its layers cannot be mounted here.
    """
    with contextlib.ExitStack() as opened:
        if entry.refresh() not in _RUNS:
            opened.enter_context(entry.exclusively())
        check_state("copy files of", entry.state, entry.name)
        runs = entry.state in _RUNS and entry.process is not None
        fd = open_root(entry.process, entry.name) if runs and entry.process else _mounted(entry)
        opened.callback(os.close, fd)
        hidden: dict[tuple[int, int], str] = {}
        for mount in () if runs else entry.config.mounts:
            hidden.update((key, mount.target) for key in _at(fd, mount.target))
        kernel = frozenset(key for path in _KERNEL_PLACES for key in _at(fd, path)) if runs else frozenset()
        targets = () if runs else tuple(posixpath.normpath(mount.target) for mount in entry.config.mounts)
        yield ContainerRoot(fd, entry.name, hidden, kernel, targets)


def _at(root_fd: int, path: str) -> list[tuple[int, int]]:
    """What `path` is, by device and number; nothing if it does not exist."""
    try:
        fd = open_in_root(root_fd, path, os.O_PATH)
    except OSError:
        return []
    try:
        return [_identity(os.fstat(fd))]
    finally:
        os.close(fd)


def _mounted(entry: ContainerEntry) -> int:
    layers = entry.find_layers()
    if layers.directory is None:
        raise InvalidState(
            f"cannot copy files of container {entry.name!r}: its layer is in memory, and it does not run; "
            "create it with layer='disk'",
            expected="running",
            actual=str(entry.state),
        )
    copied = f"{layers.directory}/root"
    if os.path.isdir(copied):
        return os.open(copied, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    renew_work(entry)
    try:
        return mount_overlay(layers.lowers, f"{layers.directory}/upper", f"{layers.directory}/work")
    except OSError as error:
        raise UnsupportedHost(
            f"copying files of container {entry.name!r}, which does not run",
            needed="overlayfs and fsopen(2); or start it first",
            found=error.strerror or str(error),
        ) from None


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def _mode_at(fd: int, name: str) -> int:
    """Type and mode of a name; 0 if there is nothing."""
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0
