"""``containerlib create`` and ``update``: containers made and not started, and changed while they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import click

from containerlib.api.engine import Engine
from containerlib.cli.run_image import chosen_image
from containerlib.cli.run_options import RUN_OPTIONS, by_flag, check_detached, limits_of, run_options
from containerlib.errors import ContainerlibError, InvalidOption
from containerlib.options import Resources

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["create", "update"]

_FAILED = 1
# Somebody would have to wait for the container.
_ONLY_FOR_RUN = frozenset({"detach", "timeout_s"})
# It cannot change for processes that there are already.
_UPDATED = {field.name for field in attrs.fields(Resources)} - {"oom_score_adj"}


def _create(**values: Any) -> None:
    values |= {"detach": True, "timeout_s": None}
    if not values["arguments"]:
        raise click.UsageError("name a command" if values["from_host"] else "name an image")
    check_detached(values, is_detached=True)
    try:
        with Engine() as engine, chosen_image(engine, values) as (image, command):
            print(engine.containers.create(image, command, **run_options(values)).id)
    except InvalidOption as error:
        raise click.UsageError(by_flag(error), ctx=click.get_current_context()) from None


def _update(*, names: Sequence[str], restart: Any, **values: Any) -> int:
    limits = limits_of(values)
    if not limits and restart is None:
        raise click.UsageError("name what to change, such as --memory")
    code = 0
    with Engine() as engine:
        for name in names:
            try:
                container = engine.containers.get(name)
                resources = attrs.evolve(container.entry.config.resources, **limits) if limits else None
                container.update(resources, restart=restart)
            except ContainerlibError as error:
                click.echo(f"containerlib: {error}", err=True)
                code = _FAILED
            else:
                print(name)
    return code


create = click.Command(
    "create",
    callback=_create,
    params=[option for option in RUN_OPTIONS if option.name not in _ONLY_FOR_RUN],
    help="Make a container without starting it, and print its id.\n\n"
    "It stays until it is removed. Options behind IMAGE belong to the command in the container.",
    short_help="Make a container without starting it.",
    context_settings={"allow_interspersed_args": False},
)
update = click.Command(
    "update",
    callback=_update,
    params=[
        *(option for option in RUN_OPTIONS if option.name in {*_UPDATED, "restart"}),
        click.Argument(["names"], nargs=-1, required=True, metavar="CONTAINER..."),
    ],
    help="Change limits or the restart policy of running containers; what is not given stays.",
    short_help="Change limits of running containers.",
)
