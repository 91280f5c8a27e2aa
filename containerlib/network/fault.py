"""Faults of one container's place in a network: loss, delay, a narrow line; both ways, until cleared.

Loss is a table of nftables of its own for each device, so that it comes and goes in one step. Delay and rate
are queues of the device and of the one in the container.

Source: nftables(8), tc-netem(8), tc-tbf(8); linux/pkt_sched.h.
"""

from __future__ import annotations

import contextlib
import errno
import struct
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib._native.netlink import Message, Netlink, NetlinkError, attribute, text_attribute
from containerlib._util.failpoint import reach
from containerlib.errors import UnsupportedHost
from containerlib.network import nftables as nft

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Fault", "clear_fault", "clear_leftovers", "set_fault"]

_TABLE = "containerlib-fault-"
_NEW_QUEUE, _DELETE_QUEUE = 36, 37
_CREATE, _REPLACE = 0x400, 0x100
_QUEUE = struct.Struct("=BxxxiIII")
_ROOT, _HANDLE = 0xFFFFFFFF, 0x10000
_KIND, _OPTIONS = 1, 2
_RATE = struct.Struct("=BBHhHI")
_ETHERNET = 1
_BURST_BYTES, _LIMIT_BYTES, _LIMIT_PACKETS = 16 << 10, 256 << 10, 10_000
_MILLIONTHS = 1_000_000


@frozen(kw_only=True)
class Fault:
    """What is wrong with a place in a network.

    Attributes:
        drop: The part of the packets that is lost, from 0 to 1.
        delay_s: How much later packets arrive, in seconds.
        rate_bytes_per_s: How much goes through; None for all.
    """

    drop: float = 0.0
    delay_s: float = 0.0
    rate_bytes_per_s: int | None = None


def set_fault(fault: Fault, device: str, interface: str, namespace_fd: int) -> None:
    """Have a fault at a place in a network, instead of what was wrong there before.

    Args:
        fault: It.
        device: The device of the container on the host.
        interface: The same in the container.
        namespace_fd: The container's network namespace.

    Raises:
        UnsupportedHost: The kernel cannot do that; then nothing is wrong there.
    """
    clear_fault(device, interface, namespace_fd)
    reach("set fault", device)
    try:
        if fault.drop:
            with Netlink(nft.NETFILTER) as connection:
                _send(connection, _losses(device, fault.drop))
        queue = _queue(fault)
        if queue is not None:
            for name, namespace in ((device, None), (interface, namespace_fd)):
                with Netlink(namespace_fd=namespace) as connection:
                    body = _QUEUE.pack(0, connection.index_of(name), _HANDLE, _ROOT, 0)
                    connection.call(Message(_NEW_QUEUE, _CREATE | _REPLACE, body + queue))
    except OSError as error:
        clear_fault(device, interface, namespace_fd)
        raise _refused(fault, error) from None
    except BaseException:
        clear_fault(device, interface, namespace_fd)
        raise


def clear_fault(device: str, interface: str = "", namespace_fd: int | None = None) -> None:
    """Have nothing wrong at a place in a network; what is gone is no error."""
    reach("clear fault", device)
    with contextlib.suppress(OSError), Netlink(nft.NETFILTER) as connection:
        _send(connection, [nft.delete_table(_TABLE + device)])
    for name, namespace in ((device, None), (interface, namespace_fd)):
        if name and (name == device or namespace is not None):
            with contextlib.suppress(OSError), Netlink(namespace_fd=namespace) as connection:
                body = _QUEUE.pack(0, connection.index_of(name), 0, _ROOT, 0)
                connection.call(Message(_DELETE_QUEUE, 0, body))


def clear_leftovers() -> None:
    """With the last network of the host: forget the faults of those that are gone."""
    with contextlib.suppress(OSError), Netlink(nft.NETFILTER) as connection:
        for name in list(nft.table_names(connection.dump(nft.of_bridges(nft.list_tables())))):
            if name.startswith(_TABLE):
                _send(connection, [nft.delete_table(name)])


def _send(connection: Netlink, messages: Iterable[Message]) -> None:
    connection.batch(nft.batch_begin(), [nft.of_bridges(each) for each in messages], nft.batch_end())


def _losses(device: str, part: float) -> list[Message]:
    table = _TABLE + device
    messages = [nft.add_table(table)]
    chance = [] if part >= 1 else nft.by_chance(round(part * _MILLIONTHS), _MILLIONTHS)
    for side, hook in (("in", "prerouting"), ("out", "postrouting")):
        here = (nft.load_name(side), nft.compare(nft.name_key(device)))
        messages.append(nft.add_chain(table, hook, hook=hook, kind="filter", priority=0))
        messages.append(nft.add_rule(table, hook, *here, *chance, nft.verdict(nft.DROP)))
    return messages


def _queue(fault: Fault) -> bytes | None:
    rate = fault.rate_bytes_per_s
    if fault.delay_s:
        nanoseconds = round(fault.delay_s * 1e9)
        options = struct.pack("=IIIIII", 0, _LIMIT_PACKETS, 0, 0, 0, 0) + attribute(
            10, struct.pack("=q", nanoseconds)
        )
        if rate is not None:
            options += attribute(6, struct.pack("=IiIi", rate, 0, 0, 0))
        return text_attribute(_KIND, "netem") + attribute(_OPTIONS, options)
    if rate is None:
        return None
    spec = _RATE.pack(0, _ETHERNET, 0, 0, 0, rate)
    parameters = spec + bytes(_RATE.size) + struct.pack("=III", _LIMIT_BYTES, 0, 0)
    burst = attribute(6, struct.pack("=I", _BURST_BYTES))
    return text_attribute(_KIND, "tbf") + attribute(_OPTIONS, [attribute(1, parameters), burst])


def _refused(fault: Fault, error: OSError) -> Exception:
    if isinstance(error, NetlinkError) and error.errno in {errno.ENOENT, errno.EOPNOTSUPP}:
        needed = "netem, a queue of the kernel (CONFIG_NET_SCH_NETEM)" if fault.delay_s else "a queue (tbf)"
        wanted = "a delay" if fault.delay_s else "a rate" if fault.rate_bytes_per_s else "a loss"
        return UnsupportedHost(f"{wanted} in a network", needed=needed, found=str(error.strerror))
    return error
