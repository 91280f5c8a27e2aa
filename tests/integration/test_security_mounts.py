"""What an image or a volume can do about where things are mounted and created: nothing outside of it.

Every test has a canary directory on the host that an image points at, and that must be the same afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import enosys
from support.exchange import exchanging
from support.expectations import MASKED, READ_ONLY
from support.mounts import read_mounts
from support.probe import probe, probe_image
from support.session import temporary_directory

from containerlib import InvalidOption, Mount, SpawnError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containerlib import Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

NO_LINK = "mount_target"


@dataclass(frozen=True)
class Canary:
    """A directory of the host that nobody may touch."""

    path: Path

    def state(self) -> str:
        """Sum up everything that can be seen of it."""
        lines = []
        for parent, names, files in sorted(os.walk(self.path)):
            for name in sorted([*names, *files, "."]):
                path = Path(parent, name)
                info = path.lstat()
                content = path.read_bytes() if path.is_file() else b""
                sizes = (
                    info.st_mode,
                    info.st_uid,
                    info.st_nlink,
                    info.st_size,
                    info.st_mtime_ns,
                    info.st_ctime_ns,
                )
                lines.append(f"{path} {sizes} {content!r}")
        mounts = [mount.target for mount in read_mounts() if Path(mount.target).is_relative_to(self.path)]
        return hashlib.sha256("\n".join([*lines, *mounts]).encode()).hexdigest()


@pytest.fixture(scope="module")
def ready(shared_engine: Engine) -> Engine:
    """Return an engine that has started a container before."""
    probe_image(shared_engine).call(["/bin/true"])
    return shared_engine


@pytest.fixture
def canary() -> Iterator[Canary]:
    """Return a canary with files of the names that engines like to make, and check it afterwards."""
    with temporary_directory("canary") as path:
        for name in ("hosts", "hostname", "resolv.conf", "null", "console", "file"):
            (path / name).write_text(f"the host's {name}\n", encoding="ascii")
        for name in ("shm", "pts", "mqueue", "sub"):
            (path / name).mkdir()
        canary = Canary(path)
        before = canary.state()
        yield canary
        assert canary.state() == before


def replace(tree: Path, name: str, target: str) -> None:
    """Put a symbolic link in the place of whatever the tree has there."""
    place = tree / name
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
        place.unlink()
    if place.is_dir():
        for each in place.iterdir():
            each.unlink()
        place.rmdir()
    place.symlink_to(target)


def trapped(engine: Engine, *links: tuple[str, str]) -> Image:
    """Make an image in which some names are links."""

    def change(tree: Path) -> None:
        for name, target in links:
            replace(tree, name, target)

    return probe_image(engine, change)


def spellings(path: Path) -> list[str]:
    """Write links that lead to a directory of the host in several ways."""
    return [str(path), "../" * 12 + str(path).lstrip("/"), f"/proc/1/root{path}"]


def outcome(image: Image, *, mounts: tuple[Mount, ...] = ()) -> str:
    """Start a container that writes where the image has links, and say how that went."""
    script = "echo x >>/etc/hosts; echo x >/etc/new; mkdir -p /dev/shm/new; echo x >/m/new; true"
    try:
        return str(image.call(["/bin/sh", "-c", script], mounts=mounts).exit_code)
    except SpawnError as error:
        return f"{error.step} {errno.errorcode[error.errno]}"


@pytest.mark.enosys
@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
def test_kernel_file_systems_need_a_real_directory(ready: Engine, canary: Canary, name: str) -> None:
    """An image whose /dev, /proc or /sys is a link is not started, wherever the link leads."""
    for target in (*spellings(canary.path), "/tmp", "nowhere"):
        assert outcome(trapped(ready, (name, target))) == f"{NO_LINK} ELOOP"
    with pytest.raises(SpawnError, match="must have an ordinary directory there, not a symbolic link"):
        trapped(ready, (name, "/tmp")).call(["/bin/true"])


@pytest.mark.enosys
@pytest.mark.parametrize(
    "name",
    ["dev/pts", "dev/shm", "dev/mqueue", "dev/null", "dev/console", "etc", "etc/hosts", "etc/resolv.conf"],
)
def test_links_in_the_image_stay_in_it(ready: Engine, canary: Canary, name: str) -> None:
    """What the engine makes and mounts lands in the container, also where the image has links to the host."""
    target = canary.path / Path(name).name if name.count("/") and not name.startswith("dev") else canary.path
    for link in spellings(target):
        image = trapped(ready, (name, link))
        # A link through /proc leads by a magic link, which is refused, or to nothing.
        assert outcome(image).split()[0] in {"0", "file"}


@pytest.mark.enosys
@pytest.mark.parametrize("kind", ["bind", "file", "tmpfs"])
def test_parents_of_mount_targets(ready: Engine, canary: Canary, kind: str) -> None:
    """A mount below a link of the image lands in the container, in what the link names there."""
    for link in spellings(canary.path)[:2]:
        mounts = {
            "bind": (Mount.bind("/usr", "/m/sub"), Mount.bind("/usr", "/deep/a/new/x", read_only=True)),
            "file": (Mount.bind("/etc/passwd", "/m/file"), Mount.bind("/etc/passwd", "/m/made")),
            "tmpfs": (Mount.tmpfs("/m/sub"), Mount.tmpfs("/deep/a/new/y")),
        }[kind]
        # A link to what the image has not is not followed to the host, and nothing is made for it.
        dangling = trapped(ready, ("m", link), ("deep/a", "../m"))
        assert outcome(dangling, mounts=mounts) == f"{NO_LINK} ENOENT"
        image = trapped(ready, (f"{str(canary.path).lstrip('/')}/x", "/"), ("m", link), ("deep/a", "../m"))
        assert outcome(image, mounts=mounts) == "0"
        lines = probe(image, [("stat", mount.target) for mount in mounts], mounts=mounts)
        assert all(line.startswith("file" if kind == "file" else "dir") for line in lines), lines


def test_nothing_is_mounted_on_proc_or_sys(ready: Engine, canary: Canary) -> None:
    """Neither by name nor by a link of the image does a volume get below /proc or /sys."""
    for target in (
        "/proc",
        "/proc/self",
        "/sys",
        "/proc/../proc",
        "/proc//",
        "/sys/fs/cgroup",
        "/dev/../proc",
    ):
        with pytest.raises(InvalidOption):
            Mount.bind(str(canary.path), target)
    for target in ("//proc", "//sys/fs", "//dev"):
        with pytest.raises(InvalidOption):
            probe_image(ready).call(["/bin/true"], mounts=[Mount.bind(str(canary.path), target)])
    image = trapped(ready, ("p", "/proc"), ("s", "sys"), ("q", "p"))
    for target in ("/p/sys", "/q/self", "/p/irq", "/s/kernel", "/s/firmware", "/q/1/attr", "/p/new"):
        result = outcome(image, mounts=(Mount.bind(str(canary.path), target),))
        assert result in {f"{NO_LINK} EPERM", f"{NO_LINK} ENOENT"}, target


@pytest.mark.enosys
@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_masks_are_what_they_should_be(ready: Engine, kind: str) -> None:
    """Masked files are the null device and masked directories empty, whatever the image has at /dev/null."""
    change: dict[str, Callable[[Path], object]] = {
        "file": lambda tree: (tree / "dev" / "null").write_text("not null", encoding="ascii"),
        "link": lambda tree: (tree / "dev" / "null").symlink_to("/etc/passwd"),
        "directory": lambda tree: (tree / "dev" / "null").mkdir(),
    }
    image = probe_image(ready, change[kind])
    present = [path for path in MASKED if Path(path).exists()]
    assert len(present) > 3
    lines = probe(image, [("stat", path) for path in (*present, "/dev/null")])
    for path, line in zip((*present, "/dev/null"), lines, strict=True):
        assert line.startswith("dir 0:0 555 " if Path(path).is_dir() else "char 1:3 666 "), (path, line)
    # An empty file, or no entry in a directory.
    assert set(probe(image, [("open", path) for path in present if not Path(path).is_dir()])) == {"0"}
    directories = [path for path in present if Path(path).is_dir()]
    assert image.call(
        ["/bin/sh", "-c", f"cat /dev/null; ls -A {' '.join(f'{path}/' for path in directories)}"]
    ).text.split() == (
        [word for path in directories for word in [f"{path}/:"]] if len(directories) > 1 else []
    )


@pytest.mark.enosys
def test_masks_cannot_be_taken_away(ready: Engine) -> None:
    """Unmounting, removing, renaming and writing fail on every masked or read-only path."""
    image = probe_image(ready)
    for path in (path for path in (*MASKED, *READ_ONLY) if Path(path).exists()):
        flags = os.O_WRONLY | os.O_CREAT
        into = f"{path}/new" if Path(path).is_dir() else path
        lines = probe(
            image,
            [
                ("call", "umount2", f"s:{path}", 2),
                ("call", "unlinkat", -100, f"s:{path}", 0x200 if Path(path).is_dir() else 0),
                ("call", "renameat2", -100, f"s:{path}", -100, "s:/tmp/x", 0),
                ("call", "mount", "s:", f"s:{path}", "s:", 0x1020, 0),
                ("call", "openat", -100, f"s:{into}", flags, 0o600),
            ],
        )
        assert lines[0] == lines[3] == str(-errno.EPERM)
        assert all(int(line) < 0 for line in lines[1:3])
        if path not in MASKED or Path(path).is_dir():
            assert lines[4] in {str(-errno.EROFS), str(-errno.ENOENT), str(-errno.EACCES)}


def test_no_mask_is_mounted_twice(ready: Engine) -> None:
    """Each target is in the mount table once."""
    table = probe_image(ready).call(["/bin/cat", "/proc/self/mountinfo"]).text.splitlines()
    targets = [line.split()[4] for line in table]
    assert len(targets) == len(set(targets))


ROUNDS = 200


@pytest.mark.enosys
@pytest.mark.slow
@pytest.mark.parametrize("link", ["absolute", "relative"])
def test_an_exchanged_parent_of_a_target(ready: Engine, canary: Canary, link: str) -> None:
    """While a directory of a volume and a link to the host change places, mounts stay in the container.

    Each start fails as a whole or mounts inside; the canary gains neither mount nor file.
    """
    image = probe_image(ready)
    started = 0
    with temporary_directory("shared") as shared:
        (shared / "place").mkdir()
        target = canary.path if link == "absolute" else Path("..", canary.path.name)
        (shared / "trap").symlink_to(target)
        mounts = (
            Mount.bind(str(shared), "/data"),
            Mount.bind("/usr", "/data/place/sub"),
            Mount.tmpfs("/data/place/made"),
            Mount.bind("/etc/passwd", "/data/place/file"),
        )
        with exchanging(shared / "place", shared / "trap") as count:
            for _ in range(ROUNDS):
                try:
                    result = image.call(["/bin/true"], mounts=mounts)
                except SpawnError as error:
                    assert error.step.startswith("mount_")  # noqa: PT017 - most rounds raise nothing
                else:
                    assert result.exit_code == 0
                    started += 1
        assert count[0] > ROUNDS
    assert started > 0


@pytest.mark.slow
def test_an_exchanged_source(ready: Engine, canary: Canary) -> None:
    """What is mounted is the object that was opened, as a whole: the one directory or the other."""
    image = probe_image(ready)
    seen: set[str] = set()
    refused: set[str] = set()
    with temporary_directory("source") as base:
        for name in ("one", "two"):
            (base / name / "in").mkdir(parents=True)
            (base / name / "in" / name).touch()
        with exchanging(base / "one", base / "two"):
            for _ in range(ROUNDS // 2):
                source = Mount.bind(str(base / "one" / "in"), "/in", read_only=True)
                try:
                    seen.add(image.call(["/bin/ls", "/in"], mounts=[source]).text.strip())
                except SpawnError as error:
                    refused.add(error.step)
    assert seen <= {"one", "two"}
    # By mount(2) the exchange can only be noticed, and then nothing is started.
    assert refused <= ({"mount_source"} if "mount-api" in enosys.ACTIVE else set())
    assert canary.path.exists()
