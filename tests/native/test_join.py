"""What is opened of a process that ends meanwhile: that it ended is said, whatever the kernel said."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

import containerlib as cl
from containerlib.runtime import join


class Process:
    """Stands for a container's first process; its number is free again as soon as `is_alive` is False."""

    def __init__(self, *, is_alive: bool) -> None:
        self.pid = os.getpid()
        self.is_alive = is_alive


@pytest.mark.parametrize("error", [FileNotFoundError, ProcessLookupError, PermissionError])
def test_a_process_that_ends_meanwhile(monkeypatch: pytest.MonkeyPatch, error: type[OSError]) -> None:
    """Reaped between two steps of its path's lookup, a process gives EACCES, not ENOENT."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise error(0, "as the kernel says")

    monkeypatch.setattr(join.os, "open", refuse)
    with (
        pytest.raises(cl.InvalidState, match="has ended"),
        join.namespaces(Process(is_alive=False), "web"),
    ):
        raise AssertionError("not reached")


def test_a_refusal_is_none_of_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the process lives, that the kernel refuses its namespaces is said as it is."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(join.os, "open", refuse)
    with pytest.raises(PermissionError), join.namespaces(Process(is_alive=True), "web"):
        raise AssertionError("not reached")
