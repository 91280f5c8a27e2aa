"""Commands in running containers, in the shape of `subprocess`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, BinaryIO

from containerlib.api.result import completed
from containerlib.container.communicate import DEFAULT_OUTPUT_LIMIT, communicate
from containerlib.runtime.signals import parse_signal

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from containerlib.api.result import CompletedRun
    from containerlib.container.exec import ExecEntry
    from containerlib.runtime.usage import ExitStatus

__all__ = ["ExecProcess", "run_exec"]


class ExecProcess:
    """A command that was started in a running container; made by `Container.popen`.

    It ends with the container at the latest. As a context manager it closes its streams and waits for its
    end; when the block fails, it is killed with everything that it has started.
    """

    def __init__(self, entry: ExecEntry) -> None:
        self._entry = entry
        self.stdin: BinaryIO | None = entry.streams.stdin
        self.stdout: BinaryIO | None = entry.streams.stdout
        self.stderr: BinaryIO | None = entry.streams.stderr

    def __repr__(self) -> str:
        return f"<ExecProcess {self._entry.description} exit_code={self.exit_code}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._entry.streams.close_outer()
            self.wait()
        self.close()

    def __del__(self) -> None:
        entry = getattr(self, "_entry", None)
        if entry is not None and not entry.process.has_ended:
            warnings.warn(f"{entry.description} is still running", ResourceWarning, source=self, stacklevel=2)

    @property
    def args(self) -> tuple[str, ...]:
        """What was executed."""
        return self._entry.args

    @property
    def pid(self) -> int | None:
        """Process id on the host; None after the end."""
        return self._entry.process.pid

    @property
    def status(self) -> ExitStatus | None:
        """How it ended; None before."""
        return self._entry.poll()

    @property
    def exit_code(self) -> int | None:
        """Exit code; None before the end."""
        status = self.status
        return None if status is None else status.exit_code

    def fileno(self) -> int:
        """A descriptor that becomes readable at the end, for poll(2) and event loops."""
        return self._entry.process.fileno()

    def poll(self) -> int | None:
        """Exit code, or None while it runs. Never blocks."""
        return self.exit_code

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the end and return the exit code: 128 + n after signal n.

        Raises:
            OperationTimeout: It still runs after `timeout_s` seconds; it goes on.
        """
        return self._entry.wait(timeout_s).exit_code

    def communicate(
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
        _, stdout, stderr = communicate(
            self._entry, self._entry.streams, data=data, timeout_s=timeout_s, limit_bytes=output_limit_bytes
        )
        return stdout, stderr

    def send_signal(self, signal: int | str) -> None:
        """Send a signal to the command alone; one that has ended is not an error."""
        if self.poll() is None:
            self._entry.process.signal(parse_signal(signal))

    def terminate(self) -> None:
        """Send SIGTERM to the command alone."""
        self.send_signal("TERM")

    def kill(self) -> None:
        """Kill the command and everything that it has started, and nothing else in the container."""
        if self.poll() is None:
            self._entry.kill()

    def take_console(self) -> int:
        """The master side of its terminal, if it was started with ``tty=True``; the caller closes it.

        Raises:
            InvalidState: It has no terminal, or the terminal was taken already.
        """
        return self._entry.process.take_console()

    def close(self) -> None:
        """Kill it if it runs, with everything that it has started, and close its streams."""
        if self.poll() is None:
            self._entry.end()
        self._entry.streams.close_outer()


def run_exec(
    entry: ExecEntry, *, timeout_s: float | None, output_limit_bytes: int, check: bool
) -> CompletedRun:
    """Converse with a command to its end; `Container.exec` in parts."""
    status, stdout, stderr = communicate(
        entry, entry.streams, timeout_s=timeout_s, limit_bytes=output_limit_bytes
    )
    entry.poll()
    return completed(entry.args, status, stdout, stderr, check=check)
