"""Make docs/reference/*.md from the docstrings of the public API, or check that they are up to date.

    python docs/generate_reference.py            write the pages
    python docs/generate_reference.py --check    fail when a page differs from what would be written

Pages come from ``containerlib.__all__`` alone: one per class with methods, one for functions, one for value
objects, one for the tree of errors, and an index. A page that this program did not make is left alone.
"""  # noqa: INP001 - a script, not a part of a package

from __future__ import annotations

import argparse
import difflib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
REFERENCE = HERE / "reference"
MARKER = "<!-- made by docs/generate_reference.py from the docstrings; change those -->"

_SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Warns", "Yields")
_SECTION = re.compile(rf"^({'|'.join(_SECTIONS)}):$")
_ITEM = re.compile(r"^    (\*{0,2}\w[\w., ]*):\s*(.*)$")
# Representations that carry an address, or the place where something is defined, differ from run to run.
_ADDRESS = re.compile(r"<([\w.]+)[^<>]* at 0x[0-9a-f]+>")


def main() -> int:
    """Write or check the pages; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--check", action="store_true", help="change nothing, fail when a page is out of date"
    )
    arguments = parser.parse_args()
    wanted = dict(_pages())
    present = {path.name: path.read_text(encoding="utf-8") for path in sorted(REFERENCE.glob("*.md"))}
    stale = [name for name, text in present.items() if text.startswith(MARKER) and name not in wanted]
    changed = [name for name, text in wanted.items() if present.get(name) != text]
    if arguments.check:
        for name in (*changed, *stale):
            _show_difference(name, present.get(name, ""), wanted.get(name, ""))
        return 1 if changed or stale else 0
    REFERENCE.mkdir(exist_ok=True)
    for name in changed:
        (REFERENCE / name).write_text(wanted[name], encoding="utf-8")
    for name in stale:
        (REFERENCE / name).unlink()
    return 0


def _show_difference(name: str, present: str, wanted: str) -> None:
    """Print what would change."""
    path = f"docs/reference/{name}"
    lines = difflib.unified_diff(present.splitlines(), wanted.splitlines(), path, "docstrings", lineterm="")
    sys.stdout.write("\n".join(lines) + f"\n{path} is out of date: run python docs/generate_reference.py\n")


def _pages() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each page."""
    if importlib.util.find_spec("containerlib") is None:
        sys.path.insert(0, str(HERE.parent))
    import containerlib  # noqa: PLC0415 - found only after the line before

    public = {name: getattr(containerlib, name) for name in sorted(containerlib.__all__)}
    classes = {name: value for name, value in public.items() if isinstance(value, type)}
    errors = {name: value for name, value in classes.items() if issubclass(value, Exception)}
    functions = {name: value for name, value in public.items() if inspect.isroutine(value)}
    values = {n: v for n, v in classes.items() if n not in errors and _is_value(v)}
    handles = {n: v for n, v in classes.items() if n not in errors and n not in values}
    index = ["# Reference", "", _first_line(containerlib), ""]
    groups: list[tuple[str, str, dict[str, type], Callable[[str, type], list[str]]]] = [
        ("Value objects", "options.md", values, _class_section),
        ("Errors", "errors.md", errors, _error_section),
    ]
    index += _links("Classes", [(name, f"{name.lower()}.md", value) for name, value in handles.items()])
    for name, value in handles.items():
        yield f"{name.lower()}.md", _page([f"# {name}", "", *_class_body(name, value, level=2)])
    if functions:
        index += _links("Functions", [(n, f"functions.md#{n.lower()}", v) for n, v in functions.items()])
        sections = [line for n, v in functions.items() for line in _function_section(n, v, level=2)]
        yield "functions.md", _page(["# Functions", "", *sections])
    for title, page, members, section in groups:
        if members:
            index += _links(title, [(n, f"{page}#{n.lower()}", v) for n, v in members.items()])
            head = _tree(errors) if title == "Errors" else []
            sections = [line for n, v in members.items() for line in section(n, v)]
            yield page, _page([f"# {title}", "", *head, *sections])
    yield "index.md", _page(index)


def _page(lines: list[str]) -> str:
    """Put a page together."""
    return "\n".join([MARKER, "", *lines]).rstrip() + "\n"


def _links(title: str, entries: list[tuple[str, str, object]]) -> list[str]:
    """Make one list of the index."""
    if not entries:
        return []
    lines = [f"- [`{name}`]({target}): {_first_line(value)}" for name, target, value in entries]
    return [f"## {title}", "", *lines, ""]


def _is_value(value: type) -> bool:
    """Tell a value object or an enumeration from a handle: values can be made by the caller."""
    return (
        hasattr(value, "__attrs_attrs__")
        and getattr(value, "__hash__", None) is not None
        and _is_frozen(value)
    )


def _is_frozen(value: type) -> bool:
    """Tell whether attrs made the class immutable."""
    return "frozen" in getattr(value.__setattr__, "__name__", "")


def _first_line(value: object) -> str:
    """Return the summary of a docstring."""
    return (inspect.getdoc(value) or "").partition("\n")[0]


def _class_section(name: str, value: type) -> list[str]:
    """Describe a class on a page it shares with others."""
    return [f"## {name}", "", *_class_body(name, value, level=3)]


