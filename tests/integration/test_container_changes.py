"""What a container has changed of its image's files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.engine import new_engine
from support.session import temporary_directory, tracked_root

import containerlib as cl

if TYPE_CHECKING:
    from pathlib import Path

    from containerlib import Container, Engine, Image

pytestmark = pytest.mark.root

SCRIPT = """
mkdir /new /new/below; printf 12345 > /new/file; ln -s /gone /new/link
printf other > /etc/group; chmod 700 /root; touch /etc/passwd
rm /bin/cat; rm -r /tmp; mkfifo /fifo
"""
EXPECTED = [
    ("deleted", "/bin/cat", "symlink"),
    ("modified", "/etc/group", "file"),
    ("added", "/fifo", "fifo"),
    ("added", "/new", "directory"),
    ("added", "/new/below", "directory"),
    ("added", "/new/file", "file"),
    ("added", "/new/link", "symlink"),
    ("modified", "/root", "directory"),
    ("deleted", "/tmp", "directory"),
]


def seen(container: Container) -> list[tuple[str, str, str]]:
    """Return the changes without sizes."""
    return [(change.kind, change.path, change.type) for change in container.changes()]


def test_changes_of_every_kind(busybox_image: Image) -> None:
    """What was added, modified and deleted is listed by path; a time alone is no change."""
    with busybox_image.run(["sh", "-c", SCRIPT], layer="disk") as container:
        assert container.wait().exit_code == 0
        assert seen(container) == EXPECTED
        assert {change.path: change.size_bytes for change in container.changes()}["/new/file"] == 5


def test_nothing_changed(busybox_image: Image, tmp_path: Path) -> None:
    """Neither what the engine mounts nor what the container writes there is a change."""
    command = ["sh", "-c", "echo x > /dev/shm/x; echo 1.2.3.4 x >> /etc/hosts; echo x > /root/x"]
    with busybox_image.run(
        command, layer="disk", mounts=[cl.Mount.bind(str(tmp_path), "/root")]
    ) as container:
        assert container.wait().exit_code == 0
        assert container.changes() == []


def test_before_during_and_after(busybox_image: Image) -> None:
    """Changes are seen whether it was started, runs, is paused or has ended, and again after a new start."""
    command = ["sh", "-c", "echo x >> /log; exec sleep 1000"]
    with busybox_image.run(command, layer="disk", stdin=cl.DEVNULL) as container:
        assert container.exec(["sh", "-c", "until test -s /log; do :; done"], timeout_s=30).exit_code == 0
        assert seen(container) == [("added", "/log", "file")]
        container.pause()
        assert seen(container) == [("added", "/log", "file")]
        container.unpause()
        container.kill()
        container.wait()
        assert [change.size_bytes for change in container.changes()] == [2]


def test_a_copied_root(shared_engine: Engine, busybox_image: Image) -> None:
    """A container whose root is a copy has the same changes."""
    with (
        temporary_directory("c") as base,
        tracked_root(base / "n"),
        new_engine(shared_engine.root, base / "n", config=cl.EngineConfig(root_kind="copy")) as copying,
        copying.images.get(busybox_image.id).run(["sh", "-c", SCRIPT], layer="disk") as container,
    ):
        assert container.wait().exit_code == 0
        assert seen(container) == EXPECTED


def test_by_another_engine(shared_engine: Engine, busybox_image: Image) -> None:
    """A detached container's changes are seen by an engine that has not started it."""
    with (
        temporary_directory("c") as base,
        tracked_root(base / "n"),
        busybox_image.run(["sh", "-c", SCRIPT], lifetime="detached", stdin=cl.DEVNULL) as container,
        new_engine(shared_engine.root, base / "n") as other,
    ):
        assert container.wait().exit_code == 0
        assert seen(other.containers.get(container.id)) == EXPECTED


def test_marks_of_its_own_hide_nothing(busybox_image: Image) -> None:
    """An attribute that only unprivileged overlays heed does not hide what lies below."""
    with busybox_image.run(["sh", "-c", "echo x > /etc/mine"], layer="disk") as container:
        container.wait()
        try:
            os.setxattr(f"{container.entry.layers.directory}/upper/etc", "user.overlay.opaque", b"y")
        except OSError as error:
            pytest.skip(f"no attributes of users on this file system: {error.strerror}")
        assert seen(container) == [("added", "/etc/mine", "file")]


def test_where_there_is_nothing_to_compare(busybox_image: Image) -> None:
    """A layer in memory and a removed container are told as such, with the remedy."""
    with busybox_image.run(["true"], layer="memory") as container:
        container.wait()
        with pytest.raises(cl.InvalidState, match="layer='disk'"):
            container.changes()
    with busybox_image.run(["true"], layer="disk") as container:
        container.wait()
    with pytest.raises(cl.InvalidState, match="removed"):
        container.changes()
