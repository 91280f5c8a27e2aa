"""What a finished run gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

from containerlib.errors import ContainerFailed

if TYPE_CHECKING:
    from typing import Self

    from containerlib.runtime.usage import ExitStatus, Usage

__all__ = ["CompletedRun", "completed"]

_TAIL_BYTES = 4096


@frozen(kw_only=True)
class CompletedRun:
    """A container that has ended and was removed.

    Attributes:
        args: What was executed.
        exit_code: 0 to 255; 128 + n for signal n; None if the spawner was lost, so that nobody knows.
        stdout: Captured standard output; empty where it was not captured.
        stderr: The same for standard error.
        signal: Signal that killed the first process, else 0.
        oom_killed: Whether a process was killed for lack of memory.
        usage: Processor time, memory, processes.
    """

    args: tuple[str, ...]
    exit_code: int | None
    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)
    signal: int = 0
    oom_killed: bool = False
    usage: Usage

    @property
    def text(self) -> str:
        """Standard output as text: UTF-8, what is not as replacement characters."""
        return self.stdout.decode("utf-8", "replace")

    def check(self) -> Self:
        """Return this result if the exit code is 0.

        Raises:
            ContainerFailed: It is not; the message ends with the last lines of standard error.
        """
        if self.exit_code == 0:
            return self
        tail = self.stderr[-_TAIL_BYTES:].decode("utf-8", "replace").strip()
        if self.oom_killed:
            reason = "was killed for lack of memory; raise Resources.memory_bytes"
        elif self.exit_code is None:
            reason = "was lost with its spawner"
        elif self.signal:
            reason = f"was killed by signal {self.signal}"
        else:
            reason = f"exited with {self.exit_code}"
        message = f"command {self.args[0]!r} {reason}" + (f": {tail}" if tail else "")
        raise ContainerFailed(
            message, exit_code=-1 if self.exit_code is None else self.exit_code, stderr_tail=tail
        )


def completed(
    args: tuple[str, ...], status: ExitStatus, stdout: bytes, stderr: bytes, *, check: bool
) -> CompletedRun:
    """What a finished run gives.

    Raises:
        ContainerFailed: With `check`, the exit code is not 0.
    """
    result = CompletedRun(
        args=args,
        exit_code=status.exit_code,
        stdout=stdout,
        stderr=stderr,
        signal=status.signal,
        oom_killed=status.oom_killed,
        usage=status.usage,
    )
    return result.check() if check else result
