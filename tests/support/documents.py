"""Code blocks of the documentation: find them, run them, compare what they print.

A block may be preceded by a line ``<!-- not run: reason -->``; it is then left out, and the number of such
blocks is printed at the end of the session by reason.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pytest

__all__ = [
    "NOT_RUN",
    "Block",
    "Command",
    "matches",
    "parse_blocks",
    "parse_console",
    "run_console",
    "run_python",
]

NOT_RUN: Counter[str] = Counter()
"""How many blocks were left out, by reason; filled by the tests."""

TIMEOUT_S = 300
_MARKER = re.compile(r"<!--\s*not run:\s*(.+?)\s*-->\s*$")
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})\s*(?P<language>[^\s`{]*)")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        language: First word after the fence.
        line: Line number of the first line of its text.
        text: The text, without the fence's indentation.
        not_run: Why it is not to be run, or None.
    """

    language: str
    line: int
    text: str
    not_run: str | None


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block and what the document says it prints; None when it says nothing."""

    line: int
    text: str
    expected: str | None


def parse_blocks(text: str) -> Iterator[Block]:
    """Find all fenced blocks of a Markdown text."""
    lines = text.splitlines()
    number, reason = 0, None
    while number < len(lines):
        line = lines[number]
        number += 1
        opening = _FENCE.match(line)
        if opening is None:
            marker = _MARKER.search(line)
            # Blank lines may stand between the marker and its block, and nothing else may.
            reason = marker[1] if marker else (reason if not line.strip() else None)
            continue
        start = number
        while number < len(lines) and not _closes(lines[number], opening["fence"]):
            number += 1
        body = [line.removeprefix(opening["indent"]) for line in lines[start:number]]
        yield Block(opening["language"], start + 1, "".join(f"{line}\n" for line in body), reason)
        number, reason = number + 1, None


def _closes(line: str, fence: str) -> bool:
    """Tell whether a line closes a block that `fence` opened."""
    stripped = line.strip()
    return set(stripped) == {fence[0]} and len(stripped) >= len(fence)


def parse_console(block: Block) -> list[Command]:
    """Split a console block into commands (``$ ``, continued by ``> ``) and their output."""
    commands: list[tuple[int, list[str], list[str]]] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ "):
            commands.append((number, [line[2:]], []))
        elif line.startswith("> ") and commands and not commands[-1][2]:
            commands[-1][1].append(line[2:])
        elif commands and not commands[-1][2] and commands[-1][1][-1].endswith("\\"):
            commands[-1][1].append(line)
        elif commands:
            commands[-1][2].append(line)
        elif line.strip():
            raise ValueError(f"line {number}: a console block starts with a command after '$ '")
    return [
        Command(number, "\n".join(text), "\n".join(output).strip() or None)
        for number, text, output in commands
    ]


def matches(expected: str, actual: str) -> bool:
    """Compare output; ``...`` in what is expected stands for anything, across lines too."""
    parts = (re.escape(part) for part in expected.strip().split("..."))
    return re.fullmatch(".*".join(parts), _normalise(actual), re.DOTALL) is not None


def _normalise(text: str) -> str:
    """Drop blanks at the ends of lines, which no reader sees."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _environment(base: Path) -> dict[str, str]:
    """Give a block its own engine directories, and the programs of this interpreter's environment."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    roots = {"CONTAINERLIB_ROOT": str(base / "r"), "CONTAINERLIB_RUN_ROOT": str(base / "n")}
    return {**os.environ, **roots, "PATH": path, "PYTHONWARNINGS": "error"}


def run_python(path: Path, blocks: Iterable[Block], base: Path) -> str | None:
    """Run the blocks of one document in one namespace, in a fresh interpreter; return what went wrong.

    The text keeps its line numbers, so a traceback points into the document.
    """
    # Compiled block by block: a `from __future__` may stand at the top of any of them.
    program = ["namespace = {'__name__': '__main__'}"]
    for block in blocks:
        padded = "\n" * (block.line - 1) + block.text
        program.append(f"exec(compile({padded!r}, {str(path)!r}, 'exec'), namespace)")
    work = base / "w"
    work.mkdir()
    script = base / "blocks.py"
    script.write_text("\n".join(program), encoding="utf-8")
    return _run([sys.executable, str(script)], work, _environment(base))


def _run(command: list[str], work: Path, environment: Mapping[str, str]) -> str | None:
    """Run a program; return its output if it failed."""
    done = subprocess.run(
        command,
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=TIMEOUT_S,
        check=False,
    )
    return f"exit status {done.returncode}:\n{done.stdout}" if done.returncode != 0 else None


def run_console(commands: list[Command], base: Path) -> list[str]:
    """Run the commands of one document in one shell, in an empty directory; return what went wrong.

    A command has to end with status 0, and to print what the document shows if it shows anything.
    """
    work = base / "w"
    work.mkdir()
    results = base / "results"
    results.mkdir()
    script = []
    for number, command in enumerate(commands):
        script.append(f"exec >{results}/{number} 2>&1\n{command.text}\necho $? >{results}/{number}.status\n")
    failed = _run(["bash", "-c", "".join(script)], work, _environment(base))
    problems = [_judge(command, results / str(number)) for number, command in enumerate(commands)]
    return [problem for problem in (*problems, failed) if problem is not None]


def _judge(command: Command, result: Path) -> str | None:
    """Compare what one command did with what the document says."""
    status = Path(f"{result}.status")
    output = result.read_text(encoding="utf-8", errors="replace") if result.exists() else ""
    where = f"line {command.line}: {command.text}"
    if not status.exists():
        return f"{where}\nthe shell ended here:\n{output}"
    if (code := status.read_text(encoding="ascii").strip()) != "0":
        return f"{where}\nexit status {code}:\n{output}"
    if command.expected is not None and not matches(command.expected, output):
        return f"{where}\nexpected:\n{command.expected}\nprinted:\n{output}"
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many blocks were left out."""
    if NOT_RUN:
        terminalreporter.section("documentation blocks not run")
        for reason, count in NOT_RUN.most_common():
            terminalreporter.write_line(f"{count:5d}  {reason}")
