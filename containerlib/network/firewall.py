"""What may pass between networks: one table of nftables for this host, the same for every store on it.

Rules know networks by the names of their bridges, so that a container costs none. Those of networks with a
way out begin with ``cl-o``, those of internal ones with ``cl-i``. The set `bridges` has each of them once.

Source: nftables(8).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from containerlib._native.netlink import Netlink, NetlinkError
from containerlib._util.failpoint import reach
from containerlib.errors import UnsupportedHost
from containerlib.network import link
from containerlib.network import nftables as nft
from containerlib.network.fault import clear_leftovers
from containerlib.network.other_firewall import close_way, open_way
from containerlib.network.sender_lock import remove_locks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from containerlib._native.netlink import Message
    from containerlib.network.record import NetworkRecord

__all__ = [
    "ALL_PORTS",
    "ONE_ADDRESS_PORTS",
    "TABLE",
    "admit",
    "admit_bridge",
    "admit_changing",
    "changing",
    "expel",
    "is_guarded",
    "passes_on",
    "repair",
]

TABLE = "containerlib"
_GUARD = "containerlib-guard"
_BRIDGES, _DEVICES = "bridges", "devices"
_ANY, _OPEN, _BRIDGE_NAMES = "cl-", "cl-o", ("cl-o", "cl-i")
_ESTABLISHED, _TRANSLATED = 2 | 4, 1 << 5  # the first: and related
_FILTER, _SOURCE_NAT, _DESTINATION_NAT = 0, 100, -100
ONE_ADDRESS_PORTS, ALL_PORTS = "ports", "ports-of-all"
"""Maps of published ports: the keys of the first have an address."""

_PORT_MAPS = ((ONE_ADDRESS_PORTS, True), (ALL_PORTS, False))

_LOCK = "/proc/sys/net/ipv4/tcp_fastopen_key"
_FORWARDING = "/proc/sys/net/ipv4/ip_forward"


def _rules() -> list[Message]:
    """The whole table, from nothing."""
    to_world = (*nft.name_begins("in", _OPEN), *nft.name_begins("out", _ANY, is_equal=False))
    within = (nft.load_name("in"), nft.load_name("out", 2), nft.lookup(_BRIDGES))
    translated = nft.connection_is(_TRANSLATED, of_status=True)
    return [
        nft.add_table(TABLE, is_new=True),
        nft.add_set(TABLE, _BRIDGES, nft.NAME, nft.NAME),
        *(nft.add_port_map(TABLE, name, with_address=with_address) for name, with_address in _PORT_MAPS),
        nft.add_chain(TABLE, "forward", hook="forward", kind="filter", priority=_FILTER),
        nft.add_chain(TABLE, "postrouting", hook="postrouting", kind="nat", priority=_SOURCE_NAT),
        *_translation(),
        nft.add_rule(TABLE, "forward", *nft.connection_is(_ESTABLISHED), nft.verdict(nft.ACCEPT)),
        # Between ports of one bridge; such packets come here if the host has bridges filtered.
        nft.add_rule(TABLE, "forward", *within, nft.verdict(nft.ACCEPT)),
        nft.add_rule(TABLE, "forward", *to_world, nft.verdict(nft.ACCEPT)),
        nft.add_rule(TABLE, "forward", *translated, nft.verdict(nft.ACCEPT)),
        nft.add_rule(TABLE, "forward", *nft.name_begins("in", _ANY), nft.verdict(nft.DROP)),
        nft.add_rule(TABLE, "forward", *nft.name_begins("out", _ANY), nft.verdict(nft.DROP)),
        nft.add_rule(TABLE, "postrouting", *to_world, nft.masquerade()),
    ]


def _translation() -> Iterator[Message]:
    """Published ports, for who comes from elsewhere and for the host itself; loopback is left alone.

    Containers are served by who listens at the port: a packet that goes back to the network from which it has
    come takes other ways than all others, and none to its sender.
    """
    for chain in ("prerouting", "output"):
        yield nft.add_chain(TABLE, chain, hook=chain, kind="nat", priority=_DESTINATION_NAT)
        for name, with_address in _PORT_MAPS:
            rule = nft.translate_destination(name, with_address=with_address)
            from_elsewhere = nft.name_begins("in", _ANY, is_equal=False) if chain == "prerouting" else ()
            yield nft.add_rule(TABLE, chain, *from_elsewhere, *rule)


@contextlib.contextmanager
def changing() -> Iterator[None]:
    """Be the only one on this host who makes or removes bridges and rules, for the length of a block.

    The lock is on a file that each network namespace has: all stores share it, and none is left behind. Of
    those only root may open this one: nobody else can hold the lock, and in a container it is another file.
    """
    fd = os.open(_LOCK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def admit(record: NetworkRecord) -> None:
    """Make sure that the rules are there, and that they know a network; nothing happens if they do.

    A network with a way out needs this host to pass packets on. If it has not until now it does from here on,
    but not between the devices that it has at this moment.

    Raises:
        UnsupportedHost: The kernel has no nftables, or this process may not use them.

    Cost: some 80 us where all is as it should be.
    """
    with _connected() as connection:
        if _is_admitted(connection, record):
            return
    with changing():
        admit_changing(record)


def admit_changing(record: NetworkRecord) -> None:
    """Do what `admit` does, for a caller inside `changing`."""
    with _connected() as connection:
        if not _knows(connection, record.bridge):
            _teach(connection, record.bridge)
        open_way(connection)
        if not record.internal:
            _pass_on(connection)


@contextlib.contextmanager
def _connected() -> Iterator[Netlink]:
    try:
        with Netlink(nft.NETFILTER) as connection:
            yield connection
    except OSError as error:
        raise UnsupportedHost(
            "a network of its own", needed="nftables, and CAP_NET_ADMIN", found=str(error.strerror)
        ) from None


def _is_admitted(connection: Netlink, record: NetworkRecord) -> bool:
    return _knows(connection, record.bridge) and (record.internal or passes_on())


def admit_bridge(name: str) -> None:
    """Make sure that the rules know a further bridge of a network; the caller is inside `changing`."""
    with _connected() as connection:
        if not _knows(connection, name):
            _teach(connection, name)


def _knows(connection: Netlink, name: str) -> bool:
    try:
        connection.call(nft.get_element(TABLE, _BRIDGES, 2 * nft.name_key(name)))
    except NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True


def _teach(connection: Netlink, name: str) -> None:
    element = nft.add_element(TABLE, _BRIDGES, 2 * nft.name_key(name))
    reach("firewall", TABLE)
    try:
        connection.batch(nft.batch_begin(), [*_rules(), element], nft.batch_end())
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        connection.batch(nft.batch_begin(), [element], nft.batch_end())


def repair(*, with_guard: bool) -> None:
    """Make the rules anew if somebody has taken something of them away.

    What is said of single containers is for others to say again; see `translation` and `sender_lock`.

    Args:
        with_guard: Whether what was said of the host's own devices when forwarding was switched on held until
            now.

    Cost: 0.2 ms where all is as it should be.
    """
    with changing(), _connected() as connection:
        if with_guard and passes_on() and not _has_guard(connection):
            _guard(connection)
        bridges = [name for name in _devices() if name.startswith(_BRIDGE_NAMES)]
        if not bridges:
            return  # the last network was removed
        open_way(connection)
        if _is_whole(connection):
            return
        elements = [nft.add_element(TABLE, _BRIDGES, 2 * nft.name_key(name)) for name in bridges]
        clean = [nft.add_table(TABLE), nft.delete_table(TABLE)]
        reach("firewall", TABLE)
        connection.batch(nft.batch_begin(), [*clean, *_rules(), *elements], nft.batch_end())


def is_guarded() -> bool:
    """Whether the host's own devices are kept apart, because we have switched forwarding on."""
    with _connected() as connection:
        return _has_guard(connection)


