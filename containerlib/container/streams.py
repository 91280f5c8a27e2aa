"""Standard streams of a container: from what the caller wrote to descriptors, as subprocess does it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO, Protocol, runtime_checkable

from attrs import define, field

from containerlib.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

__all__ = ["DEVNULL", "PIPE", "STDOUT", "HasFileno", "Input", "Output", "Streams"]

PIPE = -1
"""A new pipe, whose other end the caller gets."""
STDOUT = -2
"""For standard error: the same as standard output."""
DEVNULL = -3
"""Nowhere: reads give end of file, writes are dropped."""

_INVALID = -1


@runtime_checkable
class HasFileno(Protocol):
    """Anything with an open descriptor."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


Input = int | bytes | HasFileno | None
Output = int | HasFileno | None


def _bytes_fd(data: bytes) -> int:
    """A descriptor that reads as `data`; a file, so that nobody has to feed it."""
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _is_marker(name: str, value: object) -> bool:
    """Whether the caller has no descriptor for this stream, so that one has to be opened."""
    if name == "stdin" and isinstance(value, (bytes, bytearray, memoryview)):
        return True
    markers = (PIPE, DEVNULL, STDOUT) if name == "stderr" else (PIPE, DEVNULL)
    return isinstance(value, int) and value in markers


def _descriptor(name: str, value: object, inherited: int) -> int:
    if value is None:
        return inherited
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, HasFileno):
        raise InvalidOption(name, value, "give PIPE, DEVNULL, a descriptor, a file, or None to inherit")
    try:
        return value.fileno()
    except (OSError, ValueError):
        raise InvalidOption(name, value, "this file is closed, or has no descriptor") from None


def _given_fd(name: str, value: object, inherited: int) -> int | None:
    """The caller's own descriptor for a stream; None where one has to be opened."""
    if _is_marker(name, value):
        return None
    fd = _descriptor(name, value, inherited)
    try:
        os.fstat(fd)
    except (OSError, OverflowError):
        if value is not None:
            raise InvalidOption(name, value, "this descriptor is not open") from None
        # A process without this stream, such as a daemon, has nothing to pass on.
        return None
    return fd


@define
class Streams:
    """Descriptors for a container's side, and the caller's ends of pipes.

    Close the container's side as soon as the container has started.
    """

    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None
    stderr: BinaryIO | None = None
    _fds: list[int] = field(factory=list)
    _own: list[int] = field(factory=list)

    @classmethod
    def open(cls, stdin: Input, stdout: Output, stderr: Output, keep: Sequence[int] = ()) -> Self:
        """Resolve the three streams.

        Args:
            stdin: `PIPE`, `DEVNULL`, bytes to be read, a descriptor or file, or None to inherit.
            stdout: `PIPE`, `DEVNULL`, a descriptor or file, or None to inherit.
            stderr: The same, or `STDOUT`.
            keep: Descriptors among these that the caller is about to close.

        Raises:
            InvalidOption: A stream is none of these, or not open.
        """
        asked: tuple[tuple[str, object], ...] = (("stdin", stdin), ("stdout", stdout), ("stderr", stderr))
        # All are looked at before anything is opened: a number that is free now may be taken a moment later.
        given = [_given_fd(name, value, number) for number, (name, value) in enumerate(asked)]
        streams = cls()
        try:
            for (name, value), fd in zip(asked, given, strict=True):
                if fd is not None:
                    streams._fds.append(fd)
                elif name == "stdin":
                    streams._add_input(value)
                else:
                    streams._add_output(name, value)
            for index, fd in enumerate(streams._fds):
                if fd in keep:
                    streams._fds[index] = os.dup(fd)
                    streams._own.append(streams._fds[index])
        except BaseException:
            streams.close_inner()
            streams.close_outer()
            raise
        return streams

    @property
    def inner(self) -> tuple[int, int, int]:
        """Descriptors for the container."""
        return self._fds[0], self._fds[1], self._fds[2]

    def _keep(self, fd: int) -> None:
        self._own.append(fd)
        self._fds.append(fd)

    def _add_input(self, value: object) -> None:
        if isinstance(value, (bytes, bytearray, memoryview)):
            self._keep(_bytes_fd(bytes(value)))
        elif value == PIPE:
            inner, outer = os.pipe2(os.O_CLOEXEC)
            self._keep(inner)
            self.stdin = open(outer, "wb", buffering=0)  # noqa: SIM115 - the caller closes it
        else:
            self._keep(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _add_output(self, name: str, value: object) -> None:
        if value == PIPE:
            outer, inner = os.pipe2(os.O_CLOEXEC)
            self._keep(inner)
            setattr(self, name, open(outer, "rb", buffering=0))  # noqa: SIM115 - the same
        elif value == STDOUT:
            self._fds.append(self._fds[1])
        else:
            self._keep(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))

    def close_inner(self) -> None:
        """Close the container's side."""
        for fd in self._own:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._own.clear()

    def close_outer(self) -> None:
        """Close the caller's ends of pipes."""
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
