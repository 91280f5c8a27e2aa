"""One container of an open engine: what it is, and where it stands."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from containerlib._util import strict_json
from containerlib._util.remove_tree import remove_at_once, remove_tree
from containerlib.container.detached import DetachedRecord, read_record, write_record
from containerlib.container.state import ContainerState
from containerlib.container.wait import wait
from containerlib.runtime.adopted import ProcessIdentity
from containerlib.runtime.process import RunningProcess

if TYPE_CHECKING:
    from containerlib.container.session import Session
    from containerlib.container.streams import Streams
    from containerlib.runtime.adopted import AdoptedProcess
    from containerlib.runtime.config import ContainerConfig
    from containerlib.runtime.runner import Layers
    from containerlib.runtime.usage import ExitStatus

__all__ = ["ContainerEntry"]


@define(eq=False)
class ContainerEntry:
    """One container. Verbs change it under its lock."""

    session: Session
    id: str
    name: str
    image_id: str
    image_name: str
    config: ContainerConfig
    layers: Layers
    state: ContainerState = ContainerState.CREATED
    process: RunningProcess | AdoptedProcess | None = None
    streams: Streams | None = None
    exit_status: ExitStatus | None = None
    created_at: float = field(factory=time.time)
    is_adopted: bool = False
    lock: threading.RLock = field(factory=threading.RLock)

    @property
    def record_path(self) -> str:
        """The file by which other processes see this container."""
        return f"{self.session.directory}/containers/{self.id}"

    def write_record(self) -> None:
        """Tell other processes where this container stands.

        Not by rename: a reader that meets a half-written record skips it, and a mark that no process holds
        is not read at all. A detached container's record lasts, and is written whole.
        """
        if self.is_detached:
            self._write_lasting_record()
            return
        document = {
            "id": self.id,
            "name": self.name,
            "image": self.image_name,
            "command": list(self.config.args),
            "state": str(self.state),
            "created_at": int(self.created_at),
            "exit_code": self.exit_status.exit_code if self.exit_status is not None else None,
            "labels": dict(self.config.labels),
        }
        fd = os.open(
            self.record_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            os.write(fd, strict_json.dumps(document))
        finally:
            os.close(fd)

    @property
    def description(self) -> str:
        """What it is called in messages."""
        return f"container {self.name!r}"

    def wait(self) -> ExitStatus:
        """Wait for its end; see `container.wait`."""
        return wait(self)

    def end(self) -> None:
        """Kill it with everything in it, and wait."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to its first process. SIGKILL ends a paused container, too."""
        process = self.process
        if process is None:
            return
        process.signal(number)
        # On version 1 a stopped process gets even this signal only when it goes on.
        if number == signal.SIGKILL and self.state == ContainerState.PAUSED:
            cgroup = process.cgroup if isinstance(process, RunningProcess) else None
            if cgroup is not None:
                with contextlib.suppress(OSError):
                    cgroup.thaw()

    @property
    def is_detached(self) -> bool:
        """Whether it outlives this process."""
        return self.config.lifetime == "detached"

    def _write_lasting_record(self) -> None:
        process = self.process
        if self.is_adopted or (process is not None and not isinstance(process, RunningProcess)):
            return
        pid = None if process is None else process.pid
        supervision = None if process is None else process.supervision
        known = read_record(self.session.stores.layout, self.id)
        record = DetachedRecord(
            id=self.id,
            name=self.name,
            image_id=self.image_id,
            image_name=self.image_name,
            args=self.config.args,
            labels=dict(self.config.labels),
            stop_signal=self.config.stop_signal,
            stop_timeout_s=self.config.stop_timeout_s,
            created_at=self.created_at,
            remove=self.config.remove,
        )
        if process is not None and pid is not None and supervision is not None:
            identity = ProcessIdentity.of(pid)
            # If it has ended by now, its number may have been somebody else's already.
            record = evolve(
                record,
                process=identity.ended() if process.has_ended else identity,
                supervisor=ProcessIdentity.of(supervision.pid),
                cgroup_paths=supervision.cgroup_directories,
            )
        elif known is not None:
            record = evolve(record, process=known.process, supervisor=known.supervisor)
        write_record(self.session.stores.layout, record)

    def refresh(self) -> ContainerState:
        """The present state; learns of an end that nobody has waited for."""
        process = self.process
        if self.state.is_alive and process is not None:
            process.poll()
        return self.state

    def on_exit(self, status: ExitStatus) -> None:
        """Take note of the end. Called once by whoever learns of it."""
        with self.lock:
            self.exit_status = status
            self.state = ContainerState.EXITED
            if self.config.remove:
                self.discard()
            else:
                with contextlib.suppress(OSError):
                    self.write_record()

    def discard(self) -> None:
        """Remove everything that belongs to this container. It must not be running."""
        self.state = ContainerState.REMOVED
        if not self.is_detached:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.record_path)
        if self.layers.directory is not None:
            # A record whose layer is half gone would be a container that nobody can use or remove.
            remove_at_once(self.layers.directory)
        copied = self.session.runner.copy_directory(self.id, self.layers)
        if os.path.isdir(copied):
            remove_tree(copied)
        self.session.drop(self)

    def settle_and_remove(self) -> None:
        """For closing the engine: kill it, learn how it ended, remove it. A detached one stays."""
        process = self.process
        if self.is_detached:
            if process is not None:
                process.abandon()
            return
        if process is not None and self.state.is_alive:
            self.signal(signal.SIGKILL)
            process.lost()
        if self.streams is not None:
            self.streams.close_inner()
        if self.state != ContainerState.REMOVED:
            with self.lock:
                self.discard()
