"""Containers as the caller sees them: handles that hold nothing but an entry of the engine."""

# made by containerlib.aio.generate; change the module of the same name in containerlib.api
from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio import waiting, wrap
from containerlib.aio.container_files import ContainerFiles
from containerlib.aio.container_looks import ContainerLooks
from containerlib.aio.container_network import ContainerNetwork
from containerlib.aio.container_streams import ContainerStreams
from containerlib.aio.loop import call
from containerlib.aio.pipes import ContainerPipes
from containerlib.container.communicate import DEFAULT_OUTPUT_LIMIT
from containerlib.container.streams import DEVNULL, PIPE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self, Unpack

    from containerlib.aio.exec import ExecProcess
    from containerlib.aio.image import Image
    from containerlib.api import container as sync_module
    from containerlib.api.options import RunOptions
    from containerlib.api.result import CompletedRun
    from containerlib.container.health import HealthStatus
    from containerlib.container.state import ContainerState
    from containerlib.container.streams import Input, Output
    from containerlib.container.wait_until import Condition
    from containerlib.options import Resources, RestartPolicy, Security
    from containerlib.runtime.usage import ExitStatus
__all__ = ["Container", "Containers"]


class Container(ContainerFiles, ContainerLooks, ContainerNetwork, ContainerStreams, ContainerPipes):
    """One container of this engine. As a context manager it removes the container, running or not."""

    sync: sync_module.Container

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await call(lambda: self.sync.__exit__(kind, error, trace))

    @property
    def state(self) -> ContainerState:
        """Where it stands at this moment."""
        return self.sync.state

    @property
    def pid(self) -> int | None:
        """Process id of its first process, as this process sees it; None unless it runs."""
        return self.sync.pid

    @property
    def exit_status(self) -> ExitStatus | None:
        """How it ended; None before the end."""
        return self.sync.exit_status

    @property
    def restart_count(self) -> int:
        """How often its policy has started it again since `start`."""
        return self.sync.restart_count

    @property
    def health(self) -> HealthStatus | None:
        """What its health check says; None if it has none or was never started."""
        return self.sync.health

    def fileno(self) -> int:
        """A descriptor that becomes readable when it ends, for poll(2) and event loops; -1 before."""
        return self.sync.fileno()

    def take_console(self) -> int:
        """The master side of its terminal, if it was started with ``tty=True``; the caller closes it.

        Raises:
            InvalidState: It has no terminal, or the terminal was taken already.
        """
        return self.sync.take_console()

    async def exec(
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
        return await waiting.container_exec(
            self.sync,
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            timeout_s=timeout_s,
            check=check,
            output_limit_bytes=output_limit_bytes,
            env=env,
            workdir=workdir,
            user=user,
            security=security,
        )

    async def popen(
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
        return wrap.exec_process(
            await call(
                lambda: self.sync.popen(
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
                ),
                undo=lambda made: made.close(),
            )
        )

    async def start(self, *, stdin: Input = None, stdout: Output = None, stderr: Output = None) -> None:
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
        await call(lambda: self.sync.start(stdin=stdin, stdout=stdout, stderr=stderr))

    async def wait(self, *, timeout_s: float | None = None) -> ExitStatus:
        """Wait for its end. It goes on if `timeout_s` seconds are not enough.

        Raises:
            OperationTimeout: It still runs.
            InvalidState: It was never started.
        """
        return await waiting.wait(self.sync, timeout_s=timeout_s)

    async def kill(self, signal: int | str = "KILL") -> None:
        """Send a signal to its first process; SIGKILL ends every process in it.

        Raises:
            InvalidState: It is not running.
            InvalidOption: There is no such signal.
        """
        await call(lambda: self.sync.kill(signal))

    async def stop(self, *, timeout_s: float | None = None) -> ExitStatus | None:
        """Send its stop signal, wait up to `timeout_s` seconds (its own default if None), then kill it.

        Stopping a container that is not running does nothing.

        Raises:
            OperationTimeout: It was killed and does not end within 10 seconds, because one of its processes
                waits in the kernel for something. It is then ``"stopping"``, and ends when that has come.
        """
        return await waiting.stop(self.sync, timeout_s=timeout_s)

    async def restart(self, *, timeout_s: float | None = None) -> None:
        """Stop it, see `stop`, and start it again; one that does not run is started.

        Raises:
            InvalidState: It was removed, or somebody else has started it meanwhile.
            SpawnError: It was stopped, and could not be started; see `start`.
        """
        await waiting.restart(self.sync, timeout_s=timeout_s)

    async def wait_until(self, condition: Condition, *, timeout_s: float | None = None) -> None:
        """Wait until it is ``"running"``, ``"healthy"``, ``"exited"`` or ``"removed"``, and see `wait`.

        Raises:
            InvalidState: That can no longer come about: it has ended, was removed, or has no health check.
            OperationTimeout: It has not come about within `timeout_s` seconds.
            InvalidOption: There is no such condition.
        """
        await waiting.wait_until(self.sync, condition, timeout_s=timeout_s)

    async def rename(self, name: str) -> None:
        """Give it another name.

        Raises:
            InvalidOption: It is no name.
            NameInUse: Another container has it.
            InvalidState: It was removed.
        """
        await call(lambda: self.sync.rename(name))

    async def pause(self) -> None:
        """Stop all its processes where they are, without their noticing, until `unpause`.

        Raises:
            InvalidState: It is not running, or was started by another process.
            UnsupportedHost: The host has no control groups that can do that.
            CgroupError: A process that waits in the kernel could not be stopped; all go on.
        """
        await call(self.sync.pause)

    async def unpause(self) -> None:
        """Let it go on.

        Raises:
            InvalidState: It is not paused.
        """
        await call(self.sync.unpause)

    async def update(
        self, resources: Resources | None = None, *, restart: RestartPolicy | None = None
    ) -> None:
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
        await call(lambda: self.sync.update(resources, restart=restart))

    async def remove(self, *, force: bool = False) -> None:
        """Remove it and its layer; `force` kills it first. Removing it again does nothing.

        Raises:
            InvalidState: It is running and `force` is not set.
            OperationTimeout: It was killed and does not end; see `stop`.
        """
        await call(lambda: self.sync.remove(force=force))


class Containers:
    """The containers of an engine."""

    sync: sync_module.Containers

    def __init__(self, sync: sync_module.Containers) -> None:
        """Take over a handle."""
        self.sync = sync

    async def create(
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
        return wrap.container(
            await call(
                lambda: self.sync.create(wrap.unwrap(image), command, **options),
                undo=lambda made: made.remove(force=True),
            )
        )

    async def run(
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
        return wrap.container(
            await call(
                lambda: self.sync.run(
                    wrap.unwrap(image), command, stdin=stdin, stdout=stdout, stderr=stderr, **options
                ),
                undo=lambda made: made.remove(force=True),
            )
        )

    async def get(self, key: str) -> Container:
        """The container with this id, name, or beginning of an id.

        Raises:
            ContainerNotFound: There is none, or several.
        """
        return wrap.container(await call(lambda: self.sync.get(key)))

    async def prune(self) -> list[str]:
        """Remove every container that does not run, and return their ids."""
        return await call(self.sync.prune)

    async def list(self) -> list[Container]:
        """All containers of this engine, oldest first."""
        return [wrap.container(found) for found in await call(self.sync.list)]
