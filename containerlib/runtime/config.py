"""What one container shall be: every option once, checked, merged with what the image says.

In: the caller's options and an image's `Config`. Out: a `ContainerConfig`, the only form in which anything
below this line sees options.
"""

from __future__ import annotations

import posixpath
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from attrs import evolve, field, frozen

from containerlib.errors import InvalidOption
from containerlib.network_options import (
    NetworkAttachment,
    PortMapping,
    as_attachments,
    as_names,
    as_port_mappings,
    mac_bytes,
)
from containerlib.oci.image_config import DEFAULT_PATH
from containerlib.options import (
    Device,
    HealthCheck,
    LogCallback,
    LogFile,
    Mount,
    Resources,
    RestartPolicy,
    Rlimit,
    Security,
)
from containerlib.runtime.defaults import SHARED_NETWORK, SHM_SIZE_BYTES, STOP_TIMEOUT_S
from containerlib.runtime.host_names import are_addresses, are_hosts, are_words, is_address
from containerlib.runtime.image_health import image_health
from containerlib.runtime.signals import parse_signal
from containerlib.runtime.user import UserRequest, parse_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from containerlib.oci.image_config import Config

__all__ = ["ContainerConfig", "check_names", "is_name", "merge", "parse_env"]

_HOSTNAME = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_MAX_HOSTNAME = 64
_MOST_TEXTS = 131072  # CTR_MAX_STRINGS: what one request to the spawner can hold
_MAX_CONSOLE = 65535
_PAGE_BYTES = 4096

# Shared, because values that are the same object are quick to look up.
_DEFAULT_RESOURCES = Resources()
_DEFAULT_SECURITY = Security()
_NO_RESTART = RestartPolicy()
_LOG = LogFile()


@frozen(kw_only=True)
class ContainerConfig:
    """One container, as asked for. See the collection's `create` for the meaning of the fields."""

    args: tuple[str, ...]
    env: Mapping[str, str] = field(factory=dict)
    workdir: str = "/"
    user: UserRequest = field(factory=lambda: parse_user(""))
    group_add: tuple[str, ...] = ()
    hostname: str | None = None
    domainname: str | None = None
    read_only: bool = False
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    network: str = "none"
    ip_address: str | None = None
    mac_address: str | None = None
    network_aliases: tuple[str, ...] = field(default=(), converter=as_names)
    networks: tuple[NetworkAttachment, ...] = field(default=(), converter=as_attachments)
    is_disconnected: bool = False
    extra_hosts: Mapping[str, str] = field(factory=dict)
    ports: tuple[PortMapping, ...] = field(default=(), converter=as_port_mappings)
    dns: tuple[str, ...] = field(default=(), converter=tuple)
    dns_search: tuple[str, ...] = field(default=(), converter=tuple)
    dns_options: tuple[str, ...] = field(default=(), converter=tuple)
    resources: Resources = _DEFAULT_RESOURCES
    security: Security = _DEFAULT_SECURITY
    sysctls: Mapping[str, str] = field(factory=dict)
    rlimits: tuple[Rlimit, ...] = ()
    shm_size_bytes: int = SHM_SIZE_BYTES
    tty: bool = False
    console_size: tuple[int, int] = (0, 0)
    init: bool = False
    labels: Mapping[str, str] = field(factory=dict)
    name: str | None = None
    stop_signal: int = 15
    stop_timeout_s: float = STOP_TIMEOUT_S
    lifetime: Literal["process", "detached"] = "process"
    remove: bool = False
    layer: Literal["memory", "disk"] = "disk"
    restart: RestartPolicy = _NO_RESTART
    health: HealthCheck | None = None
    stdin_open: bool = False
    log: LogFile | LogCallback = _LOG
    fault: tuple[int, int, int, int] = (0, 0, 0, 0)


def is_name(text: str) -> bool:
    """Whether a container could be called that."""
    return _NAME.fullmatch(text) is not None


