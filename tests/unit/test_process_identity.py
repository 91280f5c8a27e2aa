"""Processes that can be told from later ones with the same number."""

import os

from containerlib.runtime.adopted import ProcessIdentity


def test_a_process_is_found_by_its_identity() -> None:
    """The identity of a living process opens that process."""
    fd = ProcessIdentity.of(os.getpid()).open()
    assert fd >= 0
    os.close(fd)


def test_the_identity_of_an_ended_process_fits_none() -> None:
    """A process that has gone before it was asked for, and one that is known to have ended, open nothing."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    assert ProcessIdentity.of(pid).open() == -1
    assert ProcessIdentity.of(os.getpid()).ended().open() == -1
