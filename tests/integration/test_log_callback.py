"""What a container writes, given to a function or to a logger, line by line."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import pytest
from support.engine import BUSYBOX, busybox_tree

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine, Image, LogLine

pytestmark = [pytest.mark.root, pytest.mark.cgroup]


@pytest.fixture
def box(engine: Engine, tmp_path: Path) -> Iterator[Image]:
    """Return an image with busybox."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    busybox_tree(tmp_path / "tree")
    yield engine.images.from_directory(tmp_path / "tree", reference="box:1")
    for container in engine.containers.list():
        container.remove(force=True)


def run(box: Image, script: str, log: cl.LogCallback, **options: object) -> int | None:
    """Run a script to its end."""
    with box.run(["sh", "-c", script], log=log, stdin=cl.DEVNULL, **options) as container:  # type: ignore[arg-type]
        assert container.stdout is None or "stdout" in options
        return container.wait(timeout_s=60).exit_code


def test_every_line_comes_before_the_end(box: Image) -> None:
    """Both streams are told apart, each in its order; what has no end is partial; `wait` is after all."""
    lines: list[LogLine] = []
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf '\\000\\377'; exit 3"
    assert run(box, script, cl.LogCallback(lines.append)) == 3
    assert [line.data for line in lines if line.stream == "stdout"] == [
        *(b"out 1", b"out 2", b"out 3", b"\x00\xff")
    ]
    assert [line.text for line in lines if line.stream == "stderr"] == ["err 1", "err 2", "err 3"]
    assert [line.is_partial for line in lines if line.stream == "stdout"] == [False, False, False, True]
    times = [line.time_ns for line in lines if line.stream == "stdout"]
    assert times == sorted(times)
    assert times[0] > 1_600_000_000 * 10**9


def test_a_logger_of_python(box: Image, caplog: pytest.LogCaptureFixture) -> None:
    """The records have the level that was asked for, and say of which stream they are."""
    logger = logging.getLogger("the container")
    with caplog.at_level(logging.DEBUG, logger.name):
        run(box, "echo 100% %s; echo e >&2", cl.LogCallback.to_logger(logger, level=logging.WARNING))
    found = {(record.levelno, record.container_stream, record.getMessage()) for record in caplog.records}  # type: ignore[attr-defined]
    assert found == {(30, "stdout", "100% %s"), (30, "stderr", "e")}


def test_a_slow_function_holds_the_container_up(box: Image) -> None:
    """With `wait` every one of many lines comes, however long the function takes for the first."""
    go, lines = threading.Event(), []

    def slow(line: LogLine) -> None:
        assert go.wait(20)
        lines.append(line.data)

    with box.run(["sh", "-c", "seq 100000"], log=cl.LogCallback(slow), stdin=cl.DEVNULL) as container:
        with pytest.raises(cl.OperationTimeout):
            container.wait(timeout_s=0.3)
        go.set()
        container.wait(timeout_s=60)
    assert lines == [b"%d" % number for number in range(1, 100_001)]


def test_lines_are_dropped_if_it_shall_not_wait(box: Image) -> None:
    """With `drop` the container ends while the function stands still, and what is missing is counted."""
    go, lines = threading.Event(), list[cl.LogLine]()

    def slow(line: LogLine) -> None:
        assert go.wait(20)
        lines.append(line)

    log = cl.LogCallback(slow, when_slow="drop", max_bytes=64 << 10)
    with box.run(["sh", "-c", "seq 100000; echo end >&2"], log=log, stdin=cl.DEVNULL) as container:
        pid = container.pid
        assert pid is not None
        status = container.wait(timeout_s=5)
        assert status.exit_code == 0
        go.set()
        container.wait(timeout_s=60)
    lost = [line for line in lines if line.stream == "lost"]
    kept = [line for line in lines if line.stream != "lost"]
    dropped = sum(int(line.text.split()[0]) for line in lost)
    assert dropped > 0
    assert dropped + len(kept) == 100_001
    assert sum(len(line.data) for line in kept) < 256 << 10


