"""Turns {step, errno, index} from C into a typed error with words: the names are here, not there."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from containerlib._native.ffi import lib
from containerlib.errors import CommandNotExecutable, CommandNotFound, InvalidOption, SpawnError

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerlib._native.spec import NativeSpec
    from containerlib.errors import ContainerlibError

__all__ = ["STEPS", "explain", "step_name"]

_PREFIX = "CTR_STEP_"
STEPS: dict[int, str] = {
    getattr(lib, name): name.removeprefix(_PREFIX).lower()
    for name in dir(lib)
    if name.startswith(_PREFIX) and name not in {"CTR_STEP_NONE", "CTR_STEP_COUNT"}
}
"""Every step by its number."""


def step_name(step: int) -> str:
    """Name of a step, such as ``"mount_attach"``."""
    return STEPS.get(step, f"step {step}")


def _mount(spec: NativeSpec, index: int) -> str:
    mount = spec.fixed.mounts[index]
    source = mount.source or mount.type or "?"
    return f"{source!r} on {mount.target!r} (mount {index + 1} of {len(spec.fixed.mounts)})"


_DETAILS: dict[str, Callable[[NativeSpec, int], str]] = {
    "mount_source": _mount,
    "mount_create": _mount,
    "mount_target": _mount,
    "mount_attach": _mount,
    "device": lambda spec, i: repr("/dev/" + spec.fixed.nodes[i].name),
    "file": lambda spec, i: repr(spec.files[i].target),
    "sysctl": lambda spec, i: repr("=".join(spec.fixed.sysctls[i])),
    "readonly_path": lambda spec, i: repr(spec.fixed.readonly_paths[i]),
    "masked_path": lambda spec, i: repr(spec.fixed.masked_paths[i]),
    "rlimit": lambda spec, i: f"number {spec.fixed.rlimits[i].resource}",
    "hostname": lambda spec, _: repr(spec.hostname),
    "workdir": lambda spec, _: repr(spec.workdir),
    "apparmor": lambda spec, _: repr(spec.apparmor) if spec.apparmor else "",
    "uid": lambda spec, _: str(spec.uid),
    "gid": lambda spec, _: str(spec.gid),
    "exec": lambda spec, _: repr(spec.args[0]),
}

_HINTS: dict[tuple[str, int], str] = {
    ("mount_target", errno.ELOOP): "the image must have an ordinary directory there, not a symbolic link",
    ("mount_target", errno.EPERM): "the target leads into /proc or /sys, where nothing may be mounted",
    ("mount_source", errno.ESTALE): "the source was exchanged while the container was being started",
    ("root_create", errno.EINVAL): "the file system of the store may not carry an overlay",
    ("keyring", errno.EDQUOT): "this user's key quota is used up (kernel.keys.maxkeys)",
    ("clone", errno.ENOSPC): "a limit of user.max_*_namespaces is reached",
    ("clone", errno.EAGAIN): "the limit of processes is reached",
    ("apparmor", errno.ENOENT): "no such profile is loaded on this host; load it by apparmor_parser",
    ("rlimit", errno.EPERM): "a limit above the host's needs CAP_SYS_RESOURCE",
    ("table", errno.EAGAIN): "this engine runs as many containers as it can; use a second engine",
}


def _detail(spec: NativeSpec, name: str, index: int) -> str:
    describe = _DETAILS.get(name)
    if describe is None:
        return ""
    try:
        return describe(spec, index)
    except IndexError:
        return f"number {index}"


def _explain_exec(spec: NativeSpec, number: int) -> SpawnError:
    command = spec.args[0]
    if number in {errno.ENOENT, errno.ENOTDIR}:
        where = "in the container's PATH" if "/" not in command else "in the container"
        return CommandNotFound(
            f"command {command!r} not found {where}", step="exec", errno=number, detail=command
        )
    if number == errno.ELIBACC:
        return CommandNotFound(
            f"command {command!r} exists, but its interpreter or loader is not in the container",
            step="exec",
            errno=errno.ENOENT,
            detail=command,
        )
    return CommandNotExecutable(
        f"command {command!r} cannot be executed: {os.strerror(number).lower()}",
        step="exec",
        errno=number,
        detail=command,
    )


def explain(spec: NativeSpec, step: int, number: int, index: int) -> ContainerlibError:
    """The error for a step that the kernel refused.

    Args:
        spec: The request that failed; the index points into it.
        step: Number of the step, CTR_STEP_*.
        number: The kernel's errno.
        index: Which element of the step's list.
    """
    name = step_name(step)
    if name == "exec" and number in {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELIBACC,
        errno.EACCES,
        errno.ENOEXEC,
        errno.EISDIR,
        errno.EPERM,
        errno.ETXTBSY,
        errno.ELOOP,
    }:
        return _explain_exec(spec, number)
    if name == "workdir" and number in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
        return InvalidOption(
            "workdir", spec.workdir, "is not a directory in the container; make it or name another"
        )
    detail = _detail(spec, name, index)
    what = f"{name.replace('_', ' ')} {detail}".rstrip()
    hint = _HINTS.get((name, number))
    message = f"{what}: {os.strerror(number).lower()}" + (f"; {hint}" if hint else "")
    return SpawnError(message, step=name, errno=number, detail=detail)
