"""`containerlib.Popen`: a container with real pipes, in the shape of `subprocess.Popen`."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import re
import select
import time
from typing import TYPE_CHECKING, BinaryIO

import pytest

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib import Image, Process

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20
ECHO = 'while read -r line; do echo "got $line"; done; echo end; exit 5'
FOREVER = "echo ready; exec sleep 1000"


def start(image: Image, script: str, **options: object) -> Process:
    """Start a script with three pipes, or what `options` say instead."""
    pipes = {"stdin": cl.PIPE, "stdout": cl.PIPE, "stderr": cl.PIPE}
    return cl.Popen(["sh", "-c", script], image=image, **{**pipes, **options})  # type: ignore[arg-type]


def pipe(stream: BinaryIO | None) -> BinaryIO:
    """Return the stream, which must be there."""
    assert stream is not None
    return stream


@pytest.fixture
def forever(image: Image) -> Iterator[Process]:
    """Return a process that runs until it is killed, and has written its first line."""
    process = start(image, FOREVER)
    try:
        assert pipe(process.stdout).readline() == b"ready\n"
        yield process
    finally:
        process.close()


def test_lines_go_in_and_out(image: Image) -> None:
    """Input can be written line by line while the answers are read."""
    with start(image, ECHO) as process:
        for word in (b"one\n", b"two\n", b"three\n"):
            assert pipe(process.stdin).write(word) == len(word)
            assert pipe(process.stdout).readline() == b"got " + word
        assert process.poll() is None
        pipe(process.stdin).close()
        assert pipe(process.stdout).read() == b"end\n"
        assert (process.wait(), process.poll(), process.exit_code) == (5, 5, 5)
        assert (process.pid, process.status is not None) == (None, True)


def test_communicate_feeds_and_collects(image: Image) -> None:
    """`communicate` writes the input, reads both outputs and waits."""
    with start(image, "cat; echo problem >&2; exit 3") as process:
        data = os.urandom(5 * MEBIBYTE)
        assert process.communicate(data) == (data, b"problem\n")
        assert process.exit_code == 3


def test_communicate_with_a_command_that_does_not_read(image: Image) -> None:
    """Input that nobody reads is not an error, and every pipe is closed in the end."""
    with start(image, "exec <&-; echo no") as process:
        assert process.communicate(bytes(MEBIBYTE)) == (b"no\n", b"")
        assert [pipe(s).closed for s in (process.stdin, process.stdout, process.stderr)] == [True] * 3


def test_communicate_after_reading(image: Image) -> None:
    """What was read before is not given again."""
    with start(image, "echo one; cat") as process:
        assert pipe(process.stdout).readline() == b"one\n"
        assert process.communicate(b"two") == (b"two", b"")


def test_communicate_after_the_end(image: Image) -> None:
    """Output of a process that has ended already, and was waited for, can still be collected."""
    with start(image, "echo one; echo two >&2") as process:
        process.wait()
        assert process.communicate() == (b"one\n", b"two\n")


def test_communicate_timeout_kills(forever: Process) -> None:
    """A process that takes too long is killed, and its pipes are closed."""
    with pytest.raises(cl.OperationTimeout, match=r"0\.01 s"):
        forever.communicate(timeout_s=0.01)
    assert forever.exit_code == 137
    assert pipe(forever.stdout).closed


def test_communicate_output_limit_kills(image: Image) -> None:
    """A process that writes too much is killed."""
    with start(image, "exec yes") as process:
        with pytest.raises(cl.OutputLimitExceeded, match="5000"):
            process.communicate(output_limit_bytes=5000)
        assert process.exit_code == 137


def test_wait_timeout_lets_it_run(forever: Process) -> None:
    """A wait that is over leaves the process alone."""
    with pytest.raises(cl.OperationTimeout, match="still running"):
        forever.wait(timeout_s=0)
    assert forever.poll() is None
    assert forever.pid is not None
    assert os.path.exists(f"/proc/{forever.pid}")


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda process: process.kill(), 137),
        (lambda process: process.send_signal("KILL"), 137),
        (lambda process: process.send_signal(9), 137),
        (lambda process: process.terminate(), 15),
        (lambda process: process.send_signal("SIGUSR1"), 10),
        (lambda process: process.send_signal(10), 10),
    ],
)
def test_signals(image: Image, act: Callable[[Process], None], code: int) -> None:
    """Signals reach the command by name and by number, and SIGKILL cannot be caught."""
    script = "trap 'exit 15' TERM; trap 'exit 10' USR1; sleep 1000 & echo ready; wait"
    with start(image, script) as process:
        assert pipe(process.stdout).readline() == b"ready\n"
        act(process)
        assert process.wait() == code
        act(process)  # a process that has ended is no error


def test_terminate_without_a_handler_does_nothing(forever: Process) -> None:
    """As the first process of its namespace, a command without a handler ignores SIGTERM."""
    forever.terminate()
    with pytest.raises(cl.OperationTimeout):
        forever.wait(timeout_s=0.05)


def test_terminate_with_reaper_ends_it(image: Image) -> None:
    """With `init`, SIGTERM has its usual effect."""
    with start(image, FOREVER, init=True) as process:
        assert pipe(process.stdout).readline() == b"ready\n"
        process.terminate()
        assert process.wait() == 143


def test_context_waits(image: Image) -> None:
    """Leaving the context closes the input and waits for the end."""
    with start(image, "cat; exit 6", stdout=cl.DEVNULL) as process:
        pass
    assert process.exit_code == 6
    assert process.container.state == "removed"
    assert pipe(process.stdin).closed


def test_context_kills_after_an_error(image: Image) -> None:
    """An error inside the context ends the process instead of waiting for it."""
    process = start(image, FOREVER)
    with pytest.raises(RuntimeError, match="mine"), process:
        raise RuntimeError("mine")
    assert process.container.state == "removed"
    assert process.exit_code == 137


def test_collected_while_running_warns(image: Image) -> None:
    """Losing the last reference to a running process is reported."""
    process = start(image, FOREVER, stdin=cl.DEVNULL, stdout=cl.DEVNULL, stderr=cl.DEVNULL)
    container = process.container
    try:
        with pytest.warns(ResourceWarning, match=f"{container.name} is still running"):  # noqa: PT031 - both do it
            del process
            gc.collect()
    finally:
        container.remove(force=True)


def test_collected_after_the_end_is_silent(image: Image) -> None:
    """A process that has ended and was closed goes without a word."""
    process = start(image, "exit 0")
    process.wait()
    process.close()
    del process
    gc.collect()


def test_streams_are_inherited_by_default(image: Image, capfd: pytest.CaptureFixture[str]) -> None:
    """Without being told otherwise the command writes where this process writes."""
    with cl.Popen(["sh", "-c", "echo out; echo err >&2"], image=image, stdin=cl.DEVNULL) as process:
        assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
    assert tuple(capfd.readouterr()) == ("out\n", "err\n")


def test_input_is_inherited(image: Image, tmp_path: Path) -> None:
    """Without being told otherwise the command reads what this process would read."""
    (tmp_path / "input").write_bytes(b"inherited")
    saved = os.dup(0)
    with (tmp_path / "input").open("rb") as file:
        os.dup2(file.fileno(), 0)
    try:
        with cl.Popen(["cat"], image=image, stdout=cl.PIPE) as process:
            assert pipe(process.stdout).read() == b"inherited"
    finally:
        os.dup2(saved, 0)
        os.close(saved)


def test_standard_error_merged(image: Image) -> None:
    """With STDOUT both streams come out of one pipe, in order."""
    with start(image, "echo 1; echo 2 >&2; echo 3", stderr=cl.STDOUT) as process:
        assert process.stderr is None
        assert process.communicate() == (b"1\n2\n3\n", b"")


def test_output_to_files(image: Image, tmp_path: Path) -> None:
    """Output goes to a file object or to a descriptor, which stay open and the caller's."""
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        with start(image, "echo out; echo err >&2", stdout=out, stderr=err.fileno()) as process:
            assert (process.stdout, process.stderr) == (None, None)
        out.write(b"mine\n")
        err.write(b"mine\n")
    assert (tmp_path / "out").read_bytes() == b"out\nmine\n"
    assert (tmp_path / "err").read_bytes() == b"err\nmine\n"


