"""Every code block of the README and of the documentation runs, and prints what it says it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.checkout import CHECKOUT
from support.documents import NOT_RUN, Block, parse_blocks, parse_console, run_console, run_python
from support.session import temporary_directory

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("**/*.md"))]

pytestmark = pytest.mark.root


def _blocks(path: Path, language: str) -> list[Block]:
    """Return the blocks that are to run; count the others."""
    found = [block for block in parse_blocks(path.read_text(encoding="utf-8")) if block.language == language]
    for block in found:
        if block.not_run is not None:
            NOT_RUN[block.not_run] += 1
    return [block for block in found if block.not_run is None]


def _relative(path: Path) -> str:
    """Name a document in the test's id."""
    return str(path.relative_to(CHECKOUT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=_relative)
def test_python_blocks_run(path: Path) -> None:
    """The Python blocks of one document run from top to bottom in one fresh interpreter."""
    blocks = _blocks(path, "python")
    if not blocks:
        return
    with temporary_directory("d") as base:
        problem = run_python(path, blocks, base)
    assert problem is None, problem


@pytest.mark.parametrize("path", DOCUMENTS, ids=_relative)
def test_console_blocks_run(path: Path) -> None:
    """The commands of one document run in one shell, and print what the document shows."""
    commands = [command for block in _blocks(path, "console") for command in parse_console(block)]
    if not commands:
        return
    with temporary_directory("d") as base:
        problems = run_console(commands, base)
    assert not problems, "\n\n".join(problems)
