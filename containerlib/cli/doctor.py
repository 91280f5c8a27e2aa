"""``containerlib doctor``: what this host can give containers, and what is missing."""

from __future__ import annotations

import attrs
import click

from containerlib.api.engine import Engine
from containerlib.cli.output import FORMAT_OPTION, print_json, print_table

__all__ = ["doctor"]


def _doctor(style: str) -> int:
    with Engine() as engine:
        findings = engine.doctor()
    if style == "json":
        for finding in findings:
            print_json(attrs.asdict(finding))
    else:
        print_table(("WHAT", "STATE", "FOUND"), [(each.name, each.state, each.found) for each in findings])
        for each in findings:
            if each.state != "present":
                print(f"\n{each.name} is {each.state}. It is for {each.needed}.")
                print(f"  Without it: {each.cost}.")
                print(f"  Remedy: {each.remedy}.")
    return 1 if any(each.is_essential and each.state == "missing" for each in findings) else 0


doctor = click.Command(
    "doctor",
    callback=_doctor,
    params=[FORMAT_OPTION()],
    help="Say what this host can give containers, what that costs, and the remedies.\n\n"
    "Starts a container to be sure. The exit code is 1 if something is missing without which none starts.",
    short_help="Say what this host can and cannot do.",
)
