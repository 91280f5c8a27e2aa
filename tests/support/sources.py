"""The source text of the package, as syntax trees: what imports what, and how long things are."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from support.checkout import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Import", "Module", "c_functions", "c_sources", "imports", "modules", "python_functions"]

PACKAGE = "containerlib"


@dataclass(frozen=True, slots=True)
class Import:
    """One name that a module imports.

    Attributes:
        name: Full name of the imported module.
        line: Where.
        is_early: Whether it happens when the module is imported; not inside a function or for type checking.
    """

    name: str
    line: int
    is_early: bool


@dataclass(frozen=True, slots=True)
class Module:
    """One file of the package."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def relative_path(self) -> str:
        """The path as it stands in a message."""
        return str(self.path.relative_to(CHECKOUT))

    @property
    def is_package(self) -> bool:
        """Whether the file is a package's ``__init__``."""
        return self.path.name == "__init__.py"


def _module_name(path: Path) -> str:
    """Turn a path into a dotted name."""
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Module]:
    """Parse every module of the package in the checkout, by name."""
    found = {}
    for path in sorted((CHECKOUT / PACKAGE).glob("**/*.py")):
        name = _module_name(path)
        found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))
    return found


def imports(module: Module) -> list[Import]:
    """List everything a module imports, wherever the statement stands."""
    return list(_walk(module, module.tree, is_early=True))


def _walk(module: Module, node: ast.AST, *, is_early: bool) -> Iterator[Import]:
    """Walk the tree and remember whether the statement runs at import."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, is_early) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from _resolve(module, child, is_early=is_early)
        else:
            yield from _walk(module, child, is_early=is_early and not _is_late(child))


def _is_late(node: ast.AST) -> bool:
    """Tell whether the statements inside do not run when the module is imported."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _resolve(module: Module, node: ast.ImportFrom, *, is_early: bool) -> Iterator[Import]:
    """Find what ``from a import b`` means: the module a.b if there is one, else a."""
    base = node.module or ""
    if node.level:
        parts = module.name.split(".")
        parts = parts[: len(parts) - node.level + module.is_package]
        base = ".".join((*parts, *filter(None, (node.module,))))
    for alias in node.names:
        inner = f"{base}.{alias.name}"
        yield Import(inner if inner in modules() else base, node.lineno, is_early)


def _code_lines(text: str) -> set[int]:
    """Return the numbers of the lines that hold code: no blank lines and no comments."""
    empty = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines


def python_functions(module: Module) -> Iterator[tuple[str, int, int]]:
    """Yield name, line and number of lines of code of each function; its docstring does not count."""
    code = _code_lines(module.path.read_text(encoding="utf-8"))
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        own = code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        first = node.body[0]
        if ast.get_docstring(node) is not None:
            own -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
        yield node.name, node.lineno, len(own)


_C_NOISE = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|^[ \t]*#(?:\\\n|[^\n])*',
    re.DOTALL | re.MULTILINE,
)


def c_sources() -> list[Path]:
    """Return the C files of the checkout, without generated ones."""
    return sorted(path for path in (CHECKOUT / "csrc").glob("**/*.[ch]") if "build" not in path.parts)


def c_functions(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, line and number of lines of code of each function body in a C file."""
    # Comments, strings and preprocessor lines are blanked out; line numbers stay.
    text = _C_NOISE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), path.read_text(encoding="utf-8"))
    depth, head, start = 0, 0, 0
    for match in re.finditer(r"[{};]", text):
        if match[0] == "{":
            if depth == 0:
                start = match.start()
            depth += 1
        elif match[0] == "}":
            depth -= 1
        if depth == 0 and match[0] != "{":
            signature = text[head:start] if start >= head else ""
            if match[0] == "}" and (name := _function_name(signature)):
                lines = sum(1 for line in text[start : match.end()].splitlines() if line.strip())
                yield name, text.count("\n", 0, start) + 1, lines
            head = match.end()


def _function_name(signature: str) -> str | None:
    """Return the name before the last group of parentheses, if that is what the text ends with."""
    signature = signature.rstrip()
    if not signature.endswith(")"):
        return None
    depth, position = 0, len(signature)
    while position > 0:
        position -= 1
        depth += {")": 1, "(": -1}.get(signature[position], 0)
        if depth == 0:
            break
    before = re.search(r"(\w+)\s*$", signature[:position])
    if before is None:
        return None
    return _function_name(signature[: before.start()]) if before[1] == "__attribute__" else before[1]
