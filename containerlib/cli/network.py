"""``containerlib network``: makes networks, shows them, removes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.cli.options import parse_label, parse_network_option
from containerlib.cli.output import FORMAT_OPTION, QUIET_OPTION, print_json, print_table, short_id
from containerlib.cli.prune import network_prune
from containerlib.cli.run_options import parsing
from containerlib.errors import ContainerlibError, NetworkNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.api.network import Network

__all__ = ["network"]

_FAILED = 1


def _create(
    *,
    name: str,
    subnet: str | None,
    gateway: str | None,
    internal: bool,
    labels: Sequence[tuple[str, str]],
    options: Sequence[tuple[str, int]],
) -> None:
    with Engine() as engine:
        made = engine.networks.create(
            name,
            subnet=subnet,
            gateway=gateway,
            internal=internal,
            labels=dict(labels),
            **dict(options),
        )
    print(made.id)


def _ls(*, style: str, quiet: bool) -> None:
    with Engine() as engine:
        found = engine.networks.list()
    if quiet:
        print("".join(f"{short_id(each.id)}\n" for each in found), end="")
    elif style == "json":
        for each in found:
            print_json(_document(each))
    else:
        rows = [
            (short_id(each.id), each.name, each.driver, str(each.subnet), "yes" if each.internal else "no")
            for each in found
        ]
        print_table(("NETWORK ID", "NAME", "DRIVER", "SUBNET", "INTERNAL"), rows)


def _document(network: Network) -> dict[str, object]:
    return {
        "id": network.id,
        "name": network.name,
        "driver": network.driver,
        "subnet": str(network.subnet),
        "gateway": str(network.gateway),
        "internal": network.internal,
        "mtu": network.mtu,
        "labels": network.labels,
        "created_at": network.created_at.timestamp(),
    }


def _inspect(*, names: Sequence[str]) -> int:
    """Print what is found as one array; what is not found does not keep the rest."""
    found, problems = [], []
    with Engine() as engine:
        for name in names:
            try:
                found.append(engine.networks.get(name).inspect().to_json())
            except NetworkNotFound as error:
                problems.append(str(error))
    print(json.dumps(found, indent=4))
    return _complain(problems)


def _rm(*, names: Sequence[str]) -> int:
    problems = []
    with Engine() as engine:
        for name in names:
            try:
                engine.networks.get(name).remove()
                print(name)
            except ContainerlibError as error:
                problems.append(str(error))
    return _complain(problems)


def _connect(
    *, name: str, container: str, ip_address: str | None, mac_address: str | None, aliases: Sequence[str]
) -> None:
    with Engine() as engine:
        engine.networks.get(name).connect(
            container, ip_address=ip_address, mac_address=mac_address, aliases=aliases
        )


def _disconnect(*, name: str, container: str) -> None:
    with Engine() as engine:
        engine.networks.get(name).disconnect(container)


def _complain(problems: Sequence[str]) -> int:
    for problem in problems:
        click.echo(f"containerlib: {problem}", err=True)
    return _FAILED if problems else 0


def _names() -> click.Argument:
    return click.Argument(["names"], nargs=-1, required=True, metavar="NETWORK...")


network = click.Group(
    "network",
    commands=[
        click.Command(
            "connect",
            callback=_connect,
            params=[
                click.Option(["--ip", "ip_address"], metavar="ADDRESS", help="Its address there."),
                click.Option(["--mac-address"], metavar="MAC", help="Address of its device there."),
                click.Option(
                    ["--alias", "aliases"],
                    metavar="NAME",
                    multiple=True,
                    help="What the others there find it by, besides its name.",
                ),
                click.Argument(["name"], metavar="NETWORK"),
                click.Argument(["container"], metavar="CONTAINER"),
            ],
            help="Have a container in a network as well.",
        ),
        click.Command(
            "disconnect",
            callback=_disconnect,
            params=[
                click.Argument(["name"], metavar="NETWORK"),
                click.Argument(["container"], metavar="CONTAINER"),
            ],
            help="Have a container in a network no more.",
        ),
        click.Command(
            "create",
            callback=_create,
            params=[
                click.Option(
                    ["-d", "--driver"], type=click.Choice(["bridge"]), expose_value=False, help="The kind."
                ),
                click.Option(["--subnet"], metavar="SUBNET", help="Such as 10.5.0.0/24."),
                click.Option(["--gateway"], metavar="ADDRESS", help="The host's address in it."),
                click.Option(["--internal"], is_flag=True, help="Reach nothing but the host and each other."),
                click.Option(
                    ["--label", "labels"],
                    metavar="NAME=VALUE",
                    multiple=True,
                    callback=parsing(parse_label),
                    help="Set a label.",
                ),
                click.Option(
                    ["-o", "--opt", "options"],
                    metavar="NAME=VALUE",
                    multiple=True,
                    callback=parsing(parse_network_option),
                    help="An option of the driver: com.docker.network.driver.mtu=BYTES.",
                ),
                click.Argument(["name"], metavar="NAME"),
            ],
            help="Make a network, and print its id.",
        ),
        click.Command(
            "inspect",
            callback=_inspect,
            params=[_names()],
            help="Show everything about networks as an array of JSON, in Docker's form.",
        ),
        click.Command("ls", callback=_ls, params=[FORMAT_OPTION(), QUIET_OPTION()], help="List networks."),
        network_prune,
        click.Command("rm", callback=_rm, params=[_names()], help="Remove networks that no container is in."),
    ],
    help="Networks between containers and this host.",
)
