"""A pytest session inside a test, for the plug-ins that decide about other tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.checkout import CHECKOUT

if TYPE_CHECKING:
    import pytest

__all__ = ["prepare"]


def prepare(pytester: pytest.Pytester, *plugins: str, markers: tuple[str, ...] = ()) -> None:
    """Configure an inner session that finds this package and loads these plug-ins of it."""
    lines = ["[pytest]", f"pythonpath = {CHECKOUT / 'tests'}", "addopts = -p no:cacheprovider", "markers ="]
    pytester.makeini("\n".join([*lines, *(f"    {marker}" for marker in markers)]))
    pytester.makeconftest(f"pytest_plugins = {list(plugins)!r}")
