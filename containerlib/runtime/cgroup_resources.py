"""``linux.resources`` of the OCI runtime specification as files of control groups, for both versions.

In: the object as it stands in config.json. Out: `Setting` values, and device rules. A zero or an absent value
means "leave it as it is", as it does for runc and crun.

Source: OCI runtime-spec 1.2, config-linux.md, "Control groups"; for what version 2 makes of the fields of
version 1, crun(1) and runc's docs/cgroup-v2.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from containerlib.errors import InvalidOption, UnsupportedHost
from containerlib.runtime.cgroup_limits import Setting, io_weight_from_blkio, weight_from_shares
from containerlib.runtime.device_rules import DEFAULT_RULES, DeviceRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from containerlib.runtime.cgroup_limits import HostLimits

__all__ = ["device_rules", "number_of", "settings_of"]

_ALL_ACCESS: Final = "rwm"
_V2: Final = 2


def settings_of(resources: Mapping[str, Any], host: HostLimits) -> list[Setting]:
    """Everything that has to be written, in order.

    Raises:
        InvalidOption: A value is of another type than it should be.
        UnsupportedHost: A controller or a file that is needed is missing.
    """
    found: list[Setting] = []
    for key, translate in _TRANSLATIONS.items():
        value = resources.get(key)
        if value:
            _refuse_unsupported(key, value, host)
            if not isinstance(value, list if key == "hugepageLimits" else dict):
                raise InvalidOption(f"linux.resources.{key}", value, "is of another type than it must be")
            found += translate(value, host)
    for each in found:
        if host.version(each.controller) is None:
            raise UnsupportedHost(
                f"linux.resources, {each.option}",
                needed=f"the cgroup controller {each.controller!r} (file {each.file})",
                found="none that is usable",
            )
    return found


def _refuse_unsupported(key: str, block: Any, host: HostLimits) -> None:
    """Refuse what would be left out, be it by us or because version 2 has no such thing."""
    for controller, versions, field in _UNSUPPORTED.get(key, ()):
        version = host.version(controller)
        # Of this one alone zero is a value.
        is_asked = isinstance(block, dict) and (
            block.get(field) is not None if field == "swappiness" else bool(block.get(field))
        )
        if is_asked and version in versions:
            raise UnsupportedHost(
                f"linux.resources.{key}.{field}",
                needed="control groups, and a runtime, that have such a limit",
                found=f"cgroup v{version} and containerlib",
            )


_UNSUPPORTED: Final[Mapping[str, tuple[tuple[str, tuple[int, ...], str], ...]]] = {
    "memory": (
        *(("memory", (1, 2), field) for field in ("kernel", "kernelTCP", "checkBeforeUpdate")),
        *(("memory", (2,), field) for field in ("swappiness", "disableOOMKiller")),
    ),
    "cpu": (("cpu", (2,), "realtimeRuntime"), ("cpu", (2,), "realtimePeriod")),
    "blockIO": (("io", (1, 2), "leafWeight"),),
}
"""By block: controller, versions of it that lack the field, the field."""


def device_rules(resources: Mapping[str, Any]) -> tuple[DeviceRule, ...] | None:
    """The rules for devices from the first, with those that every container has behind them; or None.

    Raises:
        InvalidOption: A rule has another form.
    """
    entries = resources.get("devices")
    if not entries:
        return None
    try:
        asked = [
            DeviceRule(
                allow=bool(entry["allow"]),
                kind=entry.get("type") or "a",
                major=_device_number(entry.get("major")),
                minor=_device_number(entry.get("minor")),
                access=entry.get("access") or _ALL_ACCESS,
            )
            for entry in entries
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidOption("linux.resources.devices", entries, f"a rule is wrong: {error!r}") from None
    return (*asked, *(rule for rule in DEFAULT_RULES if rule.allow))


def _device_number(value: int | None) -> int | None:
    return None if value is None or value < 0 else value


def _text(value: int, *, unlimited: str) -> str:
    return unlimited if value < 0 else str(value)


def number_of(block: Mapping[str, Any], key: str, where: str) -> int:
    """The number at `key`; 0 if there is none.

    Args:
        block: An object of ``linux.resources``.
        key: The field.
        where: What the object is called there.

    Raises:
        InvalidOption: It is none.
    """
    value = block.get(key) or 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidOption(f"linux.resources.{where}.{key}", value, "must be a number")
    return value


def _memory(block: Mapping[str, Any], host: HostLimits) -> Iterator[Setting]:
    limit, swap = number_of(block, "limit", "memory"), number_of(block, "swap", "memory")
    reservation = number_of(block, "reservation", "memory")
    is_v2 = host.version("memory") == _V2
    if limit:
        file, word = ("memory.max", "max") if is_v2 else ("memory.limit_in_bytes", "-1")
        yield Setting("memory", file, _text(limit, unlimited=word), None, "memory.limit")
    if swap and is_v2:
        # Memory and swap together there, swap alone here.
        alone = swap if swap < 0 else swap - limit
        if alone >= 0 and limit < 0:
            raise InvalidOption("linux.resources.memory.swap", swap, "needs a limit of memory as well")
        yield Setting("memory", "memory.swap.max", _text(alone, unlimited="max"), None, "memory.swap")
    elif swap:
        yield Setting(
            "memory", "memory.memsw.limit_in_bytes", _text(swap, unlimited="-1"), None, "memory.swap"
        )
    if reservation:
        file, word = ("memory.low", "max") if is_v2 else ("memory.soft_limit_in_bytes", "-1")
        yield Setting("memory", file, _text(reservation, unlimited=word), None, "memory.reservation")
    if block.get("swappiness") is not None:
        value = str(number_of(block, "swappiness", "memory"))
        yield Setting("memory", "memory.swappiness", value, None, "memory.swappiness")
    if block.get("disableOOMKiller"):
        yield Setting("memory", "memory.oom_control", "1", None, "memory.disableOOMKiller")


def _cpu(block: Mapping[str, Any], host: HostLimits) -> Iterator[Setting]:
    quota, period = number_of(block, "quota", "cpu"), number_of(block, "period", "cpu")
    if host.version("cpu") == _V2:
        if number_of(block, "shares", "cpu"):
            yield Setting("cpu", "cpu.weight", str(weight_from_shares(block["shares"])), None, "cpu.shares")
        if quota or period:
            limit = "max" if quota <= 0 else str(quota)
            yield Setting("cpu", "cpu.max", f"{limit} {period or 100000}", None, "cpu.quota")
        files = _CPU_V2
    else:
        files = _CPU_V1
    for key, file in files:
        if number_of(block, key, "cpu"):
            yield Setting("cpu", file, str(block[key]), None, f"cpu.{key}")
    if block.get("idle") is not None:
        yield Setting("cpu", "cpu.idle", str(number_of(block, "idle", "cpu")), None, "cpu.idle")
    for key in ("cpus", "mems"):
        if block.get(key):
            yield Setting("cpuset", f"cpuset.{key}", str(block[key]), None, f"cpu.{key}")


_CPU_V1: Final[tuple[tuple[str, str], ...]] = (
    ("shares", "cpu.shares"),
    ("period", "cpu.cfs_period_us"),
    ("quota", "cpu.cfs_quota_us"),
    ("burst", "cpu.cfs_burst_us"),
    ("realtimePeriod", "cpu.rt_period_us"),
    ("realtimeRuntime", "cpu.rt_runtime_us"),
)
_CPU_V2: Final[tuple[tuple[str, str], ...]] = (("burst", "cpu.max.burst"),)


def _pids(block: Mapping[str, Any], _host: HostLimits) -> Iterator[Setting]:
    limit = number_of(block, "limit", "pids")
    if limit:
        yield Setting("pids", "pids.max", _text(limit, unlimited="max"), None, "pids.limit")


_RATES: Final = (
    ("throttleReadBpsDevice", "read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "write_iops_device", "wiops"),
)


def _block_io(block: Mapping[str, Any], host: HostLimits) -> Iterator[Setting]:
    is_v2 = host.version("io") == _V2
    weight = number_of(block, "weight", "blockIO")
    if weight:
        file = _weight_file(host, is_v2=is_v2)
        value = io_weight_from_blkio(weight) if file == "io.weight" else weight
        yield Setting("io", file, str(value), None, "blockIO.weight")
    for entry in block.get("weightDevice") or ():
        value, device = number_of(entry, "weight", "blockIO.weightDevice"), _device(entry)
        if not value and not entry.get("leafWeight"):
            raise InvalidOption(
                "linux.resources.blockIO.weightDevice", device, "has neither weight nor leafWeight"
            )
        if value:
            file = _weight_file(host, is_v2=is_v2)
            name = file if is_v2 else file.replace("weight", "weight_device")
            yield Setting("io", name, f"{device} {value}", None, "blockIO.weightDevice")
    for key, file, word in _RATES:
        for entry in block.get(key) or ():
            rate, device = number_of(entry, "rate", f"blockIO.{key}"), _device(entry)
            if is_v2:
                yield Setting("io", "io.max", f"{device} {word}={rate or 'max'}", None, f"blockIO.{key}")
            else:
                yield Setting("io", f"blkio.throttle.{file}", f"{device} {rate}", None, f"blockIO.{key}")


def _device(entry: Mapping[str, Any]) -> str:
    return f"{number_of(entry, 'major', 'blockIO')}:{number_of(entry, 'minor', 'blockIO')}"


def _weight_file(host: HostLimits, *, is_v2: bool) -> str:
    names = ("io.bfq.weight", "io.weight") if is_v2 else ("blkio.weight", "blkio.bfq.weight")
    file = next((name for name in names if host.has_file("io", name)), None)
    if file is None:
        raise UnsupportedHost(
            "linux.resources.blockIO.weight",
            needed=f"the cgroup file {names[0]} or {names[1]}",
            found="neither; use the I/O scheduler bfq",
        )
    return file


def _huge_pages(entries: list[Mapping[str, Any]], host: HostLimits) -> Iterator[Setting]:
    word = "max" if host.version("hugetlb") == _V2 else "limit_in_bytes"
    for entry in entries:
        size, limit = entry.get("pageSize"), number_of(entry, "limit", "hugepageLimits")
        yield Setting("hugetlb", f"hugetlb.{size}.{word}", str(limit), None, "hugepageLimits")
        file = f"hugetlb.{size}.rsvd.{word}"
        if host.has_file("hugetlb", file):
            yield Setting("hugetlb", file, str(limit), None, "hugepageLimits")


def _network(block: Mapping[str, Any], _host: HostLimits) -> Iterator[Setting]:
    if number_of(block, "classID", "network"):
        yield Setting("net_cls", "net_cls.classid", str(block["classID"]), None, "network.classID")
    for entry in block.get("priorities") or ():
        value = f"{entry.get('name')} {number_of(entry, 'priority', 'network.priorities')}"
        yield Setting("net_prio", "net_prio.ifpriomap", value, None, "network.priorities")


def _rdma(block: Mapping[str, Any], _host: HostLimits) -> Iterator[Setting]:
    for device, limits in block.items():
        words = [
            f"{word}={limits[key]}"
            for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
            if limits.get(key) is not None
        ]
        yield Setting("rdma", "rdma.max", " ".join([device, *words]), None, "rdma")


def _unified(block: Mapping[str, Any], host: HostLimits) -> Iterator[Setting]:
    for file, text in block.items():
        controller = file.partition(".")[0]
        if "/" in file or host.version(controller) != _V2 or not host.has_file(controller, file):
            raise UnsupportedHost(
                f"linux.resources.unified[{file!r}]",
                needed=f"the cgroup file {file} of version 2",
                found="no such file",
            )
        for line in str(text).splitlines():
            yield Setting(controller, file, line, None, f"unified[{file!r}]")


_TRANSLATIONS: Final[Mapping[str, Callable[[Any, HostLimits], Iterator[Setting]]]] = {
    "memory": _memory,
    "cpu": _cpu,
    "pids": _pids,
    "blockIO": _block_io,
    "hugepageLimits": _huge_pages,
    "network": _network,
    "rdma": _rdma,
    "unified": _unified,
}
