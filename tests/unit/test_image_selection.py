from __future__ import annotations

import pytest

from containerlib.errors import InvalidOption
from containerlib.image.selection import _pattern


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("*", "python", True),
        ("*", "team/python", False),
        ("*/*", "team/python:3", True),
        ("py*", "python:3.12", True),
        ("py*n", "python:3.12", False),
        ("pytho?", "python", True),
        ("a?b", "a/b", False),
        ("a[!-~]b", "a/b", False),
        ("a[^x]b", "a/b", False),
        ("v[0-9].[^3]", "v1.2", True),
        ("v[0-9].[^3]", "v1.3", False),
        ("[a&&b]", "&", True),
        ("[a||b]", "|", True),
        ("[[x]", "[", True),
        ("[\\]x]", "]", True),
        ("\\*", "*", True),
        ("\\*", "x", False),
        ("a.c", "abc", False),
        ("(a|b)+$", "a", False),
        ("", "", True),
    ],
)
def test_patterns(pattern: str, text: str, matches: bool) -> None:  # noqa: FBT001 - a table
    """A pattern means what it means to Go's path.Match, and to nothing of our regular expressions."""
    assert bool(_pattern(pattern).fullmatch(text)) is matches


@pytest.mark.parametrize("pattern", ["[", "[a", "[]", "[^]", "\\", "a[z-a]", "x\\"])
def test_damaged_patterns(pattern: str) -> None:
    """A pattern that Go refuses is refused here."""
    with pytest.raises(InvalidOption, match="reference"):
        _pattern(pattern)
