"""Docker's option texts as values: sizes, mounts, limits, devices, variables.

Text in, value out; the only files opened are those that an option names. Every parser raises `ValueError`
with the reason alone: whoever calls it knows which option the text belongs to.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Literal, cast

from containerlib.errors import InvalidOption
from containerlib.options import UNLIMITED, Device, Mount, RestartPolicy, Rlimit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "merge_env",
    "parse_cpus",
    "parse_device",
    "parse_device_operations",
    "parse_device_rate",
    "parse_duration",
    "parse_env",
    "parse_host",
    "parse_label",
    "parse_log_driver",
    "parse_log_option",
    "parse_memory",
    "parse_mount",
    "parse_network_option",
    "parse_number",
    "parse_pids",
    "parse_restart",
    "parse_seconds",
    "parse_security",
    "parse_size",
    "parse_swap",
    "parse_sysctl",
    "parse_tmpfs",
    "parse_ulimit",
    "parse_volume",
    "parse_wait",
    "read_env_file",
]

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)i?b?", re.IGNORECASE)
_UNITS = " kmgtp"
_INTEGER = re.compile(r"-?[0-9]+")
_OCTAL = re.compile(r"(?:0o?)?[0-7]{1,4}")
_ACCESS = re.compile(r"[rwm]{1,3}")
_TRUE, _FALSE = frozenset({"1", "t", "true"}), frozenset({"0", "f", "false"})
_PROFILE_LIMIT = 4 << 20

_MOUNT_KEYS = {
    "type": "type",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "tmpfs-size": "tmpfs-size",
    "tmpfs-mode": "tmpfs-mode",
}
_MOUNT_KINDS = {
    "bind": frozenset({"source", "target", "readonly"}),
    "tmpfs": frozenset({"target", "tmpfs-size", "tmpfs-mode"}),
}
_NO_VOLUMES = "volumes are not supported yet; give a host path, absolute or beginning with './'"


def parse_size(text: str) -> int:
    """Bytes from ``"512m"``, ``"1g"``, ``"1.5GiB"``, ``"64k"`` or ``"4096"``; units are powers of 1024."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("write a size such as 512m, 1g, 1.5GiB or 65536")
    number, unit = match.groups()
    factor: int = 1024 ** _UNITS.index(unit.lower() or " ")
    return int(float(number) * factor) if "." in number else int(number) * factor


def parse_memory(text: str) -> int | None:
    """A size; 0 means no limit, as Docker has it."""
    return parse_size(text) or None


def parse_device_rate(text: str) -> tuple[str, int]:
    """Bytes a second of a device: ``"/dev/sda:1mb"``."""
    path, rate = _device_and_rate(text)
    return path, parse_size(rate)


def parse_device_operations(text: str) -> tuple[str, int]:
    """Operations a second of a device: ``"/dev/sda:1000"``."""
    path, rate = _device_and_rate(text)
    if not rate.isdecimal():
        raise ValueError("write PATH:NUMBER, with a whole number")
    return path, int(rate)


def _device_and_rate(text: str) -> tuple[str, str]:
    path, _, rate = text.rpartition(":")
    if not path.startswith("/"):
        raise ValueError("write PATH:RATE, such as /dev/sda:1mb")
    return path, rate


def parse_swap(text: str) -> int | None:
    """A size, or -1 for no limit; 0 is the same as leaving it out."""
    return UNLIMITED if text == "-1" else parse_memory(text)


def parse_number(text: str) -> int | None:
    """A whole number; 0 is the same as leaving it out."""
    if _INTEGER.fullmatch(text) is None:
        raise ValueError("write a whole number")
    return int(text) or None


def parse_pids(text: str) -> int:
    """A number of processes; 0 and -1 are no limit."""
    return parse_number(text) or UNLIMITED


def parse_cpus(text: str) -> float | None:
    """A number of processors such as 1.5; 0 is the same as leaving it out."""
    return _parse_decimal(text, "write a number of processors such as 1.5") or None


def parse_seconds(text: str) -> float:
    """A time in seconds, more than 0."""
    reason = "write a number of seconds greater than 0, such as 2.5"
    value = _parse_decimal(text, reason)
    if value <= 0:
        raise ValueError(reason)
    return value


def parse_wait(text: str) -> float:
    """A time in seconds, which may be 0."""
    return _parse_decimal(text, "write a number of seconds such as 2.5")


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")


def parse_duration(text: str) -> float:
    """A time such as ``1m30s`` or ``500ms``, in seconds."""
    found = _DURATION.fullmatch(text)
    if found is None or not text:
        raise ValueError("write a time such as 30s, 1m30s or 500ms")
    return sum(
        float(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1, 0.001), strict=True)
    )


