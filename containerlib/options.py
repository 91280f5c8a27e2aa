"""Value objects that callers pass: frozen, checked when made, without side effects.

They know the ranges that hold on every host. What depends on the host (number of processors, missing
controllers) is checked where the host is known.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any, Final, Literal

from attrs import field, frozen

from containerlib.errors import InvalidOption

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Mapping

    import attrs

__all__ = [
    "DEFAULT_PIDS",
    "MINIMUM_MEMORY_BYTES",
    "UNLIMITED",
    "Device",
    "HealthCheck",
    "LogFile",
    "Mount",
    "Resources",
    "RestartPolicy",
    "Rlimit",
    "Security",
]

UNLIMITED: Final = -1
"""Where -1 is allowed it means "no limit"."""

DEFAULT_PIDS: Final = 2048
"""Processes and threads a container may have when the caller says nothing."""

MINIMUM_MEMORY_BYTES: Final = 6 * 1024 * 1024
"""Smallest memory limit, as Docker's: with less not even the first process can start."""

_MINIMUM_CPU_US: Final = 1000
_MAXIMUM_PERIOD_US: Final = 1_000_000


def _check_range(
    low: int, high: int | None, remedy: str, *, or_unlimited: bool = False
) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(_instance: object, attribute: attrs.Attribute[int | None], value: int | None) -> None:
        if value is None or (or_unlimited and value == UNLIMITED):
            return
        if value < low or (high is not None and value > high):
            raise InvalidOption(attribute.name, value, remedy)

    return check


