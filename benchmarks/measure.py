"""Timing for the start benchmark: workers that answer one duration per line, statistics, memory, imports.

Every row of the benchmark is a worker process: it reads a line, starts one container, and answers
microseconds. So rows can be interleaved, and no start-up of a driver is ever part of a time. This file is
also the program of those workers (`python measure.py MODE ...`), so at module level it imports little, and
only from the standard library.

It must not know how any peer is configured (that is `peers`), nor what is compared with what (`start`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "LineWorker",
    "MissingRowError",
    "descendants",
    "import_cost_ms",
    "interleave",
    "pss_bytes",
    "summary",
    "worker_argv",
]

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(HERE)
_PAGE = 4096


class MissingRowError(Exception):
    """A row cannot be measured on this host; the message says why."""


class LineWorker:
    """A process that does one thing per line it reads, and answers how long that took."""

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, greets: bool = True
    ) -> None:
        """Start `argv`; if it `greets`, wait until it says that it is ready."""
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            text=True,
            bufsize=1,
        )
        self.greeting = ""
        try:
            self.greeting = self._answer().removeprefix("ready").strip() if greets else ""
        except BaseException:
            self.close()
            raise

    def ask(self, line: str = "") -> float:
        """Have the work done once, and return the answer: microseconds, unless `line` asks for another."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer says why it went away
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the worker: it leaves at the end of its input."""
        process, streams = self._process, (self._process.stdin, self._process.stdout, self._process.stderr)
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in streams:
            if stream is not None:
                stream.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if line and not line.startswith("!"):
            return line
        if line:
            raise MissingRowError(line[1:].strip())
        assert self._process.stderr is not None
        said = self._process.stderr.read().strip().splitlines()
        raise MissingRowError(said[-1] if said else f"the worker ended with status {self._process.wait()}")


def worker_argv(mode: str, *arguments: str, small: bool = False) -> list[str]:
    """Return the command of a worker; a `small` one imports neither site-packages nor user settings."""
    return [
        sys.executable,
        *(["-I", "-S"] if small else []),
        os.path.join(HERE, "measure.py"),
        mode,
        *arguments,
    ]


def interleave(
    workers: Mapping[str, LineWorker], *, rounds: int, warmup: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Ask every worker once per round (A B C A B C ...).

    Returns:
        The times in microseconds by row, and the rows that failed on the way, with the reason.
    """
    times: dict[str, list[float]] = {name: [] for name in workers}
    failed: dict[str, str] = {}
    for turn in range(warmup + rounds):
        for name, worker in workers.items():
            if name in failed:
                continue
            try:
                elapsed = worker.ask()
            except MissingRowError as error:
                failed[name] = str(error)
                continue
            if turn >= warmup:
                times[name].append(elapsed)
    return {name: samples for name, samples in times.items() if name not in failed}, failed


