"""What a network costs a start: the same container in none, in the host's, in a bridge network, published.

    python benchmarks/network.py [--rounds 60] [--rows none,host,...] [--json FILE] [--check]

Each round makes and starts one container of Debian's static busybox and removes it; only the start is
measured, until the command was executed. `port` has a free port of the loopback addresses, `every address`
one of all, `two networks` is in two. `answer` is no start but the answer to a question for the name of a
container, asked by the host. `kernel` is what a network namespace, a pair of devices on a bridge,
their addresses and routes take without any container: nothing can be faster. Rows are interleaved. Needs
root, gcc and busybox-static. `--check` ends with status 1 if a target is missed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from measure import MissingRowError, summary
from report import Target, arguments, at_most, conclude, print_table, settings_of
from start import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peers import Place

NONE, HOST, BRIDGE, KERNEL = "none", "host", "bridge", "kernel"
PORT, ALL, TWO, ANSWER = "port", "every address", "two networks", "answer"
ROWS = (NONE, HOST, BRIDGE, PORT, ALL, TWO, ANSWER, KERNEL)
COMMAND = ["busybox", "sleep", "100000"]


class Starts:
    """Containers of one engine in its networks."""

    def __init__(self, place: Place, stack: contextlib.ExitStack) -> None:
        import containerlib as cl  # noqa: PLC0415 - the checkout, if not installed: see `prepare`

        self._engine = stack.enter_context(cl.Engine(place.make("cl"), place.make("cl-run")))
        self._image = self._engine.images.from_directory(place.rootfs, reference="bench:1")
        self._network = stack.enter_context(self._engine.networks.create("bench"))
        stack.enter_context(self._engine.networks.create("more"))
        stack.enter_context(self._engine.networks.create("crowd", subnet="10.254.0.0/20", internal=True))
        self._nowhere = cl.DEVNULL
        service = self._engine.containers.create(self._image, COMMAND, network="bench", name="service")
        stack.enter_context(service).start()
        every = cl.PortMapping(container_port=7, host="*")
        self._options: dict[str, dict[str, Any]] = {
            BRIDGE: {"network": "bench"},
            PORT: {"network": "bench", "ports": [7]},
            ALL: {"network": "bench", "ports": [every]},
            TWO: {"network": "bench", "networks": ["more"]},
        }

    def measure(self, row: str) -> float:
        """Start one; return the microseconds that took."""
        options = self._options.get(row, {"network": row})
        container = self._engine.containers.create(self._image, COMMAND, layer="memory", **options)
        begin = time.perf_counter()
        container.start()
        taken = time.perf_counter() - begin
        container.remove(force=True)
        return taken * 1e6

    def crowd(self) -> dict[str, float]:
        """Start many: 200 by eight threads, and 500 one after the other in one network."""
        made: list[Any] = []
        threads = [threading.Thread(target=lambda: made.extend(self._some(25))) for _ in range(8)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = len(made) / (time.perf_counter() - begin)
        for each in made:
            each.remove(force=True)
        times = []
        made = []
        for _ in range(500):
            begin = time.perf_counter()
            made += self._some(1)
            times.append(time.perf_counter() - begin)
        for each in made:
            each.remove(force=True)
        return {"each": 1e3 / rate, "growth": median(times[-50:]) / median(times[:50])}

    def _some(self, count: int) -> list[Any]:
        options: dict[str, Any] = {"network": "crowd", "layer": "memory"}
        nowhere = dict.fromkeys(("stdin", "stdout", "stderr"), self._nowhere)
        return [self._image.run(COMMAND, **nowhere, **options) for _ in range(count)]

    def answer(self) -> float:
        """Ask for a name; return the microseconds until the answer."""
        question = struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + b"\7service\0" + struct.pack("!HH", 1, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.connect((str(self._network.gateway), 53))
            begin = time.perf_counter()
            made.send(question)
            made.recv(512)
            return (time.perf_counter() - begin) * 1e6


def kernel(stack: contextlib.ExitStack) -> Callable[[], float]:
    """Return what measures the kernel's part alone."""
    from ipaddress import ip_interface  # noqa: PLC0415 - for this row alone

    from containerlib._native.netlink import Netlink, new_network  # noqa: PLC0415 - see `Starts`
    from containerlib.network import link  # noqa: PLC0415 - see `Starts`

    here = stack.enter_context(Netlink())
    here.call(link.add_bridge("clb-floor", mac=b"\2\0\0\0\0\1", mtu=1500))
    bridge = here.index_of("clb-floor")
    stack.callback(here.call, link.delete(bridge))
    here.call(link.raise_link(bridge))

    def measure() -> float:
        name = f"clb{os.urandom(5).hex()}"
        begin = time.perf_counter()
        fd = new_network()
        here.call(
            link.add_pair(name, master=bridge, mtu=1500, peer="eth0", peer_mac=b"\2\0\0\0\0\2", network_fd=fd)
        )
        with Netlink(namespace_fd=fd) as inside:
            index = inside.index_of("eth0")
            inside.call(
                link.raise_link(1),
                link.add_address(index, ip_interface("10.255.255.2/24")),
                link.raise_link(index),
                link.add_default_route(index, ip_interface("10.255.255.1/24").ip),
            )
        taken = time.perf_counter() - begin
        os.close(fd)
        return taken * 1e6

    return measure


