"""What the processes around a container may do and hold, field by field."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.enosys import ACTIVE
from support.expectations import (
    ALL_SIGNALS,
    CAPABILITIES,
    OUTER_FILTERS,
    are_ours,
    below,
    expected_limits,
    is_own,
    leads_nowhere,
    our_cgroups,
    payload,
)
from support.faults import HeldStart, children, held, process_id
from support.posture import ANY, Descriptor, Posture

from containerlib import DEVNULL, PIPE, Security

if TYPE_CHECKING:
    from support.mounts import MountEntry

    from containerlib import Container, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

ALL_SEALS = 0x1F
SLEEP = ["/bin/sleep", "1000"]


def start(image: Image, **options: Any) -> Container:
    """Start a container whose streams lead nowhere."""
    options = {"command": SLEEP, "stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL} | options
    return image.run(layer="memory", **options)


def check_hidden(pid: int) -> None:
    """The process runs our sealed program and nothing of the host's Python."""
    posture = Posture.collect(pid)
    assert posture.exe == "/memfd:ctr-spawner (deleted)"
    assert posture.exe_seals is not None
    assert posture.exe_seals & 0xF == ALL_SEALS & 0xF
    assert posture.dumpable is False
    lines = [
        line.split(maxsplit=5) for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    ]
    named = {fields[5].strip() for fields in lines if len(fields) > 5}
    assert {name for name in named if not name.startswith("[")} <= {
        "/memfd:ctr-spawner (deleted)",
        "/memfd:ctr-spec (deleted)",
    }
    assert not any("x" in fields[1] and "w" in fields[1] for fields in lines)
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""


@pytest.mark.enosys
def test_the_command_of_root(busybox_image: Image) -> None:
    """A command has Docker's default privileges or fewer, three descriptors, and nothing of the host's."""
    with start(busybox_image) as container:
        assert container.pid is not None
        assert Posture.collect(container.pid).diff(payload(busybox_image, container.id, container.pid)) == []


@pytest.mark.enosys
def test_the_command_of_another_user(busybox_image: Image) -> None:
    """A user who is not root has no capability at all, and exactly the groups that were asked for."""
    with start(busybox_image, user="1000:1001", group_add=["5"]) as container:
        assert container.pid is not None
        expected = payload(
            busybox_image,
            container.id,
            container.pid,
            uids=(1000,) * 4,
            gids=(1001,) * 4,
            groups=(5, 1001),
            capabilities={"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": CAPABILITIES, "CapAmb": 0},
        )
        assert Posture.collect(container.pid).diff(expected) == []


@pytest.mark.enosys
def test_the_command_below_an_init(busybox_image: Image) -> None:
    """With an init the command is process 2, and the same in every other respect."""
    with start(busybox_image, init=True) as container:
        assert container.pid is not None
        (pid,) = children(container.pid)
        assert Posture.collect(pid).diff(payload(busybox_image, container.id, pid)) == []


@pytest.mark.enosys
@pytest.mark.parametrize("user", ["0", "1000:1001"])
def test_the_init(busybox_image: Image, user: str) -> None:
    """The init has the command's credentials and filter, no descriptor, and cannot be looked into."""
    script = 'trap "echo got" USR1; echo ready; while :; do read x; done'
    streams = {"stdin": PIPE, "stdout": PIPE}
    with start(
        busybox_image, command=["/bin/sh", "-c", script], init=True, user=user, **streams
    ) as container:
        assert container.pid is not None
        assert container.stdout is not None
        assert container.stdout.read(6) == b"ready\n"
        # A signal that arrives was passed on, and that is done when the privileges are gone.
        container.kill("USR1")
        assert container.stdout.read(4) == b"got\n"
        posture = Posture.collect(container.pid)
        uid, gid = (0, 0) if user == "0" else (1000, 1001)
        held_capabilities = CAPABILITIES if uid == 0 else 0
        spawner = process_id(container.entry.session.runner.spawner_pidfd or -1)
        expected = payload(
            busybox_image,
            container.id,
            container.pid,
            comm="ctr-init",
            exe="/memfd:ctr-spawner (deleted)",
            uids=(uid,) * 4,
            gids=(gid,) * 4,
            groups=(gid,),
            capabilities={
                "CapInh": 0,
                "CapPrm": held_capabilities,
                "CapEff": held_capabilities,
                "CapBnd": CAPABILITIES,
                "CapAmb": 0,
            },
            dumpable=False,
            descriptors=(),
            session=spawner,
            process_group=spawner,
            limits=expected_limits(lowered=False),
            # While it waits for signals the kernel shows those as not blocked.
            blocked=lambda blocked: blocked in (frozenset(), ALL_SIGNALS),
            umask=0,
        )
        assert posture.diff(expected) == []
        check_hidden(container.pid)


def has_only_its_own(descriptors: tuple[Descriptor, ...]) -> bool:
    """Expect the streams to lead nowhere, and beside them sockets, pidfds and the like that close on exec."""
    assert leads_nowhere(descriptors[:3])
    kinds = (
        "net:[",
        "ipc:[",
        "mnt:[",
        "socket:[",
        "anon_inode:[signalfd]",
        "anon_inode:[pidfd]",
        "/memfd:ctr-spawner",
    )
    if "pidfd_open" in ACTIVE:
        kinds = (*kinds, f"/proc/{os.getpid()}")
    assert [each for each in descriptors[3:] if not each.cloexec or not each.target.startswith(kinds)] == []
    return True


