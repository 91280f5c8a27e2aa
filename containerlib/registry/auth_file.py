"""The files in which programs keep the credentials of a user, and the order in which they are asked.

A file is parsed again only if it changed. An edit keeps what it does not understand, replaces the file in one
step, and excludes other edits by this library.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from containerlib._util import file_lock
from containerlib._util.atomic_file import write_atomic
from containerlib.registry.config_file import read_config_file
from containerlib.registry.docker_config import DockerConfig, parse_document, print_document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["AuthFile", "auth_files", "login_file"]

_SETTLED_NS = 100_000_000
_Stamp = tuple[int, int, int, int, int]


class AuthFile:
    """One file, which need not exist; safe for threads."""

    def __init__(self, path: str, *, is_legacy: bool = False) -> None:
        self.path = path
        self.is_legacy = is_legacy
        self._lock = threading.Lock()
        self._known: tuple[_Stamp, DockerConfig] | None = None

    def __repr__(self) -> str:
        return f"AuthFile({self.path!r})"

    def read(self) -> DockerConfig | None:
        """Return what the file says now, or None if there is no file.

        Raises:
            InvalidInputError: It cannot be read, or does not have its form.

        Cost: one system call if the file is as it was.
        """
        with self._lock:
            stamp = _stamp(self.path)
            if stamp is not None and self._known is not None and self._known[0] == stamp:
                return self._known[1]
            self._known = None
            data = read_config_file(self.path)
            if data is None:
                return None
            document = parse_document(data, what=self.path)
            config = DockerConfig.parse(document, what=self.path, is_legacy=self.is_legacy)
            # Stamped before it was read: a change in between makes the next look read again. Two changes
            # within one tick of the file system's clock may have the same stamp, so that must be long past.
            if stamp is not None and time.time_ns() - stamp[-1] > _SETTLED_NS:
                self._known = (stamp, config)
            return config

    def edit(self, change: Callable[[Mapping[str, object]], dict[str, object]]) -> bool:
        """Replace the document by what `change` makes of it; return whether that is another one.

        The file gets mode 0600. A symbolic link stays one, and its target is replaced.

        Raises:
            InvalidInputError: The present file cannot be read or does not have its form.
            OSError: The file cannot be written.
        """
        target = os.path.realpath(self.path)
        lock = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.lock")
        with file_lock.locked(lock):
            try:
                document = parse_document(read_config_file(target) or b"", what=self.path)
                DockerConfig.parse(document, what=self.path, is_legacy=self.is_legacy)
                changed = change(document)
                if changed == document:
                    return False
                write_atomic(target, print_document(changed), durable=True)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(lock)
        with self._lock:
            self._known = None
        return True


def auth_files(environ: Mapping[str, str], home: str) -> list[AuthFile]:
    """Return the files to ask, in order; the first that has a credential wins.

    A file that ``REGISTRY_AUTH_FILE`` names stands for the first of them, as it does for podman and skopeo.

    Source: containers-auth.json(5), and the places where Docker looks.
    """
    config_home = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    paths = [
        environ.get("REGISTRY_AUTH_FILE") or _primary_path(environ),
        os.path.join(config_home, "containers/auth.json"),
        _docker_path(environ, home),
    ]
    files = [AuthFile(path) for path in dict.fromkeys(map(os.path.abspath, paths))]
    if not environ.get("DOCKER_CONFIG"):
        files.append(AuthFile(os.path.join(home, ".dockercfg"), is_legacy=True))
    return files


def login_file(environ: Mapping[str, str], home: str) -> str:
    """Return the path of the file that a login is written to, unless one that wins has an entry already."""
    return os.path.abspath(environ.get("REGISTRY_AUTH_FILE") or _docker_path(environ, home))


def _primary_path(environ: Mapping[str, str]) -> str:
    """Return where podman keeps what is forgotten with the session, or at the next start."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    return f"{runtime}/containers/auth.json" if runtime else f"/run/containers/{os.getuid()}/auth.json"


def _docker_path(environ: Mapping[str, str], home: str) -> str:
    return os.path.join(environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json")


def _stamp(path: str) -> _Stamp | None:
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return None
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
