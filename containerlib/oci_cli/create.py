"""``create``: everything up to the command itself; and ``start``, which lets it go."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import time
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from containerlib._native.creator import end
from containerlib._native.ffi import lib
from containerlib._util import strict_json
from containerlib.errors import ContainerlibError
from containerlib.oci.runtime_config import parse_config
from containerlib.oci_cli.errors import OciError
from containerlib.oci_cli.store import Container, now
from containerlib.runtime.cgroup_host import CgroupHost
from containerlib.runtime.cgroup_path import PathCgroup
from containerlib.runtime.cgroup_resources import device_rules, settings_of
from containerlib.runtime.foreign import Creation
from containerlib.runtime.foreign import create as create_process
from containerlib.runtime.foreign_spec import fit, group_owner
from containerlib.runtime.hooks import run_hooks, run_last_hooks
from containerlib.runtime.host import HostFacts
from containerlib.runtime.identity import ProcessIdentity, pid_of

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from containerlib._native.channel import Channel
    from containerlib.oci.runtime_spec import Spec
    from containerlib.oci_cli.log import Log
    from containerlib.oci_cli.store import Store
    from containerlib.runtime.seccomp_agent import Filter
    from containerlib.runtime.systemd_scope import Scope

__all__ = [
    "CreateOptions",
    "create",
    "create_command",
    "create_options",
    "identity_of",
    "kept_fds",
    "send_console",
    "start",
    "start_command",
    "write_pid_file",
]

_CONFIG_LIMIT = 16 << 20
_FIRST_KEPT = 3
_EXECUTION_LIMIT_S = 10.0
_PAUSE_S = 0.0002


@frozen(kw_only=True)
class CreateOptions:
    """What ``create`` and ``run`` are told beside the bundle.

    Attributes:
        console_socket: Path of the socket that takes the terminal; empty for none.
        pid_file: Where the process id is written; empty for nowhere.
        no_pivot: Whether the root is moved rather than pivoted to.
        no_new_keyring: Whether the session keyring is kept.
        preserve_fds: How many descriptors from 3 up the command has.
        takes_terminal: Whether the caller relays the terminal itself.
        systemd_cgroup: Whether systemd makes the control group.
    """

    console_socket: str = ""
    pid_file: str = ""
    no_pivot: bool = False
    no_new_keyring: bool = False
    preserve_fds: int = 0
    takes_terminal: bool = False
    systemd_cgroup: bool = False


def read_config(bundle: str) -> tuple[bytes, Spec]:
    """The configuration of a bundle, and what it means.

    Raises:
        OciError: There is none.
        InvalidConfig: It is invalid.
    """
    path = f"{bundle}/config.json"
    try:
        with open(path, "rb") as file:
            data = file.read(_CONFIG_LIMIT)
    except OSError as error:
        raise OciError(f"open {path}: {(error.strerror or '').lower()}") from None
    return data, parse_config(strict_json.loads(data, limit=_CONFIG_LIMIT, what=path))


def create(
    store: Store, container_id: str, bundle: str, options: CreateOptions, log: Log
) -> tuple[Container, Channel]:
    """Create a container. After a failure nothing of it is left.

    Returns:
        The container, and what connects this process to its first one.

    Raises:
        ContainerlibError: What is wrong, or what the host refused.
    """
    bundle = os.path.abspath(bundle)
    data, spec = read_config(bundle)
    root = os.path.realpath(os.path.join(bundle, spec.root.path))
    if not os.path.isdir(root):
        raise OciError(f"config.json: root.path = {spec.root.path!r}: {root} is not a directory")
    _check_terminal(spec, options)
    with store.locked(container_id, is_new=True), contextlib.ExitStack() as undo:
        directory = store.begin(container_id)
        undo.callback(store.remove, container_id)
        scope, cgroup = _locate(spec, container_id, options)
        blank = Container(
            id=container_id,
            directory=directory,
            bundle=bundle,
            rootfs=root,
            created=now(),
            process=ProcessIdentity(0, 0, ""),
            cgroup=cgroup,
            owns_groups=False,
            unit="" if scope is None else scope.unit,
            annotations=spec.annotations,
        )
        # From here on whoever deletes it finds all that is made.
        blank.save(data)
        attempt = _Attempt(spec, blank)
        undo.callback(attempt.undo, log)
        with _made(scope, cgroup, container_id, spec) as made:
            undo.callback(made.remove)
            undo.callback(made.kill)
            blank = evolve(blank, cgroup=made, owns_groups=True)
            blank.save(data)
            _limit(made, spec)
            host = HostFacts.probe()
            fitted = fit(spec, host, made, root=root, warn=log.warning)
            container, channel = _create(blank, fitted, host, options, data, attempt)
        undo.pop_all()
        return container, channel


def _locate(spec: Spec, container_id: str, options: CreateOptions) -> tuple[Scope | None, PathCgroup]:
    """Where the control groups are to be, and the unit they are if systemd makes them."""
    host = CgroupHost.probe()
    if not options.systemd_cgroup:
        return None, PathCgroup.locate(host, spec.linux.cgroups_path, container_id)
    from containerlib.runtime.systemd_scope import Scope  # noqa: PLC0415 - on hosts that systemd runs

    scope = Scope.parse(spec.linux.cgroups_path, container_id)
    return scope, scope.locate(host)


@contextlib.contextmanager
def _made(scope: Scope | None, cgroup: PathCgroup, container_id: str, spec: Spec) -> Iterator[PathCgroup]:
    """Make the groups. Until the end of the block something is in one that systemd makes."""
    if scope is None:
        cgroup.make()
        yield cgroup
        return
    from containerlib.runtime.systemd_scope import properties_of  # noqa: PLC0415 - on hosts that systemd runs

    with scope.made(cgroup, container_id, properties_of(spec.resources, spec.annotations)) as made:
        yield made


def _limit(cgroup: PathCgroup, spec: Spec) -> None:
    cgroup.apply(settings_of(spec.resources, cgroup))
    rules = device_rules(spec.resources)
    if rules is not None:
        cgroup.set_devices(rules)
    owner = group_owner(spec, cgroup)
    if owner:
        cgroup.give(owner)


def _check_terminal(spec: Spec, options: CreateOptions) -> None:
    is_taken = options.takes_terminal or bool(options.console_socket)
    if spec.process.terminal and not is_taken:
        raise OciError("process.terminal is true: name a socket that takes the terminal, by --console-socket")
    if not spec.process.terminal and options.console_socket:
        raise OciError("--console-socket: process.terminal is false, so that there is no terminal for it")


def _create(
    blank: Container,
    spec: Spec,
    host: HostFacts,
    options: CreateOptions,
    config: bytes,
    attempt: _Attempt,
) -> tuple[Container, Channel]:
    flags = (lib.CTR_SPEC_NO_PIVOT if options.no_pivot else 0) | (
        lib.CTR_SPEC_NO_KEYRING if options.no_new_keyring else 0
    )
    with contextlib.ExitStack() as undo:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        undo.callback(os.close, null)
        # Open both ways, so that the other end can be opened as long as the process waits.
        gate = os.open(blank.gate, os.O_RDWR | os.O_CLOEXEC)
        undo.callback(os.close, gate)
        channel = create_process(
            spec,
            host,
            Creation(
                bundle=blank.bundle,
                root=blank.rootfs,
                staging=f"{blank.directory}/staging",
                cgroup=blank.cgroup,
                stdio=(null, null, null) if spec.process.terminal else (0, 1, 2),
                kept_fds=kept_fds(options.preserve_fds),
                gate_fd=gate,
                flags=flags,
                on_hold=attempt.run_hooks,
                on_listener=lambda rules, fd, pidfd: _tell_agent(blank, rules, fd, pidfd),
            ),
        )
    try:
        container = evolve(blank, process=identity_of(channel.pidfd))
        if options.console_socket:
            send_console(options.console_socket, channel.console_fd)
        container.save(config)
        write_pid_file(options.pid_file, container.process.pid)
    except BaseException:
        end(channel)
        raise
    return container, channel


def identity_of(pidfd: int) -> ProcessIdentity:
    """What a process can be told by later.

    Raises:
        OciError: It has ended already.
    """
    pid = pid_of(pidfd)
    if pid is None:
        raise OciError("the process has ended before its command began")
    return ProcessIdentity.of(pid)


def _tell_agent(blank: Container, rules: Filter, fd: int, pidfd: int) -> None:
    container = evolve(blank, process=identity_of(pidfd))
    rules.tell_agent(fd, container.process.pid, container.state("creating"))


class _Attempt:
    """A creation with hooks: once some have run, the last ones run as well if it fails."""

    def __init__(self, spec: Spec, blank: Container) -> None:
        self._hooks = spec.hooks
        self._container = blank
        self._has_begun = False

    def run_hooks(self, pidfd: int) -> None:
        """Run those that are due while the namespaces are there and the root is not yet."""
        self._has_begun = True
        container = evolve(self._container, process=identity_of(pidfd))
        state = json.dumps(container.state("creating")).encode()
        for kind in ("prestart", "createRuntime"):
            run_hooks(kind, self._hooks.get(kind, ()), state)
        inside = self._hooks.get("createContainer", ())
        run_hooks("createContainer", inside, state, inside=container.process.pid)

    def undo(self, log: Log) -> None:
        """Source: runtime.md, "Lifecycle"."""
        if self._has_begun:
            state = json.dumps(self._container.state("stopped")).encode()
            run_last_hooks(self._hooks.get("poststop", ()), state, log.warning)


def kept_fds(count: int) -> list[int]:
    """The descriptors that ``--preserve-fds`` hands on.

    Raises:
        OciError: One of them is not open.
    """
    fds = list(range(_FIRST_KEPT, _FIRST_KEPT + count))
    for fd in fds:
        try:
            is_given = os.get_inheritable(fd)  # what this process has opened itself is not
        except OSError:
            is_given = False
        if not is_given:
            raise OciError(f"--preserve-fds {count}: descriptor {fd} is not open")
    return fds


def send_console(path: str, console_fd: int) -> None:
    """Hand a terminal's master over to who waits at a socket.

    Raises:
        OciError: There is no terminal, or nobody waits.
    """
    if console_fd < 0:
        raise OciError("the process has no terminal")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            rights = array.array("i", [console_fd])
            connection.sendmsg([b"/dev/ptmx"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    except OSError as error:
        raise OciError(f"console socket {path}: {(error.strerror or str(error)).lower()}") from None


def write_pid_file(path: str, pid: int) -> None:
    """Write a process id where the caller looks for it: whole, or not at all."""
    if path:
        directory, name = os.path.split(os.path.abspath(path))
        temporary = f"{directory}/.{name}"
        with open(temporary, "w", encoding="ascii") as file:
            file.write(str(pid))
        os.rename(temporary, path)


def start(store: Store, container_id: str) -> Container:
    """Let a created container execute its command, and run the hooks of that moment.

    Raises:
        OciError: It is not created, or not only that.
        HookFailed, OperationTimeout: A hook failed; the container was killed.
    """
    with store.locked(container_id):
        container = store.get(container_id)
        status = container.status
        if status != "created":
            state_now = "that has stopped" if status == "stopped" else f"in the {status} state"
            raise OciError(f"cannot start a container {state_now}")
        spec = parse_config(container.config())
        state = json.dumps(container.state()).encode()
        try:
            run_hooks(
                "startContainer", spec.hooks.get("startContainer", ()), state, inside=container.process.pid
            )
            _open_gate(container)
            running = json.dumps(container.state("running")).encode()
            run_hooks("poststart", spec.hooks.get("poststart", ()), running)
        except (ContainerlibError, OSError):
            container.cgroup.kill()
            raise
        return container


def _open_gate(container: Container) -> None:
    """Let the process go, and wait until it has executed its command, or failed to."""
    fd = container.open_gate()
    if fd < 0:
        raise OciError("cannot start a container that has stopped")
    try:
        os.write(fd, b"\0")
    finally:
        os.close(fd)
    deadline = time.monotonic() + _EXECUTION_LIMIT_S
    while container.is_waiting and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    os.unlink(container.gate)
    with contextlib.suppress(OSError):
        os.rmdir(f"{container.directory}/staging")


def create_options(options: Namespace, *, takes_terminal: bool = False) -> CreateOptions:
    """What the command line says of it."""
    return CreateOptions(
        console_socket=options.console_socket,
        pid_file=options.pid_file,
        no_pivot=options.no_pivot,
        no_new_keyring=options.no_new_keyring,
        preserve_fds=options.preserve_fds,
        takes_terminal=takes_terminal,
        systemd_cgroup=options.systemd_cgroup,
    )


def create_command(store: Store, options: Namespace, log: Log) -> None:
    """Do what ``create`` asks for."""
    _, channel = create(store, options.id, options.bundle, create_options(options), log)
    channel.close()


def start_command(store: Store, options: Namespace, log: Log) -> None:
    """Do what ``start`` asks for."""
    del log
    start(store, options.id)
