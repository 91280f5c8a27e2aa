"""Make the handles of `containerlib.aio` from those of `containerlib.api`, or check that they are up to date.

    python -m containerlib.aio.generate            write the modules
    python -m containerlib.aio.generate --check    fail when one differs from what would be written

Works on the source of the handles, so that signatures and docstrings are taken over as they stand. Needs
ruff, which gives what was written its form.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["main"]

PACKAGE = Path(__file__).resolve().parent.parent
MARKER = "made by containerlib.aio.generate; change the module of the same name in containerlib.api"
MODULES = (
    *("container", "container_files", "container_handle", "container_looks", "container_network"),
    *("container_path", "container_streams", "engine", "image", "images", "network", "network_fault"),
    *("registry", "snapshot"),
)
CLASSES = frozenset(
    {"Container", "ContainerFiles", "ContainerHandle", "ContainerLooks", "ContainerNetwork", "ContainerPath"}
    | {"ContainerStreams", "Containers", "Engine", "Image", "Images", "Network", "Networks", "Registry"}
    | {"NetworkFault", "Snapshot"}
)
# What makes a handle of one without an event loop.
WRAPPERS = {
    "Attachment": "attachment",
    "Container": "container",
    "ContainerPath": "container_path",
    "Containers": "containers",
    "ExecProcess": "exec_process",
    "Image": "image",
    "Images": "images",
    "Network": "network",
    "NetworkFault": "network_fault",
    "Networks": "networks",
    "Registry": "registry",
    "Snapshot": "snapshot",
}
HOME = {
    "Attachment": "attachment",
    "Container": "container",
    "ContainerPath": "container_path",
    "Containers": "container",
    "ExecProcess": "exec",
    "Image": "image",
    "Images": "images",
    "Network": "network",
    "NetworkFault": "network_fault",
    "Networks": "network",
    "Registry": "registry",
    "Snapshot": "snapshot",
}
# Waiting is written by hand; see `waiting`.
AWAITED = {
    ("Container", "exec"): "container_exec",
    ("Container", "restart"): "restart",
    ("Container", "stop"): "stop",
    ("Container", "wait"): "wait",
    ("Container", "wait_until"): "wait_until",
    ("Image", "call"): "image_call",
}
ITERATED = {
    ("ContainerLooks", "stats_stream"): "stats_stream",
    ("ContainerStreams", "logs"): "logs",
    ("Engine", "events"): "engine_events",
}
# Nothing in these waits.
IMMEDIATE = frozenset({"fileno", "take_console", "registry"})
# They are pipes for event loops here; see `pipes`.
LEFT_OUT = frozenset({"stdin", "stdout", "stderr", "entry", "record", "take"})
UNDO = {
    "Container": "lambda made: made.remove(force=True)",
    "ExecProcess": "lambda made: made.close()",
    "Network": "lambda made: made.remove()",
    "NetworkFault": "lambda made: made.clear()",
    "Snapshot": "lambda made: made.remove()",
}
_RUFF = (sys.executable, "-m", "ruff")
_FORM = ("--isolated", "--config", "line-length=110", "--target-version", "py311")
_SHADOWING = frozenset({"all", "format"})  # arguments that are called as Docker calls them
_EXIT = (
    "    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, "
    "trace: TracebackType | None) -> None:"
)


def main() -> int:
    """Write or check the modules; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing, fail when a module is out of date"
    )
    arguments = parser.parse_args()
    wrong = 0
    for name in MODULES:
        path = PACKAGE / "aio" / f"{name}.py"
        wanted = formatted(Module(name).text(), path)
        if path.exists() and path.read_text(encoding="utf-8") == wanted:
            continue
        if arguments.check:
            sys.stdout.write(f"{path.name} is out of date: run python -m containerlib.aio.generate\n")
            wrong = 1
        else:
            path.write_text(wanted, encoding="utf-8")
    return wrong


