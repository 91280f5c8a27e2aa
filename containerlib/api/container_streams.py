"""What a container writes, seen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.api.container_handle import ContainerHandle
from containerlib.api.moments import seconds_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from containerlib.api.attachment import Attachment
    from containerlib.container.logs import LogLine

__all__ = ["ContainerStreams"]


class ContainerStreams(ContainerHandle):
    """What can be done with the output of a container; a part of `Container`."""

    def attach(self, *, logs: bool = False) -> Attachment:
        """The streams of a detached container that runs, from now on; what was written before is in the log.

        Any number of programs, up to 16, may be attached at once; each gets all output. There is input if it
        was created with ``stdin_open=True``, or has a terminal.

        Args:
            logs: Whether `Attachment.earlier` has what the log has of this start: together with the streams
                that is everything, each byte once.

        Raises:
            InvalidState: It does not run, is not detached, or its supervisor was killed.
            StoreCorrupted: With `logs`: the log is damaged.

        Cost: with `logs`, reads the whole log.
        """
        from containerlib.api.attachment import Attachment  # noqa: PLC0415 - needed by few
        from containerlib.container.attach import attach, written_before  # noqa: PLC0415

        attached = attach(self._entry)
        if not logs:
            return Attachment(attached)
        try:
            return Attachment(attached, written_before(self._entry, attached.log_ns))
        except BaseException:
            Attachment(attached).close()
            raise

    def logs(
        self,
        *,
        stdout: bool = True,
        stderr: bool = True,
        since: dt.datetime | dt.timedelta | None = None,
        until: dt.datetime | dt.timedelta | None = None,
        tail: int | None = None,
        follow: bool = False,
    ) -> Iterator[LogLine]:
        """What a detached container has written, line by line, of all its starts that the log still has.

        The log lies beside its layer, in files of 16 MiB, of which the last four are kept. Nobody who reads
        it holds the container up. What was given as `stdout` or `stderr` at the start is not in it.

        Args:
            stdout: Whether lines of standard output are wanted, or of the terminal.
            stderr: Whether lines of standard error are.
            since: Only lines from this time on, or from so long ago on.
            until: Only lines up to this time, or up to so long ago.
            tail: Only the last so many of the lines that are there.
            follow: Go on with lines as they are written, until the container has ended. Closing the iterator
                ends it before.

        Raises:
            InvalidState: The container is not detached, or was removed.
            InvalidOption: `tail` is negative, or no stream is wanted.
            StoreCorrupted: A file is no part of a log; raised while reading.

        Cost: reads the whole log, some 500 MB/s, whatever is wanted of it.
        """
        from containerlib.container.logs import LogSelection, read_logs  # noqa: PLC0415 - needed by few

        wanted = LogSelection(
            stdout=stdout,
            stderr=stderr,
            since_s=seconds_of(since),
            until_s=seconds_of(until),
            tail=tail,
            follow=follow,
        )
        return read_logs(self._entry, wanted)
