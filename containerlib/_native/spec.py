"""A start request as flat values: decisions only, in the words of the C side.

`runtime.lower` makes it from an OCI runtime spec; `_native.message` turns it into bytes. Nothing here knows
images, names or options.
"""

from __future__ import annotations

from attrs import field, frozen

__all__ = ["NativeFile", "NativeFixed", "NativeMount", "NativeNode", "NativeRlimit", "NativeSpec"]


@frozen(kw_only=True)
class NativeMount:
    """One mount. `fd` is an index into the request's mount descriptors, or -1."""

    kind: int
    target: str
    flags: int = 0
    source: str | None = None
    type: str | None = None
    options: tuple[str, ...] = ()
    attributes: int = 0
    propagation: int = 0
    fd: int = -1
    device: int = 0
    inode: int = 0


@frozen(kw_only=True)
class NativeNode:
    """A device node or symbolic link in /dev, by a name relative to it."""

    kind: int
    name: str
    target: str | None = None
    mode: int = 0
    major: int = 0
    minor: int = 0
    uid: int = 0
    gid: int = 0


@frozen(kw_only=True)
class NativeFile:
    """A small file that is bound over `target`."""

    target: str
    content: bytes
    mode: int = 0o644


@frozen(kw_only=True)
class NativeRlimit:
    """One resource limit by number."""

    resource: int
    soft: int
    hard: int


@frozen(kw_only=True, eq=False)
class NativeFixed:
    """The part of a request that is the same for all containers started alike.

    Compared by identity: whoever makes it keeps it, and its bytes are made once.
    """

    root_options: tuple[str, ...] = ()
    scratch_options: tuple[str, ...] = ()
    mounts: tuple[NativeMount, ...] = ()
    nodes: tuple[NativeNode, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    readonly_paths: tuple[str, ...] = ()
    masked_paths: tuple[str, ...] = ()
    rlimits: tuple[NativeRlimit, ...] = ()
    seccomp: bytes = b""


@frozen(kw_only=True)
class NativeSpec:
    """Everything C needs to start one container, apart from descriptors."""

    fixed: NativeFixed
    flags: int
    namespaces: int
    staging: str
    root_source: str | None = None
    root_upper: str | None = None
    root_work: str | None = None
    root_lowers: tuple[str, ...] = ()
    files: tuple[NativeFile, ...] = ()
    groups: tuple[int, ...] = ()
    args: tuple[str, ...]
    env: tuple[str, ...]
    programs: tuple[str, ...]
    hostname: str | None = None
    domainname: str | None = None
    workdir: str
    bounding: int
    permitted: int = 0
    effective: int = 0
    inheritable: int = 0
    ambient: int = 0
    uid: int
    gid: int
    umask: int = 0o022
    oom_score_adj: int = 0
    console_rows: int = 0
    console_columns: int = 0
    root_propagation: int = 0
    time_offsets: str | None = None
    io_priority: int | None = None
    personality: int | None = None
    seccomp_flags: int = 0
    apparmor: str | None = None
    scheduler: bytes = b""
    affinity: bytes = b""
    fault: tuple[int, int, int, int] = field(default=(0, 0, 0, 0))
