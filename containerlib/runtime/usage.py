"""How a container ended and what it used: values."""

from __future__ import annotations

from attrs import frozen

__all__ = ["ExitStatus", "Usage"]


@frozen(kw_only=True)
class Usage:
    """What a container used until it ended.

    Attributes:
        cpu_user_s: Processor time in user mode, of all processes, in seconds.
        cpu_system_s: The same in the kernel.
        memory_peak_bytes: Most memory at one moment, page cache included; where no control group counts
            it, the largest resident set of one process.
        pids_peak: Most processes and threads at one moment; None where the host does not count them.
    """

    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    memory_peak_bytes: int = 0
    pids_peak: int | None = None

    @property
    def cpu_s(self) -> float:
        """Processor time in total, in seconds."""
        return self.cpu_user_s + self.cpu_system_s


@frozen(kw_only=True)
class ExitStatus:
    """How a container ended.

    Attributes:
        exit_code: 0 to 255, 128 + n for signal n; None if the spawner was lost, so that nobody knows.
        signal: Signal that killed the first process, else 0.
        oom_killed: Whether a process of the container was killed for lack of memory.
        usage: What it used.
    """

    exit_code: int | None
    signal: int = 0
    oom_killed: bool = False
    usage: Usage = Usage()
