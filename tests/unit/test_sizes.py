"""Modules and functions stay short enough to be read at once."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from support.sources import c_functions, c_sources, modules, python_functions

if TYPE_CHECKING:
    from pathlib import Path

MODULE_LINES = 500
PYTHON_FUNCTION_LINES = 50
C_FUNCTION_LINES = 80


def test_modules_are_short() -> None:
    """No module has more than 500 lines."""
    sizes = {
        module.relative_path: len(module.path.read_text("utf-8").splitlines())
        for module in modules().values()
    }
    long = [f"{path}: {size} lines" for path, size in sizes.items() if size > MODULE_LINES]
    assert not long, "\n".join(long)


def test_functions_are_short() -> None:
    """No Python function has more than 50 lines of code; docstring, comments and blank lines do not count."""
    long = [
        f"{module.relative_path}:{line}: {name} has {size} lines"
        for module in modules().values()
        for name, line, size in python_functions(module)
        if size > PYTHON_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_c_functions_are_short() -> None:
    """No C function has more than 80 lines of code; comments, blank and preprocessor lines do not count."""
    long = [
        f"{path.name}:{line}: {name} has {size} lines"
        for path in c_sources()
        for name, line, size in c_functions(path)
        if size > C_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_c_functions_are_found(tmp_path: Path) -> None:
    """Functions are told from structures, tables, declarations and what stands in comments and strings."""
    source = tmp_path / "example.c"
    source.write_text(
        textwrap.dedent("""\
            #define LOOP(x) do { x; } while (0)
            struct pair { int a; int b; };
            static const struct pair TABLE[] = { { 1, 2 }, { 3, 4 } };
            int declared(int a);
            /* int commented(void) { } */
            static int first(const char *text)
            {
                const char *brace = "}";

                if (text) {
                    return 1; // }
                }
                return brace != 0;
            }
            __attribute__((noreturn)) void second(void (*call)(int), int n) { for (;;) call(n); }
            """),
        encoding="ascii",
    )
    assert list(c_functions(source)) == [("first", 7, 7), ("second", 15, 1)]
