"""Leases: what keeps the content of an unfinished operation from being collected.

One file per operation, locked by `flock` for as long as its process lives, so that a lease ends with its
holder however that dies. The file says who holds it, for people, and lists the digests that must stay.
Whoever deletes content reads the leases first and the references after: an operation sets its reference
before it drops its lease, so at every moment one of the two protects the content.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import attrs

from containerlib._util import file_lock, strict_json
from containerlib._util.atomic_file import append, make_directory, remove_file
from containerlib.errors import InvalidDigest, InvalidInputError
from containerlib.oci.digest import Digest
from containerlib.store.boot import boot_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from containerlib.store.layout import Layout

__all__ = ["Holder", "Lease", "LeaseStore"]

_READ_LIMIT = 64 << 20


@attrs.frozen
class Holder:
    """The process that holds a lease: a number alone may since belong to another process.

    Attributes:
        pid: Process id in the holder's PID namespace.
        start_ticks: When it started, in clock ticks since boot.
        boot_id: Which boot of the machine.
    """

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def current(cls) -> Holder:
        """Return this process."""
        with open("/proc/self/stat", "rb") as file:
            # The name in parentheses may hold anything; the start time is field 22, the 20th after it.
            start_ticks = int(file.read().rpartition(b")")[2].split()[19])
        return cls(os.getpid(), start_ticks, boot_id())


class Lease:
    """The right to rely on content that no reference protects yet. Made by `LeaseStore.acquire`."""

    def __init__(self, layout: Layout, lease_id: str, fd: int) -> None:
        self.id = lease_id
        self._layout = layout
        self._fd = fd
        self._pid = os.getpid()

    def protect(self, digests: Iterable[Digest]) -> None:
        """Keep `digests` (of blobs, or chain ids of snapshots) until the lease ends.

        Whether they exist must be asked after this, not before: until here they may be deleted.
        """
        lines = "".join(f"{digest}\n" for digest in digests).encode()
        with file_lock.locked(self._layout.collection_lock, shared=True):
            append(self._fd, lines, self._path)

    def release(self) -> None:
        """End the lease; safe to call again. In a forked child the lease stays the parent's."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                if self._pid == os.getpid():
                    remove_file(self._path)
            finally:
                os.close(fd)

    @property
    def _path(self) -> str:
        return f"{self._layout.leases}/{self.id}"


@attrs.frozen
class LeaseStore:
    """All leases of one store."""

    layout: Layout

    @contextlib.contextmanager
    def acquire(self, purpose: str) -> Iterator[Lease]:
        """Hold a new lease for the length of a block.

        Args:
            purpose: What the operation is, for people who look at the file.
        """
        lease = self._create(purpose)
        try:
            yield lease
        finally:
            lease.release()

    def is_alive(self, lease_id: str) -> bool:
        """Say whether the lease exists and its holder lives."""
        fd = self._lock_of_dead(lease_id)
        if fd is None:
            return os.path.exists(f"{self.layout.leases}/{lease_id}")
        os.close(fd)
        return False

    def protected(self) -> set[Digest]:
        """Return every digest that a live lease protects, and remove the leases of dead holders.

        Must be called with the collection lock held exclusively.
        """
        result: set[Digest] = set()
        for lease_id in self._ids():
            fd = self._lock_of_dead(lease_id)
            if fd is None:
                result |= self._digests(lease_id)
            else:
                remove_file(f"{self.layout.leases}/{lease_id}")
                os.close(fd)
        return result

    def survey(self) -> set[Digest]:
        """Return every digest that a live lease protects, and change nothing."""
        result: set[Digest] = set()
        for lease_id in self._ids():
            if self.is_alive(lease_id):
                result |= self._digests(lease_id)
        return result

    def _create(self, purpose: str) -> Lease:
        make_directory(self.layout.leases)
        while True:
            lease_id = os.urandom(8).hex()
            fd = file_lock.acquire(f"{self.layout.leases}/{lease_id}", blocking=False)
            if fd is not None:
                break
        lease = Lease(self.layout, lease_id, fd)
        holder = {"purpose": purpose, **attrs.asdict(Holder.current())}
        try:
            append(fd, strict_json.dumps(holder) + b"\n", f"{self.layout.leases}/{lease_id}")
        except BaseException:
            lease.release()
            raise
        return lease

    def _ids(self) -> list[str]:
        try:
            return os.listdir(self.layout.leases)
        except FileNotFoundError:
            return []

    def _lock_of_dead(self, lease_id: str) -> int | None:
        """Lock a lease that nobody holds; None if it is held or gone."""
        try:
            return file_lock.acquire(f"{self.layout.leases}/{lease_id}", blocking=False, create=False)
        except FileNotFoundError:
            return None

    def _digests(self, lease_id: str) -> set[Digest]:
        try:
            with open(f"{self.layout.leases}/{lease_id}", "rb") as file:
                lines = file.read(_READ_LIMIT).decode("ascii", "replace").split("\n")
        except FileNotFoundError:
            return set()
        result: set[Digest] = set()
        for line in lines[1:]:
            with contextlib.suppress(InvalidDigest, InvalidInputError):
                result.add(Digest(line))
        return result
