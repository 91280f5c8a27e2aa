"""What a container sees of files and devices: mounts, the read-only root, /dev."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.engine import busybox_tree
from support.mounts import detach
from support.session import temporary_directory

import containerlib as cl
from containerlib import Mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import CompletedRun, Engine, Image

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20


def sh(image: Image, script: str, **options: object) -> CompletedRun:
    """Run a script."""
    return image.call(["sh", "-c", script], **options)  # type: ignore[arg-type]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """Return a host directory with a file, a subdirectory, and a file system mounted in it."""
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_text("content\n", encoding="ascii")
    subprocess.run(["mount", "-t", "tmpfs", "none", root / "sub"], check=True)
    (root / "sub" / "inner").write_text("inner\n", encoding="ascii")
    try:
        yield root
    finally:
        detach(str(root / "sub"))


def test_read_only_root(image: Image) -> None:
    """Nothing of a read-only root can be changed; file systems in memory still can."""
    script = (
        "for d in / /etc /tmp /run; do echo x > $d/x && echo wrote $d; done; echo x > /data/x && cat /data/x"
    )
    mounts = [Mount.tmpfs("/data"), Mount.tmpfs("/run")]
    result = sh(image, script, read_only=True, mounts=mounts)
    assert result.text == "wrote /run\nx\n"
    assert result.stderr.count(b"Read-only file system") == 3
    assert sh(image, "echo x > /x; echo x > /dev/shm/x; cat /dev/shm/x", read_only=True).text == "x\n"


def test_bind_is_the_host_directory(image: Image, tree: Path) -> None:
    """A bound directory is the host's, with what is mounted below it, and changes go both ways."""
    script = "cat /data/file /data/sub/inner; echo new > /data/made; echo new > /data/sub/made"
    assert sh(image, script, mounts=[Mount.bind(str(tree), "/data")]).text == "content\ninner\n"
    assert (tree / "made").read_text() == (tree / "sub" / "made").read_text() == "new\n"


def test_read_only_bind_is_recursive(image: Image, tree: Path) -> None:
    """A read-only bind cannot be written to anywhere, nor be made writable, while the host's stays so."""
    script = (
        "cat /data/file /data/sub/inner; echo x > /data/x; echo x > /data/sub/x; echo x >> /data/sub/inner"
    )
    result = sh(image, script, mounts=[Mount.bind(str(tree), "/data", read_only=True)])
    assert result.text == "content\ninner\n"
    assert result.stderr.count(b"Read-only file system") == 3
    (tree / "sub" / "x").write_text("still writable here", encoding="ascii")


def test_mounts_are_private(image: Image, tree: Path) -> None:
    """A mount that the host makes later does not appear in the container."""
    command = ["sh", "-c", "read line; ls /data"]
    mounts = [Mount.bind(str(tree), "/data")]
    with image.run(command, mounts=mounts, stdin=cl.PIPE, stdout=cl.PIPE) as container:
        assert container.stdin is not None
        assert container.stdout is not None
        subprocess.run(["mount", "-t", "tmpfs", "none", tree], check=True)
        try:
            container.stdin.close()
            assert container.stdout.read() == b"file\nsub\n"
        finally:
            detach(str(tree))


def test_file_mounts(image: Image, tree: Path) -> None:
    """Single files can be bound, over files of the image and at new names."""
    mounts = [
        Mount.bind(str(tree / "file"), "/etc/passwd", read_only=True),
        Mount.bind(str(tree / "file"), "/new/directory/name"),
    ]
    script = "cat /etc/passwd; echo more >> /new/directory/name; cat /etc/passwd; echo no >> /etc/passwd"
    result = sh(image, script, mounts=mounts)
    assert result.text == "content\ncontent\nmore\n"
    assert b"Read-only" in result.stderr
    assert (tree / "file").read_text() == "content\nmore\n"


