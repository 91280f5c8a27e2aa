"""What every benchmark reads from its command line and says at its end: tables, and a file of JSON.

It must not know what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from measure import HERE, summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Target", "arguments", "at_most", "conclude", "print_table", "settings_of"]

Target = tuple[str, float | None, float, bool]
"""Name, value (None: not measured), limit, and whether it holds."""


def arguments(
    documentation: str | None, name: str, *, rounds: int, warmup: int, storage: str = ""
) -> argparse.Namespace:
    """Read the command line of the benchmark `name`; one with `storage` can be told where its files are."""
    parser = argparse.ArgumentParser(description=(documentation or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--warmup", type=int, default=warmup)
    parser.add_argument("--rows", default="", help="names, comma-separated (default: all)")
    parser.add_argument("--json", default=os.path.join(HERE, "results", f"{name}.json"), metavar="FILE")
    parser.add_argument("--check", action="store_true", help="end with status 1 if a target does not hold")
    if storage:
        parser.add_argument("--storage", default=storage, metavar="DIRECTORY", help="where stores are made")
    chosen = parser.parse_args()
    chosen.rows = [name.strip() for name in chosen.rows.split(",") if name.strip()]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # so that everything is cleaned up
    # Programs run from cached bytecode where they are installed, so they do here.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    return chosen


def settings_of(chosen: argparse.Namespace, storage: str) -> dict[str, Any]:
    """Return under which circumstances this run measures."""
    return {
        "rounds": chosen.rounds,
        "warmup": chosen.warmup,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "storage": storage,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def at_most(name: str, value: float | None, limit: float) -> Target:
    """Return the target that `value` is not above `limit`."""
    return name, value, limit, value is not None and value <= limit


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table, by rich if that is installed."""
    try:
        from rich import box  # noqa: PLC0415 - optional
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
    except ImportError:
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        print(f"\n{title}")
        for row in (header, *rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(*header, title=title, box=box.SIMPLE, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def conclude(
    *,
    times: Mapping[str, Sequence[float]],
    extras: Mapping[str, Any],
    missing: Mapping[str, str],
    targets: Sequence[Target],
    settings: Mapping[str, Any],
    json_path: str,
) -> bool:
    """Print the targets and what is missing, write everything to a file, return whether all targets hold.

    Args:
        times: All samples in microseconds, by row.
        extras: Everything else that was measured.
        missing: Why a row has no numbers.
        targets: What was to be reached.
        settings: See `settings_of`.
        json_path: The file; its directory is made.
    """
    words = []
    for name, value, limit, holds in targets:
        result = "not measured" if value is None else "pass" if holds else "miss"
        words.append([name, "-" if value is None else f"{value:.2f}", f"{limit:g}", result])
    print_table("Targets", ["what", "value", "limit", "result"], words)
    if missing:
        print_table("Missing rows", ["row", "why"], [[name, why] for name, why in missing.items()])
    content = {
        "settings": settings,
        "rows": {
            name: {"summary_us": summary(samples), "samples_us": samples} for name, samples in times.items()
        },
        "extras": extras,
        "missing": missing,
        "targets": [dict(zip(("name", "value", "limit", "pass"), target, strict=True)) for target in targets],
    }
    os.makedirs(os.path.dirname(json_path) or ".", exist_ok=True)
    with open(json_path, "w", encoding="utf-8") as output:
        json.dump(content, output, indent=1)
    return all(holds for *_, holds in targets)
