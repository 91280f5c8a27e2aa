"""The handles for event loops keep up with those without."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

import containerlib.api as api_package
from containerlib import aio
from containerlib.aio import generate

# What is not there on purpose: what the engine's inner parts use, and blocking streams.
LEFT_OUT = {"entry", "record", "take", "serve"}


def test_generated_modules_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is what would be written."""
    monkeypatch.setattr(sys, "argv", ["generate", "--check"])
    assert generate.main() == 0


@pytest.mark.parametrize("name", [name for name in aio.__all__ if inspect.isclass(getattr(aio, name))])
def test_every_member_is_there(name: str) -> None:
    """A handle has what its form without an event loop has, under the same names."""
    assert api_package.__name__
    import containerlib  # noqa: PLC0415 - the names to compare with

    if not hasattr(containerlib, name):
        assert name in {"PipeReader", "PipeWriter"}
        return
    plain = {member for member in dir(getattr(containerlib, name)) if not member.startswith("_")}
    mirrored = {member for member in dir(getattr(aio, name)) if not member.startswith("_")}
    assert plain - mirrored <= LEFT_OUT | {"fileno"}


def test_importing_costs_nothing() -> None:
    """Names are loaded when they are used, as in the package itself."""
    assert set(aio.__all__) <= set(dir(aio))
    with pytest.raises(AttributeError):
        _ = aio.Nothing  # type: ignore[attr-defined]


def test_no_module_hides_a_name() -> None:
    """Importing a module puts it into the package, where it would take the place of a name."""
    modules = {path.stem for path in Path(generate.__file__).parent.glob("*.py")}
    assert modules.isdisjoint(aio.__all__)
