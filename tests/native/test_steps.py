"""Every step of a start fails as it should, leaves nothing behind, and can be left at any time."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from support.faults import failing, held, step_number

from containerlib._native.explain import STEPS
from containerlib._native.ffi import lib
from containerlib.errors import (
    CommandNotExecutable,
    CommandNotFound,
    InvalidOption,
    OperationTimeout,
    SpawnError,
)
from containerlib.options import Mount, Resources

if TYPE_CHECKING:
    from containerlib import Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

TRUE = ["/bin/true"]


@dataclass(frozen=True)
class Case:
    """How one step is reached, and what its error says.

    Attributes:
        detail: What the message names beside the step.
        index: Element of the step's list that fails.
        options: Options without which the step does nothing.
    """

    detail: str = ""
    index: int = 0
    options: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Case] = {
    "message": Case(),
    "table": Case(),
    "clone": Case(),
    "time_namespace": Case(),
    "close_inherited": Case(),
    "user_namespace": Case(),
    "cgroup_join": Case(index=1),
    "cgroup_namespace": Case(),
    "join_namespace": Case(index=3),
    "join_clone": Case(),
    "network": Case(),
    "keyring": Case(),
    "mount_private": Case(),
    "scratch": Case(),
    "root_create": Case(),
    "root_attach": Case(),
    "user_root": Case(),
    "mount_source": Case(
        "'/usr' on '/in' (mount 7 of 7)", index=6, options={"mounts": [Mount.bind("/usr", "/in")]}
    ),
    "mount_create": Case(
        "'tmpfs' on '/in' (mount 7 of 7)", index=6, options={"mounts": [Mount.tmpfs("/in")]}
    ),
    "mount_target": Case("'tmpfs' on '/dev' (mount 2 of 6)", index=1),
    "mount_attach": Case("'devpts' on '/dev/pts' (mount 3 of 6)", index=2),
    "device": Case("'/dev/full'", index=2),
    "file": Case("'/etc/hostname'", index=1),
    "console": Case(options={"tty": True}),
    "loopback": Case(),
    "sysctl": Case("'net/ipv4/ip_forward=1'", index=2, options={"sysctls": {"net.ipv4.ip_forward": "1"}}),
    "oom_score": Case(options={"resources": Resources(oom_score_adj=100)}),
    "readonly_path": Case("'proc/sys'", index=3),
    "masked_path": Case("'proc/interrupts'", index=2),
    "root_readonly": Case(options={"read_only": True}),
    "pivot": Case(),
    "hostname": Case("'probe'", options={"hostname": "probe"}),
    "init_exec": Case(),
    "init_fork": Case(options={"init": True}),
    "signals": Case(),
    "session": Case(),
    "rlimit": Case("number 4", index=1),
    "affinity": Case(),
    "scheduler": Case(),
    "io_priority": Case(),
    "personality": Case(),
    "umask": Case(),
    "stdio": Case(),
    "apparmor": Case(),
    "seccomp_privileged": Case(),
    "bounding": Case(),
    "groups": Case(),
    "workdir": Case("'/tmp'", options={"workdir": "/tmp"}),
    "gid": Case("1001", options={"user": "1000:1001"}),
    "uid": Case("1000", options={"user": "1000:1001"}),
    "capabilities": Case(),
    "no_new_privs": Case(),
    "seccomp_listener": Case(),
    "gate": Case(),
    "close_fds": Case(),
    "seccomp": Case(),
    "exec": Case("'/bin/true'"),
}

NOT_IN_THE_CHILD = ("message", "table", "clone")
# Of a command that joins a running container; see test_exec_steps.py. Of one that somebody else described.
ELSEWHERE = ("join_namespace", "join_clone", "time_namespace")
AFTER_INIT = [name for number, name in STEPS.items() if number > lib.CTR_STEP_INIT_FORK]
VARIANTS = [(name, False) for name in STEPS.values() if name not in ("init_fork", *ELSEWHERE)] + [
    (name, True) for name in ("clone", "init_exec", "init_fork", *AFTER_INIT)
]
HELD = [(name, init) for name, init in VARIANTS if name not in NOT_IN_THE_CHILD]


def case_of(step: str, *, init: bool) -> Case:
    """The case of a step, with or without an init."""
    case = CASES[step]
    return Case(case.detail, case.index, {**case.options, "init": init})


def test_every_step_has_a_case() -> None:
    """A step that is added to the C side needs a case here."""
    assert set(STEPS.values()) == set(CASES)
    assert len(STEPS) + 1 == lib.CTR_STEP_COUNT


@pytest.mark.parametrize(("step", "init"), VARIANTS)
def test_a_failing_step_is_named_and_leaves_nothing(busybox_image: Image, step: str, init: bool) -> None:  # noqa: FBT001
    """The error has class, step, errno and the thing in question; the engine goes on."""
    case = case_of(step, init=init)
    # The spawner plays the faults of its own steps, which have no list.
    with pytest.raises(SpawnError) as caught:
        busybox_image.call(TRUE, **case.options, **failing(step, index=case.index))
    error = caught.value
    assert type(error) is SpawnError
    assert (error.step, error.errno, error.detail) == (step, errno.EIO, case.detail)
    what = " ".join(filter(None, [step.replace("_", " "), case.detail]))
    assert str(error) == f"{what}: input/output error"
    assert busybox_image.call(TRUE).exit_code == 0


@pytest.mark.parametrize(("step", "init"), HELD)
def test_a_start_that_stood_still_goes_on(busybox_image: Image, step: str, init: bool) -> None:  # noqa: FBT001
    """A start that is held at any step ends like any other once it is let go."""
    case = case_of(step, init=init)
    with held(
        busybox_image, step, index=case.index, command=["/bin/sh", "-c", "exit 7"], **case.options
    ) as start:
        assert start.channel.held_step == step_number(step)
        start.finish()
        assert start.error is None
        assert start.container is not None
        assert start.container.wait(timeout_s=60).exit_code == 7


@pytest.mark.parametrize(("step", "init"), HELD)
def test_a_start_can_be_killed_at_any_step(busybox_image: Image, step: str, init: bool) -> None:  # noqa: FBT001
    """SIGKILL in the midst of a start is the end of the container, and of nothing else."""
    case = case_of(step, init=init)
    with held(busybox_image, step, index=case.index, **case.options) as start:
        start.kill()
        assert start.error is None
        assert start.container is not None
        status = start.container.wait(timeout_s=60)
        assert (status.exit_code, status.signal) == (137, 9)
    assert busybox_image.call(TRUE).exit_code == 0


@pytest.mark.parametrize("step", ["cgroup_join", "pivot", "exec"])
def test_a_start_that_takes_too_long_is_ended(
    busybox_image: Image, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that does not get through its steps is killed, and the caller gets a timeout."""
    monkeypatch.setattr(busybox_image._session.runner, "_start_timeout_s", 0.05)
    fault = (lib.CTR_FAULT_HOLD, step_number(step), 0, -1)
    with pytest.raises(OperationTimeout, match=r"did not start within 0\.05 s"):
        busybox_image.call(TRUE, fault=fault)  # type: ignore[call-arg]  # not an option for callers
    monkeypatch.undo()
    assert busybox_image.call(TRUE).exit_code == 0


