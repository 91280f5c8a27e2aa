"""The entry point of the command line: runs a command, and turns errors into one line and an exit code."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

from containerlib.errors import (
    CommandNotExecutable,
    CommandNotFound,
    ContainerlibError,
    ImageNotFound,
    RemoteNotFound,
    StoreCorrupted,
    UnsupportedHost,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "run"]

_ENGINE_ERROR = 125
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127
_INTERRUPTED = 130
_BROKEN_PIPE = 141

_HINTS = (
    (RemoteNotFound, ""),  # it says itself what there is
    (
        ImageNotFound,
        "'containerlib images' lists what there is here; 'containerlib run --from-host' needs no image",
    ),
    (UnsupportedHost, "'containerlib doctor' says what this host can do"),
    (StoreCorrupted, "'containerlib system check --repair' mends what can be mended"),
)


def _complain(message: str, hint: str = "") -> None:
    """Write one line, and perhaps a second one, to standard error."""
    # Part of it may come from a registry or an image, and must not reach the terminal as commands.
    line = "".join(each if each.isprintable() else "?" for each in " ".join(message.split()))
    text = f"containerlib: {line}\n"
    if hint:
        text += f"containerlib: {hint}\n"
    sys.stderr.write(text)


def main() -> int:
    """Run the command line of this process, and return its exit code; see `run`."""
    # The interpreter would look for unreachable objects while it loads and unloads some hundred modules, at
    # a sixth of the time that a whole command takes. What is left goes with the process.
    gc.disable()
    try:
        return run(sys.argv[1:])
    finally:
        gc.freeze()


def run(args: Sequence[str]) -> int:
    """Run the command line.

    Args:
        args: Arguments without the program's name.

    Returns:
        The exit code, by Docker's rules: the container's own, 125 for an error of the engine or of the
        command line, 126 and 127 for a command that cannot be executed or found, 128 + n after signal n.
    """
    try:
        from containerlib.cli.group import run_group  # noqa: PLC0415 - needs click, which is optional
    except ImportError as error:
        if error.name != "click":
            raise
        _complain("the command line needs click", "install it with: pip install 'containerlib[cli]'")
        return _ENGINE_ERROR
    try:
        code = run_group(args, _complain)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Nobody reads any more; the interpreter would complain when it flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    except (ContainerlibError, OSError) as error:
        _complain(str(error), next((hint for kind, hint in _HINTS if isinstance(error, kind)), ""))
        return _exit_code(error)
    return code


def _exit_code(error: Exception) -> int:
    if isinstance(error, CommandNotFound):
        return _NOT_FOUND
    return _NOT_EXECUTABLE if isinstance(error, CommandNotExecutable) else _ENGINE_ERROR
