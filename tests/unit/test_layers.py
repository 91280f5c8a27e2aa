"""The layers of the package: who may import whom, as a rule that fails with the path of the offence.

Imports inside functions and for type checking count: a cycle that is only hidden is still there. What a layer
may import is stated here and in the explanation of the architecture, and nowhere else.
"""

from __future__ import annotations

from collections import deque
from functools import cache

import pytest
from support.sources import PACKAGE, imports, modules

_BASE = frozenset({"errors", "_util", "oci"})
_MIDDLE = _BASE | {"_native", "store", "registry", "layer"}
_NOUNS = frozenset({"image", "volume", "network", "runtime"})
_VALUES = frozenset({"options", "network_options"})
_BELOW_API = _MIDDLE | _NOUNS | _VALUES | {"container", "build", "service"}

# The empty name is the package's own __init__: the public names, above everything but the adapters.
ALLOWED: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "_util": frozenset({"errors"}),
    "oci": frozenset({"errors", "_util"}),
    "options": frozenset({"errors", "oci"}),
    "network_options": frozenset({"errors"}),
    "_native": _BASE,
    # The store and the layers reach system calls that Python lacks through the one door to C.
    "store": _BASE | {"_native"},
    "layer": _BASE | {"_native"},
    "registry": _BASE,
    "image": _MIDDLE,
    "volume": _MIDDLE | _VALUES,
    "network": _MIDDLE | _VALUES,
    "runtime": _MIDDLE | _VALUES,
    "container": (_MIDDLE | _NOUNS | _VALUES) - {"registry"},
    "build": _MIDDLE | _NOUNS | _VALUES | {"container"},
    "service": _MIDDLE | _NOUNS | _VALUES | {"container"},
    "api": _BELOW_API,
    "": _BELOW_API | {"api"},
    **{name: _BELOW_API | {"api", ""} for name in ("aio", "cli", "oci_cli", "docker_api", "testing")},
    "__main__": frozenset({"cli"}),
}

# What a layer may not import itself and reaches all the same, through one that it may import.
REACHED: dict[str, frozenset[str]] = {
    "options": frozenset({"_util"}),
    "container": frozenset({"registry"}),
    "__main__": _BELOW_API | {"api", ""},
}

# Foreign packages and the layers that may use them; everything else goes through those.
DOORS: dict[str, frozenset[str]] = {
    # The thread that serves, the registry's protocol, and later Docker's.
    "aiohttp": frozenset({"_util", "registry", "docker_api"}),
    "bcrypt": frozenset({"registry"}),
    "cffi": frozenset({"_native"}),
    "click": frozenset({"cli", "oci_cli"}),
    "isal": frozenset({"layer"}),
    "jeepney": frozenset({"runtime"}),
    "rich": frozenset({"cli", "oci_cli"}),
    "socks": frozenset({"registry"}),
    "urllib3": frozenset({"registry"}),
    "zstandard": frozenset({"layer"}),
}

# The specifications are values: nothing there may reach the disk, the network or another process.
IMPURE = frozenset({"http", "multiprocessing", "shutil", "socket", "ssl", "subprocess", "tempfile", "urllib"})


def _layer(module: str) -> str:
    """Return the layer a module belongs to."""
    return [*module.split("."), ""][1]


@cache
def _own_imports(module: str) -> tuple[tuple[str, int, bool], ...]:
    """Return the modules of the package that a module imports, with line and earliness."""
    return tuple(
        (found.name, found.line, found.is_early)
        for found in imports(modules()[module])
        if found.name.partition(".")[0] == PACKAGE and found.name != module
    )


def _path_to(start: str, layer: str) -> list[str]:
    """Return the shortest chain of imports from a module to any module of a layer; empty without one."""
    came_from, waiting = {start: ""}, deque([start])
    while waiting:
        module = waiting.popleft()
        if _layer(module) == layer:
            chain = [module]
            while chain[0] != start:
                chain.insert(0, came_from[chain[0]])
            return chain
        for name, _line, _early in _own_imports(module):
            if name in modules() and name not in came_from:
                came_from[name] = module
                waiting.append(name)
    return []


def test_every_layer_is_known() -> None:
    """Each module belongs to a layer that the rule names."""
    unknown = sorted({_layer(module) for module in modules()} - ALLOWED.keys())
    assert not unknown, f"layers without a rule: {', '.join(unknown)}"


def test_rule_has_no_cycle_and_no_gap() -> None:
    """What a layer may import may itself import no more than that, so that the rule holds transitively."""
    for layer, allowed in ALLOWED.items():
        assert layer not in allowed
        reachable = frozenset().union(*(ALLOWED[name] for name in allowed)) - allowed
        assert reachable == REACHED.get(layer, frozenset()), f"{layer}: {sorted(reachable)}"


def test_imports_keep_to_the_layers() -> None:
    """No module imports from a layer that its own may not know."""
    found = [
        f"{modules()[module].relative_path}:{line}: {_layer(module) or PACKAGE} may not import {name}"
        for module in modules()
        for name, line, _early in _own_imports(module)
        if _layer(name) not in ALLOWED[_layer(module)] | {_layer(module)}
    ]
    assert not found, "\n".join(found)


def test_no_layer_is_reached_through_others() -> None:
    """No module reaches a layer above its own through a chain of imports either."""
    found = []
    for module in modules():
        layer = _layer(module)
        allowed = ALLOWED[layer] | {layer} | REACHED.get(layer, frozenset())
        chains = (_path_to(module, other) for other in ALLOWED.keys() - allowed)
        found += [" -> ".join(chain) for chain in chains if chain]
    assert not found, "\n".join(sorted(found))


def test_modules_do_not_import_each_other_in_circles() -> None:
    """What happens while a module is imported never leads back to it."""
    early = {
        module: [name for name, _line, is_early in _own_imports(module) if is_early and name in modules()]
        for module in modules()
    }
    done: set[str] = set()

    def visit(module: str, chain: tuple[str, ...]) -> None:
        assert module not in chain, " -> ".join((*chain[chain.index(module) :], module))
        if module not in done:
            for name in early[module]:
                visit(name, (*chain, module))
            done.add(module)

    for module in modules():
        visit(module, ())


@pytest.mark.parametrize("package", sorted(DOORS))
def test_foreign_packages_have_one_door(package: str) -> None:
    """A foreign package is imported in the layers that translate it, and nowhere else."""
    found = [
        f"{module.relative_path}:{imported.line}: imports {imported.name}"
        for module in modules().values()
        if _layer(module.name) not in DOORS[package]
        for imported in imports(module)
        if imported.name.partition(".")[0] == package
    ]
    assert not found, "\n".join(found)


def test_specifications_are_pure() -> None:
    """The layer of the specifications imports nothing that reaches outside the process."""
    found = [
        f"{module.relative_path}:{imported.line}: imports {imported.name}"
        for module in modules().values()
        if _layer(module.name) == "oci"
        for imported in imports(module)
        if imported.name.partition(".")[0] in IMPURE
    ]
    assert not found, "\n".join(found)
