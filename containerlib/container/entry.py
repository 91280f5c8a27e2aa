"""One container of an open engine: what it is, and where it stands."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from attrs import Factory, define, evolve, field

from containerlib._util import strict_json
from containerlib._util.atomic_file import remove_file
from containerlib._util.failpoint import reach
from containerlib._util.remove_tree import remove_at_once, remove_tree
from containerlib.container.config_document import json_text
from containerlib.container.frozen import RootLook, make_upper, read_base
from containerlib.container.network import give_back_address, give_up_ports
from containerlib.container.state import ContainerState, check_state
from containerlib.container.wait import wait

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from containerlib.container.log_pump import LogPump
    from containerlib.container.session import Session
    from containerlib.container.streams import Streams
    from containerlib.runtime.config import ContainerConfig
    from containerlib.runtime.detached import DetachedProcess
    from containerlib.runtime.process import RunningProcess
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
    process: RunningProcess | DetachedProcess | None = None
    streams: Streams | None = None
    pump: LogPump | None = None
    exit_status: ExitStatus | None = None
    created_at: float = field(factory=time.time)
    lock: threading.RLock = field(factory=threading.RLock)
    _joins: int = 0
    _joined: threading.Condition = field(
        default=Factory(lambda entry: threading.Condition(entry.lock), takes_self=True)
    )

    @property
    def is_detached(self) -> bool:
        """Whether it outlives this process."""
        return False

    @property
    def record_path(self) -> str:
        """The file by which other processes see this container."""
        return f"{self.session.directory}/containers/{self.id}"

    @property
    def restart_count(self) -> int:
        """How often its policy has started it again."""
        return 0

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Change it for the length of a block, alone; what others have done to it before is seen."""
        with self.lock:
            self.refresh()
            yield

    @contextlib.contextmanager
    def joining(self) -> Iterator[None]:
        """Start a further process in it for the length of a block, in which it is not stopped by `pause`.

        What is born in a container that stands still never comes to its command, and who started it would
        wait for that.
        """
        with self.lock:
            check_state("exec in", self.refresh(), self.name, "start it first")
            self._joins += 1
        try:
            yield
        finally:
            with self.lock:
                self._joins -= 1
                self._joined.notify_all()

    def wait_for_joins(self) -> None:
        """Under `exclusively`: wait until nobody is starting a process in it."""
        while self._joins:
            self._joined.wait()

    def find_layers(self) -> Layers:
        """Where its root file system comes from."""
        return self.layers

    def restack(self) -> None:
        """See anew what its layer stands on.

        Between two steps of a snapshot it has none; it gets one, should the other process have been killed.
        """
        layers = self.layers
        if layers.directory is not None:
            forked = self.session.frozen.uppers(read_base(layers.directory))
            upper = f"{layers.directory}/upper"
            if forked and not os.path.isdir(upper):
                with contextlib.suppress(FileNotFoundError):  # it was removed
                    make_upper(upper, RootLook.of(forked[0]))
            self.layers = evolve(
                layers, lowers=(*forked, *layers.lowers[layers.forked :]), forked=len(forked)
            )

    def remove_layer(self) -> None:
        """Remove its directory, and the frozen layers that nothing stands on any more."""
        directory = self.layers.directory
        if directory is None:
            return
        is_forked = os.path.exists(f"{directory}/base")
        # A record whose layer is half gone would be a container that nobody can use or remove.
        remove_at_once(directory)
        if is_forked:
            self.session.sweep_frozen()

    def write_record(self) -> None:
        """Tell other processes where this container stands.

        Not by rename: a reader that meets a half-written record skips it, and a mark that no process holds
        is not read at all.
        """
        document = {
            "id": self.id,
            "name": self.name,
            "image": self.image_name,
            "command": list(map(json_text, self.config.args)),
            "state": str(self.state),
            "created_at": self.created_at,
            "exit_code": self.exit_status.exit_code if self.exit_status is not None else None,
            "labels": {json_text(name): json_text(value) for name, value in self.config.labels.items()},
        }
        reach("write record", self.record_path)
        fd = os.open(
            self.record_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            os.write(fd, strict_json.dumps(document))
        finally:
            os.close(fd)

    def tell(self, action: str, attributes: Mapping[str, str] | None = None) -> None:
        """Write into the journal what has happened to it; what cannot be written is missing there."""
        known = {json_text(name): json_text(value) for name, value in self.config.labels.items()}
        known["image"] = self.image_name
        known |= {key: json_text(value) for key, value in (attributes or {}).items()}
        self.session.stores.journal.record("container", action, self.id, self.name, known)

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
        reach("signal", self.name)
        process.signal(number)
        if number == signal.SIGKILL:
            self.thaw()

    def note_stopping(self) -> None:
        """Take note that it was killed and has not ended."""
        with self.lock:
            if self.refresh() in {ContainerState.RUNNING, ContainerState.PAUSED}:
                self.state = ContainerState.STOPPING

    def thaw(self) -> None:
        """After SIGKILL: on version 1 a stopped process gets even that only when it goes on."""
        cgroup = None
        if self.process is not None and self.state == ContainerState.PAUSED:
            cgroup = self.process.cgroup
        if cgroup is not None:
            with contextlib.suppress(OSError):
                cgroup.thaw()

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
            give_up_ports(self)
            self.tell_end(status)
            with contextlib.suppress(OSError):
                if self.config.remove:
                    self.discard()
                else:
                    self.write_record()

    def tell_end(self, status: ExitStatus) -> None:
        """Write into the journal how it has ended."""
        if status.oom_killed:
            self.tell("oom")
        code = "" if status.exit_code is None else str(status.exit_code)
        self.tell("die", {"exitCode": code} | ({"signal": str(status.signal)} if status.signal else {}))

    def discard(self) -> None:
        """Remove everything that belongs to this container. It must not be running.

        If something of its layer cannot be deleted, it is removed all the same, and what lies there is left
        to the next engine; if the layer stays in its place, it is not removed.
        """
        remove_file(self.record_path)
        try:
            self.remove_layer()
            copied = self.session.runner.copy_directory(self.id, self.layers)
            if os.path.isdir(copied):
                remove_tree(copied)
        finally:
            if self.layers.directory is None or not os.path.isdir(self.layers.directory):
                self.note_removed()
                self.tell("destroy")

    def note_removed(self) -> None:
        """Take note that it is gone."""
        give_back_address(self)
        self.state = ContainerState.REMOVED
        self.session.drop(self)

    def settle_and_remove(self) -> None:
        """For closing the engine: kill it, learn how it ended, remove it."""
        process = self.process
        if process is not None and self.state.is_alive:
            self.signal(signal.SIGKILL)
            process.lost()
        if self.streams is not None:
            self.streams.close_inner()
        if self.pump is not None:
            self.pump.join(1.0)
        if self.state != ContainerState.REMOVED:
            with self.lock:
                self.discard()