def _class_body(name: str, value: type, *, level: int) -> list[str]:
    """Describe a class without its heading: signature, docstring, then its public members in source order."""
    lines = [*_signature(name, value), *_prose(value)]
    for member, raw in _members(value):
        if isinstance(raw, property):
            lines += [f"{'#' * level} {member}", "", *_property_type(raw), *_prose(raw.fget)]
        else:
            function = getattr(value, member)
            prefix = "async " if inspect.iscoroutinefunction(function) else ""
            lines += _function_section(member, function, level=level, owner=name, prefix=prefix)
    return lines


def _members(value: type) -> Iterator[tuple[str, object]]:
    """Yield public properties and methods that the class or a private base of ours defines."""
    seen: set[str] = set()
    for base in value.__mro__:
        if not base.__module__.startswith("containerlib"):
            continue
        for name, raw in vars(base).items():
            is_member = isinstance(raw, property | classmethod | staticmethod) or inspect.isfunction(raw)
            if is_member and not name.startswith("_") and name not in seen:
                seen.add(name)
                yield name, raw


def _property_type(raw: property) -> list[str]:
    """Show the type of a property."""
    annotation = getattr(raw.fget, "__annotations__", {}).get("return")
    return [f"Type: `{annotation}`", ""] if annotation else []


def _function_section(
    name: str, value: object, *, level: int, owner: str = "", prefix: str = ""
) -> list[str]:
    """Describe a function or a method."""
    heading = f"{'#' * level} {name}"
    return [heading, "", *_signature(f"{owner}.{name}" if owner else name, value, prefix), *_prose(value)]


def _signature(name: str, value: object, prefix: str = "") -> list[str]:
    """Show how to call something, one parameter per line when it is long."""
    try:
        signature = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return []
    parameters = [p for p in signature.parameters.values() if p.name not in {"self", "cls"}]
    if any(parameter.name.startswith("_") for parameter in parameters):
        return []
    parameters = [_shorten(parameter) for parameter in parameters]
    returns = inspect.Signature.empty if isinstance(value, type) else signature.return_annotation
    signature = signature.replace(parameters=parameters, return_annotation=returns)
    # The language is "py" so that the test of the documentation does not run it.
    text = _stable(f"{prefix}{name}{signature}")
    if len(text) > 90:  # noqa: PLR2004 - wider than a page
        tail = (
            "" if returns is inspect.Signature.empty else _stable(f" -> {inspect.formatannotation(returns)}")
        )
        text = "\n".join([f"{prefix}{name}(", *_parameter_lines(parameters), f"){tail}"])
    return ["```py", text, "```", ""]


class _Verbatim:
    """A default that shows as this text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _shorten(parameter: inspect.Parameter) -> inspect.Parameter:
    """Show a value object that is a default by its name; all its fields would fill the page."""
    default = parameter.default
    if isinstance(default, type) or not hasattr(type(default), "__attrs_attrs__"):
        return parameter
    return parameter.replace(default=_Verbatim(f"{type(default).__name__}(...)"))


def _parameter_lines(parameters: list[inspect.Parameter]) -> Iterator[str]:
    """Show one parameter per line, with the star that makes the rest keyword-only."""
    starred = False
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            starred = True
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "    *,"
        yield f"    {_stable(str(parameter))},"


def _stable(text: str) -> str:
    """Remove what differs from run to run or says nothing to a reader."""
    text = _ADDRESS.sub(r"<\1>", text).replace("NOTHING", "...")
    return re.sub(
        r"\b(?:containerlib(?:\.\w+)*|collections\.abc|typing|pathlib)\.(?=[A-Z])", "", text
    ).replace("'", "")


def _prose(value: object) -> list[str]:
    """Turn a docstring into Markdown: sections become lists, everything else stays."""
    lines: list[str] = []
    inside = False
    for line in (inspect.getdoc(value) or "").splitlines():
        if section := _SECTION.match(line):
            inside = True
            lines += [f"**{section[1]}**", ""]
        elif inside and (item := _ITEM.match(line)):
            lines.append(f"- `{item[1]}`: {item[2]}")
        elif inside and line.startswith("    "):
            lines.append(f"  {line.strip()}" if lines[-1] else line.strip())
        else:
            inside = inside and not line.strip()
            lines.append(line)
    return [*lines, ""]


def _error_section(name: str, value: type) -> list[str]:
    """Describe an error: its bases say how it may be caught."""
    bases = " and ".join(f"`{base.__name__}`" for base in value.__bases__)
    return [f"## {name}", "", f"Is a {bases}.", "", *_prose(value)]


def _tree(errors: dict[str, type]) -> list[str]:
    """Draw the tree of errors."""

    def draw(node: type, depth: int) -> Iterator[str]:
        foreign = [
            base.__name__ for base in node.__bases__ if base not in errors.values() and base is not Exception
        ]
        yield f"{'  ' * depth}{node.__name__}" + (f"({', '.join(foreign)})" if foreign else "")
        for child in errors.values():
            if node in child.__bases__:
                yield from draw(child, depth + 1)

    roots = [value for value in errors.values() if not set(value.__bases__) & set(errors.values())]
    return ["```text", *(line for root in roots for line in draw(root, 0)), "```", ""]


if __name__ == "__main__":
    sys.exit(main())
