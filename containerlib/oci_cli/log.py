"""The log that ``--log`` and ``--log-format`` ask for: lines as logrus writes them, which callers parse."""

from __future__ import annotations

import sys

from attrs import frozen

__all__ = ["Log"]


@frozen
class Log:
    """Where messages go: to a file if there is one, and errors to standard error always.

    Attributes:
        path: The file; empty for none.
        is_json: Whether its lines are JSON.
        is_verbose: Whether messages for debugging are written.
    """

    path: str = ""
    is_json: bool = False
    is_verbose: bool = False

    def fail(self, message: str) -> None:
        """Tell what failed."""
        if self.path:
            self._write("error", message)
            sys.stderr.write(message + "\n")
        else:
            sys.stderr.write(self._line("error", message) + "\n")

    def warning(self, message: str) -> None:
        """Tell what is done otherwise than asked for."""
        self._write("warning", message)

    def debug(self, message: str) -> None:
        """Tell what is done."""
        if self.is_verbose:
            self._write("debug", message)

    def _write(self, level: str, message: str) -> None:
        line = self._line(level, message)
        if not self.path:
            sys.stderr.write(line + "\n")
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            sys.stderr.write(f"{self.path}: {error.strerror}: {line}\n")

    def _line(self, level: str, message: str) -> str:
        import datetime as dt  # noqa: PLC0415 - most commands have nothing to say
        import json  # noqa: PLC0415

        time = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        if self.is_json:
            return json.dumps({"level": level, "msg": message, "time": time})
        return f'time="{time}" level={level} msg={json.dumps(message)}'
