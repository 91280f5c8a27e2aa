"""The public names are the contract, and importing them costs and changes nothing."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys

import pytest
from support.sources import PACKAGE, Module, modules

HEAVY = (
    "_cffi_backend",
    "asyncio",
    "attr",
    "attrs",
    "cffi",
    "cryptography",
    "jeepney",
    "json",
    "logging",
    "socket",
    "ssl",
    "subprocess",
    "tarfile",
    "urllib3",
    "zstandard",
)

# Looks at the process before and after the import. It may use nothing that is itself on the list above.
_IMPORT_PROBE = """
import os, signal, sys, threading
def look():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return {
        "descriptors": sorted(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                              if os.path.exists(f"/proc/self/fd/{n}")),
        "threads": status["Threads"].strip(),
        "handlers": [str(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
        "caught": status["SigCgt"].strip(),
        "umask": status["Umask"].strip(),
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
    }
modules = set(sys.modules)
before = look()
import containerlib
after = look()
new = sorted(set(sys.modules) - modules)
print(repr({"before": before, "after": after, "new": new}))
"""


def _declared(module: Module) -> list[object] | None:
    """Return what a module's ``__all__`` lists, without importing it; None when it has none."""
    for node in module.tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            names = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else []
            return [item.value if isinstance(item, ast.Constant) else "" for item in names]
    return None


def _only_describes(module: Module) -> bool:
    """Tell whether a module consists of a docstring."""
    return all(isinstance(node, ast.Expr) for node in module.tree.body)


@pytest.fixture(scope="module")
def imported() -> dict[str, object]:
    """Return what a fresh interpreter looks like before and after ``import containerlib``."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_PROBE], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    value = ast.literal_eval(done.stdout)
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("name", sorted(modules()))
def test_module_says_what_it_exports(name: str) -> None:
    """Each module has an ``__all__`` that names each thing once; its order is the linter's business."""
    module = modules()[name]
    if _only_describes(module) or name.endswith("__main__"):
        return
    declared = _declared(module)
    assert declared is not None, f"{module.relative_path} has no __all__"
    assert len(declared) == len(set(declared))


@pytest.mark.parametrize("name", sorted(modules()))
def test_module_is_described(name: str) -> None:
    """Each module says what it is responsible for."""
    assert ast.get_docstring(modules()[name].tree)


def test_all_names_each_once() -> None:
    """Each public name is listed once; the linter keeps them in order."""
    import containerlib  # noqa: PLC0415 - a broken package must not break the collection

    assert len(containerlib.__all__) == len(set(containerlib.__all__))


def test_all_can_be_loaded() -> None:
    """Each public name leads to an object, and a name that is not public does not."""
    import containerlib  # noqa: PLC0415 - a broken package must not break the collection

    for name in containerlib.__all__:
        assert getattr(containerlib, name) is not None
    with pytest.raises(AttributeError):
        containerlib.no_such_name  # noqa: B018 - the access is the test


def test_dir_shows_the_public_names() -> None:
    """The interactive shell completes exactly the public names, and what Python itself adds."""
    import containerlib  # noqa: PLC0415 - a broken package must not break the collection

    shown = {name for name in dir(containerlib) if not name.startswith("_")}
    submodules = {name.split(".")[1] for name in modules() if name.count(".") == 1}
    assert set(containerlib.__all__) - {"__version__"} <= shown
    assert shown <= set(containerlib.__all__) | submodules


def test_every_error_is_public() -> None:
    """Whatever can be raised can be caught by its name."""
    import containerlib  # noqa: PLC0415 - a broken package must not break the collection
    import containerlib.errors as tree  # noqa: PLC0415

    assert set(tree.__all__) <= set(containerlib.__all__)


def test_import_loads_nothing_heavy(imported: dict[str, object]) -> None:
    """The import loads none of the modules that cost more than it may cost."""
    new = imported["new"]
    assert isinstance(new, list)
    assert not [name for name in new if name in HEAVY], json.dumps(new)


def test_import_changes_nothing(imported: dict[str, object]) -> None:
    """The import opens no descriptor, starts no thread, installs no handler and changes no setting."""
    assert imported["before"] == imported["after"]


def test_import_loads_only_the_package(imported: dict[str, object]) -> None:
    """The import itself loads the package and at most its errors, not its parts."""
    new = imported["new"]
    assert isinstance(new, list)
    own = {name for name in new if name.partition(".")[0] == PACKAGE}
    assert len(own) <= 3, sorted(own)
