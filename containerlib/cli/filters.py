"""The option ``--filter``: conditions in Docker's form ``NAME=VALUE``, one parser for all commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FILTER_OPTION", "Filters"]

_TRUE, _FALSE = frozenset({"1", "t", "true"}), frozenset({"0", "f", "false"})


def FILTER_OPTION(  # noqa: N802 - a constant, but each command needs its own
    *names: str, short: bool = True
) -> click.Option:
    """The option ``--filter`` for the conditions `names`; pass its value, ``conditions``, to `Filters`.

    With `short` it is also ``-f``, which is ``--force`` where things are removed.
    """

    def convert(ctx: click.Context, param: click.Parameter, texts: Sequence[str]) -> list[tuple[str, str]]:
        try:
            return [_condition(text, names) for text in texts]
        except ValueError as error:
            raise click.BadParameter(str(error), ctx=ctx, param=param) from None

    return click.Option(
        [*(["-f"] if short else []), "--filter", "conditions"],
        multiple=True,
        callback=convert,
        metavar="NAME=VALUE",
        help=f"Only what meets the condition: {', '.join(names)}.",
    )


def _condition(text: str, names: Sequence[str]) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    name, value = name.strip().lower(), value.strip()
    if name not in names:
        raise ValueError(f"unknown filter {name!r}; there are: {', '.join(names)}")
    if not equals or not value:
        raise ValueError(f"{text!r}: write {name}=VALUE")
    return name, value


class Filters:
    """The conditions of one command line."""

    def __init__(self, conditions: Sequence[tuple[str, str]]) -> None:
        self._conditions = conditions

    def many(self, name: str) -> list[str]:
        """All values of a condition that may be given several times."""
        return [value for key, value in self._conditions if key == name]

    def one(self, name: str) -> str | None:
        """The value of a condition that may be given once; None if it is not there."""
        values = list(dict.fromkeys(self.many(name)))
        if len(values) > 1:
            raise click.UsageError(f"filter {name!r} is given with several values: {', '.join(values)}")
        return values[0] if values else None

    def flag(self, name: str) -> bool | None:
        """The value of a condition that is true or false; None if it is not there."""
        value = self.one(name)
        if value is None:
            return None
        if value.lower() not in _TRUE | _FALSE:
            raise click.UsageError(f"filter {name}={value!r}: write true or false")
        return value.lower() in _TRUE

    def labels(self, name: str = "label") -> dict[str, str | None]:
        """Labels, each with its value, or with None where any value will do."""
        result: dict[str, str | None] = {}
        for text in self.many(name):
            key, equals, value = text.partition("=")
            wanted = value if equals else None
            known = result.get(key)
            if known is not None and wanted is not None and known != wanted:
                raise click.UsageError(f"filter {name}: nothing has both {key}={known} and {key}={wanted}")
            result[key] = known if wanted is None else wanted
        return result