def _as_pairs(rates: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    return tuple(rates)


def _check_device_rates(
    _instance: object,
    attribute: attrs.Attribute[tuple[tuple[str, int], ...]],
    rates: tuple[tuple[str, int], ...],
) -> None:
    for path, rate in rates:
        if not path.startswith("/"):
            raise InvalidOption(attribute.name, (path, rate), "give the absolute path of a block device")
        if rate <= 0:
            raise InvalidOption(attribute.name, (path, rate), "the rate must be 1 or more per second")


def _check_unified(
    _instance: object, attribute: attrs.Attribute[Mapping[str, str]], values: Mapping[str, str]
) -> None:
    for name in values:
        controller, dot, rest = name.partition(".")
        if not (controller.isalnum() and dot and rest) or "/" in name or controller == "cgroup":
            raise InvalidOption(
                attribute.name, name, "name a file of a cgroup v2 controller, such as 'memory.high'"
            )


@frozen(kw_only=True, cache_hash=True)
class Resources:
    """Limits of one container. `None` means that nothing is set, unless said otherwise.

    Attributes:
        memory_bytes: Most memory, at least 6 MiB. Without `memory_swap_bytes`, swap up to twice this value in
            total is allowed, where the host counts swap.
        memory_swap_bytes: Most memory and swap together; -1 for unlimited swap. Needs `memory_bytes`.
        memory_reservation_bytes: Memory that is taken from the container last.
        pids: Most processes and threads; -1 or `None` for no limit. The default is a precaution rather than a
            request: a host that cannot limit them runs the container all the same.
        cpus: Processor time in processors, such as 1.5. Excludes `cpu_quota_us` and `cpu_period_us`.
        cpu_shares: Weight against other containers, 2 to 262144; 1024 is the weight of one without.
        cpu_quota_us: Processor time per period; -1 for no limit.
        cpu_period_us: Length of a period, 1000 to 1000000; 100000 where not given.
        cpuset_cpus: Processors it may run on, such as ``"0-2,4"``.
        cpuset_mems: Memory nodes it may use, such as ``"0"``.
        io_weight: Weight for block devices, 10 to 1000.
        device_read_bps: Pairs of device path and most bytes per second.
        device_write_bps: The same for writing.
        device_read_iops: Pairs of device path and most operations per second.
        device_write_iops: The same for writing.
        oom_score_adj: -1000 to 1000; the higher, the sooner killed when memory is short. No control group.
        unified: Files of cgroup v2 and the text to write into them, line by line.
    """

    memory_bytes: int | None = field(
        default=None,
        validator=_check_range(MINIMUM_MEMORY_BYTES, None, "the minimum is 6 MiB (6291456 bytes)"),
    )
    memory_swap_bytes: int | None = field(
        default=None,
        validator=_check_range(
            1, None, "give memory and swap in total, or -1 for unlimited", or_unlimited=True
        ),
    )
    memory_reservation_bytes: int | None = field(
        default=None,
        validator=_check_range(MINIMUM_MEMORY_BYTES, None, "the minimum is 6 MiB (6291456 bytes)"),
    )
    pids: int | None = field(
        default=DEFAULT_PIDS,
        validator=_check_range(1, None, "give at least 1, or -1 for no limit", or_unlimited=True),
    )
    cpus: float | None = None
    cpu_shares: int | None = field(
        default=None, validator=_check_range(2, 262144, "shares are 2 to 262144; 1024 is normal")
    )
    cpu_quota_us: int | None = field(
        default=None,
        validator=_check_range(
            _MINIMUM_CPU_US, None, "give at least 1000, or -1 for no limit", or_unlimited=True
        ),
    )
    cpu_period_us: int | None = field(
        default=None,
        validator=_check_range(
            _MINIMUM_CPU_US, _MAXIMUM_PERIOD_US, "a period is 1000 to 1000000 microseconds"
        ),
    )
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    io_weight: int | None = field(default=None, validator=_check_range(10, 1000, "the weight is 10 to 1000"))
    device_read_bps: tuple[tuple[str, int], ...] = field(
        default=(), converter=_as_pairs, validator=_check_device_rates
    )
    device_write_bps: tuple[tuple[str, int], ...] = field(
        default=(), converter=_as_pairs, validator=_check_device_rates
    )
    device_read_iops: tuple[tuple[str, int], ...] = field(
        default=(), converter=_as_pairs, validator=_check_device_rates
    )
    device_write_iops: tuple[tuple[str, int], ...] = field(
        default=(), converter=_as_pairs, validator=_check_device_rates
    )
    oom_score_adj: int | None = field(default=None, validator=_check_range(-1000, 1000, "give -1000 to 1000"))
    unified: Mapping[str, str] = field(factory=dict, hash=False, validator=_check_unified)

    def __attrs_post_init__(self) -> None:
        self._check_memory()
        self._check_cpu()

    def _check_memory(self) -> None:
        memory, swap, reservation = self.memory_bytes, self.memory_swap_bytes, self.memory_reservation_bytes
        if swap is not None and swap != UNLIMITED:
            if memory is None:
                raise InvalidOption("memory_swap_bytes", swap, "set memory_bytes as well")
            if swap < memory:
                raise InvalidOption(
                    "memory_swap_bytes",
                    swap,
                    f"it counts memory and swap together, so give at least memory_bytes ({memory})",
                )
        if memory is not None and reservation is not None and reservation > memory:
            raise InvalidOption(
                "memory_reservation_bytes", reservation, f"give at most memory_bytes ({memory})"
            )

    def _check_cpu(self) -> None:
        if self.cpus is None:
            return
        if not self.cpus >= _MINIMUM_CPU_US / 100_000:
            raise InvalidOption("cpus", self.cpus, "give at least 0.01")
        if self.cpu_quota_us is not None or self.cpu_period_us is not None:
            raise InvalidOption("cpus", self.cpus, "give either cpus, or cpu_quota_us and cpu_period_us")


_KERNEL_TREES: Final = ("/proc", "/sys")


def _check_target(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not value.startswith("/") or "\0" in value:
        raise InvalidOption(attribute.name, value, "give an absolute path inside the container")
    normal = posixpath.normpath(value)
    if normal in {"/", "//"}:
        raise InvalidOption(attribute.name, value, "the root itself cannot be a mount target")
    if ".." in value.split("/"):
        raise InvalidOption(attribute.name, value, "write the path without '..'")
    for tree in _KERNEL_TREES:
        if normal == tree or normal.startswith(tree + "/"):
            raise InvalidOption(attribute.name, value, f"nothing may be mounted on or below {tree}")


@frozen(kw_only=True)
class Mount:
    """Something that a container finds at `target`. Made by `Mount.bind` and `Mount.tmpfs`.

    Attributes:
        kind: ``"bind"`` or ``"tmpfs"``.
        target: Absolute path in the container; made if it is missing.
        source: Host path of a bind mount.
        read_only: Whether writing is refused, in everything mounted below as well.
        size_bytes: Most bytes of a tmpfs; None for half of the host's memory.
        mode: Permission bits of a tmpfs's root.
        exec: Whether programs on a tmpfs may be executed.
    """

    kind: Literal["bind", "tmpfs"]
    target: str = field(validator=_check_target)
    source: str | None = None
    read_only: bool = False
    size_bytes: int | None = field(
        default=None, validator=_check_range(4096, None, "a tmpfs has at least one page, 4096 bytes")
    )
    mode: int = field(default=0o1777, validator=_check_range(0, 0o7777, "permission bits are 0 to 0o7777"))
    exec: bool = False

    @classmethod
    def bind(cls, source: str, target: str, *, read_only: bool = False) -> Mount:
        """A file or directory of the host, seen in the container at `target`.

        Mounts below the source come along; none that is made later goes either way (rprivate).

        Args:
            source: Absolute host path; it must exist when the container is started.
            target: Absolute path in the container.
            read_only: Refuse writing, recursively.

        Raises:
            InvalidOption: A path is not absolute, or the target is one that may not be mounted on.
        """
        text = str(source)
        if not text.startswith("/") or "\0" in text:
            raise InvalidOption("source", text, "give an absolute host path")
        return cls(kind="bind", target=target, source=text, read_only=read_only)

    @classmethod
    def tmpfs(
        cls,
        target: str,
        *,
        size_bytes: int | None = None,
        mode: int = 0o1777,
        exec: bool = False,  # noqa: A002
    ) -> Mount:
        """An empty file system in memory, gone with the container; mounted nosuid, nodev and noexec.

        Args:
            target: Absolute path in the container.
            size_bytes: Most bytes it may hold.
            mode: Permission bits of its root directory.
            exec: Leave out noexec.

        Raises:
            InvalidOption: A value is out of range, or the target may not be mounted on.
        """
        return cls(kind="tmpfs", target=target, size_bytes=size_bytes, mode=mode, exec=exec)


@frozen(kw_only=True)
class Rlimit:
    """A resource limit of the first process, inherited by all others.

    Attributes:
        name: As in setrlimit(2) without the prefix, in lower case: ``"nofile"``, ``"core"``, ``"nproc"``.
        soft: What holds; -1 for unlimited.
        hard: How far the soft limit may be raised; -1 for unlimited.
    """

    name: str
    soft: int = field(
        validator=_check_range(0, None, "give 0 or more, or -1 for unlimited", or_unlimited=True)
    )
    hard: int = field(
        validator=_check_range(0, None, "give 0 or more, or -1 for unlimited", or_unlimited=True)
    )

    def __attrs_post_init__(self) -> None:
        if self.hard != UNLIMITED and (self.soft == UNLIMITED or self.soft > self.hard):
            raise InvalidOption("soft", self.soft, f"the soft limit is at most the hard one ({self.hard})")


@frozen(kw_only=True)
class Device:
    """A device of the host that the container may use.

    Attributes:
        source: Host path of the device node.
        target: Path below /dev in the container; None for the same as `source`.
        access: Some of ``r``, ``w`` and ``m``.
    """

    source: str
    target: str | None = None
    access: str = "rwm"


def _as_names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise InvalidOption("capabilities", names, "give a list of names")
    return tuple(names)


@frozen(kw_only=True)
class Security:
    """How far a container is shut in. The default is equal to Docker's or stricter.

    Attributes:
        cap_add: Capabilities to add to the default, with or without ``CAP_``; ``"ALL"`` for all.
        cap_drop: Capabilities to take from the default.
        no_new_privileges: Whether no program may gain privileges by its file's mode or capabilities.
        seccomp: ``"default"``, ``"unconfined"``, or a profile as decoded JSON in the form of the OCI
            runtime spec.
    """

    cap_add: tuple[str, ...] = field(default=(), converter=_as_names)
    cap_drop: tuple[str, ...] = field(default=(), converter=_as_names)
    no_new_privileges: bool = True
    seccomp: Literal["default", "unconfined"] | Mapping[str, Any] = "default"

    def __attrs_post_init__(self) -> None:
        if isinstance(self.seccomp, str) and self.seccomp not in {"default", "unconfined"}:
            raise InvalidOption("seccomp", self.seccomp, "give 'default', 'unconfined' or a decoded profile")


@frozen(kw_only=True)
class RestartPolicy:
    """When a detached container is started again after its end.

    Not after `Container.stop`, nor after `Container.kill` with SIGKILL or the stop signal. The first start
    follows 0.1 seconds after the end, each further one after twice that time, at most a minute; once the
    container has run for 10 seconds it begins anew.

    Attributes:
        name: ``"no"``, ``"on-failure"`` (when its exit code is not 0), ``"always"``, or ``"unless-stopped"``,
            which differs from that only after a reboot.
        max_retries: Most starts after failures, with ``"on-failure"``; 0 for any number.
    """

    name: Literal["no", "on-failure", "always", "unless-stopped"] = "no"
    max_retries: int = field(default=0, validator=_check_range(0, 2**31 - 1, "give 0 or more"))

    def __attrs_post_init__(self) -> None:
        if self.name not in {"no", "on-failure", "always", "unless-stopped"}:
            raise InvalidOption("restart", self.name, "give 'no', 'on-failure', 'always' or 'unless-stopped'")
        if self.max_retries and self.name != "on-failure":
            raise InvalidOption(
                "max_retries", self.max_retries, f"only 'on-failure' counts them, not {self.name!r}"
            )


@frozen(kw_only=True)
class LogFile:
    """How much of a detached container's output is kept: in files beside its layer, the oldest dropped first.

    Attributes:
        max_bytes: When a file is full and the next one begins, at least 64 KiB.
        max_files: How many files are kept; 0 keeps nothing, for containers whose output nobody wants.
    """

    max_bytes: int = field(
        default=16 << 20,
        validator=_check_range(64 << 10, 2**62, "a file has at least 64 KiB (65536 bytes)"),
    )
    max_files: int = field(default=4, validator=_check_range(0, 10_000, "give 0 to 10000 files"))


def _check_callable(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not callable(value):
        raise InvalidOption(attribute.name, value, "give a function that takes a LogLine")


def _check_when_slow(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value not in {"wait", "drop"}:
        raise InvalidOption(attribute.name, value, "give 'wait' or 'drop'")


@frozen
class LogCallback:
    """A function that gets what a container writes that ends with this process, line by line.

    It gets what would be inherited; a stream that is given as `PIPE` or anything else goes there instead.
    It is called in a thread of its own, never twice at once for one container, and has had all lines when
    `wait` returns. What it raises is reported to the logger ``"containerlib"``.

    Attributes:
        function: Called with a `LogLine`.
        when_slow: ``"wait"``: the container waits for a function that is slow, as it would for any reader
            of a pipe. ``"drop"``: it never waits; lines are dropped while `max_bytes` wait for the function,
            which then gets a line of the stream ``"lost"`` that says how many.
        max_bytes: See there; at least 64 KiB.
    """

    function: Callable[[Any], object] = field(validator=_check_callable)
    when_slow: Literal["wait", "drop"] = field(default="wait", kw_only=True, validator=_check_when_slow)
    max_bytes: int = field(
        default=4 << 20,
        kw_only=True,
        validator=_check_range(64 << 10, 2**62, "at least 64 KiB (65536 bytes) wait"),
    )

    @classmethod
    def to_logger(
        cls, logger: logging.Logger, *, level: int = 20, when_slow: Literal["wait", "drop"] = "wait"
    ) -> LogCallback:
        """One that passes each line on to a logger of Python's `logging`, as text.

        The records have the attribute ``container_stream``: ``"stdout"``, ``"stderr"`` or ``"lost"``.

        Args:
            logger: The logger.
            level: Level of the records; ``logging.INFO`` if left out.
            when_slow: See there.
        """

        def log(line: Any) -> None:
            logger.log(level, "%s", line.text, extra={"container_stream": line.stream})

        return cls(log, when_slow=when_slow)


_SHORTEST_S: Final = 0.001
_LONGEST_S: Final = 2_000_000


def _check_seconds(_instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not _SHORTEST_S <= value < _LONGEST_S:
        raise InvalidOption(attribute.name, value, "give seconds, at least 0.001")


def _as_command(command: Iterable[str]) -> tuple[str, ...]:
    if isinstance(command, str):
        raise InvalidOption("command", command, "give a list of arguments; for a shell: ['sh', '-c', text]")
    return tuple(command)


@frozen(kw_only=True)
class HealthCheck:
    """How a detached container is asked whether it is healthy: by a command in it, again and again.

    Attributes:
        command: Program and arguments; it says with exit code 0 that all is well.
        interval_s: Seconds from the end of one check to the next.
        timeout_s: Seconds that a check may take; then it is killed, and counts as failed.
        retries: How many failures in a row make it unhealthy.
        start_period_s: Seconds after the start in which a failure does not count.
        start_interval_s: The interval during that time.
    """

    command: tuple[str, ...] = field(converter=_as_command)
    interval_s: float = field(default=30.0, validator=_check_seconds)
    timeout_s: float = field(default=30.0, validator=_check_seconds)
    retries: int = field(default=3, validator=_check_range(1, 2**31 - 1, "give at least 1"))
    start_period_s: float = 0.0
    start_interval_s: float = field(default=5.0, validator=_check_seconds)

    def __attrs_post_init__(self) -> None:
        if not self.command or any("\0" in part for part in self.command):
            raise InvalidOption("command", self.command, "give a list of texts, the program first")
        if not 0 <= self.start_period_s < _LONGEST_S:
            raise InvalidOption("start_period_s", self.start_period_s, "give 0 or more seconds")
