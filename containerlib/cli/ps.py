"""``containerlib ps``: the containers of every process that uses the store."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import attrs
import click

from containerlib.api.engine import Engine
from containerlib.cli.filters import FILTER_OPTION, Filters
from containerlib.cli.output import FORMAT_OPTION, QUIET_OPTION, human_age, print_json, print_table, short_id
from containerlib.container.listing import ContainerRecord, list_records
from containerlib.container.state import ContainerState
from containerlib.errors import InvalidReference
from containerlib.image.prune import has_labels
from containerlib.oci.reference import Reference
from containerlib.store.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.api.container import Container

__all__ = ["ps"]

_HEADER = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES")
_COMMAND_WIDTH = 40


def _ps(
    *,
    all_states: bool,
    style: str,
    quiet: bool,
    whole: bool,
    last: int | None,
    latest: bool,
    conditions: Sequence[tuple[str, str]],
) -> None:
    if latest and last is not None:
        raise click.UsageError("--latest is --last 1; give one of them")
    filters = Filters(conditions)
    last = 1 if latest else last
    with Engine() as engine:
        records = list_records(Layout(engine.root, engine.run_root))
        # An engine that has just been opened has no others.
        records += map(_detached, engine.containers.list())
        records.sort(key=lambda record: (record.created_at, record.id), reverse=True)
    # As in Docker, who asks for a state or for the last ones wants those that do not run as well.
    any_state = all_states or last is not None or filters.many("status") or filters.many("exited")
    chosen = _Chosen(filters, records)
    shown = [record for record in records if (any_state or record.state.is_alive) and chosen.has(record)]
    shown = shown[:last]
    if quiet:
        print("".join(f"{record.id if whole else short_id(record.id)}\n" for record in shown), end="")
    elif style == "json":
        for record in shown:
            print_json(attrs.asdict(record))
    else:
        print_table(_HEADER, [_row(record, whole=whole) for record in shown])


class _Chosen:
    """What ``--filter`` lets through. Values of one condition are alternatives, conditions hold together."""

    def __init__(self, filters: Filters, records: Sequence[ContainerRecord]) -> None:
        states = filters.many("status")
        for state in states:
            if state not in set(ContainerState):
                raise click.UsageError(f"filter status={state!r}: one of {', '.join(ContainerState)}")
        exited = filters.many("exited")
        if not all(code.isdigit() for code in exited):
            raise click.UsageError(f"filter exited={exited}: give exit codes")
        self._states, self._exited = states, {int(code) for code in exited}
        self._ids, self._names = filters.many("id"), filters.many("name")
        self._images, self._labels = filters.many("ancestor"), filters.labels()
        self._before = _find(records, filters.one("before"), "before")
        self._since = _find(records, filters.one("since"), "since")

    def has(self, record: ContainerRecord) -> bool:
        """Whether a container meets all conditions."""
        made = (record.created_at, record.id)
        return (
            (not self._states or record.state in self._states)
            and (not self._exited or self._has_exit(record))
            and (not self._ids or any(record.id.startswith(each) for each in self._ids))
            and (not self._names or any(each in record.name for each in self._names))
            and (not self._images or any(_is_of(record.image, each) for each in self._images))
            and has_labels(record.labels, self._labels, {})
            and (self._before is None or made < self._before)
            and (self._since is None or made > self._since)
        )

    def _has_exit(self, record: ContainerRecord) -> bool:
        return record.state == ContainerState.EXITED and record.exit_code in self._exited


def _find(records: Sequence[ContainerRecord], key: str | None, name: str) -> tuple[float, str] | None:
    """When the container that a condition names was made."""
    if key is None:
        return None
    found = [record for record in records if record.name == key or record.id.startswith(key)]
    if len(found) != 1:
        raise click.UsageError(f"filter {name}={key!r}: no such container, or several")
    return found[0].created_at, found[0].id


def _is_of(image: str, wanted: str) -> bool:
    """Whether a container's image is the one that a condition names, by id or by reference."""
    if image.removeprefix("sha256:").startswith(wanted.removeprefix("sha256:")):
        return True
    try:
        return image == Reference.parse(wanted).canonical
    except InvalidReference:
        return False


def _detached(container: Container) -> ContainerRecord:
    entry, status = container.entry, container.exit_status
    return ContainerRecord(
        id=entry.id,
        name=entry.name,
        image=entry.image_name,
        command=entry.config.args,
        state=entry.state,
        created_at=entry.created_at,
        exit_code=None if status is None or entry.state.is_alive else status.exit_code,
        labels=entry.config.labels,
        engine_id="",
    )


def _row(record: ContainerRecord, *, whole: bool) -> tuple[str, ...]:
    command = shlex.join(record.command)
    if len(command) > _COMMAND_WIDTH and not whole:
        command = f"{command[: _COMMAND_WIDTH - 3]}..."
    image = short_id(record.image) if record.image.startswith("sha256:") else record.image
    status = str(record.state)
    if record.exit_code is not None:
        status += f" ({record.exit_code})"
    identity = record.id if whole else short_id(record.id)
    return identity, image, command, human_age(record.created_at), status, record.name


ps = click.Command(
    "ps",
    callback=_ps,
    params=[
        click.Option(["-a", "--all", "all_states"], is_flag=True, help="Those that do not run as well."),
        click.Option(
            ["-n", "--last"],
            type=click.IntRange(min=1),
            metavar="N",
            help="The last N that were made, in any state.",
        ),
        click.Option(["-l", "--latest"], is_flag=True, help="The last one made, in any state."),
        click.Option(["--no-trunc", "whole"], is_flag=True, help="Show ids and commands whole."),
        FILTER_OPTION("id", "name", "label", "status", "exited", "ancestor", "before", "since"),
        QUIET_OPTION(),
        FORMAT_OPTION(),
    ],
    help="List the running containers of all processes that use this store, and its detached ones.",
)