def take_times(
    actions: Mapping[str, Callable[[], float]], *, rounds: int, warmup: int
) -> dict[str, list[float]]:
    """Do everything once a round, and return what each says that it took."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(warmup + rounds):
        for name, action in actions.items():
            taken = action()
            if turn >= warmup:
                times[name].append(taken)
    return times


def targets(medians: Mapping[str, float], crowd: Mapping[str, float]) -> list[Target]:
    """Return what is asked of the medians, and of many at once."""

    def added(row: str, to: str) -> float | None:
        return (medians[row] - medians[to]) / 1e3 if {row, to} <= medians.keys() else None

    answer = medians[ANSWER] / 1e3 if ANSWER in medians else None
    return [
        at_most("added by a bridge network, ms", added(BRIDGE, NONE), 1.5),
        at_most("added by a published port, ms", added(PORT, BRIDGE), 0.3),
        at_most("added by a port of every address, ms", added(ALL, BRIDGE), 0.3),
        at_most("an answer to a question for a name, ms", answer, 1.0),
        at_most("each of 200 by eight threads, ms", crowd["each"], 10.0),
        at_most("cost of the last 50 of 500 in one network, as that of the first", crowd["growth"], 1.5),
    ]


def main() -> int:
    """Run the benchmark that the command line asks for."""
    chosen = arguments(__doc__, "network", rounds=60, warmup=5)
    settings = settings_of(chosen, "tmpfs")
    missing: dict[str, str] = {}
    actions: dict[str, Callable[[], float]] = {}
    with contextlib.ExitStack() as stack:
        place = prepare(stack)
        starts = Starts(place, stack)
        for name in chosen.rows or ROWS:
            try:
                actions[name] = (
                    kernel(stack)
                    if name == KERNEL
                    else starts.answer
                    if name == ANSWER
                    else partial(starts.measure, name)
                )
            except (MissingRowError, OSError) as error:
                missing[name] = str(error)
        times = take_times(actions, rounds=chosen.rounds, warmup=chosen.warmup)
        crowd = starts.crowd()
    numbers = {name: summary(samples) for name, samples in times.items()}
    rows = [
        [name, *(f"{row[key] / 1e3:.2f}" for key in ("median", "p95", "min"))]
        for name, row in numbers.items()
    ]
    print_table("Starts in networks", ["row", "median ms", "p95 ms", "min ms"], rows)
    holds = conclude(
        times=times,
        extras={"crowd": crowd},
        missing=missing,
        targets=targets({name: row["median"] for name, row in numbers.items()}, crowd),
        settings=settings,
        json_path=chosen.json,
    )
    return 1 if not holds and chosen.check else 0


if __name__ == "__main__":
    sys.exit(main())