def passes_on() -> bool:
    """Whether this host passes packets on."""
    return _forwarding() != "0"


def _has_guard(connection: Netlink) -> bool:
    return _has_elements(connection, _GUARD, _DEVICES)


def _is_whole(connection: Netlink) -> bool:
    wanted = sum(map(nft.is_rule, _rules()))
    try:
        rules = sum(1 for _ in connection.dump(nft.list_rules(TABLE)))
    except NetlinkError:
        return False
    # A map goes only after the rules that use it.
    return rules == wanted and _has_elements(connection, TABLE, _BRIDGES)


def expel(names: Iterable[str]) -> None:
    """After the removal of a network's bridges: forget them, and with the last one of the host all rules.

    The caller is inside `changing`, and has been since before that removal.

    Raises:
        OSError: The kernel cannot be reached; it can be called again.
    """
    with Netlink(nft.NETFILTER) as connection:
        # What somebody has flushed need not be removed.
        for name in names:
            _try(connection, nft.delete_element(TABLE, _BRIDGES, 2 * nft.name_key(name)))
        if _has_bridges():
            return
        _try(connection, nft.delete_table(TABLE))
        close_way(connection)
        remove_locks()
        clear_leftovers()
        _stop_passing_on(connection)


def _try(connection: Netlink, message: Message) -> None:
    reach("firewall", TABLE)
    with contextlib.suppress(NetlinkError):
        connection.batch(nft.batch_begin(), [message], nft.batch_end())


