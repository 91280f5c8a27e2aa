"""What an image runs on: operating system, processor, variant.

Names are the ones of Go, as the specification demands; other spellings (``x86_64``, ``aarch64``) are
translated when text is parsed. Reads nothing but `os.uname`.
"""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidInputError
from containerlib.oci import fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Platform"]

_COMPONENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "arm64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "arm": ("arm", "v7"),
}

# A processor of the key also runs code for the variants listed, best first.
_RUNS: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("arm64", ""): (("arm64", ""), ("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")),
    ("arm", "v7"): (("arm", "v7"), ("arm", "v6"), ("arm", "v5")),
    ("arm", "v6"): (("arm", "v6"), ("arm", "v5")),
    ("amd64", ""): (("amd64", ""), ("386", "")),
}


@attrs.frozen
class Platform:
    """Operating system, architecture and variant in normal form: ``arm64/v8`` is ``arm64``."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        parts = [self.os, self.architecture, self.variant]
        return "/".join(part for part in parts if part)

    @classmethod
    @functools.cache
    def host(cls) -> Platform:
        """Return the platform of this machine."""
        name = os.uname()
        return normalised(name.sysname.lower(), name.machine)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Parse ``os/architecture[/variant]``, or ``architecture`` alone for Linux.

        Raises:
            InvalidInputError: The text has another form.
        """
        parts = text.split("/")
        if len(parts) == 1:
            parts = ["linux", *parts]
        if len(parts) not in {2, 3} or not all(_COMPONENT.fullmatch(part) for part in parts):
            raise InvalidInputError(f"platform {text!r}: expected os/architecture or os/architecture/variant")
        return normalised(*parts)

    @classmethod
    def from_json(cls, obj: Mapping[str, object]) -> Platform:
        """Read a platform object of an index, or the same fields of an image configuration."""
        return normalised(
            fields.required_text(obj, "os"),
            fields.required_text(obj, "architecture"),
            fields.text(obj, "variant"),
            fields.text(obj, "os.version"),
        )

    def to_json(self) -> dict[str, object]:
        """Return the object form, without empty fields."""
        members = {
            "os": self.os,
            "architecture": self.architecture,
            "variant": self.variant,
            "os.version": self.os_version,
        }
        return {key: value for key, value in members.items() if value}

    def matches(self, wanted: Platform) -> bool:
        """Say whether this platform is the `wanted` one; a variant that is not asked for may be any."""
        return (self.os, self.architecture) == (wanted.os, wanted.architecture) and (
            not wanted.variant or self.variant == wanted.variant
        )

    def best_of(self, candidates: Sequence[Platform | None]) -> int | None:
        """Return the index of the candidate that this platform runs best, or None if it runs none.

        A candidate None stands for an image that does not say what it is for; it is taken as a last resort.
        """
        key = (self.architecture, self.variant)
        runs = _RUNS.get(key, (key,))
        for architecture, variant in runs:
            for index, candidate in enumerate(candidates):
                if candidate is not None and candidate.matches(Platform(self.os, architecture, variant)):
                    return index
        return candidates.index(None) if None in candidates else None


def normalised(system: str, architecture: str, variant: str = "", os_version: str = "") -> Platform:
    """Return the platform with the usual names for the same thing."""
    system = {"macos": "darwin"}.get(system.lower(), system.lower())
    name, implied = _ARCHITECTURES.get(architecture.lower(), (architecture.lower(), ""))
    variant = variant.lower() or implied
    if variant.isdigit():
        variant = f"v{variant}"
    if (name, variant) in {("arm64", "v8"), ("amd64", "v1")}:
        variant = ""
    return Platform(system, name, variant, os_version)
