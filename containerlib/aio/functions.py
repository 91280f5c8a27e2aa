"""The functions of the package, in an event loop."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Unpack

from containerlib.aio.engine import Engine
from containerlib.aio.loop import call
from containerlib.aio.process import Process
from containerlib.aio.waiting import image_call
from containerlib.aio.wrap import unwrap
from containerlib.api import run as sync_run
from containerlib.api.engine import default_engine as sync_default_engine
from containerlib.container.communicate import DEFAULT_OUTPUT_LIMIT
from containerlib.container.streams import DEVNULL, PIPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.aio.image import Image
    from containerlib.api.images import PullPolicy
    from containerlib.api.options import RunOptions
    from containerlib.api.result import CompletedRun
    from containerlib.container.streams import Input, Output

__all__ = ["Popen", "default_engine", "run"]


def default_engine() -> Engine:
    """The engine that `run` and `Popen` use; the same as without an event loop."""
    engine = Engine.__new__(Engine)
    engine.sync = sync_default_engine()
    return engine


async def run(
    args: Sequence[str] | None = None,
    *,
    image: Image | str,
    pull: PullPolicy = "missing",
    stdin: Input = DEVNULL,
    stdout: Output = PIPE,
    stderr: Output = PIPE,
    timeout_s: float | None = None,
    check: bool = False,
    output_limit_bytes: int = DEFAULT_OUTPUT_LIMIT,
    **options: Unpack[RunOptions],
) -> CompletedRun:
    """Run a command to its end in a new container; see `Image.call` and `containerlib.run`.

    Cancelling the task kills everything in the container and removes it.

    Args:
        args: The command; the image's own if None.
        image: An image, or the name of one.
        pull: When an image given by name is pulled from its registry.
        stdin: See `Image.call`.
        stdout: See `Image.call`.
        stderr: See `Image.call`.
        timeout_s: Kill everything in the container after so many seconds.
        check: Raise `ContainerFailed` if the exit code is not 0.
        output_limit_bytes: Most output to keep.
        options: See `RunOptions`.
    """
    holding = sync_run.held(unwrap(image), pull)
    found = await call(holding.__enter__, undo=lambda _: holding.__exit__(None, None, None))
    try:
        return await image_call(
            found,
            args,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            timeout_s=timeout_s,
            check=check,
            output_limit_bytes=output_limit_bytes,
            options=options,
        )
    finally:
        await call(partial(holding.__exit__, None, None, None))


async def Popen(  # noqa: N802 - named after subprocess.Popen
    args: Sequence[str] | None = None,
    *,
    image: Image | str,
    pull: PullPolicy = "missing",
    stdin: Input = None,
    stdout: Output = None,
    stderr: Output = None,
    **options: Unpack[RunOptions],
) -> Process:
    """Start a command in a new container, with real pipes; see `Process`.

    Args:
        args: The command; the image's own if None.
        image: An image, or the name of one.
        pull: See `run`.
        stdin: `PIPE`, `DEVNULL`, bytes, a descriptor or file; None to inherit.
        stdout: `PIPE`, `DEVNULL`, a descriptor or file; None to inherit.
        stderr: The same, or `STDOUT`.
        options: See `RunOptions`.
    """
    started = await call(
        lambda: sync_run.Popen(
            args, image=unwrap(image), pull=pull, stdin=stdin, stdout=stdout, stderr=stderr, **options
        ),
        undo=lambda process: process.close(),
    )
    return Process(started)
