"""Runs the hooks of an OCI configuration: programs of the host's, with the container's state on their input.

In: `Hook` values, the state, and for hooks of the container the process whose namespaces they run in.

Source: OCI runtime-spec 1.2, config.md, "POSIX-platform Hooks".
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

from containerlib._native.ffi import lib
from containerlib.errors import ContainerlibError, OperationTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from containerlib.oci.runtime_spec import Hook

__all__ = ["HookFailed", "run_hooks", "run_last_hooks"]

_NAMESPACES = ("pid", "uts", "ipc", "net", "cgroup", "mnt", "user")  # the order in which they can be joined
_SHOWN = 2000
_ALL_FDS = 1 << 16
_SIGNALLED = 128


class HookFailed(ContainerlibError):
    """A hook ended with another status than 0, or could not be executed."""


def run_hooks(kind: str, hooks: Sequence[Hook], state: bytes, *, inside: int | None = None) -> None:
    """Run hooks one after the other.

    Args:
        kind: What they are called, for messages.
        hooks: The hooks.
        state: The container's state, as JSON.
        inside: A process whose namespaces they run in; None for those of this one.

    Raises:
        HookFailed: One failed; those after it do not run.
        OperationTimeout: One took longer than it may; it was killed.
    """
    for number, hook in enumerate(hooks):
        _run(f"hook {kind}[{number}] {hook.path}", hook, state, inside)


def run_last_hooks(hooks: Sequence[Hook], state: bytes, warn: Callable[[str], None]) -> None:
    """Run the hooks of kind poststop, all of them.

    Args:
        hooks: The hooks.
        state: The container's state, as JSON.
        warn: Told of what went wrong, which is no reason to stop. Source: runtime.md, "Lifecycle".
    """
    for hook in hooks:
        try:
            run_hooks("poststop", (hook,), state)
        except ContainerlibError as error:
            warn(str(error))


def _run(name: str, hook: Hook, state: bytes, inside: int | None) -> None:
    fds = [] if inside is None else _namespaces(inside)
    try:
        process = subprocess.Popen(
            hook.args or (hook.path,),
            executable=hook.path,
            env=dict(entry.partition("=")[::2] for entry in hook.env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # This command has one thread only, so that nothing is held by another one at the fork.
            preexec_fn=(lambda: _enter(fds)) if fds else None,  # noqa: PLW1509
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise HookFailed(f"{name}: {error}") from None
    finally:
        for fd in fds:
            os.close(fd)
    with process:
        try:
            output, _ = process.communicate(state, timeout=hook.timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise OperationTimeout(
                f"{name} took longer than {hook.timeout_s} s and was killed",
                timeout_s=float(hook.timeout_s or 0),
            ) from None
    if process.returncode:
        said = output.decode(errors="replace").strip()[-_SHOWN:]
        raise HookFailed(f"{name} ended with status {process.returncode}: {said}")


def _namespaces(pid: int) -> list[int]:
    """The namespaces of a process that are not those of this one."""
    return [
        os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        for name in _NAMESPACES
        if os.stat(f"/proc/{pid}/ns/{name}").st_ino != os.stat(f"/proc/self/ns/{name}").st_ino
    ]


def _enter(fds: Sequence[int]) -> None:
    for fd in fds:
        result = lib.ctr_setns(fd)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
    # The root of the user namespace, if there is one; else whoever this is already.
    os.setgid(0)
    os.setuid(0)
    child = os.fork()  # a PID namespace is entered by being born in it
    if child:
        # Nothing of the hook's stays open here, so that its end is seen.
        os.closerange(0, _ALL_FDS)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else _SIGNALLED - code)
