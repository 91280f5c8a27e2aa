"""``update``: other limits for a container that runs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from containerlib.oci_cli.errors import OciError
from containerlib.oci_cli.store import read_json
from containerlib.runtime.cgroup_resources import device_rules, settings_of

if TYPE_CHECKING:
    from argparse import Namespace

    from containerlib.oci_cli.log import Log
    from containerlib.oci_cli.store import Store

__all__ = ["update_command"]

_FLAGS = {
    "blkio_weight": ("blockIO", "weight"),
    "cpu_period": ("cpu", "period"),
    "cpu_quota": ("cpu", "quota"),
    "cpu_burst": ("cpu", "burst"),
    "cpu_share": ("cpu", "shares"),
    "cpu_idle": ("cpu", "idle"),
    "cpuset_cpus": ("cpu", "cpus"),
    "cpuset_mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
    "pids_limit": ("pids", "limit"),
}


def update_command(store: Store, options: Namespace, log: Log) -> None:
    """Change the limits of a container; those that are not named stay.

    Raises:
        ContainerlibError: It has ended, or the kernel refused a value.
    """
    del log
    with store.locked(options.id):
        container = store.get(options.id)
        if container.status == "stopped":
            raise OciError("cannot update a stopped container")
        wanted = _resources(options)
        if container.unit:
            # First, because it writes what it is told into the same files.
            _tell_systemd(container.unit, wanted)
        container.cgroup.apply_in_any_order(settings_of(wanted, container.cgroup))
        rules = device_rules(wanted)
        if rules is not None:
            container.cgroup.set_devices(rules)


def _tell_systemd(unit: str, resources: dict[str, Any]) -> None:
    from containerlib.runtime.systemd import set_properties  # noqa: PLC0415 - on hosts that systemd runs
    from containerlib.runtime.systemd_scope import properties_of  # noqa: PLC0415

    properties = properties_of(resources, {})
    if properties:
        set_properties(unit, properties)


def _resources(options: Namespace) -> dict[str, Any]:
    if options.resources:
        if options.resources != "-":
            return read_json(options.resources)
        try:
            found = json.load(sys.stdin)
        except ValueError as error:
            raise OciError(f"standard input: {error}") from None
        if not isinstance(found, dict):
            raise OciError("standard input: is no JSON object")
        return found
    wanted: dict[str, Any] = {}
    for flag, (block, key) in _FLAGS.items():
        value = getattr(options, flag)
        if value not in {None, ""}:
            wanted.setdefault(block, {})[key] = value
    return wanted