@pytest.mark.parametrize(
    ("number", "expected", "reported", "words"),
    [
        (errno.ENOENT, CommandNotFound, errno.ENOENT, "not found in the container"),
        (errno.ENOTDIR, CommandNotFound, errno.ENOTDIR, "not found in the container"),
        (errno.ELIBACC, CommandNotFound, errno.ENOENT, "its interpreter or loader is not in the container"),
        (errno.EACCES, CommandNotExecutable, errno.EACCES, "cannot be executed: permission denied"),
        (errno.ENOEXEC, CommandNotExecutable, errno.ENOEXEC, "cannot be executed: exec format error"),
        (errno.ETXTBSY, CommandNotExecutable, errno.ETXTBSY, "cannot be executed: text file busy"),
        (errno.E2BIG, SpawnError, errno.E2BIG, "argument list too long"),
    ],
)
def test_the_ways_in_which_exec_fails(
    busybox_image: Image, number: int, expected: type[SpawnError], reported: int, words: str
) -> None:
    """Each answer of execve becomes the class that says what to do about it."""
    with pytest.raises(SpawnError, match=words) as caught:
        busybox_image.call(TRUE, **failing("exec", number=number))
    assert type(caught.value) is expected
    assert (caught.value.step, caught.value.errno) == ("exec", reported)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.ELOOP])
def test_a_missing_working_directory_is_an_option_that_is_wrong(busybox_image: Image, number: int) -> None:
    """The caller is told about the option, not about a step."""
    with pytest.raises(InvalidOption) as caught:
        busybox_image.call(TRUE, workdir="/tmp", **failing("workdir", number=number))
    assert (caught.value.option, caught.value.value) == ("workdir", "/tmp")


@pytest.mark.parametrize(
    ("step", "number", "hint"),
    [
        ("mount_target", errno.ELOOP, "ordinary directory"),
        ("mount_target", errno.EPERM, "/proc or /sys"),
        ("mount_source", errno.ESTALE, "exchanged"),
        ("root_create", errno.EINVAL, "may not carry an overlay"),
        ("keyring", errno.EDQUOT, "kernel.keys.maxkeys"),
        ("clone", errno.ENOSPC, "user.max_"),
        ("clone", errno.EAGAIN, "limit of processes"),
        ("rlimit", errno.EPERM, "CAP_SYS_RESOURCE"),
        ("table", errno.EAGAIN, "second engine"),
    ],
)
def test_known_causes_come_with_a_hint(busybox_image: Image, step: str, number: int, hint: str) -> None:
    """Where an errno has one likely cause, the message says it after the errno's own words."""
    with pytest.raises(SpawnError, match=hint) as caught:
        busybox_image.call(TRUE, **failing(step, number=number))
    assert os.strerror(number).lower() in str(caught.value)