def formatted(text: str, path: Path) -> str:
    """Give a module its form, whatever settings there are where it lies."""
    for command in (["check", "--fix-only", "--quiet", "--select", "I,F401"], ["format", "--quiet"]):
        done = subprocess.run(
            [*_RUFF, *command, *_FORM, "--stdin-filename", str(path), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{path.name}: {done.stderr}")
        text = done.stdout
    return text


@dataclass
class Argument:
    """One argument of a method."""

    name: str
    kind: str
    annotation: str

    def passed(self) -> str:
        """How it is handed on."""
        value = self.name
        if any(word in names_of(self.annotation) for word in WRAPPERS):
            value = f"wrap.unwrap({value})"
        if self.kind == "keywords":
            return f"**{self.name}"
        return f"{self.name}={value}" if self.kind == "keyword" else value


def names_of(text: str) -> set[str]:
    """Return the names in an expression."""
    return {node.id for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Name)}


class Module:
    """One module of `containerlib.api`, and what is made of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tree = ast.parse((PACKAGE / "api" / f"{name}.py").read_text(encoding="utf-8"))
        self.imports = dict(self._imports())
        self.used: set[str] = set()
        self.at_run_time: set[str] = set()
        self.shadows = False

    def _imports(self) -> Iterator[tuple[str, str]]:
        """Yield each name that the module imports, and the statement for it."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    yield (
                        alias.asname or alias.name,
                        ast.unparse(ast.ImportFrom(module=node.module, names=[alias], level=0)),
                    )
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.asname or alias.name, ast.unparse(ast.Import(names=[alias]))
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                yield name, f"from containerlib.api.{self.name} import {name}"
            elif isinstance(node, ast.ClassDef) and node.name not in CLASSES:
                yield node.name, f"from containerlib.api.{self.name} import {node.name}"

    def text(self) -> str:
        """Return the source."""
        classes = [node for node in self.tree.body if isinstance(node, ast.ClassDef) and node.name in CLASSES]
        bodies = [self._class(node) for node in classes]
        about = (ast.get_docstring(self.tree) or "").splitlines()[0]
        taken_over = f"from containerlib.api import {self.name} as sync_module"
        is_made = self.name == "engine"
        head = [
            f'"""{about}"""',
            "",
            f"# {MARKER}",
            *(["# ruff: noqa: A002"] if self.shadows else []),
            "from __future__ import annotations",
            "from typing import TYPE_CHECKING",
            "from containerlib.aio import waiting, wrap",
            "from containerlib.aio.loop import call, each, transfer",
            *([taken_over] if is_made else []),
            *self._statements(self.at_run_time),
            *(f"from containerlib.aio.{module} import {name}" for name, module in self._bases(classes)),
            "if TYPE_CHECKING:",
            "    from types import TracebackType",
            "    from typing import Self",
            "    from collections.abc import AsyncIterator",
            *([] if is_made else [f"    {taken_over}"]),
            *(f"    {line}" for line in self._statements(self.used - self.at_run_time)),
            f"__all__ = {sorted(node.name for node in classes)!r}",
        ]
        return "\n".join([*head, *bodies])

    def _bases(self, classes: list[ast.ClassDef]) -> Iterator[tuple[str, str]]:
        own = {node.name for node in classes}
        for node in classes:
            for base in node.bases:
                name = ast.unparse(base)
                if name in CLASSES and name not in own:
                    yield name, {"ContainerHandle": "container_handle"}.get(name, snake(name))
            if node.name == "Container":
                yield "ContainerPipes", "pipes"

    def _statements(self, names: set[str]) -> list[str]:
        own = {node.name for node in self.tree.body if isinstance(node, ast.ClassDef)} & CLASSES
        found = []
        for name in sorted(names - own):
            if name in HOME:
                found.append(f"from containerlib.aio.{HOME[name]} import {name}")
            elif name in self.imports and name not in CLASSES:
                found.append(self.imports[name])
        return found

    def _class(self, node: ast.ClassDef) -> str:
        bases = [ast.unparse(base) for base in node.bases]
        if node.name == "Container":
            bases.append("ContainerPipes")
        lines = [f"class {node.name}({', '.join(bases)}):" if bases else f"class {node.name}:"]
        lines += [docstring(node, "    "), ""]
        lines += [f"    sync: sync_module.{node.name}", ""]
        for item in node.body:
            if isinstance(item, ast.FunctionDef):
                lines += self._member(node.name, item)
        return "\n".join(lines) + "\n"

    def _member(self, owner: str, node: ast.FunctionDef) -> list[str]:
        name = node.name
        if name in LEFT_OUT or (name.startswith("_") and not name.startswith("__")):
            return []
        if name.startswith("__"):
            return self._dunder(owner, node)
        decorators = [ast.unparse(each) for each in node.decorator_list]
        if "property" in decorators:
            head = ["    @property", *self._signature(node, is_async=False)]
            return [*head, docstring(node), self._give(node, f"self.sync.{name}"), ""]
        if any("contextmanager" in each for each in decorators):
            return self._held(node)
        return self._method(owner, node)

    def _init(self, owner: str, node: ast.FunctionDef) -> list[str]:
        if owner == "Engine":
            made = f"        self.sync = sync_module.Engine({self._passed(node)})"
            return [*self._signature(node, is_async=False), docstring(node), made, ""]
        return [
            f"    def __init__(self, sync: sync_module.{owner}) -> None:",
            '        """Take over a handle."""',
            "        self.sync = sync",
            "",
        ]

    def _dunder(self, owner: str, node: ast.FunctionDef) -> list[str]:
        fixed = {
            "__del__": [],
            "__enter__": ["    async def __aenter__(self) -> Self:", "        return self", ""],
            "__exit__": [_EXIT, "        await call(lambda: self.sync.__exit__(kind, error, trace))", ""],
            "__eq__": [
                "    def __eq__(self, other: object) -> bool:",
                "        return bool(self.sync == wrap.unwrap(other))",
                "",
            ],
            "__repr__": ["    def __repr__(self) -> str:", '        return f"<aio {self.sync!r}>"', ""],
        }
        if node.name == "__init__":
            return self._init(owner, node)
        if node.name in fixed:
            return fixed[node.name]
        lines = self._signature(node, is_async=False)
        if ast.get_docstring(node):
            lines.append(docstring(node))
        return [*lines, self._give(node, f"self.sync.{node.name}({self._passed(node)})"), ""]

    def _held(self, node: ast.FunctionDef) -> list[str]:
        """A context manager, which is entered and left in threads."""
        name = "AbstractAsyncContextManager"
        self.imports[name] = f"from contextlib import {name}"
        self.imports["held"] = "from containerlib.aio.held import held"
        self.used.add(name)
        self.at_run_time.add("held")
        head = self._signature(node, is_async=False, returns=f"{name}[Image]")
        work = f"lambda tell: self.sync.{node.name}({self._passed(node, 'tell')})"
        return [*head, docstring(node), f"        return held({work}, progress, wrap.image)", ""]

    def _method(self, owner: str, node: ast.FunctionDef) -> list[str]:
        key = owner, node.name
        returns = "" if node.returns is None else ast.unparse(node.returns)
        passed = self._passed(node)
        is_iterator = returns.startswith("Iterator[")
        if is_iterator:
            head = self._signature(node, is_async=False, returns=f"Async{returns}")
        else:
            head = self._signature(node, is_async=node.name not in IMMEDIATE)
        if key in ITERATED:
            work = f"        return waiting.{ITERATED[key]}(self.sync, {passed})"
        elif key in AWAITED:
            word = "" if returns == "None" else "return "
            options = passed.replace("**options", "options=options")
            work = f"        {word}await waiting.{AWAITED[key]}(self.sync, {options})"
        elif is_iterator:
            wrapper = WRAPPERS[returns[len("Iterator[") : -1]]
            work = f"        return each({self._call(node)}, wrap.{wrapper})"
        elif node.name in IMMEDIATE:
            work = self._give(node, f"self.sync.{node.name}({passed})")
        else:
            work = self._give(node, self._work(node, returns))
        return [*head, docstring(node), work, ""]

    def _call(self, node: ast.FunctionDef) -> str:
        """What is called in a thread."""
        passed = self._passed(node)
        return f"lambda: self.sync.{node.name}({passed})" if passed else f"self.sync.{node.name}"

    def _work(self, node: ast.FunctionDef, returns: str) -> str:
        """Work that is done in a thread, and taken back if it is no longer wanted."""
        if any(argument.name == "progress" for argument in arguments_of(node)):
            work = f"lambda tell: self.sync.{node.name}({self._passed(node, 'tell')})"
            return f"await transfer({work}, progress)"
        undo = f", undo={UNDO[returns]}" if returns in UNDO and node.name != "get" else ""
        return f"await call({self._call(node)}{undo})"

    def _give(self, node: ast.FunctionDef, work: str) -> str:
        """The statement that returns what `work` gives, made into handles."""
        returns = "" if node.returns is None else ast.unparse(node.returns)
        if returns == "None":
            return f"        {work}"
        if returns in WRAPPERS:
            return f"        return wrap.{WRAPPERS[returns]}({work})"
        for form in ("list[{}]", "builtins.list[{}]"):
            for name, wrapper in WRAPPERS.items():
                if returns == form.format(name):
                    return f"        return [wrap.{wrapper}(found) for found in {work}]"
        return f"        return {work}"

    def _signature(self, node: ast.FunctionDef, *, is_async: bool, returns: str = "") -> list[str]:
        self._note(node)
        if returns:
            self.used |= names_of(returns)
        result = returns or ("None" if node.returns is None else ast.unparse(node.returns))
        word = "async def" if is_async else "def"
        return [f"    {word} {node.name}({ast.unparse(node.args)}) -> {result}:"]

    def _note(self, node: ast.FunctionDef) -> None:
        """Remember which names the signature needs."""
        for part in ast.walk(node.args):
            if isinstance(part, ast.arg) and part.annotation is not None:
                self.used |= names_of(ast.unparse(part.annotation))
        if node.returns is not None:
            self.used |= names_of(ast.unparse(node.returns))
        self.shadows |= any(each.name in _SHADOWING for each in arguments_of(node))
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.at_run_time |= names_of(ast.unparse(default))

    def _passed(self, node: ast.FunctionDef, progress: str = "") -> str:
        found = []
        for argument in arguments_of(node):
            if argument.name == "progress" and progress:
                found.append(f"progress={progress}")
            else:
                found.append(argument.passed())
        return ", ".join(found)


def arguments_of(node: ast.FunctionDef) -> list[Argument]:
    """Return the arguments behind `self`."""
    given = node.args
    found = [
        Argument(each.arg, "positional", "None" if each.annotation is None else ast.unparse(each.annotation))
        for each in [*given.posonlyargs, *given.args][1:]
    ]
    found += [
        Argument(each.arg, "keyword", "None" if each.annotation is None else ast.unparse(each.annotation))
        for each in given.kwonlyargs
    ]
    if given.kwarg is not None:
        found.append(Argument(given.kwarg.arg, "keywords", "None"))
    return found


def docstring(node: ast.FunctionDef | ast.ClassDef, indent: str = "        ") -> str:
    """Return the docstring as source."""
    lines = (ast.get_docstring(node) or "").replace("\\", "\\\\").splitlines()
    text = "\n".join(f"{indent}{line}".rstrip() for line in lines)[len(indent) :]
    end = f"\n{indent}" if len(lines) > 1 else ""
    return f'{indent}"""{text}{end}"""'


def snake(name: str) -> str:
    """Return the name of the module that has a class."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


if __name__ == "__main__":
    sys.exit(main())
