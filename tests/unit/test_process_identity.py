"""A process is known by more than its number."""

from __future__ import annotations

import os

import pytest
from attrs import evolve

from containerlib.runtime.identity import ProcessIdentity


def test_a_process_is_recognised() -> None:
    """This process is alive and gives a pidfd."""
    own = ProcessIdentity.of(os.getpid())
    assert own.is_alive
    fd = own.open()
    assert fd >= 0
    os.close(fd)


def test_a_later_process_with_the_number_is_another_one() -> None:
    """Another start time or another boot means that it has ended: nobody is signalled."""
    own = ProcessIdentity.of(os.getpid())
    for other in (evolve(own, start_ticks=own.start_ticks + 1), evolve(own, boot_id="another")):
        assert not other.is_alive
        assert other.open() == -1


def test_a_number_that_nobody_has() -> None:
    """A process that does not exist has no identity, and one that has ended no pidfd."""
    with pytest.raises(ProcessLookupError):
        ProcessIdentity.of(2**22 + 1)
    ended = evolve(ProcessIdentity.of(os.getpid()), pid=2**22 + 1)
    assert not ended.is_alive
    assert ended.open() == -1
