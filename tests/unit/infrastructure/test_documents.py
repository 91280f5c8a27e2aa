"""The code blocks of a document are found, run and compared as its author means them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest
from support.documents import matches, parse_blocks, parse_console, run_console, run_python

if TYPE_CHECKING:
    from pathlib import Path

    from support.documents import Block


def _blocks(text: str) -> list[Block]:
    """Parse an indented text."""
    return list(parse_blocks(textwrap.dedent(text)))


def test_blocks_have_language_and_line() -> None:
    """A block knows its language and where it starts; a list item's indentation is not part of it."""
    blocks = _blocks("""\
        # Title
        ```python
        a = 1
        ```
        - item

          ~~~ console
          $ true
          ~~~
        """)
    assert [(block.language, block.line, block.text) for block in blocks] == [
        ("python", 3, "a = 1\n"),
        ("console", 8, "$ true\n"),
    ]


def test_longer_fence_holds_shorter_one() -> None:
    """A block that shows a block is one block."""
    (block,) = _blocks("````markdown\n```python\nx\n```\n````\n")
    assert block.language == "markdown"
    assert block.text == "```python\nx\n```\n"


def test_marker_is_for_the_next_block_alone() -> None:
    """The marker holds across blank lines, not across text, and not for a second block."""
    blocks = _blocks("""\
        <!-- not run: needs a network -->

        ```python
        ```
        ```python
        ```
        <!-- not run: forgotten -->
        text
        ```python
        ```
        """)
    assert [block.not_run for block in blocks] == ["needs a network", None, None]


def test_console_block_has_commands_and_output() -> None:
    """Continued lines belong to the command; what follows is output, and no output means that any will do."""
    (block,) = _blocks("""\
        ```console
        $ echo a \\
            b
        a b
        $ cat <<EOF
        > text
        > EOF
        text
        $ true
        ```
        """)
    assert [(command.line, command.text, command.expected) for command in parse_console(block)] == [
        (2, "echo a \\\n    b", "a b"),
        (5, "cat <<EOF\ntext\nEOF", "text"),
        (9, "true", None),
    ]


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("a", "a\n"),
        ("a\nb", "a  \nb\n"),
        ("pid ... ended", "pid 12 ended"),
        ("first\n...\nlast", "first\n1\n2\nlast"),
        ("(x)", "(x)"),
    ],
)
def test_output_matches(expected: str, actual: str) -> None:
    """Blanks at line ends do not count, three dots stand for anything, and nothing else is special."""
    assert matches(expected, actual)


@pytest.mark.parametrize(("expected", "actual"), [("a", "b"), ("a", "a b"), ("a...b", "a"), (".", "x")])
def test_output_differs(expected: str, actual: str) -> None:
    """The whole output has to match."""
    assert not matches(expected, actual)


def test_python_blocks_share_a_namespace(tmp_path: Path) -> None:
    """What one block defines the next one can use."""
    blocks = _blocks(
        "```python\nfrom __future__ import annotations\na = 1\n```\n```python\nassert a == 1\n```\n"
    )
    assert run_python(tmp_path / "page.md", blocks, tmp_path) is None


def test_python_failure_points_into_the_document(tmp_path: Path) -> None:
    """A traceback has the name of the document and the line in it."""
    problem = run_python(tmp_path / "page.md", _blocks("text\n```python\n1 / 0\n```\n"), tmp_path)
    assert problem is not None
    assert f'"{tmp_path}/page.md", line 3' in problem


def _run_console(text: str, base: Path) -> list[str]:
    """Run a console block."""
    (block,) = _blocks(f"```console\n{text}\n```\n")
    return run_console(parse_console(block), base)


def test_console_commands_share_a_shell(tmp_path: Path) -> None:
    """A variable and the working directory last from one command to the next."""
    assert _run_console("$ mkdir d && cd d && v=1\n$ echo $v ${PWD##*/}\n1 d", tmp_path) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$ false", "line 2: false\nexit status 1:"),
        ("$ echo a\nb", "line 2: echo a\nexpected:\nb\nprinted:\na"),
        ("$ echo error >&2\nfine", "line 2: echo error >&2\nexpected:\nfine\nprinted:\nerror"),
        ("$ exit 3\n$ true", "line 2: exit 3\nthe shell ended here:"),
    ],
)
def test_console_failure_names_the_command(text: str, expected: str, tmp_path: Path) -> None:
    """A command that fails, or that prints something else, is named with its line and its output."""
    assert _run_console(text, tmp_path)[0].startswith(expected)