@pytest.mark.parametrize("order", [1, -1])
def test_nested_targets(image: Image, tree: Path, order: int) -> None:
    """Targets below each other work in whatever order they are given."""
    (tree / "sub" / "a").mkdir()
    mounts = [
        Mount.tmpfs("/data"),
        Mount.bind(str(tree), "/data/tree"),
        Mount.bind(str(tree / "file"), "/data/tree/sub/a/deep"),
    ][::order]
    assert sh(image, "cat /data/tree/sub/a/deep; ls /data", mounts=mounts).text == "content\ntree\n"


def test_missing_targets_are_made_in_the_container_only(image: Image, tree: Path) -> None:
    """A target that the image does not have is made, and is not in the next container."""
    mounts = [Mount.bind(str(tree), "/a/b/c"), Mount.bind(str(tree / "file"), "/d/e")]
    assert sh(image, "ls /a/b/c; cat /d/e", mounts=mounts).text == "file\nsub\ncontent\n"
    assert sh(image, "ls -d /a /d").stdout == b""


def test_target_below_dev(image: Image, tree: Path) -> None:
    """A file can be put into /dev, and /dev/shm can be replaced."""
    mounts = [Mount.bind(str(tree / "file"), "/dev/own"), Mount.bind(str(tree), "/dev/shm")]
    assert sh(image, "cat /dev/own; ls /dev/shm", mounts=mounts).text == "content\nfile\nsub\n"


LINKS = {
    "absolute": "/real",
    "climbing": "../../../../../real",
    "relative": "./real/../real",
    "chain": "absolute",
}


@pytest.fixture(scope="module")
def linked_image(shared_engine: Engine, busybox_image: Image) -> Image:
    """Return an image with symbolic links that lead to /real, which the host does not have."""
    del busybox_image
    with temporary_directory("l") as tree:
        busybox_tree(tree)
        (tree / "real").mkdir()
        for name, target in LINKS.items():
            (tree / name).symlink_to(target)
        return shared_engine.images.from_directory(tree)


@pytest.mark.parametrize("name", LINKS)
def test_links_in_the_image_stay_inside(linked_image: Image, tmp_path: Path, name: str) -> None:
    """A symbolic link of the image on the way to a target leads to a place in the container."""
    mounts = [Mount.bind(str(tmp_path), f"/{name}/new/deep"), Mount.tmpfs(f"/{name}/memory")]
    script = "echo x > /real/new/deep/x; grep -c ' /real/memory ' /proc/mounts; ls /real"
    assert sh(linked_image, script, mounts=mounts).text.split() == ["1", "memory", "new"]
    assert os.listdir(tmp_path) == ["x"]
    assert not os.path.exists("/real")


def test_source_is_taken_as_it_is(image: Image, tree: Path) -> None:
    """A source may be a symbolic link of the host and have any characters in its name."""
    odd = tree / "a b,c:d\\e\n\u00fc"
    odd.mkdir()
    (odd / "x").touch()
    (tree / "link").symlink_to(odd)
    mounts = [Mount.bind(str(odd), "/one,two: three"), Mount.bind(str(tree / "link"), "/two")]
    assert sh(image, "ls '/one,two: three' /two", mounts=mounts).text == "/one,two: three:\nx\n\n/two:\nx\n"


def test_host_sockets_and_devices_can_be_bound(image: Image) -> None:
    """A bind of a device node is no way around the device rules."""
    mounts = [Mount.bind("/dev/loop-control", "/dev/loop-control")]
    result = sh(image, ": < /dev/loop-control", mounts=mounts)
    assert b"Operation not permitted" in result.stderr


def test_tmpfs(image: Image) -> None:
    """A file system in memory has the size and the mode that were asked for, and executes nothing."""
    mounts = [
        Mount.tmpfs("/small", size_bytes=MEBIBYTE, mode=0o750),
        Mount.tmpfs("/programs", exec=True),
        Mount.tmpfs("/default"),
    ]
    script = (
        "stat -c %a /small /default; head -c 3000000 /dev/zero > /small/x; stat -c %s /small/x;"
        "for d in small programs default; do rm -f /$d/x; cp /bin/true /$d/ && /$d/true && echo $d; done"
    )
    result = sh(image, script, mounts=mounts)
    assert result.text.split() == ["750", "1777", str(MEBIBYTE), "programs"]
    assert result.stderr.count(b"Permission denied") == 2
    assert b"No space left" in result.stderr