@pytest.mark.enosys
def test_the_spawner(busybox_image: Image) -> None:
    """The spawner has our rights, a PID namespace of its own, and no descriptor, memory or variables."""
    ours = Posture.collect(os.getpid())
    with start(busybox_image) as container:
        pid = process_id(container.entry.session.runner.spawner_pidfd or -1)
        cgroups: dict[str, object] = {
            names: below(path, f"containerlib-{busybox_image._session.engine_id}", "_default")
            if "devices" in names.split(",")
            else path
            for names, path in our_cgroups().items()
        }
        pid_namespace = {"pid": is_own("pid")}
        expected = {
            **{name: getattr(ours, name) for name in Posture.__dataclass_fields__},
            "comm": "ctr-spawner",
            "exe": "/memfd:ctr-spawner (deleted)",
            "exe_seals": ANY,
            "dumpable": False,
            "descriptors": has_only_its_own,
            "namespaces": {**ours.namespaces, **pid_namespace},
            "mounts": ANY,
            "session": pid,
            "process_group": pid,
            "terminal": 0,
            "cwd": "/",
            "cgroups": cgroups,
            "blocked": ALL_SIGNALS,
            "ignored": frozenset(),
            "caught": frozenset(),
            "umask": 0,
            "threads": 1,
        }
        assert Posture.collect(pid).diff(expected) == []
        check_hidden(pid)


def check_streams_and_error_pipe(descriptors: tuple[Descriptor, ...]) -> bool:
    """Expect the streams, the error pipe, and the socket on which the process waits to be let go."""
    assert leads_nowhere(descriptors[:3])
    rest = descriptors[3:]
    assert [each.target.split(":")[0] for each in sorted(rest, key=lambda each: each.target)] == [
        "pipe",
        "socket",
    ]
    assert all(each.cloexec for each in rest)
    return True


@pytest.mark.parametrize("init", [False, True])
def test_just_before_exec(busybox_image: Image, init: bool) -> None:  # noqa: FBT001
    """In the last step everything is as the command will have it, but for the program that runs."""
    with held(busybox_image, "exec", init=init, command=SLEEP) as start:
        expected = payload(
            busybox_image,
            container_of(start),
            start.pid,
            comm="ctr-init" if init else "ctr-spawner",
            exe="/memfd:ctr-spawner (deleted)",
            dumpable=False,
            descriptors=check_streams_and_error_pipe,
        )
        assert Posture.collect(start.pid).diff(expected) == []
        check_hidden(start.pid)
        start.kill()


def container_of(start: HeldStart) -> str:
    """Return the id of the container that is being started."""
    return start.image._session.entries()[-1].id


STEPS = ["close_inherited", "mount_private", "mount_target", "pivot", "hostname", "init_exec"]
LATER_STEPS = ["signals", "workdir", "gid", "capabilities", "no_new_privs", "seccomp"]


@pytest.mark.parametrize(
    ("step", "init"), [(step, init) for step in (*STEPS, *LATER_STEPS) for init in (False, True)]
)
def test_on_the_way(busybox_image: Image, step: str, init: bool) -> None:  # noqa: FBT001
    """At no step can the host's program, memory, environment or directories be seen in the process."""
    with held(busybox_image, step, init=init, index=0) as start:
        check_hidden(start.pid)
        posture = Posture.collect(start.pid)
        assert leads_nowhere(tuple(each for each in posture.descriptors if each.number < 3))
        assert all(each.cloexec for each in posture.descriptors if each.number > 2)
        if step in {*LATER_STEPS, "hostname", "init_exec"}:
            assert not any(each.is_directory for each in posture.descriptors)
        start.kill()


def test_where_the_caller_asks_for_less(busybox_image: Image) -> None:
    """Without filter and no_new_privs exactly those two are gone."""
    security = Security(no_new_privileges=False, seccomp="unconfined")
    with start(busybox_image, security=security) as container:
        assert container.pid is not None
        expected = payload(
            busybox_image,
            container.id,
            container.pid,
            no_new_privs=False,
            seccomp_mode=2 if OUTER_FILTERS else 0,
            seccomp_filters=OUTER_FILTERS,
        )
        assert Posture.collect(container.pid).diff(expected) == []


@pytest.mark.enosys
def test_with_a_terminal(busybox_image: Image) -> None:
    """A terminal is the controlling one of the command's session, and the container's own."""
    with start(busybox_image, tty=True) as container:
        assert container.pid is not None
        posture = Posture.collect(container.pid)

        def is_terminal(descriptors: tuple[Descriptor, ...]) -> bool:
            return [(each.number, each.target) for each in descriptors] == [
                (n, "/dev/pts/0") for n in range(3)
            ]

        def has_console(mounts: tuple[MountEntry, ...]) -> bool:
            return are_ours(mounts, [("/dev/console", "devpts", "noexec,nosuid,relatime,rw")])

        expected = payload(
            busybox_image,
            container.id,
            container.pid,
            descriptors=is_terminal,
            terminal=os.makedev(136, 0),
            mounts=has_console,
        )
        assert posture.diff(expected) == []
