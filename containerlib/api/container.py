"""Containers as the caller sees them: handles that hold nothing but an entry of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Unpack

from containerlib.api.container_files import ContainerFiles
from containerlib.api.container_looks import ContainerLooks
from containerlib.api.container_network import ContainerNetwork
from containerlib.api.container_streams import ContainerStreams
from containerlib.api.exec import ExecProcess, run_exec
from containerlib.container import create, kill, pause, remove, start, wait
from containerlib.container.communicate import DEFAULT_OUTPUT_LIMIT
from containerlib.container.exec import start_exec
from containerlib.container.streams import DEVNULL, PIPE
from containerlib.runtime import config
from containerlib.runtime.signals import parse_signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from containerlib.api.image import Image
    from containerlib.api.options import RunOptions
    from containerlib.api.remote import Remote
    from containerlib.api.result import CompletedRun
    from containerlib.container.health import HealthStatus
    from containerlib.container.session import Session
    from containerlib.container.state import ContainerState
    from containerlib.container.streams import Input, Output
    from containerlib.container.wait_until import Condition
    from containerlib.options import Resources, RestartPolicy, Security
    from containerlib.runtime.usage import ExitStatus

__all__ = ["Container", "Containers"]


class Container(ContainerFiles, ContainerLooks, ContainerNetwork, ContainerStreams):
    """One container of this engine. As a context manager it removes the container, running or not."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove(force=True)

    @property
    def state(self) -> ContainerState:
        """Where it stands at this moment."""
        return self._entry.refresh()

    @property
    def pid(self) -> int | None:
        """Process id of its first process, as this process sees it; None unless it runs."""
        if self._entry.is_detached:
            self._entry.refresh()  # another process may have started it
        process = self._entry.process
        return None if process is None else process.pid

    @property
    def exit_status(self) -> ExitStatus | None:
        """How it ended; None before the end."""
        self._entry.refresh()
        return self._entry.exit_status

    @property
    def restart_count(self) -> int:
        """How often its policy has started it again since `start`."""
        self._entry.refresh()
        return self._entry.restart_count

    @property
    def health(self) -> HealthStatus | None:
        """What its health check says; None if it has none or was never started."""
        from containerlib.container.health import health_status  # noqa: PLC0415 - needed by few

        return health_status(self._entry)

    @property
    def stdin(self) -> BinaryIO | None:
        """Where to write its standard input, if it was started with ``stdin=PIPE``."""
        return None if self._entry.streams is None else self._entry.streams.stdin

    @property
    def stdout(self) -> BinaryIO | None:
        """Its standard output, if it was started with ``stdout=PIPE``."""
        return None if self._entry.streams is None else self._entry.streams.stdout

    @property
    def stderr(self) -> BinaryIO | None:
        """Its standard error, if it was started with ``stderr=PIPE``."""
        return None if self._entry.streams is None else self._entry.streams.stderr

    def fileno(self) -> int:
        """A descriptor that becomes readable when it ends, for poll(2) and event loops; -1 before."""
        process = self._entry.process
        return -1 if process is None else process.fileno()

    def take_console(self) -> int:
        """The master side of its terminal, if it was started with ``tty=True``; the caller closes it.

        Raises:
            InvalidState: It has no terminal, or the terminal was taken already.
        """
        return start.take_console(self._entry)

    def exec(
        self,
        command: Sequence[str],
        *,
        stdin: Input = DEVNULL,
        stdout: Output = PIPE,
        stderr: Output = PIPE,
        timeout_s: float | None = None,
        check: bool = False,
        output_limit_bytes: int = DEFAULT_OUTPUT_LIMIT,
        env: Mapping[str, str] | Sequence[str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        security: Security | None = None,
    ) -> CompletedRun:
        """Run a further command in the running container to its end.

        It has the container's namespaces, control groups, filter and limits. What is not given is as for the
        container's own command.

        Args:
            command: Program and arguments; neither the image's entrypoint nor a shell is put before it.
            stdin: Bytes to be read, `DEVNULL` (the default), a descriptor or file; None to inherit.
            stdout: `PIPE` to capture (the default), `DEVNULL`, a descriptor or file; None to inherit.
            stderr: The same, or `STDOUT`.
            timeout_s: Kill it and everything that it has started after so many seconds.
            check: Raise if the exit code is not 0.
            output_limit_bytes: Most output to keep.
            env: Variables over the container's.
            workdir: Absolute path of an existing directory in the container.
            user: Name, uid, ``uid:gid`` or ``name:group``, looked up in the container as it is now.
            security: Capabilities and filter instead of the container's.

        Raises:
            OperationTimeout: It took longer; the error has what was captured, and the container goes on.
            ContainerFailed: With `check`, the exit code is not 0.
            OutputLimitExceeded: It wrote more than `output_limit_bytes`; it was killed.
            InvalidState: The container is not running, or was started by another process.
            SpawnError: It was not started; `CommandNotFound` and `CommandNotExecutable` are kinds of it.
            InvalidOption: A value does not fit the container.

        Cost: about two milliseconds.
        """
        entry = start_exec(
            self._entry,
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            workdir=workdir,
            user=user,
            security=security,
        )
        return run_exec(entry, timeout_s=timeout_s, output_limit_bytes=output_limit_bytes, check=check)

    def popen(
        self,
        command: Sequence[str],
        *,
        stdin: Input = None,
        stdout: Output = None,
        stderr: Output = None,
        env: Mapping[str, str] | Sequence[str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        security: Security | None = None,
        tty: bool = False,
        console_size: tuple[int, int] = (0, 0),
    ) -> ExecProcess:
        """Start a further command in the running container, with real pipes or a terminal; see `exec`.

        Args:
            command: Program and arguments.
            stdin: `PIPE`, `DEVNULL`, bytes, a descriptor or file; None to inherit.
            stdout: `PIPE`, `DEVNULL`, a descriptor or file; None to inherit.
            stderr: The same, or `STDOUT`.
            env: See `exec`.
            workdir: See `exec`.
            user: See `exec`.
            security: See `exec`.
            tty: Give it a terminal of the container instead of the three streams; see `take_console`.
            console_size: Columns and rows of the terminal.
        """
        entry = start_exec(
            self._entry,
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            workdir=workdir,
            user=user,
            security=security,
            tty=tty,
            console_size=console_size,
        )
        return ExecProcess(entry)

    def start(self, *, stdin: Input = None, stdout: Output = None, stderr: Output = None) -> None:
        """Start it, and return when its command was executed. After a failure it is as before.

        Args:
            stdin: `PIPE`, `DEVNULL`, bytes, a descriptor or file; None to inherit.
            stdout: `PIPE`, `DEVNULL`, a descriptor or file; None to inherit.
            stderr: The same, or `STDOUT`.

        Raises:
            InvalidState: It is running or removed.
            CommandNotFound: The command does not exist in the container.
            CommandNotExecutable: The command cannot be executed.
            InvalidOption: A value does not fit the image, or no host could honour it.
            UnsupportedHost: This host cannot honour a value.
            SpawnError: The kernel refused a step.
        """
        start.start(self._entry, stdin=stdin, stdout=stdout, stderr=stderr)

    def wait(self, *, timeout_s: float | None = None) -> ExitStatus:
        """Wait for its end. It goes on if `timeout_s` seconds are not enough.

        Raises:
            OperationTimeout: It still runs.
            InvalidState: It was never started.
        """
        return wait.wait(self._entry, timeout_s=timeout_s)

    def kill(self, signal: int | str = "KILL") -> None:
        """Send a signal to its first process; SIGKILL ends every process in it.

        Raises:
            InvalidState: It is not running.
            InvalidOption: There is no such signal.
        """
        kill.kill(self._entry, parse_signal(signal))

    def stop(self, *, timeout_s: float | None = None) -> ExitStatus | None:
        """Send its stop signal, wait up to `timeout_s` seconds (its own default if None), then kill it.

        Stopping a container that is not running does nothing.

        Raises:
            OperationTimeout: It was killed and does not end within 10 seconds, because one of its processes
                waits in the kernel for something. It is then ``"stopping"``, and ends when that has come.
        """
        if timeout_s is None:
            timeout_s = self._entry.config.stop_timeout_s
        return kill.stop(self._entry, timeout_s=timeout_s)

    def restart(self, *, timeout_s: float | None = None) -> None:
        """Stop it, see `stop`, and start it again; one that does not run is started.

        Raises:
            InvalidState: It was removed, or somebody else has started it meanwhile.
            SpawnError: It was stopped, and could not be started; see `start`.
        """
        self.stop(timeout_s=timeout_s)
        self.start()
        self._entry.tell("restart")

    def wait_until(self, condition: Condition, *, timeout_s: float | None = None) -> None:
        """Wait until it is ``"running"``, ``"healthy"``, ``"exited"`` or ``"removed"``, and see `wait`.

        Raises:
            InvalidState: That can no longer come about: it has ended, was removed, or has no health check.
            OperationTimeout: It has not come about within `timeout_s` seconds.
            InvalidOption: There is no such condition.
        """
        from containerlib.container.wait_until import wait_until  # noqa: PLC0415 - needed by few

        wait_until(self._entry, condition, timeout_s=timeout_s)

    def rename(self, name: str) -> None:
        """Give it another name.

        Raises:
            InvalidOption: It is no name.
            NameInUse: Another container has it.
            InvalidState: It was removed.
        """
        from containerlib.container.rename import rename  # noqa: PLC0415 - rarely needed

        rename(self._entry, name)

    def pause(self) -> None:
        """Stop all its processes where they are, without their noticing, until `unpause`.

        Raises:
            InvalidState: It is not running, or was started by another process.
            UnsupportedHost: The host has no control groups that can do that.
            CgroupError: A process that waits in the kernel could not be stopped; all go on.
        """
        pause.pause(self._entry)

    def unpause(self) -> None:
        """Let it go on.

        Raises:
            InvalidState: It is not paused.
        """
        pause.unpause(self._entry)

    def update(self, resources: Resources | None = None, *, restart: RestartPolicy | None = None) -> None:
        """Replace its limits, or its restart policy, while it runs; what is not given stays.

        Args:
            resources: All limits from now on; one that is no longer given is taken away.
            restart: The policy of a detached container.

        Raises:
            InvalidState: It is not running, or its supervisor was killed.
            InvalidOption: It is not detached, or removes itself, and can have no policy.
            UnsupportedHost: The host cannot set a limit; nothing was changed.
            CgroupError: The kernel refused a value, such as less memory than is in use.
        """
        pause.update(self._entry, resources, restart)

    def remove(self, *, force: bool = False) -> None:
        """Remove it and its layer; `force` kills it first. Removing it again does nothing.

        Raises:
            InvalidState: It is running and `force` is not set.
            OperationTimeout: It was killed and does not end; see `stop`.
        """
        remove.remove(self._entry, force=force)


class Containers:
    """The containers of an engine."""

    def __init__(self, session: Session, remote: Remote) -> None:
        self._session = session
        self._remote = remote

    def create(
        self, image: Image, command: Sequence[str] | None = None, **options: Unpack[RunOptions]
    ) -> Container:
        """Make a container without starting it.

        Args:
            image: What it is made of.
            command: Replaces the image's command.
            options: See `RunOptions`.

        Raises:
            InvalidOption: A value that no host could honour; nothing was made.
            NameInUse: Another container of this engine has the name.
        """
        return self._create(image, command, options, starts_now=False)

    def _create(
        self, image: Image, command: Sequence[str] | None, options: RunOptions, *, starts_now: bool
    ) -> Container:
        merged = config.merge(image.record.config.config, command=command, **options)
        entry = create.create(self._session, image.record, merged, starts_now=starts_now)
        return Container(entry, self._remote)

    def run(
        self,
        image: Image,
        command: Sequence[str] | None = None,
        *,
        stdin: Input = None,
        stdout: Output = None,
        stderr: Output = None,
        **options: Unpack[RunOptions],
    ) -> Container:
        """Make a container and start it. If it cannot be started, nothing of it is left.

        Args:
            image: What it is made of.
            command: Replaces the image's command.
            stdin: See `Container.start`.
            stdout: See `Container.start`.
            stderr: See `Container.start`.
            options: See `RunOptions`.
        """
        container = self._create(image, command, options, starts_now=True)
        try:
            container.start(stdin=stdin, stdout=stdout, stderr=stderr)
        except BaseException:
            container.remove(force=True)
            raise
        return container

    def get(self, key: str) -> Container:
        """The container with this id, name, or beginning of an id.

        Raises:
            ContainerNotFound: There is none, or several.
        """
        return Container(self._session.find(key), self._remote)

    def prune(self) -> list[str]:
        """Remove every container that does not run, and return their ids."""
        removed = []
        for container in self.list():
            if container.state in {"created", "exited"}:
                container.remove()
                removed.append(container.id)
        return removed

    def list(self) -> list[Container]:
        """All containers of this engine, oldest first."""
        return [Container(entry, self._remote) for entry in self._session.entries()]
