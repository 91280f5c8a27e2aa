"""Which containerlib is under test: the installed one, unless there is none.

``python -m pytest`` in a clone puts the clone first on the import path. Its ``containerlib/`` has no compiled
extension (that is built into the wheel), so it would hide the installed package and every test that starts
a container would fail. `prefer_installed` takes the clone off the path again when the package is installed
somewhere else, and keeps child interpreters from putting it back. In a clone with a compiled extension of
its own, or without any installed package, the clone is what is tested.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

import pytest

__all__ = ["CHECKOUT", "location", "prefer_installed"]

CHECKOUT = Path(__file__).resolve().parent.parent.parent
_PACKAGE = "containerlib"


def _is_built(directory: Path) -> bool:
    """Tell whether the package in this directory has its compiled extension."""
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    return any((directory / _PACKAGE / "_native" / f"_ctr{suffix}").exists() for suffix in suffixes)


def _is_checkout(entry: str) -> bool:
    """Tell whether an entry of the import path is the checkout; the empty entry is the working directory."""
    return Path(entry or os.curdir).resolve() == CHECKOUT


def prefer_installed() -> None:
    """Arrange the import path of this process and of its children so that the right package is imported."""
    if _is_built(CHECKOUT):
        _use_checkout()
        return
    shortened = [entry for entry in sys.path if not _is_checkout(entry)]
    original, sys.path[:] = list(sys.path), shortened
    loaded = sys.modules.get(_PACKAGE)
    if loaded is not None and _is_checkout(str(Path(str(loaded.__file__)).parent.parent)):
        # A pytest plug-in came before us and imported the hidden package.
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]
    importlib.invalidate_caches()
    if importlib.util.find_spec(_PACKAGE) is None:
        sys.path[:] = original
        _use_checkout()
        return
    os.environ["PYTHONSAFEPATH"] = "1"


def _use_checkout() -> None:
    """Put the checkout on the path, for runs of the tests that need no compiled extension."""
    if not any(_is_checkout(entry) for entry in sys.path):
        sys.path.insert(0, str(CHECKOUT))
    inherited = os.environ.get("PYTHONPATH")
    if str(CHECKOUT) not in (inherited or "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (inherited, str(CHECKOUT))))


def location() -> Path:
    """Return the directory of the package under test, without importing it."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package {_PACKAGE}")
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Arrange the import path before any test module is imported."""
    prefer_installed()


def pytest_report_header() -> list[str]:
    """Say which package is tested."""
    where = location()
    built = "" if _is_built(where.parent) else ", without its compiled extension"
    return [f"under test: {where}{built}"]