def parse_env(env: Mapping[str, str] | Sequence[str] | None) -> dict[str, str]:
    """Environment variables from a mapping or from ``NAME=VALUE`` texts.

    A text without ``=`` is an error: nothing is ever taken from the host's environment.

    Raises:
        InvalidOption: A name is empty or has a ``=`` or control character, or a value has a NUL.
    """
    if env is None:
        return {}
    if isinstance(env, str):
        raise InvalidOption("env", env, "give a mapping, or a list of 'NAME=VALUE' texts")
    pairs = list(env.items()) if hasattr(env, "items") else [_split_entry(entry) for entry in env]
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidOption("env", {name: value}, "names and values are texts")
        if not name or "=" in name or any(c < " " for c in name):
            raise InvalidOption(
                "env", name, "a variable's name is not empty and has no '=' or control character"
            )
        if "\0" in value:
            raise InvalidOption("env", f"{name}={value}", "a value cannot hold a NUL character")
    if len(pairs) > _MOST_TEXTS:
        raise InvalidOption("env", len(pairs), f"there can be at most {_MOST_TEXTS} variables")
    return dict(pairs)


_signal = lru_cache(maxsize=64)(parse_signal)
_user = lru_cache(maxsize=64)(parse_user)


@lru_cache(maxsize=64)
def _image_env(entries: tuple[str, ...]) -> dict[str, str]:
    return parse_env(entries)


def _split_entry(entry: Any) -> tuple[str, str]:
    if not isinstance(entry, str):
        raise InvalidOption("env", entry, "write NAME=VALUE")
    name, equals, value = entry.partition("=")
    if not equals:
        raise InvalidOption("env", entry, "write NAME=VALUE; the host's environment is not passed on")
    return name, value


def _command(
    image: Config, command: Sequence[str] | None, entrypoint: Sequence[str] | None
) -> tuple[str, ...]:
    """Docker's rule: an entrypoint given by the caller also discards the image's command."""
    for option, value in (("command", command), ("entrypoint", entrypoint)):
        if isinstance(value, str):
            raise InvalidOption(option, value, "give a list of arguments; for a shell: ['sh', '-c', text]")
    start = entrypoint if entrypoint is not None else image.entrypoint or ()
    rest = command if command is not None else (image.cmd or ()) if entrypoint is None else ()
    args: tuple[Any, ...] = (*start, *rest)
    if not args or not args[0]:
        raise InvalidOption("command", list(args), "the image has no default command; name one")
    for argument in args:
        if not isinstance(argument, str) or "\0" in argument:
            raise InvalidOption("command", argument, "arguments are texts without NUL characters")
    if len(args) > _MOST_TEXTS:
        raise InvalidOption("command", len(args), f"a command has at most {_MOST_TEXTS} arguments")
    return args


def _workdir(image: Config, workdir: str | None) -> str:
    path = workdir if workdir is not None else image.working_dir or "/"
    if not path.startswith("/") or "\0" in path:
        raise InvalidOption("workdir", path, "give an absolute path in the container")
    return path


def check_names(name: str | None, hostname: str | None, domainname: str | None) -> None:
    """Raises InvalidOption if one of them is no such name."""
    if name is not None and not _NAME.fullmatch(name):
        raise InvalidOption("name", name, "use letters, digits, '_', '.', '-'; begin with a letter or digit")
    for option, value in (("hostname", hostname), ("domainname", domainname)):
        if value is not None and (len(value) > _MAX_HOSTNAME or not _HOSTNAME.fullmatch(value)):
            raise InvalidOption(option, value, "use letters, digits, '-' and '.', at most 64 characters")


