"""Reads ``config.json`` of a bundle, and the process of an exec: from JSON to values of `runtime_spec`.

Every field that means something is read or refused by name. What it asks of a host is not looked at.

Source: OCI runtime-spec 1.2, config.md and config-linux.md.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any, NoReturn

from containerlib.errors import InvalidInputError
from containerlib.oci.runtime_spec import (
    HOOK_KINDS,
    Capabilities,
    DeviceNode,
    Hook,
    IdMapping,
    IoPriority,
    Linux,
    PosixRlimit,
    Process,
    Root,
    Scheduler,
    Spec,
    SpecMount,
    User,
)
from containerlib.oci.runtime_words import IO_CLASSES, PERSONALITIES, SCHEDULER_FLAGS, SCHEDULER_POLICIES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["InvalidConfig", "parse_config", "parse_process"]

_VERSION = re.compile(r"1\.[0-9]+\.[0-9]+([-+].*)?")
_NAMESPACES = frozenset({"pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"})
_CAPABILITY_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
_DEVICE_TYPES = frozenset({"b", "c", "u", "p"})
_PROPAGATIONS = frozenset({"shared", "slave", "private", "unbindable"})
_CLOCKS = frozenset({"monotonic", "boottime"})
_ANYTHING = 2**64
_MOST_ID = 2**32 - 2


class InvalidConfig(InvalidInputError):
    """A field of a configuration is missing, of another type, or has a value that means nothing."""


class _Reader:
    """An object of the document, and what it is called there."""

    def __init__(self, value: object, name: str) -> None:
        if not isinstance(value, dict):
            raise InvalidConfig(f"config.json: {name or 'the document'} is not an object")
        self.value: dict[str, Any] = value
        self.name = name

    def called(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def refuse(self, key: str, expected: str) -> NoReturn:
        shown = repr(self.value.get(key))
        raise InvalidConfig(f"config.json: {self.called(key)} = {shown[:200]}: {expected}")

    def _get(self, key: str, kind: type, expected: str) -> Any:
        value = self.value.get(key)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.refuse(key, f"must be {expected}")
        return value

    def text(self, key: str, default: str = "") -> str:
        value = self._get(key, str, "a text")
        if value is not None and "\0" in value:
            self.refuse(key, "must have no NUL character")
        return default if value is None else value

    def need_text(self, key: str) -> str:
        return self.text(key) or self.refuse(key, "is required")

    def number(self, key: str, low: int = 0, high: int = _ANYTHING) -> int | None:
        value: int | None = self._get(key, int, "a number")
        if value is not None and not low <= value <= high:
            self.refuse(key, f"must be between {low} and {high}")
        return value

    def need_number(self, key: str, low: int = 0, high: int = _ANYTHING) -> int:
        value = self.number(key, low, high)
        return self.refuse(key, "is required") if value is None else value

    def flag(self, key: str) -> bool:
        return bool(self._get(key, bool, "true or false"))

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._get(key, list, "a list of texts") or []
        if not all(isinstance(each, str) and "\0" not in each for each in value):
            self.refuse(key, "must be a list of texts")
        return tuple(value)

    def objects(self, key: str) -> list[_Reader]:
        value = self._get(key, list, "a list of objects") or []
        return [_Reader(each, f"{self.called(key)}[{number}]") for number, each in enumerate(value)]

    def object(self, key: str) -> _Reader | None:
        value = self.value.get(key)
        return None if value is None else _Reader(value, self.called(key))

    def absent(self, keys: Mapping[str, str]) -> None:
        for key, reason in keys.items():
            if self.value.get(key):
                self.refuse(key, reason)


def parse_config(document: object) -> Spec:
    """Read a configuration.

    Raises:
        InvalidConfig: A field is missing or invalid, or asks for what is not supported; it is named.
    """
    top = _Reader(document, "")
    if not _VERSION.fullmatch(top.need_text("ociVersion")):
        top.refuse("ociVersion", "is not a version that is understood; 1.0.0 to 1.2.0 are")
    root = top.object("root") or top.refuse("root", "is required")
    process = top.object("process")
    linux = top.object("linux") or _Reader({}, "linux")
    annotations = top.object("annotations")
    return Spec(
        process=_process(process) if process is not None else top.refuse("process", "is required"),
        root=Root(path=root.need_text("path"), readonly=root.flag("readonly")),
        hostname=top.text("hostname"),
        domainname=top.text("domainname"),
        mounts=tuple(_mount(each) for each in top.objects("mounts")),
        linux=_linux(linux),
        annotations={} if annotations is None else _annotations(annotations),
        hooks=_hooks(top),
        resources=_value(linux, "resources"),
        seccomp=_value(linux, "seccomp") or None,
    )


def parse_process(document: object) -> Process:
    """Read the description of a further process.

    Raises:
        InvalidConfig: See `parse_config`.
    """
    return _process(_Reader(document, "process"))


def _or(value: int | None, default: int) -> int:
    """A number, where 0 is one."""
    return default if value is None else value


def _value(reader: _Reader, key: str) -> dict[str, Any]:
    found = reader.object(key)
    return {} if found is None else found.value


def _annotations(reader: _Reader) -> dict[str, str]:
    for key in reader.value:
        if not key:
            reader.refuse(key, "an annotation needs a name")
        reader.text(key)
    return dict(reader.value)


def _process(reader: _Reader) -> Process:
    reader.absent(
        {
            "selinuxLabel": "SELinux is not supported",
        }
    )
    cwd = reader.need_text("cwd")
    if not cwd.startswith("/"):
        reader.refuse("cwd", "must be an absolute path")
    user = reader.object("user") or _Reader({}, reader.called("user"))
    size = reader.object("consoleSize")
    terminal = reader.flag("terminal")
    return Process(
        args=reader.texts("args") or reader.refuse("args", "needs at least one text"),
        env=reader.texts("env"),
        cwd=cwd,
        user=_user(user),
        terminal=terminal,
        console_size=(0, 0) if size is None else (size.need_number("width"), size.need_number("height")),
        capabilities=_capabilities(reader),
        rlimits=_rlimits(reader),
        no_new_privileges=reader.flag("noNewPrivileges"),
        oom_score_adj=reader.number("oomScoreAdj", -1000, 1000),
        apparmor_profile=reader.text("apparmorProfile"),
        scheduler=_scheduler(reader),
        io_priority=_io_priority(reader),
        exec_affinity=_affinity(reader),
    )


def _scheduler(process: _Reader) -> Scheduler | None:
    reader = process.object("scheduler")
    if reader is None:
        return None
    if reader.need_text("policy") not in SCHEDULER_POLICIES:
        reader.refuse("policy", f"is none of {', '.join(SCHEDULER_POLICIES)}")
    if not set(reader.texts("flags")) <= SCHEDULER_FLAGS.keys():
        reader.refuse("flags", f"must be of {', '.join(SCHEDULER_FLAGS)}")
    return Scheduler(
        policy=reader.text("policy"),
        nice=reader.number("nice", -20, 19) or 0,
        priority=reader.number("priority", 0, 99) or 0,
        flags=reader.texts("flags"),
        runtime_ns=reader.number("runtime") or 0,
        deadline_ns=reader.number("deadline") or 0,
        period_ns=reader.number("period") or 0,
    )


def _io_priority(process: _Reader) -> IoPriority | None:
    reader = process.object("ioPriority")
    if reader is None:
        return None
    if reader.need_text("class") not in IO_CLASSES:
        reader.refuse("class", f"is none of {', '.join(IO_CLASSES)}")
    return IoPriority(kind=reader.text("class"), level=reader.need_number("priority", 0, 7))


def _affinity(process: _Reader) -> tuple[str, str]:
    reader = process.object("execCPUAffinity")
    return ("", "") if reader is None else (reader.text("initial"), reader.text("final"))


def _user(reader: _Reader) -> User:
    groups = reader.value.get("additionalGids") or []
    if not isinstance(groups, list) or not all(isinstance(g, int) and 0 <= g <= _MOST_ID for g in groups):
        reader.refuse("additionalGids", "must be a list of numbers of groups")
    return User(
        uid=reader.number("uid", 0, _MOST_ID) or 0,
        gid=reader.number("gid", 0, _MOST_ID) or 0,
        additional_gids=tuple(groups),
        umask=_or(reader.number("umask", 0, 0o777), 0o022),
    )


def _capabilities(process: _Reader) -> Capabilities:
    reader = process.object("capabilities")
    if reader is None:
        return Capabilities()
    return Capabilities(**{name: frozenset(reader.texts(name)) for name in _CAPABILITY_SETS})


def _rlimits(process: _Reader) -> tuple[PosixRlimit, ...]:
    found: dict[str, PosixRlimit] = {}
    for reader in process.objects("rlimits"):
        kind = reader.need_text("type")
        if kind in found:
            reader.refuse("type", "is there twice")
        found[kind] = PosixRlimit(type=kind, soft=reader.need_number("soft"), hard=reader.need_number("hard"))
    return tuple(found.values())


def _mount(reader: _Reader) -> SpecMount:
    destination = reader.need_text("destination")
    uids, gids = _mappings(reader, "uidMappings"), _mappings(reader, "gidMappings")
    if bool(uids) != bool(gids):
        reader.refuse("gidMappings" if uids else "uidMappings", "must be there as well as the other one")
    return SpecMount(
        # Older callers leave the slash out; it means the same.
        destination=destination if destination.startswith("/") else f"/{destination}",
        type=reader.text("type"),
        source=reader.text("source"),
        options=reader.texts("options"),
        uid_mappings=uids,
        gid_mappings=gids,
    )


def _hooks(top: _Reader) -> dict[str, tuple[Hook, ...]]:
    reader = top.object("hooks")
    if reader is None:
        return {}
    found = {kind: tuple(_hook(each) for each in reader.objects(kind)) for kind in HOOK_KINDS}
    return {kind: hooks for kind, hooks in found.items() if hooks}


def _hook(reader: _Reader) -> Hook:
    path = reader.need_text("path")
    if not path.startswith("/"):
        reader.refuse("path", "must be an absolute path")
    return Hook(
        path=path,
        args=reader.texts("args"),
        env=reader.texts("env"),
        timeout_s=reader.number("timeout", 1),
    )


def _linux(reader: _Reader) -> Linux:
    reader.absent(
        {
            "mountLabel": "SELinux is not supported",
            "intelRdt": "is not supported",
            "netDevices": "is not supported",
        }
    )
    personality = reader.object("personality")
    if personality is not None:
        personality.absent({"flags": "there are none"})
        if personality.need_text("domain") not in PERSONALITIES:
            personality.refuse("domain", f"is none of {', '.join(PERSONALITIES)}")
    propagation = reader.text("rootfsPropagation")
    if propagation and propagation.removeprefix("r") not in _PROPAGATIONS:
        reader.refuse("rootfsPropagation", "must be shared, slave, private or unbindable")
    new, paths = _namespaces(reader)
    if reader.value.get("timeOffsets") and "time" not in new:
        reader.refuse("timeOffsets", "needs a new namespace of type time")
    return Linux(
        namespaces=new,
        namespace_paths=paths,
        uid_mappings=_mappings(reader, "uidMappings"),
        gid_mappings=_mappings(reader, "gidMappings"),
        time_offsets=_time_offsets(reader),
        devices=tuple(_device(each) for each in reader.objects("devices")),
        masked_paths=_paths(reader, "maskedPaths"),
        readonly_paths=_paths(reader, "readonlyPaths"),
        sysctl=_sysctls(reader),
        rootfs_propagation=propagation,
        cgroups_path=reader.text("cgroupsPath"),
        personality="" if personality is None else personality.text("domain"),
    )


def _mappings(reader: _Reader, key: str) -> tuple[IdMapping, ...]:
    found = []
    for each in reader.objects(key):
        mapping = IdMapping(
            container_id=each.need_number("containerID", 0, _MOST_ID),
            host_id=each.need_number("hostID", 0, _MOST_ID),
            size=each.need_number("size", 1, 2**32 - 1),
        )
        if max(mapping.container_id, mapping.host_id) + mapping.size > 2**32:
            each.refuse("size", "reaches beyond the highest number that there is")
        found.append(mapping)
    return tuple(found)


def _time_offsets(linux: _Reader) -> tuple[tuple[str, int, int], ...]:
    reader = linux.object("timeOffsets")
    if reader is None:
        return ()
    unknown = sorted(reader.value.keys() - _CLOCKS)
    if unknown:
        reader.refuse(unknown[0], f"is none of {', '.join(sorted(_CLOCKS))}")
    clocks = [(clock, reader.object(clock)) for clock in sorted(reader.value)]
    return tuple(
        (clock, each.number("secs", -_ANYTHING) or 0, each.number("nanosecs", 0, 10**9 - 1) or 0)
        for clock, each in clocks
        if each is not None
    )


def _paths(reader: _Reader, key: str) -> tuple[str, ...]:
    found = reader.texts(key)
    if not all(path.startswith("/") for path in found):
        reader.refuse(key, "must be absolute paths")
    return found


def _sysctls(linux: _Reader) -> tuple[tuple[str, str], ...]:
    reader = linux.object("sysctl")
    return () if reader is None else tuple((name, reader.text(name)) for name in reader.value)


def _namespaces(linux: _Reader) -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
    new: set[str] = set()
    paths: dict[str, str] = {}
    for reader in linux.objects("namespaces"):
        kind = reader.need_text("type")
        if kind not in _NAMESPACES:
            reader.refuse("type", f"is none of {', '.join(sorted(_NAMESPACES))}")
        if kind in new or kind in paths:
            reader.refuse("type", "is there twice")
        path = reader.text("path")
        if path and not path.startswith("/"):
            reader.refuse("path", "must be an absolute path")
        if path:
            paths[kind] = path
        else:
            new.add(kind)
    if "user" in new and "mount" not in new:
        linux.refuse("namespaces", "a new user namespace needs a new mount namespace, in which it may mount")
    return frozenset(new), tuple(paths.items())


def _device(reader: _Reader) -> DeviceNode:
    kind = reader.need_text("type")
    if kind not in _DEVICE_TYPES:
        reader.refuse("type", "must be c, b, u or p")
    path = reader.need_text("path")
    if not path.startswith("/") or ".." in path.split("/") or path.endswith(("/", "/.")):
        reader.refuse("path", "must be an absolute path of a file, without '..'")
    return DeviceNode(
        path=posixpath.normpath(path),
        type="c" if kind == "u" else kind,
        major=0 if kind == "p" else reader.need_number("major"),
        minor=0 if kind == "p" else reader.need_number("minor"),
        file_mode=_or(reader.number("fileMode"), 0o666) & 0o7777,
        uid=reader.number("uid", 0, _MOST_ID) or 0,
        gid=reader.number("gid", 0, _MOST_ID) or 0,
    )