def _has_bridges() -> bool:
    """Whether a network of any store has its bridge, whatever the rules know."""
    return any(name.startswith(_BRIDGE_NAMES) for name in _devices())


def _has_elements(connection: Netlink, table: str, name: str) -> bool:
    try:
        return any(nft.has_elements(body) for body in connection.dump(nft.list_elements(table, name)))
    except NetlinkError:
        return False  # there is no such table


def _pass_on(connection: Netlink) -> None:
    if not passes_on():
        _guard(connection)
        _set_forwarding("1")


def _guard(connection: Netlink) -> None:
    messages = [
        nft.add_table(_GUARD),
        nft.add_set(_GUARD, _DEVICES, nft.NAME),
        nft.add_chain(_GUARD, "forward", hook="forward", kind="filter", priority=_FILTER),
        nft.add_rule(
            _GUARD,
            "forward",
            nft.load_name("in"),
            nft.lookup(_DEVICES),
            nft.load_name("out"),
            nft.lookup(_DEVICES),
            nft.verdict(nft.DROP),
        ),
        *(nft.add_element(_GUARD, _DEVICES, nft.name_key(name)) for name in _foreign_devices()),
    ]
    reach("firewall", _GUARD)
    connection.batch(nft.batch_begin(), messages, nft.batch_end())


def _stop_passing_on(connection: Netlink) -> None:
    """Put it back as it was, unless somebody has come since who may need it."""
    if not _has_guard(connection):
        return
    if all(_is_known(connection, name) for name in _foreign_devices()):
        _set_forwarding("0")
        _try(connection, nft.delete_table(_GUARD))


def _is_known(connection: Netlink, name: str) -> bool:
    try:
        connection.call(nft.get_element(_GUARD, _DEVICES, nft.name_key(name)))
    except NetlinkError:
        return False
    return True


def _foreign_devices() -> list[str]:
    return [name for name in _devices() if not name.startswith(_ANY)]


def _devices() -> list[str]:
    with Netlink() as connection:
        return [each.name for each in link.list_links(connection)]


def _forwarding() -> str:
    with open(_FORWARDING, encoding="ascii") as file:
        return file.read().strip()


def _set_forwarding(value: str) -> None:
    reach("network setting", _FORWARDING)
    with open(_FORWARDING, "w", encoding="ascii") as file:
        file.write(value)
