"""What a transfer shows of itself: bars on a terminal, lines elsewhere, or one JSON object for each step.

All of it goes to standard error, except JSON, which is the output that was asked for.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Literal

import attrs
import click

from containerlib.cli.output import print_json, short_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from containerlib.image.progress import Phase, Progress, TransferEvent

__all__ = ["STYLE_OPTION", "Style", "shown_progress"]

Style = Literal["text", "json"]

_WORDS: Mapping[Phase, str] = {
    "waiting": "Waiting",
    "exists": "Already exists",
    "downloading": "Downloading",
    "uploading": "Uploading",
    "unpacking": "Unpacking",
}
_IN_LINES = frozenset({"exists", "unpacking", "done"})


def STYLE_OPTION() -> click.Option:  # noqa: N802 - a constant, but each command needs its own
    """The option ``--format`` of commands that transfer something."""
    return click.Option(
        ["--format", "style"],
        type=click.Choice(["text", "json"]),
        default="text",
        help="For people, or JSON with one object per line for each step and one for the result.",
    )


@contextlib.contextmanager
def shown_progress(done: str, *, quiet: bool = False, style: Style = "text") -> Iterator[Progress | None]:
    """Give what is to be told of a transfer; None if nothing is to be shown.

    Args:
        done: What to say of a layer that is finished, such as ``Pull complete``.
        quiet: Whether to show nothing.
        style: Whether people or programs read it.
    """
    if style == "json":
        yield _print_event
    elif quiet:
        yield None
    elif sys.stderr.isatty():
        with contextlib.closing(_OnTerminal(done)) as shown:
            yield shown
    else:
        yield _Lines(done)


def _print_event(event: TransferEvent) -> None:
    print_json(attrs.asdict(event))


@attrs.frozen
class _Lines:
    """One line for each step of a layer, as Docker has it without a terminal."""

    done: str

    def __call__(self, event: TransferEvent) -> None:
        if event.phase in _IN_LINES:
            click.echo(f"{short_id(event.digest)}: {_WORDS.get(event.phase, self.done)}", err=True)


class _OnTerminal:
    """Bars if they can be drawn, which is found out at the first step: it costs more than a container."""

    def __init__(self, done: str) -> None:
        self._done = done
        self._shown: _Bars | _Lines | None = None

    def __call__(self, event: TransferEvent) -> None:
        if self._shown is None:
            self._shown = _Bars.make(self._done) or _Lines(self._done)
        self._shown(event)

    def close(self) -> None:
        """Leave the last picture on the terminal."""
        if isinstance(self._shown, _Bars):
            self._shown.close()


@attrs.define
class _Row:
    task: TaskID
    is_unpacking: bool = False
    is_done: bool = False
    moved_bytes: int = 0


class _Bars:
    """One bar for each layer, and one for all."""

    def __init__(self, progress: RichProgress, done: str) -> None:
        self._progress = progress
        self._done = done
        self._rows: dict[str, _Row] = {}
        self._all: TaskID | None = None

    @classmethod
    def make(cls, done: str) -> _Bars | None:
        """Return the bars; None if the package that draws them is not installed, or the terminal cannot."""
        try:
            from rich import progress as parts  # noqa: PLC0415 - optional
            from rich.console import Console  # noqa: PLC0415
        except ImportError:
            return None
        console = Console(stderr=True)
        if not console.is_terminal or console.is_dumb_terminal:
            return None
        columns = (
            parts.TextColumn("{task.description}"),
            parts.TextColumn("{task.fields[state]:<14}"),
            parts.BarColumn(20),
            parts.DownloadColumn(),
            parts.TransferSpeedColumn(),
        )
        return cls(parts.Progress(*columns, console=console), done)

    def __call__(self, event: TransferEvent) -> None:
        row = self._rows.get(event.digest)
        if row is None:
            self._progress.start()
            if self._all is not None:
                self._progress.remove_task(self._all)  # to come last again
            task = self._progress.add_task(short_id(event.digest), total=event.total_bytes, state="")
            row = self._rows[event.digest] = _Row(task)
            self._all = self._progress.add_task(" " * 7 + "Total", total=0, state="")
        if event.phase in {"downloading", "uploading"}:
            row.moved_bytes = event.current_bytes
        elif event.phase in {"exists", "done"}:
            row.moved_bytes = event.total_bytes
        # A layer is unpacked while it comes: as long as it comes, that is what there is to see.
        row.is_unpacking |= event.phase == "unpacking"
        row.is_done |= event.phase == "done"
        self._progress.update(row.task, completed=row.moved_bytes, state=self._state(row, event))
        self._draw_total()

    def close(self) -> None:
        """Leave the last picture on the terminal."""
        self._progress.stop()

    def _state(self, row: _Row, event: TransferEvent) -> str:
        if row.is_done:
            return self._done
        if row.is_unpacking:
            return _WORDS["unpacking" if row.moved_bytes >= event.total_bytes else "downloading"]
        return _WORDS.get(event.phase, "")

    def _draw_total(self) -> None:
        if self._all is None:
            return
        tasks = {task.id: task for task in self._progress.tasks}
        total = sum(tasks[row.task].total or 0 for row in self._rows.values())
        moved = sum(row.moved_bytes for row in self._rows.values())
        finished = sum(row.is_done for row in self._rows.values())
        state = f"{finished} of {len(self._rows)}"
        self._progress.update(self._all, total=total, completed=moved, state=state)
