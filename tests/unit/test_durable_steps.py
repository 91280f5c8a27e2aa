"""Every change of the store goes through the modules that announce it, so that crash tests meet each one."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest
from support.sources import modules

if TYPE_CHECKING:
    from support.sources import Module

DOORS = {"containerlib._util.atomic_file", "containerlib._util.file_lock", "containerlib._util.remove_tree"}
"""They announce each step. What they do is tested step by step in the crash tests."""

CHANGES = frozenset(
    [
        "chmod",
        "chown",
        "copy_file_range",
        "copyfile",
        "fchmod",
        "fdatasync",
        "fsync",
        "ftruncate",
        "lchown",
        "link",
        "makedirs",
        "mkdir",
        "mkfifo",
        "mknod",
        "move",
        "open",
        "posix_fallocate",
        "pwrite",
        "remove",
        "removedirs",
        "removexattr",
        "rename",
        "renames",
        "replace",
        "rmdir",
        "rmtree",
        "sendfile",
        "setxattr",
        "symlink",
        "sync",
        "truncate",
        "unlink",
        "utime",
        "write",
        "writev",
    ]
)
"""Calls of `os` and `shutil` that change a disk; `open` for writing counts, too."""

ALLOWED = {
    # Rights of directories are no content.
    "containerlib.image.repair": {"chmod", "chown"},
    # These write files of the caller, outside of the store.
    "containerlib.image.lock_file": {"chmod"},
    "containerlib.image.archive_save": CHANGES,
    "containerlib.image.output": CHANGES,
    # Nothing depends on the journal, and nothing fails for it.
    "containerlib.store.journal": {"write", "rename"},
}

WRITING_MODES = frozenset("wax+")


def _changes(module: Module) -> list[tuple[str, int]]:
    """Return the calls in a module that change the disk, with their lines."""
    found = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            if function.value.id in {"os", "shutil"} and function.attr in CHANGES - {"open"}:
                found.append((function.attr, node.lineno))
        elif isinstance(function, ast.Name) and function.id == "open":
            modes = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "mode")]
            if any(isinstance(mode, ast.Constant) and WRITING_MODES & set(str(mode.value)) for mode in modes):
                found.append(("open", node.lineno))
    return found


def test_the_doors_announce_what_they_do() -> None:
    """Each function of a door that changes the disk announces a step first, or is part of one that does."""
    for name in sorted(DOORS):
        module = modules()[name]
        for function in ast.walk(module.tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            text = ast.unparse(function)
            changes = [one for one, _ in _changes_in(function) if one not in {"chmod", "fchmod", "open"}]
            if changes and function.name not in {"make_directory", "_empty", "_remove_empty"}:
                assert "_step(" in text or "reach(" in text, (
                    f"{name}.{function.name} changes the disk in silence"
                )


def _changes_in(function: ast.FunctionDef) -> list[tuple[str, int]]:
    """Return the changing calls of one function."""
    return [
        (node.func.attr, node.lineno)
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "os"
        and node.func.attr in CHANGES
    ]


@pytest.mark.parametrize(
    "name",
    sorted(name for name in modules() if name.startswith(("containerlib.store", "containerlib.image"))),
)
def test_nobody_else_changes_the_store(name: str) -> None:
    """No module of the store or of images changes the disk itself."""
    found = [
        f"{modules()[name].relative_path}:{line}: {call}"
        for call, line in _changes(modules()[name])
        if call not in ALLOWED.get(name, set())
    ]
    assert not found, "\n".join(found)


QUIET = {
    # What a container finds, changed on behalf of a caller; an engine depends on none of it.
    "containerlib.container.file_system": CHANGES,
    # Streams of a process.
    "containerlib.container.communicate": {"write"},
    # A part of the announced making of a directory.
    "containerlib.container.frozen": {"chmod", "chown", "setxattr"},
    # A tree that nobody knows of before it is complete.
    "containerlib.runtime.copy_root": CHANGES,
    "containerlib.runtime.tmpfs": CHANGES,
    # Memory files of this process.
    "containerlib.runtime.bpf": CHANGES,
}
"""Modules of containers whose calls of these names are no transition of a container."""

STARTS = {
    "containerlib.runtime.runner": ("start", "_join", "_ensure_spawner"),
    "containerlib.runtime.detached_start": ("_launch", "_supervise"),
    "containerlib.container.entry": ("signal", "write_record"),
    "containerlib.container.kill": ("_tell_to_stop",),
    "containerlib.container.pause": ("_tell", "_set_restart"),
}
"""Transitions that are no call of `os`: processes are started, signalled, told."""


@pytest.mark.parametrize(
    "name",
    sorted(name for name in modules() if name.startswith(("containerlib.container", "containerlib.runtime"))),
)
def test_every_transition_of_a_container_has_a_failpoint(name: str) -> None:
    """Each function that changes the disk or a control group goes through a door, or announces a step."""
    module = modules()[name]
    silent = []
    for function in ast.walk(module.tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        calls = [one for one, _ in _changes_in(function) if one not in {"open", *QUIET.get(name, set())}]
        if calls and "reach(" not in ast.unparse(function):
            silent.append(f"{module.relative_path}: {function.name}: {', '.join(calls)}")
    assert not silent, "\n".join(silent)


def test_starting_and_signalling_have_failpoints() -> None:
    """So do the transitions that are no system call of this process on a file."""
    for name, functions in STARTS.items():
        texts = {
            node.name: ast.unparse(node)
            for node in ast.walk(modules()[name].tree)
            if isinstance(node, ast.FunctionDef)
        }
        for function in functions:
            assert "reach(" in texts[function], f"{name}.{function} has no failpoint"
