"""Instructions that change the defaults of an image, as ``docker import --change`` takes them. Pure.

The instructions are those of a Dockerfile that say how containers run: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL,
USER, VOLUME, WORKDIR, STOPSIGNAL. Others are refused. Quotes, backslashes and variables mean what they mean
there; variables are those that the image has by then.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidManifest, InvalidOption
from containerlib.oci.image_config import DEFAULT_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from containerlib.oci.image_config import Config

__all__ = ["changed"]

_OPTION = "change"
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII)
_MAX_PORT = (1 << 16) - 1
_PART = re.compile(
    r"""(?P<space>\s+)|'(?P<single>[^']*)'|"(?P<double>(?:\\.|[^"\\])*)"|\\(?P<escaped>.)|"""
    r"""(?P<plain>[^\s'"\\]+)|(?P<bad>.)""",
    re.DOTALL,
)
_VARIABLE = re.compile(
    r"""\\(?P<escaped>["\\$])|\$(?:(?P<name>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)\}|(?P<bad>\{))""",
    re.ASCII,
)


def changed(config: Config, instructions: Iterable[str]) -> Config:
    """Return `config` with the instructions applied in their order.

    Args:
        config: What is changed.
        instructions: Each one line, such as ``ENV A=1 B="two words"`` or ``CMD ["sh", "-c", "date"]``.

    Raises:
        InvalidOption: One is unknown, or its argument has a wrong form.
    """
    for instruction in instructions:
        word, argument = [*instruction.split(None, 1), "", ""][:2]
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


def _variables(config: Config) -> dict[str, str]:
    """Return what variables stand for. PATH is what it will be if the image does not say."""
    return {"PATH": DEFAULT_PATH, **dict(entry.split("=", 1) for entry in config.env)}


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """Replace variables, and what a backslash protects from that."""

    def value(match: re.Match[str]) -> str:
        if match["bad"]:
            raise ValueError("of variables only $NAME and ${NAME} are understood")
        return match["escaped"] or variables.get(match["name"] or match["braced"], "")

    return _VARIABLE.sub(value, text)


def _words(text: str, config: Config) -> list[str]:
    """Split `text` at spaces outside quotes, which are taken away."""
    variables = _variables(config)
    words: list[str] = []
    inside = False
    for match in _PART.finditer(text):
        if match["bad"]:
            raise ValueError(
                "a quotation has no end" if match["bad"] in "'\"" else "nothing follows a backslash"
            )
        if match["space"]:
            inside = False
            continue
        if not inside:
            words.append("")
        inside = True
        quoted = match["single"] or match["escaped"] or ""
        words[-1] += quoted + _expanded(match["double"] or match["plain"] or "", variables)
    return words


def _text(text: str, config: Config) -> str:
    """Return `text` as one word, whatever spaces are in it."""
    parts = [
        match[0] if match["space"] else " ".join(_words(match[0], config)) for match in _PART.finditer(text)
    ]
    return "".join(parts)


def _list(text: str, config: Config) -> tuple[str, ...]:
    return _command(text) if text.startswith("[") else tuple(_words(text, config))


def _pairs(text: str, config: Config) -> dict[str, str]:
    """Read ``NAME=VALUE ...``, or the old form ``NAME VALUE``."""
    name, *rest = text.split(None, 1)
    if "=" not in name:
        if not rest:
            raise ValueError("write NAME=VALUE")
        return {_text(name, config): _text(rest[0], config)}
    pairs = [word.partition("=") for word in _words(text, config)]
    if not all(name and sign for name, sign, _ in pairs):
        raise ValueError("write NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _env(config: Config, text: str) -> Config:
    present = dict(entry.split("=", 1) for entry in config.env)
    merged = {**present, **_pairs(text, config)}
    return attrs.evolve(config, env=tuple(f"{name}={value}" for name, value in merged.items()))


def _ports(text: str, config: Config) -> tuple[str, ...]:
    found: list[str] = []
    for word in _words(text, config):
        match = _PORT.fullmatch(word)
        first, last = (0, 0) if match is None else (int(match[1]), int(match[2] or match[1]))
        if match is None or not 0 < first <= last <= _MAX_PORT:
            raise ValueError(f"{word!r} is no port: write PORT, PORT/PROTOCOL or FIRST-LAST/PROTOCOL")
        found += [f"{number}/{match[3] or 'tcp'}" for number in range(first, last + 1)]
    return tuple(found)


def _added(present: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*present, *more)))


def _workdir(config: Config, text: str) -> Config:
    path = posixpath.join("/", config.working_dir, _text(text, config))
    return attrs.evolve(config, working_dir="/" + posixpath.normpath(path).lstrip("/"))


_INSTRUCTIONS: dict[str, Callable[[Config, str], Config]] = {
    "CMD": lambda config, text: attrs.evolve(config, cmd=_command(text)),
    "ENTRYPOINT": lambda config, text: attrs.evolve(config, entrypoint=_command(text)),
    "ENV": _env,
    "EXPOSE": lambda config, text: attrs.evolve(
        config, exposed_ports=_added(config.exposed_ports, _ports(text, config))
    ),
    "LABEL": lambda config, text: attrs.evolve(config, labels={**config.labels, **_pairs(text, config)}),
    "STOPSIGNAL": lambda config, text: attrs.evolve(config, stop_signal=_text(text, config)),
    "USER": lambda config, text: attrs.evolve(config, user=_text(text, config)),
    "VOLUME": lambda config, text: attrs.evolve(config, volumes=_added(config.volumes, _list(text, config))),
    "WORKDIR": _workdir,
}
