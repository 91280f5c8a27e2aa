"""The image that ``containerlib run`` and ``create`` are told to use."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from containerlib.cli.progress import shown_progress
from containerlib.image.host import DEFAULT_COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from containerlib.api.engine import Engine
    from containerlib.api.image import Image

__all__ = ["chosen_image"]

_HOST_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def _is_on_host(program: str) -> bool:
    if "/" in program:
        places = [program] if program.startswith("/") else []
    else:
        places = [f"{directory}/{program}" for directory in _HOST_DIRECTORIES]
    return any(os.path.isfile(place) and os.access(place, os.X_OK) for place in places)


def _host_image(engine: Engine, program: str) -> Image:
    """The small userland with `program`; what the host lacks too is left for the container to miss."""
    if program in DEFAULT_COMMANDS or not _is_on_host(program):
        return engine.images.from_host()
    return engine.images.from_host([*filter(_is_on_host, DEFAULT_COMMANDS), program])


@contextlib.contextmanager
def chosen_image(engine: Engine, values: Mapping[str, Any]) -> Iterator[tuple[Image, Sequence[str] | None]]:
    """The image to run, which nobody can prune meanwhile, and the command if there is one."""
    arguments: Sequence[str] = values["arguments"]
    if values["from_host"]:
        yield _host_image(engine, values["entrypoint"] or arguments[0]), arguments
        return
    with contextlib.ExitStack() as stack:
        with shown_progress("Pull complete", quiet=not sys.stderr.isatty()) as progress:
            held = engine.images.hold(arguments[0], pull=values["pull"], progress=progress)
            image = stack.enter_context(held)
        yield image, arguments[1:] or None