def summary(samples: Iterable[float]) -> dict[str, float]:
    """Return median, 95th percentile (nearest rank) and minimum."""
    ordered = sorted(samples)
    count = len(ordered)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return {"median": middle, "p95": ordered[max(0, -(-95 * count // 100) - 1)], "min": ordered[0]}


def import_cost_ms(statement: str, *, rounds: int) -> float:
    """Return what `statement` adds to a bare interpreter: difference of medians, interleaved.

    The checkout is put on the path of both sides if the isolated interpreter does not find the package.
    """
    bare = "pass"
    if subprocess.run([sys.executable, "-I", "-c", statement], capture_output=True, check=False).returncode:
        bare = f"import sys; sys.path.insert(0, {CHECKOUT!r})"
        statement = f"{bare}; {statement}"
    workers: dict[str, LineWorker] = {}
    with contextlib.ExitStack() as stack:
        for name, code in (("bare", bare), ("import", statement)):
            workers[name] = LineWorker(
                worker_argv("exec", "--", sys.executable, "-I", "-c", code, small=True)
            )
            stack.callback(workers[name].close)
        times, failed = interleave(workers, rounds=rounds, warmup=3)
    if failed:
        raise MissingRowError("; ".join(failed.values()))
    return (summary(times["import"])["median"] - summary(times["bare"])["median"]) / 1e3


def descendants(ancestor: int) -> set[int]:
    """Return the ids of all processes below `ancestor`."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat,
            ):
                parents[int(entry)] = int(stat.read().rpartition(")")[2].split()[1])
    found: set[int] = set()
    new = {ancestor}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def pss_bytes(pids: Iterable[int]) -> int:
    """Return the proportional set size of all `pids` together."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as rollup:
            total += sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))
    return total


def _serve(commands: Mapping[str, Callable[..., float]], greeting: str = "") -> None:
    """Answer each input line, `[command [integer]...]`, by the result of its function."""
    print(f"ready {greeting}", flush=True)
    for line in sys.stdin:
        name, *arguments = line.split() or [""]
        try:
            answer = f"{commands[name](*map(int, arguments)):.1f}"
        except Exception as error:  # noqa: BLE001 - whatever it is, the row is missing and this is the reason
            answer = f"! {type(error).__name__}: {error}".replace("\n", " ")
        print(answer, flush=True)


def _timed(action: Callable[[], int]) -> float:
    """Return the microseconds of `action`, which must return exit status 0."""
    start = time.perf_counter_ns()
    code = action()
    elapsed = (time.perf_counter_ns() - start) / 1e3
    if code != 0:
        raise RuntimeError(f"exit status {code}")
    return elapsed


def _serve_exec(arguments: Sequence[str]) -> None:
    """Serve `[NUMBER=PATH] -- PROGRAM...`: spawn it and wait, with PATH open as descriptor NUMBER."""
    split = list(arguments).index("--")
    argv = list(arguments[split + 1 :])
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    for opened in arguments[:split]:
        number, _, path = opened.partition("=")
        actions.append((os.POSIX_SPAWN_OPEN, int(number), path, os.O_RDONLY, 0))

    def action() -> int:
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    _serve({"": lambda: _timed(action)})


def _serve_containerlib(arguments: Sequence[str]) -> None:
    """Serve `ROOTFS HEAP_MIB LOOK...`: containers of the library, next to that much touched memory.

    Its greeting is a JSON array: the id of the image, and what the command LOOK printed in a container.
    """
    import mmap  # noqa: PLC0415 - a worker of another mode has no use for these
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    sys.path.append(CHECKOUT)
    import containerlib as cl  # noqa: PLC0415

    rootfs, heap_mib = arguments[0], int(arguments[1])
    heap = mmap.mmap(-1, max(heap_mib, 1) << 20)
    heap.madvise(mmap.MADV_NOHUGEPAGE)  # the costly kind: one page table entry per 4 KiB
    for offset in range(0, heap_mib << 20, _PAGE):
        heap[offset] = 1
    image = cl.default_engine().images.from_directory(rootfs)

    def start(_: int = 0) -> int:
        return int(cl.run(["/bin/true"], image=image, network="none").exit_code)

    def throughput(threads: int, count: int) -> float:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(start, range(threads)))
            elapsed_us = _timed(lambda: sum(pool.map(start, range(count))))
        return count / elapsed_us * 1e6

    def idle(count: int) -> float:
        start()
        before = pss_bytes(descendants(os.getpid()))
        containers = [image.run(["/bin/sleep", "600"], network="none") for _ in range(count)]
        payloads = {container.pid for container in containers}
        after = pss_bytes(descendants(os.getpid()) - payloads)
        for container in containers:
            container.kill()
        return (after - before) / count

    seen = cl.run(arguments[2:], image=image, network="none").stdout
    greeting = json.dumps([str(image.id), seen if isinstance(seen, str) else seen.decode()])
    _serve({"": lambda: _timed(start), "throughput": throughput, "idle": idle}, greeting)


def _serve_images(arguments: Sequence[str]) -> None:
    """Serve `pull` and `push` of the image NAME, by an engine with everything still to be loaded."""
    sys.path.append(CHECKOUT)
    import containerlib as cl  # noqa: PLC0415 - a worker of another mode has no use for it

    (name,) = arguments
    images = cl.default_engine().images

    def pull() -> int:
        images.pull(name)
        return 0

    def push() -> int:
        images.push(name)
        return 0

    _serve({"pull": lambda: _timed(pull), "push": lambda: _timed(push)})


def _serve_unpack(arguments: Sequence[str]) -> None:
    """Serve the unpacking of the archive TAR, not compressed, into a new directory below TARGET each time."""
    sys.path.append(CHECKOUT)
    from containerlib.layer.apply import apply_layer  # noqa: PLC0415 - as above

    archive, target = arguments
    turns = itertools.count()

    def unpack() -> int:
        path = os.path.join(target, f"{os.getpid()}-{next(turns)}")
        os.mkdir(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        with open(archive, "rb", buffering=1 << 20) as stream:
            apply_layer(stream, descriptor)
        os.close(descriptor)
        return 0

    _serve({"": lambda: _timed(unpack)})


def _serve_docker_py(arguments: Sequence[str]) -> None:
    """Serve `URL IMAGE JSON`: docker-py's `containers.run` with these keyword arguments."""
    import docker  # type: ignore[import-untyped, import-not-found, unused-ignore]  # noqa: PLC0415

    url, image, options = arguments[0], arguments[1], json.loads(arguments[2])
    client = docker.DockerClient(base_url=url)

    def action() -> int:
        client.containers.run(image, ["/bin/true"], remove=True, **options)  # raises unless the status is 0
        return 0

    _serve({"": lambda: _timed(action)})


_MODES = {
    "exec": _serve_exec,
    "containerlib": _serve_containerlib,
    "images": _serve_images,
    "unpack": _serve_unpack,
    "docker-py": _serve_docker_py,
}

if __name__ == "__main__":
    _MODES[sys.argv[1]](sys.argv[2:])