def parse_restart(text: str) -> RestartPolicy:
    """``no``, ``on-failure``, ``on-failure:3``, ``always`` or ``unless-stopped``."""
    name, colon, most = text.partition(":")
    if colon and (name != "on-failure" or not most.isdigit()):
        raise ValueError("only on-failure has a number, as in on-failure:3")
    try:
        return RestartPolicy(name=cast("Any", name), max_retries=int(most or 0))
    except InvalidOption:
        raise ValueError("give no, on-failure[:N], always or unless-stopped") from None


def parse_log_driver(text: str) -> str:
    """``local``, which is how output is kept, or ``none``."""
    if text not in {"local", "none"}:
        raise ValueError("give local or none; there are no other ways to keep output")
    return text


def parse_log_option(text: str) -> tuple[str, int]:
    """``max-size=10m`` or ``max-file=3``, as a field of `LogFile` and its value."""
    name, _, value = text.partition("=")
    if name == "max-size":
        return "max_bytes", parse_size(value)
    if name == "max-file" and value.isdigit() and int(value):
        return "max_files", int(value)
    raise ValueError("give max-size=SIZE or max-file=N")


def _parse_decimal(text: str, reason: str) -> float:
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text) is None:
        raise ValueError(reason)
    return float(text)


def _parse_flag(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(f"{text!r} is neither true nor false")


def _parse_mode(text: str) -> int:
    if _OCTAL.fullmatch(text) is None:
        raise ValueError(f"mode {text!r} is not an octal number such as 1777")
    return int(text.removeprefix("0o"), 8)


def _host_path(text: str) -> str:
    """A relative path counts from where the command is typed, if it looks like a path at all."""
    return os.path.abspath(text) if text.startswith(".") else text


def _split_record(text: str) -> list[str]:
    if '"' not in text:
        return text.split(",")
    import csv  # noqa: PLC0415 - only for a quoted field

    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise ValueError(f"not a list of comma-separated fields ({error})") from None


def _mount_fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for part in _split_record(text):
        key, equals, value = part.partition("=")
        name = _MOUNT_KEYS.get(key.lower())
        if name is None:
            raise ValueError(f"field {key!r} is not supported; there are {', '.join(_MOUNT_KEYS)}")
        if name in fields:
            raise ValueError(f"field {name!r} is given twice")
        if not equals and name != "readonly":
            raise ValueError(f"write {key}=VALUE")
        fields[name] = value if equals else "true"
    return fields


def parse_mount(text: str) -> Mount:
    """A mount in Docker's long form, such as ``"type=bind,source=/srv,target=/data,readonly"``."""
    fields = _mount_fields(text)
    kind = fields.pop("type", "volume")
    if kind not in _MOUNT_KINDS:
        raise ValueError(f"type {kind!r} is not supported; give type=bind or type=tmpfs")
    for name in fields:
        if name not in _MOUNT_KINDS[kind]:
            raise ValueError(f"field {name!r} is not for type={kind}")
    if not fields.get("target"):
        raise ValueError("add target=PATH")
    if kind == "tmpfs":
        mode = fields.get("tmpfs-mode")
        return Mount.tmpfs(
            fields["target"],
            size_bytes=parse_memory(fields.get("tmpfs-size", "0")),
            mode=0o1777 if mode is None else _parse_mode(mode),
        )
    if not fields.get("source"):
        raise ValueError("add source=PATH")
    read_only = _parse_flag(fields.get("readonly", "false"))
    return Mount.bind(_host_path(fields["source"]), fields["target"], read_only=read_only)


def parse_volume(text: str) -> Mount:
    """A bind mount in Docker's short form: ``"SOURCE:TARGET"`` or ``"SOURCE:TARGET:ro"``."""
    source, *rest = text.split(":")
    if not source.startswith(("/", ".")) or not rest:
        raise ValueError(_NO_VOLUMES)
    target, *options = rest
    if len(options) > 1:
        raise ValueError("write SOURCE:TARGET or SOURCE:TARGET:ro; for a path with ':' use --mount")
    words = options[0].split(",") if options else []
    for word in words:
        if word not in {"ro", "rw"}:
            raise ValueError(f"option {word!r} is not supported; there are ro and rw")
    return Mount.bind(_host_path(source), target, read_only="ro" in words)


def parse_tmpfs(text: str) -> Mount:
    """A tmpfs such as ``"/run"`` or ``"/run:size=64m,mode=755,exec"``."""
    target, _, options = text.partition(":")
    given: dict[str, Any] = {}
    for word in filter(None, options.split(",")):
        key, _, value = word.partition("=")
        if key == "size":
            given["size_bytes"] = parse_memory(value)
        elif key == "mode":
            given["mode"] = _parse_mode(value)
        elif word in {"exec", "noexec"}:
            given["exec"] = word == "exec"
        elif word not in {"rw", "nosuid", "nodev"}:
            raise ValueError(f"option {word!r} is not supported; there are size=, mode=, exec and noexec")
    return Mount.tmpfs(target, **given)


def parse_ulimit(text: str) -> Rlimit:
    """A resource limit: ``"nofile=1024"`` or ``"nofile=1024:4096"``; -1 or ``unlimited`` for none."""
    name, equals, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    if not name or not equals:
        raise ValueError("write NAME=SOFT or NAME=SOFT:HARD")
    return Rlimit(name=name, soft=_parse_limit(soft), hard=_parse_limit(hard if colon else soft))


def _parse_limit(text: str) -> int:
    if text in {"-1", "unlimited"}:
        return UNLIMITED
    return parse_number(text) or 0


def parse_device(text: str) -> Device:
    """A host device: ``"/dev/fuse"``, ``"/dev/sda:/dev/xvda"``, ``"/dev/fuse:rw"``, or all three parts."""
    source, *rest = text.split(":")
    access = "rwm"
    if rest and _ACCESS.fullmatch(rest[-1]) is not None:
        access = rest.pop()
    if not source.startswith("/") or len(rest) > 1 or not all(part.startswith("/") for part in rest):
        raise ValueError("write /dev/NAME, /dev/NAME:TARGET or /dev/NAME:TARGET:rwm")
    return Device(source=source, target=rest[0] if rest else None, access=access)


def parse_sysctl(text: str) -> tuple[str, str]:
    """A kernel setting: ``"net.ipv4.ip_forward=1"``."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError("write NAME=VALUE")
    return name, value


def parse_label(text: str) -> tuple[str, str]:
    """A label: ``"NAME=VALUE"``, or ``"NAME"`` for an empty value."""
    name, _, value = text.partition("=")
    if not name:
        raise ValueError("write NAME=VALUE")
    return name, value


def parse_host(text: str) -> tuple[str, str]:
    """A line of /etc/hosts: ``"NAME:ADDRESS"``, ``"NAME=ADDRESS"`` or ``"NAME:host-gateway"``."""
    name, equals, address = text.partition("=")
    if not equals:
        name, _, address = text.partition(":")
    if not name or not address:
        raise ValueError("write NAME:ADDRESS")
    return name, address.removeprefix("[").removesuffix("]")


def parse_network_option(text: str) -> tuple[str, int]:
    """An option of a network: ``"com.docker.network.driver.mtu=1400"``."""
    name, _, value = text.partition("=")
    if name != "com.docker.network.driver.mtu" or not value.isdecimal():
        raise ValueError("write com.docker.network.driver.mtu=BYTES; there are no other options")
    return "mtu", int(value)


def parse_env(text: str) -> tuple[str, str]:
    """A variable: ``"NAME=VALUE"``. A name alone is refused, because it would ask for the host's value."""
    name, equals, value = text.partition("=")
    if not name:
        raise ValueError("write NAME=VALUE")
    if not equals:
        raise ValueError(f'the host\'s environment is not passed on; write {name}=VALUE, or {name}="${name}"')
    return name, value


def read_env_file(path: str) -> dict[str, str]:
    """Variables from a file with one ``NAME=VALUE`` per line; blank lines and those after ``#`` do not count.

    Quotes and blanks behind the ``=`` belong to the value, as with Docker.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().split("\n")
    except OSError as error:
        raise ValueError((error.strerror or str(error)).lower()) from None
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text") from None
    found: dict[str, str] = {}
    for number, raw in enumerate(lines, start=1):
        line = raw.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        try:
            name, value = parse_env(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if any(character.isspace() for character in name):
            raise ValueError(f"line {number}: the name {name!r} has a blank")
        found[name] = value
    return found


def merge_env(files: Iterable[Mapping[str, str]], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """All variables: of two with one name the later counts, and one of the command line before any file's."""
    merged: dict[str, str] = {}
    for variables in files:
        merged.update(variables)
    merged.update(pairs)
    return merged


def parse_security(text: str) -> tuple[Literal["no_new_privileges", "seccomp"], Any]:
    """One ``--security-opt``, as a field of `Security` and its value."""
    # Docker took a colon here once, and still does.
    name, separator, value = text.partition("=") if "=" in text else text.partition(":")
    if name == "no-new-privileges":
        return "no_new_privileges", _parse_flag(value) if separator else True
    if name == "seccomp" and value:
        return "seccomp", _read_profile(value)
    raise ValueError(
        "only no-new-privileges[=true|false] and seccomp=unconfined|FILE are supported; "
        "no AppArmor profile and no SELinux label is applied"
    )


def _read_profile(value: str) -> object:
    if value in {"unconfined", "builtin"}:
        return "default" if value == "builtin" else value
    from containerlib._util import strict_json  # noqa: PLC0415 - only for a profile of one's own

    try:
        with open(value, "rb") as file:
            data = file.read(_PROFILE_LIMIT + 1)
    except OSError as error:
        raise ValueError(f"{value}: {(error.strerror or str(error)).lower()}") from None
    return strict_json.loads_object(data, limit=_PROFILE_LIMIT, what=value)
