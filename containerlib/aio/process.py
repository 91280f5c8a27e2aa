"""`Popen`: a container for one command, in an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio import wrap
from containerlib.aio.loop import call
from containerlib.aio.streams import PipeReader, PipeWriter
from containerlib.aio.waiting import communicate, wait
from containerlib.container.communicate import DEFAULT_OUTPUT_LIMIT
from containerlib.container.streams import Streams

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from containerlib.aio.container import Container
    from containerlib.api.process import Process as SyncProcess
    from containerlib.runtime.usage import ExitStatus

__all__ = ["Process"]


class Process:
    """A container started for its one command, with real pipes; gone when the command has ended.

    As a context manager it waits for its end; when the block fails or the task is cancelled, it is killed. In
    every case it is removed.

    Attributes:
        sync: The same without an event loop; its streams must not be used beside these.
        stdin: Its standard input, if that is a pipe.
        stdout: Its standard output, if that is a pipe.
        stderr: Its standard error, if that is a pipe.
    """

    def __init__(self, sync: SyncProcess) -> None:
        """Take over a started container."""
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
    def container(self) -> Container:
        """The container behind it."""
        return wrap.container(self.sync.container)

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
        """Wait for the end and return the exit code.

        Raises:
            OperationTimeout: It still runs after `timeout_s` seconds; it goes on.
        """
        return (await wait(self.sync.container, timeout_s=timeout_s)).exit_code

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
        entry = self.sync.container.entry
        _, stdout, stderr = await communicate(
            entry,
            entry.streams or Streams(),
            data=data,
            timeout_s=timeout_s,
            limit_bytes=output_limit_bytes,
        )
        return stdout, stderr

    def send_signal(self, signal: int | str) -> None:
        """Send a signal to the command; one that has ended is not an error."""
        self.sync.send_signal(signal)

    def terminate(self) -> None:
        """Send SIGTERM. Without ``init=True`` only a command that handles it will end."""
        self.sync.terminate()

    def kill(self) -> None:
        """Kill the command and everything that it started."""
        self.sync.kill()

    async def close(self) -> None:
        """Kill it if it runs, and remove it."""
        await call(self.sync.close)
