"""What is wrong with a container's place in a network, as the caller sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from containerlib.container.entry import ContainerEntry
    from containerlib.network.fault import Fault
    from containerlib.network.record import NetworkRecord

__all__ = ["NetworkFault"]


class NetworkFault:
    """Something that is wrong, until it is cleared. As a context manager it clears itself."""

    def __init__(self, entry: ContainerEntry, record: NetworkRecord, fault: Fault) -> None:
        """Take over what has begun."""
        self._entry = entry
        self._record = record
        self._fault = fault

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def __repr__(self) -> str:
        return f"<NetworkFault {self._fault} of {self._entry.name} in {self._record.name}>"

    def clear(self) -> None:
        """Have nothing wrong there any more. Calling it again does nothing, nor after the container's end."""
        from containerlib.container.network_fault import end  # noqa: PLC0415 - needed by few

        end(self._entry, self._record)
