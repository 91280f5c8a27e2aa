"""Make docs/reference/*.md from the docstrings of the public API, or check that they are up to date.

    python docs/generate_reference.py            write the pages
    python docs/generate_reference.py --check    fail when a page differs from what would be written

Pages come from ``containerlib.__all__`` alone: one per class with methods, one for functions and constants,
one for the keyword options, one for value objects, one for the tree of errors, and an index. A page that this
program did not make is left alone.
"""  # noqa: INP001 - a script, not a part of a package

from __future__ import annotations

import argparse
import ast
import difflib
import enum
import importlib.util
import inspect
import itertools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, is_typeddict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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
    public = {name: value for name, value in public.items() if not name.startswith("_")}
    kinds = _sort(public)
    _fill_names(public, kinds)
    index = ["# Reference", "", _first_line(containerlib), ""]
    index += _links("Classes", kinds["handles"])
    for name, value in kinds["handles"].items():
        yield f"{name.lower()}.md", _page([f"# {name}", "", *_class_body(name, value, level=2)])
    index += _links("Functions", kinds["functions"])
    sections = [line for n, v in kinds["functions"].items() for line in _function_section(n, v, level=2)]
    constants = {name: _constant_text(containerlib, name) for name in kinds["constants"]}
    if constants:
        index += _links("Constants", constants)
        sections += ["## Constants", "", *(f"- `{n}`: {_first_line(t)}" for n, t in constants.items())]
    yield "functions.md", _page(["# Functions", "", *sections])
    index += _links("Keyword options", kinds["options"])
    for name, value in kinds["options"].items():
        yield f"{name.lower()}.md", _page([f"# {name}", "", *_options_body(value)])
    groups: list[tuple[str, str, Callable[[str, type], list[str]]]] = [
        ("Value objects", "values", _class_section),
        ("Errors", "errors", _error_section),
    ]
    for title, kind, section in groups:
        index += _links(title, kinds[kind])
        head = _tree(kinds[kind]) if kind == "errors" else []
        sections = [line for n, v in kinds[kind].items() for line in section(n, v)]
        yield f"{kind}.md", _page([f"# {title}", "", *head, *sections])
    yield "index.md", _page(index)


