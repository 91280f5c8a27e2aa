"""Running a further command in a container that runs."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import threading
from typing import TYPE_CHECKING

from containerlib.container.streams import Streams
from containerlib.errors import InvalidState, OperationTimeout
from containerlib.runtime.join import exec_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from containerlib.container.entry import ContainerEntry
    from containerlib.container.streams import Input, Output
    from containerlib.options import Security
    from containerlib.runtime.cgroup_exec import ExecCgroup
    from containerlib.runtime.detached import DetachedProcess
    from containerlib.runtime.process import RunningProcess
    from containerlib.runtime.usage import ExitStatus

__all__ = ["ExecEntry", "start_exec"]


class ExecEntry:
    """One command that was started in a container.

    Attributes:
        description: What it is called in messages.
        args: What was executed.
        process: The process.
        streams: The caller's ends of its streams.
    """

    def __init__(
        self,
        description: str,
        args: tuple[str, ...],
        process: RunningProcess,
        cgroup: ExecCgroup | None,
        streams: Streams,
        tell_end: Callable[[ExitStatus], None],
    ) -> None:
        self.description = description
        self.args = args
        self.process = process
        self.streams = streams
        self._cgroup = cgroup
        self._tell_end: Callable[[ExitStatus], None] | None = tell_end
        self._lock = threading.Lock()

    def poll(self) -> ExitStatus | None:
        """How it ended, or None while it runs."""
        return self._noted(self.process.poll())

    def wait(self, timeout_s: float | None = None) -> ExitStatus:
        """Wait for its end.

        Raises:
            OperationTimeout: It still runs after `timeout_s` seconds; it goes on.
        """
        status = self._noted(self.process.wait(timeout_s))
        if status is None:
            raise OperationTimeout(
                f"{self.description} is still running after {timeout_s} s", timeout_s=timeout_s or 0.0
            )
        return status

    def kill(self) -> None:
        """Kill it and everything that it has started, and nothing else in the container."""
        with self._lock:
            if self._cgroup is not None:
                self._cgroup.kill(self.process.pid)
        self.process.signal(signal.SIGKILL)

    def end(self) -> None:
        """Kill it and wait."""
        self.kill()
        self.wait()

    def _noted(self, status: ExitStatus | None) -> ExitStatus | None:
        """Give up the control group of its own; what it has left behind stays in the container."""
        if status is not None:
            with self._lock:
                cgroup, self._cgroup = self._cgroup, None
                tell_end, self._tell_end = self._tell_end, None
            if cgroup is not None:
                with contextlib.suppress(OSError):
                    cgroup.remove()
            if tell_end is not None:
                tell_end(status)
        return status


def _process_of(entry: ContainerEntry) -> RunningProcess | DetachedProcess:
    if entry.process is None:  # it has ended since
        raise InvalidState(
            f"cannot exec in container {entry.name!r}: it has ended", expected="running", actual="exited"
        )
    return entry.process


def start_exec(
    entry: ContainerEntry,
    command: Sequence[str],
    *,
    stdin: Input,
    stdout: Output,
    stderr: Output,
    env: Mapping[str, str] | Sequence[str] | None = None,
    workdir: str | None = None,
    user: str | None = None,
    security: Security | None = None,
    tty: bool = False,
    console_size: tuple[int, int] = (0, 0),
    fault: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> ExecEntry:
    """Start `command` in a container, and return when it was executed.

    Raises:
        InvalidState: The container is not running, or its supervisor was killed.
        InvalidOption: A value that no host could honour, or that does not fit the container.
        SpawnError: It was not started; `CommandNotFound` and `CommandNotExecutable` are kinds of it.
    """
    config = exec_config(
        entry.config,
        command,
        env=env,
        workdir=workdir,
        user=user,
        security=security,
        tty=tty,
        console_size=console_size,
        fault=fault,
    )
    runner = entry.session.enter()
    streams = Streams.open(stdin, stdout, stderr)
    try:
        with entry.joining():
            process = _process_of(entry)
            started, cgroup = runner.exec(entry.id, process, entry.name, config, streams.inner)
    except BaseException:
        streams.close_outer()
        raise
    finally:
        streams.close_inner()
    exec_id = os.urandom(32).hex()
    entry.tell("exec_start", {"execID": exec_id, "command": shlex.join(config.args)})

    def tell_end(status: ExitStatus) -> None:
        entry.tell("exec_die", {"execID": exec_id, "exitCode": str(status.exit_code)})

    description = f"{config.args[0]!r} in container {entry.name!r}"
    return ExecEntry(description, config.args, started, cgroup, streams, tell_end)
