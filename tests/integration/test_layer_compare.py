"""Two stacks of layers compared, against what real overlays of them show."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.session import temporary_directory
from support.trees import overlay, tree

from containerlib.errors import InvalidInputError
from containerlib.layer.compare import Change, compare

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root


@pytest.fixture
def base() -> Iterator[Path]:
    """Give a directory for layers, and check that no descriptor stays open."""
    before = len(os.listdir("/proc/self/fd"))
    with temporary_directory("v") as path:
        yield path
    assert len(os.listdir("/proc/self/fd")) == before


def layer(base: Path, name: str, files: dict[str, bytes | None]) -> str:
    """Make a layer of files; None is a whiteout, and a name with a slash at its end a directory."""
    root = base / name
    root.mkdir()
    for path, content in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            os.mknod(target, stat.S_IFCHR, 0)
        elif path.endswith("/"):
            target.mkdir(exist_ok=True)
        else:
            target.write_bytes(content)
            os.utime(target, (7, 7))
    return str(root)


def seen(changes: list[Change]) -> list[tuple[str, str, str, int]]:
    """Return changes as plain tuples."""
    return [(change.kind, change.path, change.type, change.size_bytes) for change in changes]


def test_kinds(base: Path) -> None:
    """Added, modified and deleted paths are found, with what lies there, in the order of their paths."""
    lower = layer(base, "lower", {"etc/a": b"1", "etc/b": b"1", "gone/x/y": b"123", "same": b"s", "z": b""})
    upper = layer(base, "upper", {"etc/a": b"2", "etc/c": b"new", "gone": None, "z": None, "z2/": b""})
    assert seen(compare([upper, lower], [lower])) == [
        ("modified", "/etc/a", "file", 1),
        ("added", "/etc/c", "file", 3),
        ("deleted", "/gone", "directory", 0),
        ("deleted", "/gone/x", "directory", 0),
        ("deleted", "/gone/x/y", "file", 3),
        ("deleted", "/z", "file", 0),
        ("added", "/z2", "directory", 0),
    ]
    assert compare([lower], [lower]) == []
    assert seen(compare([lower], [])) == [
        *(("added", path, "directory", 0) for path in ("/etc",)),
        *(("added", path, "file", 1) for path in ("/etc/a", "/etc/b")),
        *(("added", path, "directory", 0) for path in ("/gone", "/gone/x")),
        *(("added", path, "file", size) for path, size in (("/gone/x/y", 3), ("/same", 1), ("/z", 0))),
    ]


def test_opaque_directories(base: Path) -> None:
    """What an opaque directory hides is deleted, and what it brings again is compared."""
    lower = layer(base, "lower", {"d/same": b"s", "d/other": b"1", "d/gone/x": b""})
    upper = layer(base, "upper", {"d/same": b"s", "d/other": b"2"})
    os.setxattr(f"{upper}/d", "trusted.overlay.opaque", b"y")
    assert [(change.kind, change.path) for change in compare([upper, lower], [lower])] == [
        *(("deleted", "/d/gone"), ("deleted", "/d/gone/x"), ("modified", "/d/other")),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.chmod(0o4755),
        lambda path: os.chown(path, 1, 0),
        lambda path: os.chown(path, 0, 1),
        lambda path: os.setxattr(path, "user.x", b""),
        lambda path: path.write_bytes(b"other"),
        lambda path: path.write_bytes(b"longer than it was"),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("elsewhere")),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
)
def test_each_difference_counts(base: Path, change: object) -> None:
    """Mode, owner, group, attributes, content, size and type of one file are each enough."""
    old = layer(base, "old", {"file": b"lower"})
    new = layer(base, "new", {"file": b"lower"})
    assert compare([new], [old]) == []
    change(Path(new) / "file")  # type: ignore[operator]
    os.utime(f"{new}/file", (7, 7), follow_symlinks=False)
    assert [(each.kind, each.path) for each in compare([new], [old])] == [("modified", "/file")]


def test_times_alone_are_no_change(base: Path) -> None:
    """A time that differs is none; equal times of whole seconds prove nothing, those to the nanosecond do."""
    old, new = (layer(base, name, {"file": b"content"}) for name in ("old", "new"))
    os.utime(f"{new}/file", (99, 99))
    assert compare([new], [old]) == []
    Path(f"{new}/file").write_bytes(b"CONTENT")
    for directory in (old, new):
        os.utime(f"{directory}/file", (8, 8))
    assert len(compare([new], [old])) == 1
    for directory in (old, new):
        os.utime(f"{directory}/file", ns=(8, 8_000_000_001))
    assert compare([new], [old]) == []


def test_links_are_compared_and_not_followed(base: Path) -> None:
    """Links differ by their target; what the targets are on this host plays no part."""
    old, new = (layer(base, name, {"x": b""}) for name in ("old", "new"))
    for directory, target in ((old, "/etc"), (new, "/proc")):
        os.symlink(target, f"{directory}/link")
        os.symlink("/etc/passwd", f"{directory}/same")
    assert seen(compare([new], [old])) == [("modified", "/link", "symlink", 0)]


def test_shared_layers_are_not_read(base: Path) -> None:
    """A layer below both is not looked at, however damaged it is, unless one side hides it."""
    shared = layer(base, "shared", {"d/file": b"x", "e/file": b"x"})
    upper = layer(base, "upper", {"d/new": b"x"})
    for directory in ("d", "e"):
        os.setxattr(f"{shared}/{directory}/file", "trusted.overlay.metacopy", b"")
    assert seen(compare([upper, shared], [shared])) == [("added", "/d/new", "file", 1)]
    other = layer(base, "other", {"d/file": b"x"})
    with pytest.raises(InvalidInputError, match="metacopy"):
        compare([other, shared], [shared])


NAMES = st.sampled_from(["a", "b", "c", "b-"])
FILES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join),
    st.sampled_from([b"1", b"2", b"22", None, "directory", "opaque"]),
    max_size=6,
)


def fill(root: Path, files: dict[str, object]) -> str:
    """Make a layer as far as the random names allow one."""
    root.mkdir()
    for path, content in files.items():
        target = root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                os.mknod(target, stat.S_IFCHR, 0)
            elif isinstance(content, bytes):
                target.write_bytes(content)
            else:
                target.mkdir(exist_ok=True)
                if content == "opaque":
                    os.setxattr(target, "trusted.overlay.opaque", b"y")
        except OSError:
            continue
    return str(root)


@settings(max_examples=60, deadline=None)
@given(stack=st.lists(FILES, min_size=3, max_size=3), one=st.integers(0, 3), other=st.integers(0, 3))
def test_any_two_stacks(stack: list[dict[str, object]], one: int, other: int) -> None:
    """The changes are exactly the differences of what two overlays show, and mirrored the other way round."""
    with temporary_directory("h") as path:
        layers = [fill(path / str(number), files) for number, files in enumerate(stack)]
        # Every mixture of an own layer, or none, over the shared two in either order.
        choices = [[0, 1, 2], [1, 2], [0, 2], [2, 1]]
        sides = [[layers[index] for index in choices[choice]] for choice in (one, other)]
        shown = []
        for side in sides:
            with overlay(path / "seen", [Path(directory) for directory in side]) as mounted:
                facts = tree(mounted, times=False)
                shown.append({f"/{name}": fact[:-1] for name, fact in facts.items()})
        new, old = shown
        expected = {
            **dict.fromkeys(new.keys() - old.keys(), "added"),
            **dict.fromkeys(old.keys() - new.keys(), "deleted"),
            **{name: "modified" for name in new.keys() & old.keys() if new[name] != old[name]},
        }
        found = {change.path: change.kind for change in compare(*sides)}
        assert found == expected
        mirror = {"added": "deleted", "deleted": "added", "modified": "modified"}
        assert {c.path: mirror[c.kind] for c in compare(*reversed(sides))} == expected
