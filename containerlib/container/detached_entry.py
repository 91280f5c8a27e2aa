"""A detached container as this engine sees it.

The truth is on the disk and in the kernel, and other processes change it.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, cast

from attrs import define, evolve, field

from containerlib._native.supervisor import SupervisorState
from containerlib._util import file_lock
from containerlib._util.atomic_file import open_lasting, remove_file
from containerlib.container.detached import (
    DetachedRecord,
    Run,
    config_text,
    read_record,
    record_path,
    write_record,
)
from containerlib.container.entry import ContainerEntry
from containerlib.container.network import give_up_ports
from containerlib.container.state import ContainerState, check_state
from containerlib.errors import ImageNotFound
from containerlib.image.resolve import get_image
from containerlib.runtime.detached import DetachedProcess, cgroup_name
from containerlib.runtime.identity import ProcessIdentity
from containerlib.runtime.process import exit_status
from containerlib.runtime.runner import Layers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib._native.channel import Exit
    from containerlib.container.session import Session
    from containerlib.runtime.config import ContainerConfig
    from containerlib.runtime.usage import ExitStatus

__all__ = ["DetachedEntry", "find_detached"]


@define(eq=False)
class DetachedEntry(ContainerEntry):
    """One detached container. What is here is what this engine has last seen."""

    record: DetachedRecord = field(kw_only=True)
    _seen: tuple[int, int] | None = None
    _depth: int = 0
    _stopping: DetachedProcess | None = None
    # What is asked for in tests alone is in no record.
    _fault: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def is_detached(self) -> bool:
        """Whether it outlives this process."""
        return True

    @property
    def record_path(self) -> str:
        """The file with what is known of it."""
        return record_path(self.session.stores.layout, self.id)

    @property
    def directory(self) -> str:
        """Where its layer and its record lie."""
        return self.session.stores.layout.container(self.id)

    @property
    def restart_count(self) -> int:
        """How often its policy has started it again since the last `start`."""
        word = self.process.state() if isinstance(self.process, DetachedProcess) else None
        return 0 if word is None else word.restarts

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Change it for the length of a block, alone among all processes; then its record is written.

        What others have done to it before is seen.
        """
        with self.lock:
            if self._depth:
                yield
                return
            lock_path = self._lock_path
            with file_lock.locked(lock_path):
                self._depth += 1
                try:
                    self.refresh()
                    yield
                finally:
                    self._depth -= 1
                    self._drop_lock(lock_path)

    @contextlib.contextmanager
    def joining(self) -> Iterator[None]:
        """Start a further process in it for the length of a block, in which nobody stops it by `pause`."""
        check_state("exec in", self.refresh(), self.name, "start it first")
        # Without the lock of this process, under which others wait for that of all processes.
        with file_lock.locked(self._lock_path, shared=True):
            process = self.process
            if isinstance(process, DetachedProcess) and process.is_frozen:
                check_state("exec in", ContainerState.PAUSED, self.name, "unpause it first")
            yield

    def write_record(self) -> None:
        """Write what is known of it, for all processes."""
        known = self.record
        self.record = evolve(known, name=self.name)
        write_record(self.session.stores.layout, self.record)
        self._seen = _look(self.record_path)

    def create_record(self) -> None:
        """Write its record for the first time, so that it survives a power loss."""
        write_record(self.session.stores.layout, self.record, durable=True)
        self._seen = _look(self.record_path)

    def note_record(self, record: DetachedRecord, seen: tuple[int, int] | None) -> None:
        """Take a record that was just read, and find the state."""
        with self.lock:
            self._take(record, seen)
            self._derive()

    def refresh(self) -> ContainerState:
        """The present state, whoever brought it about.

        Cost: some small files of the store and of /proc.
        """
        with self.lock:
            if self.state == ContainerState.REMOVED:
                return self.state
            seen = _look(self.record_path)
            if seen != self._seen:
                self._take(read_record(self.session.stores.layout, self.id), seen)
            if seen is None:
                self._forget()
            else:
                self._derive()
            return self.state

    def note_stopping(self) -> None:
        """Take note that it was killed and has not ended."""
        with self.lock:
            if isinstance(self.process, DetachedProcess):
                self._stopping = self.process
            self.refresh()

    def _take(self, record: DetachedRecord | None, seen: tuple[int, int] | None) -> None:
        self._seen = seen
        if record is None:
            return
        former = self.record.run
        self.record = record
        self.name = record.name
        if record.run is not None and (self.process is None or record.run != former):
            self.process = self._process_of(record)

    def _process_of(self, record: DetachedRecord) -> DetachedProcess | None:
        if record.run is None:
            return None
        return DetachedProcess(
            record.id,
            self.directory,
            record.run.supervisor,
            record.run.generation,
            lambda: record.config.resources,
            record.run.cgroup_paths,
            self._settle,
        )

    def _derive(self) -> None:
        """Find the state of the last run; one that never began does not count."""
        process = self.process
        self.exit_status = self.record.exit_status
        self.state = ContainerState.CREATED if self.exit_status is None else ContainerState.EXITED
        if not isinstance(process, DetachedProcess):
            return
        word = process.state()
        if word is None:
            return
        status = process.poll()
        if status is not None:
            # Settled: the record has it, unless that could not be written.
            self.exit_status = status
            if self.state != ContainerState.REMOVED:
                self.state = ContainerState.EXITED
        elif word.phase == "restarting":
            self.state = ContainerState.RESTARTING
        else:
            self.state = ContainerState.PAUSED if process.is_frozen else ContainerState.RUNNING
            if process is self._stopping:
                self.state = ContainerState.STOPPING

    def _settle(self, process: DetachedProcess, ended: Exit) -> ExitStatus:
        """Write down how a run ended, once for all processes, and clean up after it."""
        with self.lock, self._locked():
            record = read_record(self.session.stores.layout, self.id)
            word = process.state()
            generation = process.generation if word is None else word.generation
            if record is None:
                self._forget()
                return exit_status(ended, None)
            if record.exit_status is not None and record.ended_generation >= generation:
                return record.exit_status
            cgroup = process.cgroup
            status = exit_status(ended, None if cgroup is None else cgroup.usage())
            self._remove_cgroup(process)
            if record.run is not None and record.run.supervisor == process.supervisor:
                self.record = evolve(
                    record,
                    exit_status=status,
                    ended_generation=generation,
                    finished_at=process.finished_at or time.time(),
                )
                with contextlib.suppress(OSError):
                    write_record(self.session.stores.layout, self.record)
                    self._seen = _look(self.record_path)
                self.exit_status, self.state = status, ContainerState.EXITED
                give_up_ports(self)
                if word is None or word.phase != "ended":
                    self.tell_end(status)  # its supervisor could not
                elif status.oom_killed:
                    self.tell("oom")
                if record.config.remove:
                    with contextlib.suppress(OSError):
                        self.discard()
            return status

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The lock of all processes, without looking at the state: that is being found out."""
        if self._depth:
            yield
            return
        lock_path = self._lock_path
        with file_lock.locked(lock_path):
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                self._drop_lock(lock_path)

    @property
    def _lock_path(self) -> str:
        return f"{self.session.stores.layout.locks}/container-{self.id}"

    def _drop_lock(self, path: str) -> None:
        """The lock of a container that is gone goes, too, as the last thing done under it."""
        if self.state == ContainerState.REMOVED:
            remove_file(path)

    def discard(self) -> None:
        """Remove everything that belongs to this container. It must not be running."""
        self.sweep()
        was_there = os.path.isdir(self.directory)
        try:
            self.remove_layer()
        finally:
            if not os.path.isdir(self.directory):
                self.session.names.release(self.name, self.id)
                self.note_removed()
                if was_there:
                    self.tell("destroy")

    def begin_run(self, supervisor_pid: int, cgroup_paths: tuple[str, ...]) -> None:
        """Note who will look after the run that is about to begin; it is found even if we end meanwhile."""
        word = SupervisorState.read(self.directory)
        run = Run(
            supervisor=ProcessIdentity.of(supervisor_pid),
            generation=0 if word is None else word.generation,
            cgroup_paths=cgroup_paths,
        )
        self.record = evolve(self.record, run=run)
        self.write_record()
        remove_file(self.starting_path)
        self.process = self._process_of(self.record)

    @property
    def starting_path(self) -> str:
        """A file that is there while there may be control groups that its record does not name.

        From before a start makes them until the record is written; and when they could not be removed.
        """
        return f"{self.directory}/starting"

    def sweep(self) -> None:
        """Remove the control groups that a start, or an end, has left which did not come to its own end.

        Raises:
            CgroupError: They cannot be removed.
        """
        process = self.process
        if isinstance(process, DetachedProcess) and process.state() is None:
            cgroup = process.cgroup
            if cgroup is not None:
                cgroup.kill()
            self._remove_cgroup(process)
        if os.path.exists(self.starting_path):
            from containerlib.runtime.cgroup_host import CgroupHost  # noqa: PLC0415 - hardly ever needed
            from containerlib.runtime.cgroup_recovery import collect_named  # noqa: PLC0415

            collect_named(CgroupHost.probe(), cgroup_name(self.id))
            remove_file(self.starting_path)

    def _remove_cgroup(self, process: DetachedProcess) -> None:
        """Remove its control groups, or note that they are there."""
        if not process.remove_cgroup():
            with contextlib.suppress(OSError):
                os.close(open_lasting(self.starting_path))

    def _forget(self) -> None:
        """Somebody else has removed it."""
        if self.process is not None:
            self.process.abandon()
        self.state = ContainerState.REMOVED
        self.session.drop(self)

    def settle_and_remove(self) -> None:
        """For closing the engine: it stays."""
        if self.process is not None:
            self.process.abandon()

    def find_layers(self) -> Layers:
        """Where its root file system comes from.

        Raises:
            ImageNotFound: The image is gone.
        """
        if not self.layers.lowers:
            try:
                image = get_image(self.session.stores, self.image_id)
            except ImageNotFound as error:
                raise ImageNotFound(f"the image of container {self.name!r} is gone: {error}") from None
            self.layers = Layers(lowers=image.lowers, directory=self.directory)
        self.restack()  # another process may have made a snapshot of it
        return self.layers


def _get_config(entry: DetachedEntry) -> ContainerConfig:
    """What it shall be: read when it is needed, see `DetachedRecord.config`."""
    config, fault = entry.record.config, entry._fault  # noqa: SLF001 - a part of the class
    return evolve(config, fault=fault) if fault[0] else config


def _set_config(entry: DetachedEntry, value: ContainerConfig) -> None:
    # While the entry is being made, its record says the same and comes later.
    if hasattr(entry, "record"):
        entry.record = evolve(entry.record, config_text=config_text(value))


# attrs takes a property of this name out of the class, because the class it is made from has such a field.
DetachedEntry.config = property(_get_config, _set_config)  # type: ignore[misc, assignment]


def find_detached(session: Session, container_id: str) -> DetachedEntry | None:
    """The entry for a container that another process has made; None if there is none.

    What becomes of it is seen from now on.
    """
    layout = session.stores.layout
    seen = _look(record_path(layout, container_id))
    record = None if seen is None else read_record(layout, container_id)
    if record is None:
        return None
    entry = DetachedEntry(
        session=session,
        id=record.id,
        name=record.name,
        image_id=record.image_id,
        image_name=record.image_name,
        config=cast("ContainerConfig", None),  # the record has it
        layers=Layers(lowers=(), directory=layout.container(record.id)),
        created_at=record.created_at,
        record=record,
    )
    entry.note_record(record, seen)
    return entry


def _look(path: str) -> tuple[int, int] | None:
    """What changes whenever a record does; None if there is none."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_mtime_ns, found.st_ino
