"""The static program probe.c, compiled once per session, and images that have it beside busybox."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.engine import BUSYBOX, busybox_tree
from support.session import base_directory, temporary_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from containerlib import Engine, Image

__all__ = ["PROBE", "probe", "probe_image", "probe_program", "syscall_number"]

PROBE = "/bin/probe"
_SOURCE = Path(__file__).with_name("probe.c")


@functools.cache
def probe_program() -> Path:
    """Compile the program; it lies in the session's directory and goes with it. A guest brings it along."""
    if compiled := os.environ.get("CONTAINERLIB_PROBE"):
        return Path(compiled)
    compiler = os.environ.get("CC") or "gcc"
    if shutil.which(compiler) is None:
        pytest.skip(f"needs a C compiler; there is no {compiler}")
    target = base_directory() / "probe"
    command = [compiler, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-static", str(_SOURCE)]
    subprocess.run([*command, "-o", str(target)], check=True)
    return target


def probe_image(engine: Engine, change: Callable[[Path], object] | None = None) -> Image:
    """Make an image with busybox and the probe; `change` may alter the tree before."""
    if not BUSYBOX.exists():
        pytest.skip("peers: not installed: busybox")
    with temporary_directory("p") as tree:
        busybox_tree(tree)
        shutil.copy(probe_program(), tree / "bin" / "probe")
        if change is not None:
            change(tree)
        return engine.images.from_directory(tree)


@functools.cache
def syscall_number(name: str) -> int:
    """Return the number of a system call on this machine."""
    from containerlib.runtime.syscalls import numbers  # noqa: PLC0415 - unit tests have no compiled extension

    return int(numbers(os.uname().machine)[name])


def _words(command: Sequence[object]) -> list[str]:
    """Write one command of the probe; the name of a system call becomes its number."""
    words = [str(word) for word in command]
    if words[0] == "call":
        words[1] = str(syscall_number(words[1]))
    return words


def probe(image: Image, commands: Sequence[Sequence[object]], **options: Any) -> list[str]:
    """Run commands of the probe in a new container of `image`, and return a line for each.

    Args:
        image: Made by `probe_image`.
        commands: Such as ``("stat", "/dev/null")`` or ``("call", "socket", 38, 5, 0)``.
        options: Options of the container.
    """
    argv = [PROBE]
    for command in commands:
        argv += [*([] if len(argv) == 1 else ["--"]), *_words(command)]
    result = image.call(argv, **options)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.decode().splitlines()
    assert len(lines) == len(commands), lines
    return lines