def _network(asked: str | None, rest: Mapping[str, Any]) -> str:
    """The network; who wants to be reached from elsewhere has to be in one."""
    network = asked if asked is not None else "bridge" if rest.get("ports") else "none"
    _check_texts(network=network)
    if network in {"none", "host"} or network.startswith(SHARED_NETWORK):
        for option in ("ip_address", "mac_address", "network_aliases", "networks", "ports"):
            if rest.get(option):
                raise InvalidOption(option, rest[option], "is for a network of the store; name one")
    if network in {each.network for each in as_attachments(rest.get("networks", ()))}:
        raise InvalidOption("networks", network, "is there twice: it is its network already")
    if not _NAME.fullmatch(network.removeprefix(SHARED_NETWORK)):
        raise InvalidOption("network", network, "give 'none', 'host', 'container:NAME', or a network's name")
    return network


def _check_lifetime(lifetime: str, rest: Mapping[str, Any]) -> None:
    if lifetime not in {"process", "detached"}:
        raise InvalidOption("lifetime", lifetime, "give 'process' (it ends with this process) or 'detached'")
    if lifetime == "detached" and rest.get("layer") == "memory":
        raise InvalidOption("lifetime", lifetime, "such a container has its layer on disk")
    restart = rest.get("restart", _NO_RESTART)
    for option, is_given in (
        ("restart", restart.name != "no"),
        ("health", rest.get("health") is not None),
        ("stdin_open", rest.get("stdin_open", False)),
        ("log", isinstance(rest.get("log"), LogFile)),
    ):
        if is_given and lifetime != "detached":
            raise InvalidOption(option, rest[option], "only what is detached has that: lifetime='detached'")
    if isinstance(rest.get("log"), LogCallback) and (lifetime == "detached" or rest.get("tty")):
        why = "what is detached has a LogFile" if lifetime == "detached" else "a terminal has no lines"
        raise InvalidOption("log", rest["log"], f"only what ends with this process has a LogCallback; {why}")
    if restart.name != "no" and rest.get("remove"):
        raise InvalidOption("restart", restart.name, "what is removed at its end is not started again")


def _lasting(image: Config, lifetime: str, rest: Mapping[str, Any]) -> dict[str, Any]:
    """What only a detached container has of its image."""
    if lifetime != "detached" or "health" in rest:
        return {}
    return {"health": image_health(image)}


def _check_texts(**options: object) -> None:
    for option, value in options.items():
        if value is not None and not isinstance(value, str):
            raise InvalidOption(option, value, "give a text")


def _check_text_map(option: str, values: Mapping[Any, Any]) -> dict[str, str]:
    for name, value in values.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidOption(option, {name: value}, "names and values are texts")
    return dict(values)


def _check_kinds(option: str, kind: type, values: Iterable[object]) -> None:
    for value in values:
        if not isinstance(value, kind):
            raise InvalidOption(option, value, f"give a list of {kind.__name__} objects")


def _is_size(value: object) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2  # noqa: PLR2004 - columns and rows
        and all(isinstance(number, int) and 0 <= number <= _MAX_CONSOLE for number in value)
    )


_Check = tuple["Callable[[Any], bool]", str]
_BOOLEAN: _Check = (lambda value: isinstance(value, bool), "give True or False")
_CHECKS: dict[str, _Check] = {
    "read_only": _BOOLEAN,
    "tty": _BOOLEAN,
    "init": _BOOLEAN,
    "remove": _BOOLEAN,
    "stdin_open": _BOOLEAN,
    "resources": (lambda value: isinstance(value, Resources), "give a Resources object"),
    "security": (lambda value: isinstance(value, Security), "give a Security object"),
    "shm_size_bytes": (
        lambda value: isinstance(value, int) and value >= _PAGE_BYTES,
        "give a number of bytes, at least one page (4096)",
    ),
    "console_size": (_is_size, "give columns and rows, each from 0 to 65535"),
    "stop_timeout_s": (
        lambda value: isinstance(value, (int, float)) and value >= 0,
        "give 0 or more seconds",
    ),
    "log": (
        lambda value: isinstance(value, (LogFile, LogCallback)),
        "give a LogFile object, or a LogCallback object for what ends with this process",
    ),
    "restart": (lambda value: isinstance(value, RestartPolicy), "give a RestartPolicy object"),
    "health": (lambda value: value is None or isinstance(value, HealthCheck), "give a HealthCheck object"),
    "ip_address": (
        lambda value: value is None or (is_address(value) and ":" not in value),
        "give an address of version 4, such as '10.5.0.7'",
    ),
    "mac_address": (
        lambda value: value is None or bool(mac_bytes(value)),
        "give six bytes, such as '02:42:ac:11:00:02'",
    ),
    "extra_hosts": (are_hosts, "give addresses, or 'host-gateway', by names"),
    "dns": (are_addresses, "give a list of addresses"),
    "dns_search": (are_words, "give a list of domains"),
    "dns_options": (are_words, "give a list of options, such as 'ndots:2'"),
    "layer": (lambda value: value in ("memory", "disk"), "give 'memory' or 'disk'"),
}