def test_a_function_that_fails(box: Image, caplog: pytest.LogCaptureFixture) -> None:
    """Its error is reported, and the next line follows."""
    lines = []

    def bad(line: LogLine) -> None:
        lines.append(line.text)
        raise ValueError(line.text)

    assert run(box, "echo one; echo two", cl.LogCallback(bad)) == 0
    assert lines == ["one", "two"]
    assert [record.name for record in caplog.records] == ["containerlib"] * 2


def test_a_line_without_end_is_passed_on_in_pieces(box: Image) -> None:
    """No line grows without bound."""
    sizes: list[tuple[int, bool]] = []
    log = cl.LogCallback(lambda line: sizes.append((len(line.data), line.is_partial)))
    run(box, "head -c 5000000 /dev/zero; echo", log)
    assert sum(size for size, _ in sizes) == 5_000_000
    assert max(size for size, _ in sizes) <= 1 << 20
    assert [partial for _, partial in sizes] == [True] * (len(sizes) - 1) + [False]


def test_one_stream_of_two(box: Image) -> None:
    """A stream that the caller takes is the caller's, and the function gets the other one."""
    lines: list[str] = []
    log = cl.LogCallback(lambda line: lines.append(line.text))
    with box.run(["sh", "-c", "echo o; echo e >&2"], log=log, stdin=cl.DEVNULL, stdout=cl.PIPE) as container:
        assert container.stdout is not None
        assert container.stdout.read() == b"o\n"
        assert container.stderr is None
        container.wait(timeout_s=60)
    assert lines == ["e"]


def test_a_second_start(box: Image) -> None:
    """Each run of a container is passed on."""
    lines: list[str] = []
    log = cl.LogCallback(lambda line: lines.append(line.text))
    with box.run(["echo", "x"], log=log, stdin=cl.DEVNULL) as container:
        container.wait(timeout_s=60)
        container.start(stdin=cl.DEVNULL)
        container.wait(timeout_s=60)
    assert lines == ["x", "x"]


def test_waiting_in_the_function(box: Image) -> None:
    """The function may wait for the container itself."""
    states: list[object] = []
    container = box.run(
        ["sh", "-c", "echo x; sleep 60"],
        log=cl.LogCallback(lambda _: states.append(made[0].stop(timeout_s=0) if made else None)),
        stdin=cl.PIPE,
        init=True,
    )
    made = [container]
    container.kill()
    container.wait(timeout_s=60)
    container.remove()


def test_what_has_no_callback(box: Image) -> None:
    """A detached container, a terminal, streams that go elsewhere, and what is no function are refused."""
    log = cl.LogCallback(print)
    with pytest.raises(cl.InvalidOption, match="LogFile"):
        box.run(["true"], log=log, lifetime="detached")
    with pytest.raises(cl.InvalidOption, match="terminal"):
        box.run(["true"], log=log, tty=True)
    with pytest.raises(cl.InvalidOption, match="both streams go elsewhere"):
        box.run(["true"], log=log, stdout=cl.DEVNULL, stderr=cl.DEVNULL)
    with pytest.raises(cl.InvalidOption, match="function"):
        cl.LogCallback("print")  # type: ignore[arg-type]
    with pytest.raises(cl.InvalidOption, match="'wait' or 'drop'"):
        cl.LogCallback(print, when_slow="never")  # type: ignore[arg-type]
    with pytest.raises(cl.InvalidOption, match="64 KiB"):
        cl.LogCallback(print, max_bytes=1)
    with pytest.raises(cl.InvalidOption, match="LogCallback"):
        box.run(["true"], log=print)  # type: ignore[arg-type]
    with pytest.raises(cl.InvalidOption, match="detached"):
        box.run(["true"], log=cl.LogFile())
