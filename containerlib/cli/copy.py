"""``containerlib cp``: files between a container and its host."""

from __future__ import annotations

import sys

import click

from containerlib.api.engine import Engine

__all__ = ["cp"]

_STREAM = "-"


def _split(text: str) -> tuple[str | None, str]:
    """Container and path of ``CONTAINER:PATH``; None for a path of the host.

    As with Docker, what begins with a slash or a dot is the host's, whatever colons it has.
    """
    name, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")) or "/" in name:
        return None, text
    return name, path if path.startswith("/") else f"/{path}"


def _cp(*, source: str, target: str, archive: bool, follow_link: bool) -> None:
    (from_name, from_path), (to_name, to_path) = _split(source), _split(target)
    if (from_name is None) == (to_name is None):
        raise click.UsageError("exactly one of both has to be CONTAINER:PATH")
    with Engine() as engine:
        if from_name is not None:
            container = engine.containers.get(from_name)
            if to_path == _STREAM:
                container.get_archive(from_path, sys.stdout.buffer, follow_links=follow_link)
            else:
                container.get(from_path, to_path, archive=archive, follow_links=follow_link)
        else:
            container = engine.containers.get(to_name or "")
            if from_path == _STREAM:
                container.put_archive(sys.stdin.buffer, to_path)
            else:
                container.put(from_path, to_path, archive=archive, follow_links=follow_link)


cp = click.Command(
    "cp",
    callback=_cp,
    params=[
        click.Option(["-a", "--archive"], is_flag=True, help="Keep owners, set-id bits, and attributes."),
        click.Option(["-L", "--follow-link"], is_flag=True, help="Follow a link that is named itself."),
        click.Argument(["source"], metavar="CONTAINER:PATH|PATH|-"),
        click.Argument(["target"], metavar="CONTAINER:PATH|PATH|-"),
    ],
    help="Copy files between a container, running or not, and this host; '-' is a tar archive.",
    short_help="Copy files between a container and this host.",
)
