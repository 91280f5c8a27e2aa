"""What goes wrong in a command, in the words that callers of runc look for."""

from __future__ import annotations

from containerlib.errors import CommandNotExecutable, CommandNotFound, ContainerlibError

__all__ = ["OciError", "message_of"]


class OciError(ContainerlibError):
    """A command cannot be done; the message is for the caller's log."""


def message_of(error: BaseException) -> str:
    """A message in one line. Engines tell a missing command by runc's words, and choose 127 by them."""
    if isinstance(error, CommandNotFound):
        reason = "no such file or directory" if "/" in error.detail else "executable file not found in $PATH"
        return f'exec: "{error.detail}": {reason}'
    if isinstance(error, CommandNotExecutable):
        return f'exec: "{error.detail}": permission denied ({error})'
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}"
    return " ".join(str(error).split("\n")) or type(error).__name__
