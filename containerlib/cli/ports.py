"""Published ports in Docker's words, and ``containerlib port``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, cast

import click

from containerlib.network_options import EVERY_ADDRESS, PortMapping

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["parse_publish", "port"]

_FORM = re.compile(
    r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):)?(?:(?P<outer>[0-9-]*):)?(?P<inner>[0-9-]+)(?:/(?P<protocol>\w+))?"
)


def parse_publish(text: str) -> tuple[PortMapping, ...]:
    """``"[[ADDRESS:][HOSTPORT]:]PORT[/PROTOCOL]"``; both ports may be ranges.

    Without an address it is every address of the host, as in Docker; without a port of the host a free one.
    """
    found = _FORM.fullmatch(text)
    host = found["host"] if found else None
    outer = found["outer"] if found else None
    if found is not None and outer is None and host is not None:
        # One colon: what stands before it is a port.
        host, outer = (None, host) if re.fullmatch(r"[0-9-]+", host) else ("", None)
    if found is None or host == "":
        raise ValueError("write [[ADDRESS:][HOSTPORT]:]PORT[/PROTOCOL]")
    protocol = cast("Literal['tcp', 'udp']", found["protocol"] or "tcp")  # looked at there
    inside = _range(found["inner"])
    outside: Sequence[int | None] = _range(outer) if outer else [None] * len(inside)
    if len(inside) != len(outside):
        raise ValueError("the two ranges have to be of the same length")
    return tuple(
        PortMapping(
            container_port=port,
            host_port=host_port,
            host=host.strip("[]") if host else EVERY_ADDRESS,
            protocol=protocol,
        )
        for port, host_port in zip(inside, outside, strict=True)
    )


def _range(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    if not first.isdecimal() or not (last if dash else first).isdecimal():
        raise ValueError(f"{text!r} is neither a port nor a range of ports")
    ports = list(range(int(first), int(last or first) + 1))
    if not ports:
        raise ValueError(f"the range {text!r} is empty")
    return ports


@click.command()
@click.argument("container")
@click.argument("wanted", metavar="[PORT[/PROTOCOL]]", required=False)
def port(container: str, wanted: str | None) -> None:
    """Show where ports of a running CONTAINER are reached."""
    from containerlib.api.engine import Engine  # noqa: PLC0415 - not for who only parses

    with Engine() as engine:
        found = engine.containers.get(container).ports
    for each in found:
        inside = f"{each.container_port}/{each.protocol}"
        host = f"[{each.host}]" if ":" in each.host else each.host
        if wanted is None:
            print(f"{inside} -> {host}:{each.host_port}")
        elif wanted in {inside, inside.removesuffix("/tcp")}:
            print(f"{host}:{each.host_port}")
    if wanted is not None and not any(
        wanted in {f"{each.container_port}/{each.protocol}", str(each.container_port)} for each in found
    ):
        raise click.ClickException(f"container {container!r} has not published port {wanted}")
