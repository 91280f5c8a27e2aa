from __future__ import annotations

import click
import pytest

from containerlib.cli.filters import FILTER_OPTION, Filters


def parse(*texts: str) -> Filters:
    """Return what a command with these filters is given."""
    option = FILTER_OPTION("reference", "dangling", "label", "before")
    found: list[Filters] = []
    command = click.Command(
        "test", params=[option], callback=lambda conditions: found.append(Filters(conditions))
    )
    command.main([word for text in texts for word in ("--filter", text)], standalone_mode=False)
    return found[0]


def test_values() -> None:
    """Values are found by the name of their condition, however often it is given."""
    filters = parse("reference=a*", "label=x", "label=y=1=2", "Dangling=TRUE", "reference=b:1", "label=x=3")
    assert filters.many("reference") == ["a*", "b:1"]
    assert filters.labels() == {"x": "3", "y": "1=2"}
    assert filters.flag("dangling") is True
    assert filters.one("before") is None
    assert parse("dangling=0").flag("dangling") is False
    assert parse().flag("dangling") is None


def test_opposites() -> None:
    """A condition may have an opposite, which is one of its own; where ``-f`` forces, it is no filter."""
    option = FILTER_OPTION("label", "label!", short=False)
    assert option.opts == ["--filter"]
    found: list[Filters] = []
    command = click.Command(
        "test", params=[option], callback=lambda conditions: found.append(Filters(conditions))
    )
    command.main(["--filter", "label=a", "--filter", "label!=b=c"], standalone_mode=False)
    assert (found[0].many("label"), found[0].many("label!")) == (["a"], ["b=c"])


@pytest.mark.parametrize("text", ["until=24h", "referenc=a", "=a", "", "dangling"])
def test_unknown_conditions(text: str) -> None:
    """A condition that the command does not know is refused with those there are, one without value, too."""
    with pytest.raises(
        click.UsageError, match=r"there are: reference, dangling, label, before|write dangling="
    ):
        parse(text)


@pytest.mark.parametrize(
    "texts",
    [
        ("before=a", "before=b"),
        ("dangling=true", "dangling=false"),
        ("dangling=maybe",),
        ("label=a=1", "label=a=2"),
    ],
)
def test_contradictions(texts: tuple[str, ...]) -> None:
    """Conditions that nothing can meet are refused."""
    filters = parse(*texts)
    with pytest.raises(click.UsageError):
        (filters.one("before"), filters.flag("dangling"), filters.labels())
