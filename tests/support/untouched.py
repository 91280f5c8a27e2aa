"""The host outside of the store stays as it is, byte for byte: invariant I-13 of the fault catalogue.

The time of the last change of an inode cannot be set by anybody, so what bears a later one was touched.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["HOST_PLACES", "Canary", "changed_since", "host_untouched"]

HOST_PLACES = ("/etc", "/usr", "/opt", "/srv", "/home", "/root", "/boot", "/var")
"""Where nothing but the package manager writes, while tests run: no temporary or run-time directories."""

_IGNORED = ("*/__pycache__*", "*/.pytest_cache*", "*/.coverage*", "/var/tmp/*")


def changed_since(began: Path, places: tuple[str, ...] = HOST_PLACES) -> list[str]:
    """Return what was made, written, renamed or given other attributes after the file `began` was."""
    ignored = [word for pattern in _IGNORED for word in ("-not", "-path", pattern)]
    where = [place for place in places if os.path.isdir(place)]
    command = ["find", *where, "-xdev", "-newercc", str(began), *ignored]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


class Canary:
    """A directory with files of each kind that a wrong path, link or mode would spoil."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in ("a", "etc/passwd", "upper/kept", "containers/record.json", "sh"):
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(64))
        (place / "link").symlink_to("etc/passwd")
        os.mkfifo(place / "fifo")
        os.chmod(place / "sh", 0o4755)  # noqa: S103 - a file that would be worth changing
        self._before = self._look()

    def differences(self) -> list[str]:
        """Paths that were made, removed or changed."""
        now = self._look()
        return sorted(
            path for path in self._before.keys() | now.keys() if self._before.get(path) != now.get(path)
        )

    def _look(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for path in (self.place, *sorted(self.place.rglob("*"))):
            info = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            where = os.readlink(path) if path.is_symlink() else ""
            # Everything but the time of the last read, which looking changes.
            kept = (info.st_mode, info.st_ino, info.st_uid, info.st_gid, info.st_nlink, info.st_size)
            found[str(path)] = (*kept, info.st_mtime_ns, info.st_ctime_ns, content, where)
        return found


@pytest.fixture(scope="module")
def host_untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    """Fail the last test of a module if anything was touched on the host outside of the stores."""
    canary = Canary(tmp_path_factory.mktemp("canary"))
    began = canary.place / "fifo"
    yield canary
    touched = canary.differences() + changed_since(began)
    if touched:
        pytest.fail("\n  ".join(["touched on the host:", *touched]), pytrace=False)
