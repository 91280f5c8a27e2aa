"""The OCI runtime specification's configuration as values: what was asked, in the field's own words.

The contract between whoever decides (options, an image, somebody else's config.json) and `runtime.lower`,
which turns it into what C executes. Pure values; nothing is resolved or checked against a host here.

Source: OCI runtime-spec 1.2, config.md and config-linux.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "HOOK_KINDS",
    "OCI_VERSION",
    "Capabilities",
    "DeviceNode",
    "Hook",
    "IdMapping",
    "IoPriority",
    "Linux",
    "PosixRlimit",
    "Process",
    "Root",
    "Scheduler",
    "Spec",
    "SpecMount",
    "User",
]

OCI_VERSION = "1.2.0"

HOOK_KINDS = (
    *("prestart", "createRuntime", "createContainer"),
    *("startContainer", "poststart", "poststop"),
)
"""All kinds of hooks, in the order in which they run."""


@frozen(kw_only=True)
class User:
    """``process.user``."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    umask: int = 0o022


@frozen(kw_only=True)
class Capabilities:
    """``process.capabilities``: five sets of names with their prefix."""

    bounding: frozenset[str] = frozenset()
    effective: frozenset[str] = frozenset()
    permitted: frozenset[str] = frozenset()
    inheritable: frozenset[str] = frozenset()
    ambient: frozenset[str] = frozenset()


@frozen(kw_only=True, cache_hash=True)
class PosixRlimit:
    """One of ``process.rlimits``, named ``RLIMIT_NOFILE`` and the like."""

    type: str
    soft: int
    hard: int


@frozen(kw_only=True)
class Scheduler:
    """``process.scheduler``. Times are in nanoseconds."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime_ns: int = 0
    deadline_ns: int = 0
    period_ns: int = 0


@frozen(kw_only=True)
class IoPriority:
    """``process.ioPriority``: class, and level within it, 0 to 7."""

    kind: str
    level: int


@frozen(kw_only=True)
class Process:
    """``process``. `exec_affinity` is processors before and after joining, of a further process only."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = User()
    terminal: bool = False
    console_size: tuple[int, int] = (0, 0)
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[PosixRlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    apparmor_profile: str = ""
    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = None
    exec_affinity: tuple[str, str] = ("", "")


@frozen(kw_only=True)
class Root:
    """``root``."""

    path: str
    readonly: bool = False


@frozen(kw_only=True, cache_hash=True)
class IdMapping:
    """One of ``uidMappings`` or ``gidMappings``: `size` numbers in a row."""

    container_id: int
    host_id: int
    size: int


@frozen(kw_only=True, cache_hash=True)
class SpecMount:
    """One of ``mounts``."""

    destination: str
    type: str
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


@frozen(kw_only=True, cache_hash=True)
class DeviceNode:
    """One of ``linux.devices``: a node to make, of type ``"c"``, ``"b"`` or ``"p"``."""

    path: str
    type: str
    major: int
    minor: int
    file_mode: int = 0o666
    uid: int = 0
    gid: int = 0


@frozen(kw_only=True, cache_hash=True)
class Linux:
    """``linux``, with ``sysctl`` as pairs. The filter comes from its own module.

    `namespaces` are those to be made, `namespace_paths` those to be joined. `time_offsets` are seconds and
    nanoseconds by the name of the clock.
    """

    namespaces: frozenset[str] = frozenset()
    namespace_paths: tuple[tuple[str, str], ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    time_offsets: tuple[tuple[str, int, int], ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    sysctl: tuple[tuple[str, str], ...] = ()
    rootfs_propagation: str = ""
    cgroups_path: str = ""
    personality: str = ""

    def has_namespace(self, kind: str) -> bool:
        """Whether there is a namespace of this type that is not the caller's, new or joined."""
        return kind in self.namespaces or any(kind == joined for joined, _ in self.namespace_paths)


@frozen(kw_only=True)
class Hook:
    """One of ``hooks``. `timeout_s` is None for none."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout_s: int | None = None


@frozen(kw_only=True)
class Spec:
    """A whole configuration."""

    process: Process
    root: Root
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[SpecMount, ...] = ()
    linux: Linux = Linux()
    annotations: Mapping[str, Any] = field(factory=dict)
    hooks: Mapping[str, tuple[Hook, ...]] = field(factory=dict)
    resources: Mapping[str, Any] = field(factory=dict)
    seccomp: Mapping[str, Any] | None = None
