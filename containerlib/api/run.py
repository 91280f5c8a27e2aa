"""`containerlib.run` and `containerlib.Popen`: the engine in the shape of `subprocess`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Unpack

from containerlib.api.engine import default_engine
from containerlib.api.image import Image
from containerlib.api.process import Process
from containerlib.container.communicate import DEFAULT_OUTPUT_LIMIT
from containerlib.container.streams import DEVNULL, PIPE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from containerlib.api.images import PullPolicy
    from containerlib.api.options import RunOptions
    from containerlib.api.result import CompletedRun
    from containerlib.container.streams import Input, Output

__all__ = ["Popen", "held", "run"]


def held(image: Image | str, pull: PullPolicy) -> AbstractContextManager[Image]:
    """The image, which nobody can prune before it runs."""
    if isinstance(image, Image):
        return contextlib.nullcontext(image)
    return default_engine().images.hold(image, pull=pull)


def run(
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
    """Run a command to its end in a new container; see `Image.call`.

    Args:
        args: The command; the image's own if None.
        image: An image, or the name of one.
        pull: When an image given by name is pulled from its registry: ``"missing"`` if the default engine's
            store does not have it, ``"always"``, or ``"never"``.
        stdin: Bytes to be read, `DEVNULL` (the default), a descriptor or file; None to inherit.
        stdout: `PIPE` to capture (the default), `DEVNULL`, a descriptor or file; None to inherit.
        stderr: The same, or `STDOUT`.
        timeout_s: Kill everything in the container after so many seconds.
        check: Raise `ContainerFailed` if the exit code is not 0.
        output_limit_bytes: Most output to keep.
        options: See `RunOptions`.
    """
    with held(image, pull) as found:
        return found.call(
            args,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            timeout_s=timeout_s,
            check=check,
            output_limit_bytes=output_limit_bytes,
            **options,
        )


def Popen(  # noqa: N802 - named after subprocess.Popen
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
        pull: When an image given by name is pulled from its registry: ``"missing"`` if the default engine's
            store does not have it, ``"always"``, or ``"never"``.
        stdin: `PIPE`, `DEVNULL`, bytes, a descriptor or file; None to inherit.
        stdout: `PIPE`, `DEVNULL`, a descriptor or file; None to inherit.
        stderr: The same, or `STDOUT`.
        options: See `RunOptions`.
    """
    with held(image, pull) as found:
        return Process(found, args, stdin=stdin, stdout=stdout, stderr=stderr, **options)