def _sort(public: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Sort the public names into the kinds that have different pages."""
    kinds: dict[str, dict[str, Any]] = {
        kind: {} for kind in ("handles", "functions", "constants", "options", "values", "errors")
    }
    for name, value in public.items():
        kinds[_kind(value)][name] = value
    return kinds


def _kind(value: object) -> str:
    """Name the page that describes `value`."""
    if inspect.isroutine(value):
        return "functions"
    if not isinstance(value, type):
        return "constants"
    if is_typeddict(value):
        return "options"
    if issubclass(value, Exception):
        return "errors"
    return "values" if issubclass(value, enum.Enum) or _is_value(value) else "handles"


_TARGETS: dict[str, str] = {}
"""The place of each public name, for links."""
_RENAMED: dict[str, str] = {}
"""Public names by the names under which their classes are defined, where these differ."""


def _fill_names(public: Mapping[str, object], kinds: Mapping[str, Mapping[str, object]]) -> None:
    """Note where each public name is described, and what it is called inside the package."""
    for kind, members in kinds.items():
        for name in members:
            if kind in {"handles", "options"}:
                _TARGETS[name] = f"{name.lower()}.md"
            elif kind == "constants":
                _TARGETS[name] = "functions.md#constants"
            else:
                _TARGETS[name] = f"{kind}.md#{name.lower()}"
    for name, value in public.items():
        if isinstance(value, type) and value.__name__ != name:
            _RENAMED[value.__name__] = name


def _constant_text(package: Any, name: str) -> str:
    """Return the text that stands below the assignment of a constant, where it is defined."""
    source = inspect.getsource(importlib.import_module(package._HOME[name]))  # noqa: SLF001
    body = ast.parse(source).body
    for statement, following in itertools.pairwise(body):
        if not isinstance(statement, ast.Assign | ast.AnnAssign):
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        if not any(isinstance(target, ast.Name) and target.id == name for target in targets):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            return str(following.value.value)
    return ""


def _page(lines: list[str]) -> str:
    """Put a page together."""
    return "\n".join([MARKER, "", *lines]).rstrip() + "\n"


def _links(title: str, members: Mapping[str, object]) -> list[str]:
    """Make one list of the index."""
    if not members:
        return []
    lines = [f"- [`{name}`]({_TARGETS[name]}): {_first_line(value)}" for name, value in members.items()]
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
    """Return the summary of a docstring; a text is taken for one."""
    text = value if isinstance(value, str) else inspect.getdoc(value) or ""
    return text.partition("\n")[0]


def _class_section(name: str, value: type) -> list[str]:
    """Describe a class on a page it shares with others."""
    return [f"## {name}", "", *_class_body(name, value, level=3)]


def _class_body(name: str, value: type, *, level: int) -> list[str]:
    """Describe a class without its heading: signature, docstring, then its public members in source order."""
    signature, arguments = _constructor(name, value)
    lines = [*signature, *_prose(value), *arguments]
    if issubclass(value, enum.Enum):
        lines += [*(f"- `{name}.{member.name}`: `{str(member)!r}`" for member in value), ""]
    for member, raw in _members(value):
        if isinstance(raw, property):
            lines += [f"{'#' * level} {member}", "", *_property_type(raw), *_prose(raw.fget)]
        else:
            function = getattr(value, member)
            prefix = "async " if inspect.iscoroutinefunction(function) else ""
            lines += _function_section(member, function, level=level, owner=name, prefix=prefix)
    return lines


def _constructor(name: str, value: type) -> tuple[list[str], list[str]]:
    """Show how to make an object, and with what, unless only the package itself makes such objects."""
    described = "__init__" in vars(value) and value.__init__.__doc__  # type: ignore[misc]
    if issubclass(value, enum.Enum) or not (described or _is_value(value)):
        return [], []
    # The first line of the docstring says no more than that this is a constructor.
    arguments = [] if _is_value(value) else _prose(value.__init__)[2:]  # type: ignore[misc]
    return _signature(name, value), arguments


def _options_body(value: type) -> list[str]:
    """Describe keyword options with the type of each."""
    types = inspect.get_annotations(value)
    lines = []
    for line in _prose(value):
        item = re.match(r"- `(\w+)`: (.*)$", line)
        if item and item[1] in types:
            lines.append(f"- `{item[1]}` (`{_annotation(types[item[1]])}`): {item[2]}")
        else:
            lines.append(line)
    return lines


def _members(value: type) -> Iterator[tuple[str, object]]:
    """Yield public properties and methods that the class or a private base of ours defines."""
    seen: set[str] = set()
    for base in value.__mro__:
        if not base.__module__.startswith("containerlib") or issubclass(value, enum.Enum):
            continue
        for name, raw in vars(base).items():
            is_member = isinstance(raw, property | classmethod | staticmethod) or inspect.isfunction(raw)
            if is_member and not name.startswith("_") and name not in seen:
                seen.add(name)
                yield name, raw


def _property_type(raw: property) -> list[str]:
    """Show the type of a property."""
    annotation = getattr(raw.fget, "__annotations__", {}).get("return")
    return [f"Type: `{_annotation(annotation)}`", ""] if annotation else []


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
    # attrs has no annotation for a parameter that is converted; the field has one.
    fields = inspect.get_annotations(value) if isinstance(value, type) else {}
    texts = list(_parameters(parameters, fields))
    returns = inspect.Signature.empty if isinstance(value, type) else signature.return_annotation
    tail = "" if returns is inspect.Signature.empty else f" -> {_annotation(returns)}"
    # The language is "py" so that the test of the documentation does not run it.
    line = f"{prefix}{name}({', '.join(texts)}){tail}"
    if len(line) > 90:  # noqa: PLR2004 - wider than a page
        line = "\n".join([f"{prefix}{name}(", *(f"    {text}," for text in texts), f"){tail}"])
    return ["```py", line, "```", ""]


def _parameters(parameters: list[inspect.Parameter], fields: Mapping[str, object]) -> Iterator[str]:
    """Show each parameter, and the star that makes the rest keyword-only."""
    starred = False
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            starred = True
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        annotation = parameter.annotation
        if annotation is inspect.Parameter.empty:
            annotation = fields.get(parameter.name, annotation)
        text = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(
            parameter.kind, ""
        )
        text += parameter.name
        typed = annotation is not inspect.Parameter.empty
        if typed:
            text += f": {_annotation(annotation)}"
        if parameter.default is not inspect.Parameter.empty:
            text += (" = " if typed else "=") + _default(parameter, str(annotation))
        yield text


def _annotation(annotation: object) -> str:
    """Show a type as somebody would write it."""
    annotation = getattr(annotation, "__forward_arg__", annotation)  # as a TypedDict keeps it
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    if re.fullmatch(r"'[^']*'|\"[^\"]*\"", text):
        text = text[1:-1]
    return _stable(text)


_STREAMS = {-1: "PIPE", -2: "STDOUT", -3: "DEVNULL"}


def _default(parameter: inspect.Parameter, annotation: str) -> str:
    """Show a default as somebody would write it."""
    default = parameter.default
    if not isinstance(default, type) and hasattr(type(default), "__attrs_attrs__"):
        return f"{type(default).__name__}()"
    if annotation in {"Input", "Output"} and default in _STREAMS:
        return _STREAMS[default]
    if parameter.name == "mode":
        return f"0o{default:o}"
    return _stable(repr(default))


def _stable(text: str) -> str:
    """Remove what differs from run to run or says nothing to a reader."""
    text = _ADDRESS.sub(r"<\1>", text).replace("NOTHING", "...")
    text = re.sub(r"\b(?:containerlib(?:\.\w+)*|collections\.abc|typing|pathlib)\.(?=[A-Z])", "", text)
    return re.sub(r"\w+", lambda match: _RENAMED.get(match[0], match[0]), text)


def _linked(text: str) -> str:
    """Make links of the public names in a line of prose."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        target = _TARGETS.get(name.partition(".")[0])
        if target is None:
            return match[0]
        member = name.partition(".")[2]
        if member:
            target = f"{target.partition('#')[0]}#{member.lower()}"
        return f"[`{name}`]({target})"

    return re.sub(r"(?<![`\[])`([A-Za-z]\w*(?:\.\w+)?)`(?!`)", link, text)


def _prose(value: object) -> list[str]:
    """Turn a docstring into Markdown: sections become lists, everything else stays."""
    lines: list[str] = []
    inside = ""
    for line in (inspect.getdoc(value) or "").splitlines():
        if section := _SECTION.match(line):
            inside = section[1]
            lines += [f"**{inside}**", ""]
        elif inside and (item := _ITEM.match(line)):
            names = ", ".join(f"`{name}`" for name in item[1].split(", "))
            lines.append(f"- {_linked(names) if inside == 'Raises' else names}: {_linked(item[2])}")
        elif inside and line.startswith("    "):
            lines.append(f"  {_linked(line.strip())}" if lines[-1] else _linked(line.strip()))
        else:
            inside = "" if line.strip() else inside
            lines.append(_linked(line))
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