def test_tmpfs_hides_and_goes(image: Image) -> None:
    """A file system in memory hides what the image has there, and is gone with the container."""
    mounts = [Mount.tmpfs("/etc/keep")]
    assert sh(image, "ls /etc/keep; echo x > /etc/keep/x", mounts=mounts).stdout == b""
    assert sh(image, "ls /etc/keep", mounts=mounts).stdout == b""


@pytest.mark.parametrize(("options", "size"), [({}, 64), ({"shm_size_bytes": MEBIBYTE}, 1)])
def test_shared_memory_size(image: Image, options: dict[str, object], size: int) -> None:
    """/dev/shm has 64 MiB, or what was asked for."""
    script = "df -B1 --output=size /dev/shm | tail -n 1; stat -c %a /dev/shm"
    assert sh(image, script, **options).text.split() == [str(size * MEBIBYTE), "1777"]


def test_default_devices(image: Image) -> None:
    """The usual devices work, and no other can be made or opened."""
    script = (
        "head -c 4 /dev/zero | od -An -tx1; head -c 1 /dev/zero > /dev/full; head -c 8 /dev/urandom | wc -c;"
        "echo gone > /dev/null; cat /dev/null; ls /dev"
    )
    result = sh(image, script)
    names = [
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
    ]
    assert result.text.split() == [*["00"] * 4, "8", *names, "urandom", "zero"]
    assert b"No space left" in result.stderr


@pytest.mark.cgroup
def test_devices_only_when_asked(busybox_image: Image) -> None:
    """A device of the host is there and can be opened only if it was asked for, at the place asked for."""
    script = ": < /dev/other/name && echo opened; stat -c %t:%T /dev/other/name"
    device = cl.Device(source="/dev/loop-control", target="/dev/other/name")
    number = os.stat("/dev/loop-control").st_rdev
    result = sh(busybox_image, script, devices=[device])
    assert result.text == f"opened\n{os.major(number):x}:{os.minor(number):x}\n"
    made = f"mknod /tmp/dev c {os.major(number)} {os.minor(number)} && : < /tmp/dev && echo opened"
    security = cl.Security(cap_add=["MKNOD"])
    assert sh(busybox_image, made, security=security).stdout == b""
    assert sh(busybox_image, ": < /dev/loop-control").exit_code != 0


@pytest.mark.cgroup
@pytest.mark.parametrize(("access", "expected"), [("r", "r"), ("w", "w"), ("rw", "rw"), ("rwm", "rw")])
def test_device_access(busybox_image: Image, access: str, expected: str) -> None:
    """A device can be opened in the ways that were asked for and in no other."""
    script = "(: < /dev/fuse) && printf r; (: >> /dev/fuse) && printf w"
    devices = [cl.Device(source="/dev/fuse", access=access)]
    assert sh(busybox_image, script, devices=devices).text == expected


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/interrupts"])
def test_masked_files_are_empty(image: Image, path: str) -> None:
    """Files of the kernel that tell of the host have no content, where they exist."""
    if not os.path.exists(path):
        pytest.skip(f"the kernel has no {path}")
    assert sh(image, f"cat {path} | wc -c").text == "0\n"


def test_kernel_settings_cannot_be_written(image: Image) -> None:
    """Neither /proc/sys nor /sys can be written to, in a writable root either."""
    before = Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8")
    script = (
        "echo '|/x' > /proc/sys/kernel/core_pattern; echo 1 > /sys/kernel/x; echo b > /proc/sysrq-trigger"
    )
    result = sh(image, script)
    assert result.stderr.count(b"\n") == 3
    assert result.exit_code != 0
    assert Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8") == before
