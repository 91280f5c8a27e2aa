"""Commands in running containers, in an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio.loop import call
from containerlib.aio.streams import PipeReader, PipeWriter
from containerlib.aio.waiting import communicate, process_end
from containerlib.container.communicate import DEFAULT_OUTPUT_LIMIT
from containerlib.errors import OperationTimeout

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from containerlib.api.exec import ExecProcess as SyncExecProcess
    from containerlib.runtime.usage import ExitStatus

__all__ = ["ExecProcess"]


class ExecProcess:
    """A command that was started in a running container; made by `Container.popen`.

    It ends with the container at the latest. As a context manager it waits for its end; when the block fails
    or the task is cancelled, it is killed with everything that it has started.

    Attributes:
        sync: The same without an event loop; its streams must not be used beside these.
        stdin: Its standard input, if that is a pipe.
        stdout: Its standard output, if that is a pipe.
        stderr: Its standard error, if that is a pipe.
    """

    def __init__(self, sync: SyncExecProcess) -> None:
        """Take over a command."""
        self.sync = sync
        self.stdin = None if sync.stdin is None else PipeWriter(sync.stdin)
        self.stdout = None if sync.stdout is None else PipeReader(sync.stdout)
        self.stderr = None if sync.stderr is None else PipeReader(sync.stderr)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for stream in (self.stdin, self.stdout, self.stderr):
                    if stream is not None:
                        stream.close()
                await self.wait()
        finally:
            await self.close()

    @property
    def args(self) -> tuple[str, ...]:
        """What was executed."""
        return self.sync.args

    @property
    def pid(self) -> int | None:
        """Process id on the host; None after the end."""
        return self.sync.pid

    @property
    def status(self) -> ExitStatus | None:
        """How it ended; None before."""
        return self.sync.status

    @property
    def exit_code(self) -> int | None:
        """Exit code; None before the end."""
        return self.sync.exit_code

    def poll(self) -> int | None:
        """Exit code, or None while it runs."""
        return self.sync.poll()

    async def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the end and return the exit code: 128 + n after signal n.

        Raises:
            OperationTimeout: It still runs after `timeout_s` seconds; it goes on.
        """
        entry = self.sync._entry  # noqa: SLF001 - two forms of one object
        await process_end(entry.process, timeout_s)
        status = entry.poll()
        if status is None:
            raise OperationTimeout(
                f"{entry.description} is still running after {timeout_s} s", timeout_s=timeout_s or 0.0
            )
        return status.exit_code

    async def communicate(
        self,
        data: bytes = b"",
        *,
        timeout_s: float | None = None,
        output_limit_bytes: int = DEFAULT_OUTPUT_LIMIT,
    ) -> tuple[bytes, bytes]:
        """Write `data` to standard input, read both outputs, and wait for the end.

        Raises:
            OperationTimeout: It took longer than `timeout_s` seconds; it was killed.
            OutputLimitExceeded: It wrote more than `output_limit_bytes`; it was killed.
        """
        entry = self.sync._entry  # noqa: SLF001 - two forms of one object
        _, stdout, stderr = await communicate(
            entry, entry.streams, data=data, timeout_s=timeout_s, limit_bytes=output_limit_bytes
        )
        entry.poll()
        return stdout, stderr

    def send_signal(self, signal: int | str) -> None:
        """Send a signal to the command alone; one that has ended is not an error."""
        self.sync.send_signal(signal)

    def terminate(self) -> None:
        """Send SIGTERM to the command alone."""
        self.sync.terminate()

    async def kill(self) -> None:
        """Kill the command and everything that it has started, and nothing else in the container."""
        await call(self.sync.kill)

    def take_console(self) -> int:
        """The master side of its terminal, if it was started with ``tty=True``; the caller closes it.

        Raises:
            InvalidState: It has no terminal, or the terminal was taken already.
        """
        return self.sync.take_console()

    async def close(self) -> None:
        """Kill it if it runs, with everything that it has started, and close its streams."""
        await call(self.sync.close)
