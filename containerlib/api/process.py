"""`Popen`: a container in the shape of `subprocess.Popen`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, BinaryIO, Unpack

from containerlib.container.communicate import DEFAULT_OUTPUT_LIMIT, communicate
from containerlib.container.streams import Streams
from containerlib.errors import OperationTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from containerlib.api.container import Container
    from containerlib.api.image import Image
    from containerlib.api.options import RunOptions
    from containerlib.container.streams import Input, Output
    from containerlib.runtime.usage import ExitStatus

__all__ = ["Process"]


class Process:
    """A container started for its one command, with real pipes; gone when the command has ended.

    Differences to `subprocess.Popen`: bytes only, and an exit code is 128 + n after signal n.
    """

    def __init__(
        self,
        image: Image,
        args: Sequence[str] | None = None,
        *,
        stdin: Input = None,
        stdout: Output = None,
        stderr: Output = None,
        **options: Unpack[RunOptions],
    ) -> None:
        """Start it; see `Containers.run`."""
        options.setdefault("layer", "memory")
        self._container: Container = image.run(args, stdin=stdin, stdout=stdout, stderr=stderr, **options)
        self.stdin: BinaryIO | None = self._container.stdin
        self.stdout: BinaryIO | None = self._container.stdout
        self.stderr: BinaryIO | None = self._container.stderr

    def __repr__(self) -> str:
        return f"<Process {self._container.name} exit_code={self.exit_code}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        if kind is None:
            self.wait()
        self.close()

    def __del__(self) -> None:
        container = getattr(self, "_container", None)
        if container is not None and container.state.is_alive:
            warnings.warn(
                f"container {container.name} is still running", ResourceWarning, source=self, stacklevel=2
            )

    @property
    def container(self) -> Container:
        """The container behind it."""
        return self._container

    @property
    def pid(self) -> int | None:
        """Process id on the host; None after the end."""
        return self._container.pid

    @property
    def status(self) -> ExitStatus | None:
        """How it ended; None before."""
        return self._container.exit_status

    @property
    def exit_code(self) -> int | None:
        """Exit code; None before the end."""
        status = self.status
        return None if status is None else status.exit_code

    def fileno(self) -> int:
        """A descriptor that becomes readable at the end."""
        return self._container.fileno()

    def poll(self) -> int | None:
        """Exit code, or None while it runs. Never blocks."""
        return self.exit_code

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the end and return the exit code.

        Raises:
            OperationTimeout: It still runs after `timeout_s` seconds; it goes on.
        """
        return self._container.wait(timeout_s=timeout_s).exit_code

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
        entry = self._container.entry
        streams = entry.streams or Streams()
        _, stdout, stderr = communicate(
            entry, streams, data=data, timeout_s=timeout_s, limit_bytes=output_limit_bytes
        )
        return stdout, stderr

    def send_signal(self, signal: int | str) -> None:
        """Send a signal to the command; one that has ended is not an error."""
        if self.poll() is None:
            self._container.kill(signal)

    def terminate(self) -> None:
        """Send SIGTERM. Without ``init=True`` only a command that handles it will end."""
        self.send_signal("TERM")

    def kill(self) -> None:
        """Kill the command and everything that it started."""
        self.send_signal("KILL")

    def close(self) -> None:
        """Kill it if it runs, and remove it."""
        self._container.remove(force=True)


def for_one_run(options: RunOptions) -> RunOptions:
    """Options of a container that is removed at the end of its command, whatever its layer holds then."""
    return {"layer": "memory", "remove": True, **options}


def run_to_end(
    image: Image,
    args: Sequence[str] | None,
    *,
    stdin: Input,
    stdout: Output,
    stderr: Output,
    timeout_s: float | None,
    output_limit_bytes: int,
    options: RunOptions,
) -> tuple[Container, ExitStatus, bytes, bytes]:
    """Run a command to its end in a container that is then removed; `Image.call` in parts."""
    container = image.run(args, stdin=stdin, stdout=stdout, stderr=stderr, **for_one_run(options))
    entry = container.entry
    try:
        status, out, err = communicate(
            entry, entry.streams or Streams(), timeout_s=timeout_s, limit_bytes=output_limit_bytes
        )
    except OperationTimeout as error:
        error.add_note(f"command: {' '.join(entry.config.args)}")
        raise
    finally:
        container.remove(force=True)
    return container, status, out, err
