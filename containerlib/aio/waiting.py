"""What waits: done in the event loop, with pidfds and pipes, and without a thread that would wait.

Each is the asynchronous form of one method of a handle, which says what it does; here is only how.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

from containerlib.aio.loop import call, ready
from containerlib.api.event_reader import event_reader
from containerlib.api.exec import ExecProcess as SyncExecProcess
from containerlib.api.moments import seconds_of
from containerlib.api.process import for_one_run
from containerlib.api.result import completed
from containerlib.container.communicate import Conversation
from containerlib.container.exec import start_exec
from containerlib.container.kill import KILL_S, begin_stop, stuck
from containerlib.container.logs import LogReader, LogSelection
from containerlib.container.streams import Streams
from containerlib.container.wait_until import Waiting
from containerlib.errors import InvalidOption, InvalidState, OperationTimeout

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from containerlib.api.container import Container
    from containerlib.api.container_looks import ContainerLooks
    from containerlib.api.container_streams import ContainerStreams
    from containerlib.api.engine import Engine
    from containerlib.api.image import Image
    from containerlib.api.options import RunOptions
    from containerlib.api.result import CompletedRun
    from containerlib.container.communicate import Partner
    from containerlib.container.events import Event, EventReader
    from containerlib.container.exec import ExecEntry
    from containerlib.container.logs import LogLine
    from containerlib.container.streams import Input, Output
    from containerlib.container.wait_until import Condition
    from containerlib.options import Security
    from containerlib.runtime.detached import DetachedProcess
    from containerlib.runtime.process import RunningProcess
    from containerlib.runtime.stats import ContainerStats
    from containerlib.runtime.usage import ExitStatus

__all__ = [
    "communicate",
    "container_exec",
    "engine_events",
    "image_call",
    "logs",
    "process_end",
    "restart",
    "stats_stream",
    "stop",
    "wait",
    "wait_until",
]

_LINES = 1000


async def process_end(process: RunningProcess | DetachedProcess, timeout_s: float | None) -> None:
    """Wait until a process has ended, or the time is up."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while process.poll() is None:
        left_s = None if deadline is None else deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            return
        fd = process.duplicate()
        if fd < 0:
            await asyncio.sleep(0)  # another thread is taking note of the end
            continue
        try:
            await ready([fd], left_s)
        finally:
            os.close(fd)


async def wait(sync: Container, *, timeout_s: float | None = None) -> ExitStatus:
    """See `Container.wait`."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        try:
            status = sync.wait(timeout_s=0)
        except OperationTimeout:
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                message = f"container {sync.name!r} is still running after {timeout_s} s"
                raise OperationTimeout(message, timeout_s=timeout_s or 0.0) from None
            if sync.entry.process is not None:
                await process_end(sync.entry.process, left_s)
        else:
            if sync.entry.pump is not None:
                left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                await call(partial(sync.entry.pump.join, left_s))
            return status


async def stop(sync: Container, *, timeout_s: float | None = None) -> ExitStatus | None:
    """See `Container.stop`."""
    entry = sync.entry
    grace_s = entry.config.stop_timeout_s if timeout_s is None else timeout_s
    begun = await call(lambda: begin_stop(entry, grace_s))
    if begun == "over":
        return sync.exit_status
    try:
        status = await wait(sync, timeout_s=grace_s if begun == "ours" else grace_s + KILL_S)
    except OperationTimeout:
        entry.signal(signal.SIGKILL)
        try:
            status = await wait(sync, timeout_s=KILL_S)
        except OperationTimeout:
            raise stuck(entry) from None
    entry.tell("stop")
    return status


async def restart(sync: Container, *, timeout_s: float | None = None) -> None:
    """See `Container.restart`."""
    await stop(sync, timeout_s=timeout_s)
    await call(sync.start)
    sync.entry.tell("restart")


async def wait_until(sync: Container, condition: Condition, *, timeout_s: float | None = None) -> None:
    """See `Container.wait_until`."""
    with Waiting(sync.entry, condition, timeout_s) as waiting:
        while not waiting.is_met():
            await ready(waiting.fds, waiting.left_s)
            waiting.settle()


async def communicate(
    entry: Partner,
    streams: Streams,
    *,
    data: bytes = b"",
    timeout_s: float | None = None,
    limit_bytes: int,
) -> tuple[ExitStatus, bytes, bytes]:
    """See `container.communicate.communicate`; cancelling the task kills the partner as well."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with Conversation(entry, streams, data, limit_bytes) as conversation:
        left_s = timeout_s
        while left_s is None or left_s > 0:
            if conversation.step(0):
                return entry.wait(), *conversation.output()
            await ready([conversation.fileno()], left_s)
            left_s = None if deadline is None else deadline - time.monotonic()
    raise conversation.timed_out(timeout_s)


