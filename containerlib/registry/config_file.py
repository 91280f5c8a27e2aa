"""Configuration files of the host, as other programs write them: read with a bound, refused by name.

Bytes only. Such a file belongs to the user, but it may be anything: a directory, a pipe, endless.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from containerlib.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_CONFIG_BYTES", "home_directory", "read_config_file"]

MAX_CONFIG_BYTES = 4 << 20

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def read_config_file(path: str) -> bytes | None:
    """Return the content of the file at `path`, or None if there is none.

    Raises:
        InvalidInputError: It is not a regular file, cannot be read, or is over `MAX_CONFIG_BYTES`.
    """
    try:
        fd = os.open(path, _FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: cannot be read: {_reason(error)}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidInputError(f"{path}: not a regular file")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot be read: {_reason(error)}") from None
    finally:
        os.close(fd)
    if len(data) > MAX_CONFIG_BYTES:
        raise InvalidInputError(f"{path}: over the limit of {MAX_CONFIG_BYTES} bytes")
    return data


def home_directory(environ: Mapping[str, str]) -> str:
    """Return the home directory of the user, by the environment or else by the user database."""
    named = environ.get("HOME", "")
    return named if os.path.isabs(named) else _home_of_user()


def _home_of_user() -> str:
    import pwd  # noqa: PLC0415 - reads the user database, and only if HOME is missing

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
