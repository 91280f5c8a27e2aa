"""What is said to systemd, and what is made of its answers; the other side is played by a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from jeepney import (  # type: ignore[import-untyped]
    DBusAddress,
    HeaderFields,
    Parser,
    new_error,
    new_method_return,
    new_signal,
)

from containerlib.errors import CgroupError, OperationTimeout
from containerlib.runtime.systemd import find_problem, set_properties, start_scope, stop_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

JOB = "/org/freedesktop/systemd1/job/7"
MANAGER = DBusAddress("/org/freedesktop/systemd1", interface="org.freedesktop.systemd1.Manager")
LIMIT_S = 20.0


def ended(job: str, result: str) -> Any:
    """The signal that tells of the end of a job."""
    return new_signal(MANAGER, "JobRemoved", "uoss", (7, job, "x.scope", result))


class FakeSystemd:
    """Reads one call and answers as it is told."""

    def __init__(self, path: Path, answers: Callable[[Any], list[Any]]) -> None:
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self.call: Any = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as lines:
                assert lines.read(1) == b"\0"
                while (line := lines.readline()) != b"BEGIN\r\n":
                    if not line:
                        return
                    connection.sendall(b"OK 00112233445566778899aabbccddeeff\r\n")
                parser = Parser()
                while self.call is None:
                    parser.add_data(lines.read1())
                    self.call = parser.get_next_message()
                for serial, answer in enumerate(self._answers(self.call), 1):
                    connection.sendall(answer.serialise(serial=serial))
                lines.read()  # until the other side has enough

    def close(self) -> None:
        """Wait for its end."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Callable[[Callable[[Any], list[Any]]], tuple[str, FakeSystemd]]]:
    """Start one that gives these answers."""
    with contextlib.ExitStack() as undo:

        def start(answers: Callable[[Any], list[Any]]) -> tuple[str, FakeSystemd]:
            fake = FakeSystemd(tmp_path / "s", answers)
            undo.callback(fake.close)
            return str(tmp_path / "s"), fake

        yield start


Start = "Callable[[Callable[[Any], list[Any]]], tuple[str, FakeSystemd]]"


def ask(path: str, timeout_s: float = LIMIT_S) -> None:
    """Ask for a scope."""
    start_scope(
        "x.scope", 4711, slice_name="system.slice", description="here", path=path, timeout_s=timeout_s
    )


def reply(call: Any) -> Any:
    """The job that the call has started."""
    return new_method_return(call, "o", (JOB,))


@pytest.mark.parametrize("order", ["reply first", "signal first"])
def test_scope(systemd: Start, order: str) -> None:
    """The call has what a scope needs; other jobs and an early end do not confuse."""
    other = ended("/org/freedesktop/systemd1/job/6", "failed")

    def answers(call: Any) -> list[Any]:
        own = [reply(call), ended(JOB, "done")]
        return [other, *(own if order == "reply first" else reversed(own))]

    path, fake = systemd(answers)
    ask(path)
    assert fake.call.header.fields[HeaderFields.member] == "StartTransientUnit"
    assert fake.call.header.fields[HeaderFields.destination] == "org.freedesktop.systemd1"
    name, mode, properties, more = fake.call.body
    assert (name, mode, more) == ("x.scope", "fail", [])
    assert dict(properties) == {
        "Description": ("s", "here"),
        "Slice": ("s", "system.slice"),
        "PIDs": ("au", [4711]),
        "Delegate": ("b", True),
        "TasksMax": ("t", 2**64 - 1),
        "TimeoutStopUSec": ("t", 10_000_000),
        "CollectMode": ("s", "inactive-or-failed"),
    }


def test_properties(systemd: Start) -> None:
    """Other properties for a unit hold until it ends; no job is waited for."""
    path, fake = systemd(lambda call: [ended(JOB, "done"), new_method_return(call)])
    set_properties("x.scope", {"TasksMax": ("t", 5)}, path=path, timeout_s=LIMIT_S)
    assert fake.call.header.fields[HeaderFields.member] == "SetUnitProperties"
    assert fake.call.body == ("x.scope", True, [("TasksMax", ("t", 5))])


def test_properties_of_nothing(systemd: Start) -> None:
    """What systemd says is in the message."""
    path, _ = systemd(lambda call: [new_error(call, "org.example.No", "s", ("no such unit",))])
    with pytest.raises(CgroupError, match="no such unit"):
        set_properties("x.scope", {"TasksMax": ("t", 5)}, path=path, timeout_s=LIMIT_S)


def test_end(systemd: Start) -> None:
    """The end of the job is waited for."""
    path, fake = systemd(lambda call: [reply(call), ended(JOB, "done")])
    stop_unit("x.scope", is_gone=lambda: False, path=path, timeout_s=LIMIT_S)
    assert fake.call.body == ("x.scope", "replace")


def test_end_without_an_answer(systemd: Start) -> None:
    """What is gone needs no answer, and nobody is asked about what was gone before."""
    looks = iter([False, False, True])
    path, fake = systemd(lambda _call: [])
    stop_unit("x.scope", is_gone=lambda: next(looks), path=path, timeout_s=LIMIT_S)
    assert fake.call.body == ("x.scope", "replace")
    stop_unit("x.scope", is_gone=lambda: True, path="/nowhere")


@pytest.mark.parametrize("problem", ["not loaded", "forbidden"])
def test_end_of_what_has_ended(systemd: Start, problem: str) -> None:
    """A unit that is not there is no error; anything else is."""
    path, _ = systemd(lambda call: [new_error(call, "org.example.No", "s", (f"Unit x.scope {problem}.",))])
    with contextlib.nullcontext() if problem == "not loaded" else pytest.raises(CgroupError, match=problem):
        stop_unit("x.scope", is_gone=lambda: False, path=path, timeout_s=LIMIT_S)


def test_refusal(systemd: Start) -> None:
    """What systemd says is in the message."""

    def answers(call: Any) -> list[Any]:
        return [
            new_error(call, "org.freedesktop.systemd1.UnitExists", "s", ("Unit x.scope already exists.",))
        ]

    path, _ = systemd(answers)
    with pytest.raises(CgroupError, match=r"systemd refused: Unit x\.scope already exists\."):
        ask(path)


def test_failed_job(systemd: Start) -> None:
    """A job that ends otherwise is a failure."""
    path, _ = systemd(lambda call: [reply(call), ended(JOB, "timeout")])
    with pytest.raises(CgroupError, match=r"its job is 'timeout'"):
        ask(path)


def test_no_answer(systemd: Start) -> None:
    """It is not waited for without end."""
    path, _ = systemd(lambda call: [reply(call)])
    with pytest.raises(OperationTimeout, match=r"did not answer about x\.scope within 0\.2 s"):
        ask(path, timeout_s=0.2)


def test_nonsense(tmp_path: Path) -> None:
    """Who answers otherwise than in D-Bus, or hangs up, is an error that names the scope."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"what?\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(CgroupError, match=r"cannot ask systemd for x\.scope"):
            ask(str(path))
        thread.join()


def test_nobody(tmp_path: Path) -> None:
    """Without a socket there is nobody to ask."""
    with pytest.raises(CgroupError, match=r"cannot ask systemd for x\.scope: .*No such file"):
        ask(str(tmp_path / "missing"))
    assert find_problem(str(tmp_path / "missing")) is not None
