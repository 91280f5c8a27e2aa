"""A container's configuration as JSON and back, for containers that other processes start again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from attrs import asdict, fields

from containerlib.network_options import NetworkAttachment, PortMapping
from containerlib.options import (
    Device,
    HealthCheck,
    LogFile,
    Mount,
    Resources,
    RestartPolicy,
    Rlimit,
    Security,
)
from containerlib.runtime.config import ContainerConfig
from containerlib.runtime.user import parse_user

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["config_document", "json_text", "native_text", "parse_config"]

_RATES = ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")
_TUPLES = ("args", "group_add", "console_size", "dns", "dns_search", "dns_options", "network_aliases")
_LEFT_OUT = ("fault",)


def config_document(config: ContainerConfig) -> dict[str, Any]:
    """The configuration in values of JSON."""
    document = asdict(config, filter=lambda attribute, _: attribute.name not in _LEFT_OUT)
    document["user"] = config.user.text
    return cast("dict[str, Any]", _mapped(document, json_text))


def parse_config(document: Mapping[str, Any]) -> ContainerConfig:
    """The configuration that `config_document` has written.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    values = dict(_mapped(document, native_text))
    unknown = values.keys() - {field.name for field in fields(ContainerConfig)}
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    for name in _TUPLES:
        values[name] = tuple(values.get(name, ()))
    values["user"] = parse_user(values["user"])
    values["mounts"] = tuple(Mount(**mount) for mount in values["mounts"])
    values["devices"] = tuple(Device(**device) for device in values["devices"])
    values["rlimits"] = tuple(Rlimit(**rlimit) for rlimit in values["rlimits"])
    values["security"] = Security(**values["security"])
    values["resources"] = _resources(values["resources"])
    values["networks"] = tuple(
        NetworkAttachment(**{**each, "aliases": tuple(each["aliases"])})
        for each in values.get("networks", ())
    )
    values["ports"] = tuple(PortMapping(**each) for each in values.get("ports", ()))
    values["restart"] = RestartPolicy(**values["restart"])
    values["log"] = LogFile(**values["log"])
    values["health"] = None if values["health"] is None else HealthCheck(**values["health"])
    return ContainerConfig(**values)


def json_text(text: str) -> str:
    """Names and arguments need not be UTF-8, as JSON must be: a letter stands for each byte."""
    return os.fsencode(text).decode("latin-1")


def native_text(text: str) -> str:
    """The text of which `json_text` has made `text`."""
    return os.fsdecode(text.encode("latin-1"))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The same value with all its texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _mapped(each, change) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mapped(each, change) for each in value]
    return value


def _resources(document: Mapping[str, Any]) -> Resources:
    values = dict(document)
    for name in _RATES:
        values[name] = tuple((str(path), int(rate)) for path, rate in values[name])
    return Resources(**values)