async def container_exec(
    sync: Container,
    command: Sequence[str],
    *,
    stdin: Input,
    stdout: Output,
    stderr: Output,
    timeout_s: float | None,
    check: bool,
    output_limit_bytes: int,
    env: Mapping[str, str] | Sequence[str] | None,
    workdir: str | None,
    user: str | None,
    security: Security | None,
) -> CompletedRun:
    """See `Container.exec`; cancelling the task kills the command with everything that it has started."""

    def begin() -> ExecEntry:
        return start_exec(
            sync.entry,
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            workdir=workdir,
            user=user,
            security=security,
        )

    entry = await call(begin, undo=lambda entry: SyncExecProcess(entry).close())
    status, out, err = await communicate(
        entry, entry.streams, timeout_s=timeout_s, limit_bytes=output_limit_bytes
    )
    entry.poll()
    return completed(entry.args, status, out, err, check=check)


async def image_call(
    sync: Image,
    command: Sequence[str] | None,
    *,
    stdin: Input,
    stdout: Output,
    stderr: Output,
    timeout_s: float | None,
    check: bool,
    output_limit_bytes: int,
    options: RunOptions,
) -> CompletedRun:
    """See `Image.call`; cancelling the task kills everything in the container and removes it."""
    remove: Callable[[Container], None] = lambda container: container.remove(force=True)  # noqa: E731
    container = await call(
        lambda: sync.run(command, stdin=stdin, stdout=stdout, stderr=stderr, **for_one_run(options)),
        undo=remove,
    )
    entry = container.entry
    try:
        status, out, err = await communicate(
            entry, entry.streams or Streams(), timeout_s=timeout_s, limit_bytes=output_limit_bytes
        )
    except OperationTimeout as error:
        error.add_note(f"command: {' '.join(entry.config.args)}")
        raise
    finally:
        await call(partial(remove, container))
    return completed(entry.config.args, status, out, err, check=check)


async def stats_stream(sync: ContainerLooks, *, interval_s: float = 1.0) -> AsyncIterator[ContainerStats]:
    """See `Container.stats_stream`."""
    if not interval_s > 0:
        raise InvalidOption("interval_s", interval_s, "give more than 0 seconds")
    before = await call(sync.stats)
    yield before
    while True:
        process = sync.entry.process
        fd = -1 if process is None else process.duplicate()
        if fd < 0:
            return
        try:
            if await ready([fd], interval_s):
                return
        finally:
            os.close(fd)
        try:
            now = await call(sync.stats)
        except InvalidState:
            if sync.entry.refresh().is_alive:
                continue  # between two runs of one that its policy starts again
            return
        yield now.since(before)
        before = now


async def logs(
    sync: ContainerStreams,
    *,
    stdout: bool,
    stderr: bool,
    since: dt.datetime | dt.timedelta | None,
    until: dt.datetime | dt.timedelta | None,
    tail: int | None,
    follow: bool,
) -> AsyncIterator[LogLine]:
    """See `Container.logs`."""
    wanted = LogSelection(
        stdout=stdout,
        stderr=stderr,
        since_s=seconds_of(since),
        until_s=seconds_of(until),
        tail=tail,
        follow=follow,
    )
    with LogReader(sync.entry, wanted) as reader:
        present = reader.present()
        while lines := await call(lambda: list(itertools.islice(present, _LINES))):
            for line in lines:
                yield line
        while not reader.is_over:
            for line in await call(reader.step):
                yield line
            if not reader.is_over:
                await ready(reader.fds, reader.left_s)
                reader.settle()


def engine_events(
    sync: Engine,
    *,
    since: dt.datetime | dt.timedelta | None,
    until: dt.datetime | dt.timedelta | None,
    follow: bool,
    types: Collection[str],
    actions: Collection[str],
    containers: Collection[str],
    images: Collection[str],
    labels: Mapping[str, str | None] | None,
) -> AsyncIterator[Event]:
    """See `Engine.events`; begins now and not with the first event that is asked for."""
    return _events(
        event_reader(
            sync.root,
            sync.run_root,
            since=since,
            until=until,
            follow=follow,
            types=types,
            actions=actions,
            containers=containers,
            images=images,
            labels=labels,
        )
    )


async def _events(reader: EventReader) -> AsyncIterator[Event]:
    with reader:
        while not reader.is_over:
            for event in await call(reader.step):
                yield event
            if not reader.is_over:
                await ready(reader.fds, reader.left_s)
                reader.settle()
