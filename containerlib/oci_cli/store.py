"""The containers of one ``--root``: a directory for each, with what a later command has to know of it.

``state.json`` is written whole. What a container does now is not in it: that is asked of the kernel.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import json
import os
import re
from typing import TYPE_CHECKING, Any, Literal

from attrs import asdict, frozen

from containerlib._util import file_lock
from containerlib._util.atomic_file import make_directory, write_atomic
from containerlib._util.remove_tree import remove_tree
from containerlib.oci.runtime_spec import OCI_VERSION
from containerlib.oci_cli.errors import OciError
from containerlib.runtime.cgroup_path import PathCgroup, Tree
from containerlib.runtime.identity import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Container", "Status", "Store"]

Status = Literal["creating", "created", "running", "paused", "stopped"]

_ID = re.compile(r"[\w+.-]{1,1024}", re.ASCII)
_STATE, _CONFIG, _GATE = "state.json", "config.json", "gate"
_MOST = 16 << 20


@frozen(kw_only=True)
class Container:
    """One container as it was created.

    Attributes:
        id: Its id.
        directory: Where its state is.
        bundle: Its bundle, as an absolute path.
        rootfs: Its root file system, as an absolute path.
        created: When it was created.
        process: Its first process.
        cgroup: Its control groups.
        owns_groups: Whether they are its own: that was seen when they were made. Until then what is there
            may be somebody else's.
        unit: The scope that systemd has made of them; empty if this runtime has made them.
        annotations: Of its configuration.
    """

    id: str
    directory: str
    bundle: str
    rootfs: str
    created: str
    process: ProcessIdentity
    cgroup: PathCgroup
    owns_groups: bool
    unit: str = ""
    annotations: Mapping[str, str]

    @property
    def gate(self) -> str:
        """The pipe that its process waits at until it is started."""
        return f"{self.directory}/{_GATE}"

    @property
    def status(self) -> Status:
        """What it does now."""
        if not self.process.is_alive:
            return "stopped"
        if self.cgroup.is_frozen:
            return "paused"
        return "created" if self.is_waiting else "running"

    def open_gate(self) -> int:
        """The end of the pipe that a byte is written into; -1 if nobody waits at the other one."""
        try:
            return os.open(self.gate, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in {errno.ENXIO, errno.ENOENT}:
                return -1
            raise

    @property
    def is_waiting(self) -> bool:
        """Whether its process stands before its command."""
        fd = self.open_gate()
        if fd >= 0:
            os.close(fd)
        return fd >= 0

    def config(self) -> dict[str, Any]:
        """Its configuration, as it was when it was created."""
        return read_json(f"{self.directory}/{_CONFIG}")

    def state(self, status: Status | None = None) -> dict[str, Any]:
        """Its state in the form of the specification. Source: runtime.md, "State"."""
        status = status or self.status
        found: dict[str, Any] = {
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": status,
            "pid": 0 if status == "stopped" else self.process.pid,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "owner": "",
        }
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found

    def save(self, config: bytes) -> None:
        """Write it down, for later commands."""
        record = {
            "id": self.id,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "process": asdict(self.process),
            "trees": [asdict(tree) for tree in self.cgroup.trees],
            "owns_groups": self.owns_groups,
            "unit": self.unit,
            "annotations": dict(self.annotations),
        }
        write_atomic(f"{self.directory}/{_CONFIG}", config, durable=False)
        write_atomic(f"{self.directory}/{_STATE}", json.dumps(record).encode(), durable=False)


def read_json(path: str) -> dict[str, Any]:
    """A JSON object out of a file.

    Raises:
        OciError: It is none.
    """
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(_MOST))
    except FileNotFoundError:
        raise OciError(f"open {path}: no such file or directory") from None
    except (OSError, ValueError) as error:
        raise OciError(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise OciError(f"{path}: is no JSON object")
    return found


class Store:
    """The containers below one directory."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def directory(self, container_id: str) -> str:
        """Where a container's state is, or would be.

        Raises:
            OciError: The id has characters that it must not have.
        """
        if not _ID.fullmatch(container_id) or container_id in {".", ".."}:
            raise OciError(f"invalid container id format: {container_id!r}; use letters, digits and _+.-")
        return f"{self.root}/{container_id}"

    @contextlib.contextmanager
    def locked(self, container_id: str, *, is_new: bool = False) -> Iterator[None]:
        """Hold a container's lock for the length of a block, so that no two commands change it at once.

        The lock goes with the container.

        Raises:
            OciError: There is none, and none is to be made.
        """
        directory = self.directory(container_id)
        if not is_new and not os.path.isdir(directory):
            raise OciError(f"container does not exist: {container_id}")
        path = f"{self.root}/.locks/{container_id}"
        with file_lock.locked(path):
            try:
                yield
            finally:
                if not os.path.isdir(directory):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)

    def begin(self, container_id: str) -> str:
        """Make the directory of a new container.

        Raises:
            OciError: There is one with this id.
        """
        directory = self.directory(container_id)
        make_directory(self.root)
        try:
            os.mkdir(directory, 0o711)
        except FileExistsError:
            raise OciError(f"container with id exists: {container_id}") from None
        os.mkdir(f"{directory}/staging", 0o700)
        os.mkfifo(f"{directory}/{_GATE}", 0o600)
        return directory

    def remove(self, container_id: str) -> None:
        """Remove a container's directory, and the root that is mounted on it where mounts are shared."""
        from containerlib._native.path import unmount  # noqa: PLC0415 - commands that only look have no use for it

        directory = self.directory(container_id)
        with contextlib.suppress(FileNotFoundError):
            unmount(f"{directory}/staging")
        remove_tree(directory)

    def has(self, container_id: str) -> bool:
        """Whether anything is written down of a container."""
        return os.path.exists(f"{self.directory(container_id)}/{_STATE}")

    def get(self, container_id: str) -> Container:
        """A container.

        Raises:
            OciError: There is none with this id.
        """
        directory = self.directory(container_id)
        if not self.has(container_id):
            raise OciError(f"container does not exist: {container_id}")
        record = read_json(f"{directory}/{_STATE}")
        return Container(
            id=record["id"],
            directory=directory,
            bundle=record["bundle"],
            rootfs=record["rootfs"],
            created=record["created"],
            process=ProcessIdentity(**record["process"]),
            cgroup=PathCgroup(tuple(Tree(**{**t, "names": tuple(t["names"])}) for t in record["trees"])),
            owns_groups=record["owns_groups"],
            unit=record["unit"],
            annotations=record["annotations"],
        )

    def list(self) -> list[Container]:
        """All containers, by id."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self.root)):
                with contextlib.suppress(OciError):
                    found.append(self.get(name))
        return found


def now() -> str:
    """This moment as the state has it."""
    return dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