def _check_rest(rest: Mapping[str, Any]) -> None:
    for option, value in rest.items():
        check, remedy = _CHECKS.get(option, (None, ""))
        if check is not None and not check(value):
            raise InvalidOption(option, value, remedy)


def _normal_mounts(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """The mounts with their targets in one spelling, so that two of them can be compared."""
    _check_kinds("mounts", Mount, mounts)
    chosen: dict[str, Mount] = {}
    for mount in mounts:
        target = "/" + posixpath.normpath(mount.target).lstrip("/")
        if target in chosen:
            raise InvalidOption("mounts", mount.target, "two mounts have this target")
        chosen[target] = mount if target == mount.target else evolve(mount, target=target)
    return tuple(chosen.values())


def merge(
    image: Config,
    *,
    command: Sequence[str] | None = None,
    entrypoint: Sequence[str] | None = None,
    env: Mapping[str, str] | Sequence[str] | None = None,
    workdir: str | None = None,
    user: str | None = None,
    name: str | None = None,
    hostname: str | None = None,
    domainname: str | None = None,
    network: str | None = None,
    mounts: Sequence[Mount] = (),
    labels: Mapping[str, str] | None = None,
    sysctls: Mapping[str, str] | None = None,
    group_add: Sequence[str] = (),
    devices: Sequence[Device] = (),
    rlimits: Sequence[Rlimit] = (),
    stop_signal: int | str | None = None,
    lifetime: str = "process",
    **rest: Any,
) -> ContainerConfig:
    """Check the options and complete them with the image's defaults; see `api.options.RunOptions`.

    Raises:
        InvalidOption: A value that no host could honour; nothing was changed.
    """
    _check_texts(workdir=workdir, user=user, name=name, hostname=hostname, domainname=domainname)
    check_names(name, hostname, domainname)
    _check_kinds("devices", Device, devices)
    _check_kinds("rlimits", Rlimit, rlimits)
    _check_kinds("group_add", str, group_add)
    _check_rest(rest)
    _check_lifetime(lifetime, rest)
    network = _network(network, rest)
    merged_env = {"PATH": DEFAULT_PATH, **_image_env(image.env), **parse_env(env)}
    return ContainerConfig(
        args=_command(image, command, entrypoint),
        env=merged_env,
        workdir=_workdir(image, workdir),
        user=_user(user if user is not None else image.user),
        name=name,
        hostname=hostname,
        domainname=domainname,
        lifetime="detached" if lifetime == "detached" else "process",
        network=network,
        mounts=_normal_mounts(mounts),
        labels={**image.labels, **_check_text_map("labels", labels or {})},
        sysctls=_check_text_map("sysctls", sysctls or {}),
        group_add=tuple(group_add),
        devices=tuple(devices),
        rlimits=tuple(rlimits),
        stop_signal=_signal(stop_signal if stop_signal is not None else image.stop_signal or "TERM"),
        **{**_lasting(image, lifetime, rest), **rest},
    )