def test_one_container_feeds_another(image: Image) -> None:
    """The output of one process can be the input of the next."""
    reading, writing = os.pipe()
    try:
        with start(image, "seq 100000", stdin=cl.DEVNULL, stdout=writing) as first:
            os.close(writing)
            with start(image, "wc -l", stdin=reading) as second:
                assert pipe(second.stdout).read() == b"100000\n"
        assert (first.exit_code, second.exit_code) == (0, 0)
    finally:
        os.close(reading)


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_closed_descriptors_are_refused(image: Image, stream: str) -> None:
    """A descriptor that is not open is refused before anything was started."""
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    with pytest.raises(cl.InvalidOption, match=f"{stream}={writing}: .*not open"):
        start(image, "exit 0", **{stream: writing})


@pytest.mark.parametrize(
    "value",
    ["text", True, 1.5, io.BytesIO(b"x"), -7, 2**70],
    ids=["text", "bool", "float", "object", "negative", "huge"],
)
@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_what_is_no_stream_is_refused(image: Image, stream: str, value: object) -> None:
    """Only pipes, descriptors and files that have one can be streams."""
    with pytest.raises(cl.InvalidOption, match=f"{stream}={re.escape(repr(value))}"):
        start(image, "exit 0", **{stream: value})


def test_closed_file_is_refused(image: Image, tmp_path: Path) -> None:
    """A file object that was closed is as bad as a closed descriptor."""
    with (tmp_path / "closed").open("wb") as file:
        pass
    with pytest.raises(cl.InvalidOption, match=r"stdout=.*closed"):
        start(image, "exit 0", stdout=file)


