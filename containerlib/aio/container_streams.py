"""What a container writes, seen from outside."""

# made by containerlib.aio.generate; change the module of the same name in containerlib.api
from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio import waiting, wrap
from containerlib.aio.container_handle import ContainerHandle
from containerlib.aio.loop import call

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator

    from containerlib.aio.attachment import Attachment
    from containerlib.api import container_streams as sync_module
    from containerlib.container.logs import LogLine
__all__ = ["ContainerStreams"]


class ContainerStreams(ContainerHandle):
    """What can be done with the output of a container; a part of `Container`."""

    sync: sync_module.ContainerStreams

    async def attach(self, *, logs: bool = False) -> Attachment:
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
        return wrap.attachment(await call(lambda: self.sync.attach(logs=logs)))

    def logs(
        self,
        *,
        stdout: bool = True,
        stderr: bool = True,
        since: dt.datetime | dt.timedelta | None = None,
        until: dt.datetime | dt.timedelta | None = None,
        tail: int | None = None,
        follow: bool = False,
    ) -> AsyncIterator[LogLine]:
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
        return waiting.logs(
            self.sync, stdout=stdout, stderr=stderr, since=since, until=until, tail=tail, follow=follow
        )
