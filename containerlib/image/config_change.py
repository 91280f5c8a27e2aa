"""Instructions that change the defaults of an image, as ``docker import --change`` takes them. Pure.

The instructions are those of a Dockerfile that say how containers run: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL,
USER, VOLUME, WORKDIR, STOPSIGNAL. Others are refused.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidManifest, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from containerlib.oci.image_config import Config

__all__ = ["changed"]

_OPTION = "change"


def changed(config: Config, instructions: Iterable[str]) -> Config:
    """Return `config` with the instructions applied in their order.

    Args:
        config: What is changed.
        instructions: Each one line, such as ``ENV A=1 B="two words"`` or ``CMD ["sh", "-c", "date"]``.

    Raises:
        InvalidOption: One is unknown, or its argument has a wrong form.
    """
    for instruction in instructions:
        word, _, argument = instruction.strip().partition(" ")
        apply = _INSTRUCTIONS.get(word.upper())
        if apply is None:
            known = ", ".join(_INSTRUCTIONS)
            raise InvalidOption(
                _OPTION, instruction, f"is no instruction that changes an image; there are {known}"
            )
        if not argument.strip():
            raise InvalidOption(_OPTION, instruction, f"{word.upper()} needs an argument")
        try:
            config = apply(config, argument.strip())
        except (ValueError, InvalidManifest) as error:
            raise InvalidOption(_OPTION, instruction, str(error)) from None
    return config


def _command(argument: str) -> tuple[str, ...]:
    """Read the list form, or the form that a shell runs."""
    if not argument.startswith("["):
        return ("/bin/sh", "-c", argument)
    found = json.loads(argument)
    if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
        raise ValueError("a list holds texts only")
    return tuple(found)


def _list(argument: str) -> tuple[str, ...]:
    return _command(argument) if argument.startswith("[") else tuple(shlex.split(argument))


def _pairs(argument: str) -> dict[str, str]:
    """Read ``NAME=VALUE ...``, or the old form ``NAME VALUE``."""
    words = shlex.split(argument)
    if "=" not in words[0]:
        name, _, value = argument.partition(" ")
        if not value.strip():
            raise ValueError("write NAME=VALUE")
        return {name: value.strip()}
    pairs = [word.partition("=") for word in words]
    if not all(name and sign for name, sign, _ in pairs):
        raise ValueError("write NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _env(config: Config, argument: str) -> Config:
    present = dict(entry.split("=", 1) for entry in config.env)
    merged = {**present, **_pairs(argument)}
    return attrs.evolve(config, env=tuple(f"{name}={value}" for name, value in merged.items()))


def _ports(argument: str) -> tuple[str, ...]:
    found = []
    for word in argument.split():
        number, _, protocol = word.partition("/")
        if (
            not number.isdecimal()
            or not 0 < int(number) < 1 << 16
            or protocol not in {"", "tcp", "udp", "sctp"}
        ):
            raise ValueError(f"{word!r} is no port: write PORT or PORT/PROTOCOL")
        found.append(f"{int(number)}/{protocol or 'tcp'}")
    return tuple(found)


def _added(present: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*present, *more)))


def _workdir(config: Config, argument: str) -> Config:
    base = config.working_dir or "/"
    path = argument if argument.startswith("/") else f"{base.rstrip('/')}/{argument}"
    return attrs.evolve(config, working_dir=path)


_INSTRUCTIONS: dict[str, Callable[[Config, str], Config]] = {
    "CMD": lambda config, text: attrs.evolve(config, cmd=_command(text)),
    "ENTRYPOINT": lambda config, text: attrs.evolve(config, entrypoint=_command(text)),
    "ENV": _env,
    "EXPOSE": lambda config, text: attrs.evolve(
        config, exposed_ports=_added(config.exposed_ports, _ports(text))
    ),
    "LABEL": lambda config, text: attrs.evolve(config, labels={**config.labels, **_pairs(text)}),
    "STOPSIGNAL": lambda config, text: attrs.evolve(config, stop_signal=text),
    "USER": lambda config, text: attrs.evolve(config, user=text),
    "VOLUME": lambda config, text: attrs.evolve(config, volumes=_added(config.volumes, _list(text))),
    "WORKDIR": _workdir,
}