def test_no_descriptor_of_the_caller_is_passed_on(image: Image, tmp_path: Path) -> None:
    """The command has its three streams and nothing else that is open here, inheritable or not."""
    with (tmp_path / "secret").open("wb") as file:
        os.set_inheritable(file.fileno(), True)
        copy = os.dup2(file.fileno(), 3 if not os.path.exists("/proc/self/fd/3") else 200)
        try:
            with start(image, "exec ls /proc/self/fd") as process:
                # The fourth is the directory that ls has open.
                assert process.communicate()[0].split() == [b"0", b"1", b"2", b"3"]
        finally:
            os.close(copy)


def test_a_closed_pipe_gives_the_command_sigpipe(image: Image) -> None:
    """Signals that Python ignores have their usual effect in a container."""
    with start(image, "yes; echo $? >&2", init=True) as process:
        assert pipe(process.stdout).readline() == b"y\n"
        pipe(process.stdout).close()
        assert pipe(process.stderr).read() == b"141\n"


def test_fileno_is_readable_at_the_end(image: Image) -> None:
    """`fileno` can be given to poll(2): not readable while it runs, readable at the end."""
    with start(image, "read line; exit 4") as process:
        poller = select.poll()
        poller.register(process.fileno(), select.POLLIN)
        assert poller.poll(0) == []
        pipe(process.stdin).write(b"\n")
        assert len(poller.poll(60_000)) == 1
        assert process.poll() == 4
        assert process.fileno() == -1


def test_event_loop_waits_with_fileno(image: Image) -> None:
    """An asyncio loop learns of the end without a thread."""

    async def exit_code(process: Process) -> int | None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        fd = process.fileno()
        loop.add_reader(fd, ended.set)
        try:
            pipe(process.stdin).close()
            await asyncio.wait_for(ended.wait(), 60)
        finally:
            loop.remove_reader(fd)
        return process.poll()

    with start(image, "cat; exit 8") as process:
        assert asyncio.run(exit_code(process)) == 8


def test_poll_never_blocks_and_finds_the_end(image: Image) -> None:
    """Polling alone is enough to learn of the end."""
    with start(image, "exit 2") as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            select.select([process.fileno()], [], [], 1)
        assert process.poll() == 2


def test_representation(image: Image) -> None:
    """What is printed names the container and the exit code."""
    with start(image, "exit 1", name="printed") as process:
        process.wait()
        assert repr(process) == "<Process printed exit_code=1>"


def test_popen_by_the_name_of_an_image(default_image: str) -> None:
    """`Popen` with the name of an image uses the default engine."""
    with cl.Popen(["sh", "-c", "echo $0"], image=default_image, stdout=cl.PIPE) as process:
        assert pipe(process.stdout).read() == b"sh\n"


def test_output_after_self_removal(image: Image) -> None:
    """A container that removes itself at its end leaves its output to be read."""
    with image.run(["echo", "kept"], stdin=cl.DEVNULL, stdout=cl.PIPE, remove=True) as container:
        assert container.wait().exit_code == 0
        assert container.state == "removed"
        assert pipe(container.stdout).read() == b"kept\n"
    assert pipe(container.stdout).closed
