"""``containerlib version``: what runs here."""

from __future__ import annotations

import os
import platform

import click

import containerlib
from containerlib.cli.output import FORMAT_OPTION, print_json

__all__ = ["version"]


def _version(style: str) -> None:
    system = os.uname()
    found = {
        "containerlib": containerlib.__version__,
        "python": platform.python_version(),
        "kernel": system.release,
        "architecture": system.machine,
    }
    if style == "json":
        print_json(found)
        return
    for name, value in found.items():
        print(f"{name + ':':14} {value}")


version = click.Command("version", callback=_version, params=[FORMAT_OPTION()], help="Show versions.")
