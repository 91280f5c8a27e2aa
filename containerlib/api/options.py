"""The keyword arguments that every way to run a container takes, once, with their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from containerlib.network_options import NetworkAttachment, PortMapping
    from containerlib.options import (
        Device,
        HealthCheck,
        LogCallback,
        LogFile,
        Mount,
        Resources,
        RestartPolicy,
        Rlimit,
        Security,
    )

__all__ = ["RunOptions"]


class RunOptions(TypedDict, total=False):
    """Options of one container; what is left out has the image's or Docker's default.

    Attributes:
        entrypoint: Replaces the image's entrypoint, and discards the image's command.
        env: Variables over the image's, as a mapping or as ``NAME=VALUE`` texts. Nothing comes from the host.
        workdir: Absolute path of an existing directory in the container.
        user: Name, uid, ``uid:gid`` or ``name:group``.
        group_add: Further groups, names or numbers.
        hostname: Host name; the first 12 digits of the id if left out.
        domainname: NIS domain name.
        read_only: Mount the root file system read-only.
        mounts: See `Mount.bind` and `Mount.tmpfs`.
        devices: Devices of the host.
        network: ``"none"`` for a network of its own with loopback only (the default), ``"host"``, the name
            of a network of the store (see `Networks.create`), ``"bridge"`` for the one that every store has
            (the default with `ports`), or ``"container:NAME"`` for that of another container.
        ip_address: Its address in that network; a free one if left out.
        mac_address: That of its device there; one that goes with the address if left out.
        network_aliases: What the others there find it by, besides its name.
        networks: Further networks of the store, by their names or as `NetworkAttachment` objects.
        ports: Its ports that are reached by ports of the host, such as ``[80, "53/udp"]``: free ones, from
            this host only. A `PortMapping` says it otherwise. See `Container.ports`.
        extra_hosts: Further lines of its /etc/hosts: addresses by names; ``"host-gateway"`` for the host's.
        dns: Addresses of the name servers that are asked for names of the world, instead of the host's.
        dns_search: Domains in which it looks names up, instead of the host's.
        dns_options: Options of its resolver, such as ``"ndots:2"``, instead of the host's.
        resources: Limits.
        security: Capabilities, system call filter, privileges.
        sysctls: Kernel settings of the container's own namespaces.
        rlimits: Resource limits of its processes.
        shm_size_bytes: Size of /dev/shm; 64 MiB if left out.
        tty: Give it a terminal instead of three streams.
        console_size: Columns and rows of the terminal.
        init: Put a process that reaps orphans and passes signals on before the command.
        labels: Over the image's.
        name: Name within this engine; one is made up if left out.
        stop_signal: What `stop` sends first, such as ``"TERM"``.
        stop_timeout_s: How long `stop` waits before it kills, in seconds; 10 if left out.
        remove: Remove it as soon as its end is noticed.
        layer: Where the container's own layer lives: ``"memory"`` (gone when it ends) or ``"disk"``.
        lifetime: ``"process"`` (the default): it ends with this process, however that ends.
            ``"detached"``: it stays until it ends or is killed, and any process finds it again; what it
            would inherit as output goes into its log.
        restart: When it is started again after its end; only for what is detached.
        health: How it is asked whether it is healthy; only for what is detached. Its image's check if left
            out; None for no check.
        log: How much of what it writes is kept, for what is detached; or a function that gets it line by
            line, for what ends with this process.
        stdin_open: Keep standard input open for who attaches; only for what is detached.
    """

    entrypoint: Sequence[str] | None
    env: Mapping[str, str] | Sequence[str] | None
    workdir: str | None
    user: str | None
    group_add: Sequence[str]
    hostname: str | None
    domainname: str | None
    read_only: bool
    mounts: Sequence[Mount]
    devices: Sequence[Device]
    network: str
    ip_address: str | None
    mac_address: str | None
    network_aliases: Sequence[str]
    networks: Sequence[str | NetworkAttachment]
    ports: Sequence[int | str | PortMapping]
    extra_hosts: Mapping[str, str]
    dns: Sequence[str]
    dns_search: Sequence[str]
    dns_options: Sequence[str]
    resources: Resources
    security: Security
    sysctls: Mapping[str, str]
    rlimits: Sequence[Rlimit]
    shm_size_bytes: int
    tty: bool
    console_size: tuple[int, int]
    init: bool
    labels: Mapping[str, str]
    name: str | None
    stop_signal: int | str
    stop_timeout_s: float
    remove: bool
    layer: Literal["memory", "disk"]
    lifetime: Literal["process", "detached"]
    restart: RestartPolicy
    health: HealthCheck | None
    stdin_open: bool
    log: LogFile | LogCallback
