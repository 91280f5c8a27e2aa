"""One run of a guest, and how each of its tests ended."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, mutable
from support.guest import Guest, GuestStopped, pack
from support.guest_image import guest_image
from support.probe import probe_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from support.guest import Words

__all__ = ["GuestRun", "Outcome"]


@mutable
class Outcome:
    """How a test ended.

    Attributes:
        failure: What it says of its failure; empty if it has none.
        skip: Why it was skipped, or None.
        sections: What it has printed, under the names of pytest.
    """

    failure: str = ""
    skip: str | None = None
    sections: list[tuple[str, str]] = field(factory=list)


class GuestRun:
    """A guest that runs tests in their order; it is asked for each in that order.

    Args:
        settings: Of the file that names the guest.
        tests: Their ids.
    """

    def __init__(self, settings: Mapping[str, Any], tests: Sequence[str]) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="containerlib-guest-"))
        self._stopped: str | None = None
        self._present: frozenset[str] | None = None
        try:
            required = ["--require", ",".join(settings["require"])]
            payload = pack(self._directory, _package(), {"probe": probe_program()}, tests, required)
            self._guest = Guest(
                guest_image(),
                payload,
                self._directory,
                arguments=settings.get("arguments", ""),
                limit_s=float(settings["limit_s"]),
                silence_s=float(settings["silence_s"]),
            )
        except BaseException:
            shutil.rmtree(self._directory)
            raise
        self._words: Iterator[Words] = self._guest.words()

    def outcome(self, test: str) -> Outcome:
        """Wait for the end of a test.

        Returns:
            How it ended; a guest that stopped before is a failure of each test that it still had.
        """
        if self._stopped is None:
            try:
                return self._follow(test)
            except GuestStopped as error:
                first_line = str(error).partition("\n")[0]
                self._stopped = f"not run: {first_line}"
                return Outcome(failure=str(error))
        return Outcome(failure=self._stopped)

    def _follow(self, test: str) -> Outcome:
        outcome = Outcome()
        if self._present is None:
            collected = next(self._words)["tests"]
            assert isinstance(collected, list)
            self._present = frozenset(collected)
        if test not in self._present:
            return Outcome(failure="the guest has no such test; do its parameters depend on the host?")
        for words in self._words:
            if words["kind"] == "phase" and words["test"] == test:
                _note(outcome, words)
                if words["when"] == "teardown":
                    return outcome
        raise GuestStopped("the guest ended its tests before this one")

    def close(self, logs: str = "") -> None:
        """Let it end, or end it; keep what it has written in the directory `logs`, if there is one."""
        if self._stopped is None:
            for _ in self._rest():
                pass
        self._guest.close(timeout_s=30 if self._stopped is None else 0)
        if logs:
            Path(logs).mkdir(parents=True, exist_ok=True)
            for path in (self._guest.console, self._guest.said):
                shutil.copy(path, logs)
        shutil.rmtree(self._directory)

    def _rest(self) -> Iterator[Words]:
        try:
            yield from self._words
        except GuestStopped as error:
            self._stopped = str(error)


def _note(outcome: Outcome, words: Words) -> None:
    """Add what a phase says."""
    text = str(words["text"] or "")
    if words["outcome"] == "failed":
        outcome.failure += f"in the guest, {words['when']}:\n{text}\n"
    elif words["outcome"] == "skipped":
        outcome.skip = text.removeprefix("Skipped: ")
    sections = words["sections"]
    assert isinstance(sections, list)
    outcome.sections = [(str(name), str(content)) for name, content in sections]


def _package() -> Path:
    """Where the package under test is installed."""
    spec = importlib.util.find_spec("containerlib")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
