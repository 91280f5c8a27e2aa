"""The handles for event loops: the same verbs, awaited; cancelling a task cancels the work."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.engine import BUSYBOX, busybox_tree

import containerlib as cl
from containerlib import aio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from containerlib import Engine

pytestmark = [pytest.mark.root, pytest.mark.cgroup]


@pytest.fixture
def box(engine: Engine, tmp_path: Path) -> Iterator[aio.Image]:
    """Return an image with busybox."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    busybox_tree(tmp_path / "tree")
    yield aio.Image(engine.images.from_directory(tmp_path / "tree", reference="box:1"))
    for container in engine.containers.list():
        container.remove(force=True)


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    """Have the threads that do the work before anything is counted, and end them afterwards."""
    from containerlib.aio import loop  # noqa: PLC0415 - what is private to it

    async def use_all() -> None:
        barrier = threading.Barrier(loop._THREADS)
        await asyncio.gather(*(loop.call(barrier.wait) for _ in range(loop._THREADS)))

    asyncio.run(use_all())
    yield
    pool, loop._pool = loop._pool, None
    assert pool is not None
    pool.shutdown()


def over(engine: Engine) -> aio.Engine:
    """Return the engine's form for event loops."""
    result = aio.Engine.__new__(aio.Engine)
    result.sync = engine
    return result


def run(awaitable: Awaitable[Any]) -> Any:
    """Run a coroutine to its end, within bounds."""

    async def bounded() -> Any:
        return await asyncio.wait_for(awaitable, 30)

    return asyncio.run(bounded())


async def cancelled(awaitable: Awaitable[Any], when: Callable[[], Awaitable[Any]]) -> None:
    """Begin something, and cancel it when `when` says so; it has to end as cancelled."""
    task = asyncio.ensure_future(awaitable)
    await when()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def until(is_so: Callable[[], bool]) -> None:
    """Look again and again until something is so."""
    for _ in range(10_000):
        if is_so():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it never was")


def test_a_life(box: aio.Image, engine: Engine, tmp_path: Path) -> None:
    """Every verb is there, and does what it does without an event loop."""

    async def main() -> None:
        containers = over(engine).containers
        container = await containers.create(
            box, ["sh", "-c", "echo out; sleep 60"], lifetime="detached", name="web"
        )
        assert container == await containers.get("web")
        assert [each.name for each in await containers.list()] == ["web"]
        await container.start()
        assert container.state == "running"
        done = await container.exec(["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"in")
        assert (done.exit_code, done.stdout, done.stderr) == (3, b"in", b"err\n")
        with pytest.raises(cl.ContainerFailed):
            await container.exec(["false"], check=True)
        await container.pause()
        await container.unpause()
        await container.rename("app")
        await container.update(cl.Resources(pids=64))
        assert (await container.stats()).pids.limit == 64
        assert len(await container.top()) >= 1
        assert (await container.inspect()).name == "app"
        await container.put(b"text", "/file")
        assert await (container.fs / "file").read_text() == "text"
        assert "file" in [path.name async for path in container.fs.iterdir()]
        await container.get("/file", tmp_path / "file")
        assert (tmp_path / "file").read_text(encoding="ascii") == "text"
        made = await container.commit("made:1")
        assert isinstance(made, aio.Image)
        assert (await made.call(["cat", "/file"])).text == "text"
        assert [line.text async for line in container.logs()] == ["out"]
        with pytest.raises(cl.OperationTimeout):
            await container.wait(timeout_s=0.05)
        status = await container.stop(timeout_s=0)
        assert status is not None
        assert status.exit_code == 137
        assert await container.stop() == status == await container.wait()
        await container.restart(timeout_s=0)
        await container.wait_until("running", timeout_s=30)
        await container.kill()
        await container.wait_until("exited", timeout_s=30)
        with pytest.raises(cl.InvalidState):
            await container.wait_until("healthy")
        await container.remove()
        assert await containers.list() == []
        with pytest.raises(cl.ContainerNotFound):
            await containers.get("app")

    run(main())


def test_many_at_once(box: aio.Image, engine: Engine) -> None:
    """Waiting takes no thread: more containers than there are threads are waited for at once."""

    async def main() -> None:
        containers = over(engine).containers
        started = [await containers.run(box, ["sleep", "60"], layer="memory") for _ in range(40)]
        waiting = [asyncio.ensure_future(each.wait()) for each in started for _ in range(2)]
        begun = [asyncio.ensure_future(each.exec(["sleep", "60"])) for each in started[:20]]
        await until(lambda: all(len(each.sync.top()) == 2 for each in started[:20]))
        assert (await box.call(["echo", "hello"])).text == "hello\n"
        await asyncio.gather(*(each.kill() for each in started))
        statuses = await asyncio.gather(*waiting)
        assert {status.exit_code for status in statuses} == {137}
        assert {done.exit_code for done in await asyncio.gather(*begun)} == {137}
        for each in started:
            await each.remove()

    run(main())


def test_cancelled_waiting_leaves_the_container(box: aio.Image, engine: Engine) -> None:
    """A wait that is cancelled is only that; the container goes on."""

    async def main() -> None:
        container = await over(engine).containers.run(box, ["sleep", "60"])
        for awaitable in (container.wait(), container.wait_until("exited")):
            await cancelled(awaitable, lambda: asyncio.sleep(0.01))
        assert container.state == "running"
        await container.remove(force=True)

    run(main())


def test_a_cancelled_exec_is_killed(box: aio.Image, engine: Engine) -> None:
    """With everything that it has started, and nothing else in the container."""

    async def main() -> None:
        container = await over(engine).containers.run(box, ["sleep", "60"])

        await cancelled(
            container.exec(["sh", "-c", "sleep 50 & sleep 51"]),
            lambda: until(lambda: len(container.sync.top()) > 2),
        )
        await until(lambda: [each.command for each in container.sync.top()] == [("sleep", "60")])
        assert container.state == "running"
        await container.remove(force=True)

    run(main())


def test_a_cancelled_call_leaves_nothing(box: aio.Image, engine: Engine) -> None:
    """Neither a container nor a process; at whatever moment it is cancelled."""

    async def main() -> None:
        containers = over(engine).containers
        for delay_s in (0, 0.001, 0.002, 0.004, 0.008, 0.03):
            await cancelled(box.call(["sleep", "60"]), lambda delay_s=delay_s: asyncio.sleep(delay_s))  # type: ignore[misc]
            assert await containers.list() == []
            await cancelled(
                containers.run(box, ["sleep", "60"]),
                lambda: asyncio.sleep(0),
            )
            assert await containers.list() == []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(box.call(["sleep", "60"]), 0.05)
        assert await containers.list() == []

    run(main())


def test_timeouts_of_commands(box: aio.Image, engine: Engine) -> None:
    """A command that takes too long or writes too much is killed; the error has what it wrote."""

    async def main() -> None:
        container = await over(engine).containers.run(box, ["sleep", "60"])
        with pytest.raises(cl.OperationTimeout) as caught:
            await container.exec(["sh", "-c", "echo so far; sleep 60"], timeout_s=0.3)
        assert caught.value.stdout == b"so far\n"
        with pytest.raises(cl.OutputLimitExceeded):
            await container.exec(["yes"], output_limit_bytes=100_000)
        with pytest.raises(cl.OperationTimeout):
            await box.call(["sleep", "60"], timeout_s=0.05)
        assert [process.command for process in await container.top()] == [("sleep", "60")]
        await container.remove(force=True)

    run(main())


def test_streams(box: aio.Image, engine: Engine) -> None:
    """Pipes of commands, containers and attachments are read and written without blocking the loop."""

    async def main() -> None:
        containers = over(engine).containers
        container = await containers.run(box, ["cat"], stdin=cl.PIPE, stdout=cl.PIPE)
        assert container.stdin is not None
        assert container.stdout is container.stdout is not None
        big = bytes(range(256)) * 4000

        async def feed() -> None:
            assert container.stdin is not None
            async with container.stdin as stdin:
                await stdin.write(big)

        feeding = asyncio.ensure_future(feed())
        assert container.stdout is not None
        assert await container.stdout.read() == big
        await feeding
        assert (await container.wait()).exit_code == 0
        await container.remove()

        container = await containers.run(box, ["cat"], stdin_open=True, lifetime="detached")
        async with await container.attach() as streams:
            assert streams.stdin is not None
            await streams.stdin.write(b"one\ntwo\n")
            assert await streams.stdout.readline() == b"one\n"
            assert await streams.stdout.read(3) == b"two"
        script = "echo a; echo b; read x; exit 4"
        async with await container.popen(["sh", "-c", script], stdin=cl.PIPE, stdout=cl.PIPE) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert [await process.stdout.readline(), await process.stdout.readline()] == [b"a\n", b"b\n"]
            with pytest.raises(cl.OperationTimeout):
                await process.wait(0.02)
            await process.stdin.write(b"\n")
            assert await process.wait() == 4
        process = await container.popen(["cat"], stdin=cl.PIPE, stdout=cl.PIPE, stderr=cl.PIPE)
        assert await process.communicate(b"data") == (b"data", b"")
        assert process.exit_code == 0
        with contextlib.suppress(RuntimeError):
            async with await container.popen(["sleep", "60"]) as process:
                raise RuntimeError
        assert process.exit_code == 137
        await container.remove(force=True)

    run(main())


def test_logs_and_events_follow(box: aio.Image, engine: Engine) -> None:
    """Both wait in the loop, end with what they follow, and stop when they are no longer wanted."""

    async def main() -> None:
        events = over(engine).events(actions=["die"])
        container = await over(engine).containers.run(
            box, ["sh", "-c", "echo one; sleep 0.1; echo two; sleep 0.1; printf three"], lifetime="detached"
        )
        lines = [line.text async for line in container.logs(follow=True)]
        assert lines == ["one", "two", "three"]
        event = await anext(events)
        assert event.id == container.id
        await events.aclose()  # type: ignore[attr-defined]
        assert [line.text async for line in container.logs(tail=1)] == ["three"]
        await container.restart()
        following = container.logs(follow=True)
        await cancelled(_all(following), lambda: asyncio.sleep(0.02))
        await container.remove(force=True)
        past = [event.action async for event in over(engine).events(follow=False, containers=[container.id])]
        assert (past[0], past[-1]) == ("create", "destroy")

    async def _all(iterator: Any) -> None:
        async for _ in iterator:
            pass
        await asyncio.sleep(60)

    run(main())


def test_stats_stream(box: aio.Image, engine: Engine) -> None:
    """It ends with the container, without waiting for its interval."""

    async def main() -> None:
        container = await over(engine).containers.run(box, ["sh", "-c", "while :; do :; done"])
        stream = container.stats_stream(interval_s=0.05)
        assert (await anext(stream)).cpu_percent is None
        assert ((await anext(stream)).cpu_percent or 0) > 0
        slow = container.stats_stream(interval_s=3600)
        await anext(slow)
        await container.kill()
        assert [found async for found in slow] == [found async for found in stream] == []
        await container.remove()
        with pytest.raises(cl.InvalidOption, match="interval_s"):
            await anext(container.stats_stream(interval_s=0))

    run(main())


@pytest.mark.usefixtures("box")
def test_a_cancelled_pull_ends(engine: Engine) -> None:
    """The transfer ends at its next step, and nothing of the image is there."""

    async def main() -> None:
        async with asyncio.timeout(60):
            with cl.Registry.serve() as server:
                images = over(engine).images
                name = f"{server.url.partition('//')[2]}/box:1"
                await images.tag("box:1", name)
                await images.push(name)
                await images.remove(name)
                await images.remove("box:1")
                assert await images.list() == []
                begun = asyncio.Event()
                loop = asyncio.get_running_loop()
                release = threading.Event()

                def tell(event: cl.TransferEvent) -> None:
                    del event
                    loop.call_soon_threadsafe(begun.set)
                    release.wait(30)

                async def first() -> None:
                    await begun.wait()
                    loop.call_later(0.05, release.set)

                await cancelled(images.pull(name, progress=tell), first)
                assert await images.list() == []
                assert (await images.pull(name)).references == (name,)
                async with images.hold(name) as held:
                    assert isinstance(held, aio.Image)

    run(main())


def test_functions(box: aio.Image, default_image: str) -> None:
    """`run` and `Popen` work as they do without a loop."""

    async def main() -> None:
        assert (await aio.run(["sh", "-c", ":"], image=default_image)).exit_code == 0
        image = box
        assert (await aio.run(["echo", "hello"], image=image)).text == "hello\n"
        with pytest.raises(cl.OperationTimeout):
            await aio.run(["sleep", "60"], image=image, timeout_s=0.05)
        async with await aio.Popen(["cat"], image=image, stdin=cl.PIPE, stdout=cl.PIPE) as process:
            assert await process.communicate(b"x") == (b"x", b"")
            assert await process.wait() == 0
        await cancelled(aio.run(["sleep", "60"], image=image), lambda: asyncio.sleep(0.02))
        assert await aio.default_engine().containers.list() == []

    run(main())


def test_the_loop_is_never_held_up(box: aio.Image, engine: Engine) -> None:
    """While containers are started, stopped and copied to, other tasks go on."""

    async def main() -> None:
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        ticking = asyncio.ensure_future(tick())
        container = await over(engine).containers.create(box, ["sleep", "60"], lifetime="detached")
        await container.put_archive(io.BytesIO(bytes(1024)), "/")
        await container.start()
        before = turns
        # It does not end by SIGTERM, so this waits.
        await container.stop(timeout_s=0.2)
        assert turns > before
        ticking.cancel()
        await container.remove()

    begin = time.monotonic()
    run(main())
    assert time.monotonic() - begin < 100


def test_nothing_stays_open(box: aio.Image, engine: Engine) -> None:
    """No descriptor is left, of what was cancelled neither."""

    async def main() -> None:
        container = await over(engine).containers.run(box, ["sleep", "60"], lifetime="detached")
        await container.exec(["true"])
        await cancelled(container.wait_until("exited"), lambda: asyncio.sleep(0.001))
        before = sorted(os.listdir("/proc/self/fd"))
        for _ in range(10):
            await container.exec(["true"])
            await cancelled(container.wait(), lambda: asyncio.sleep(0))
            await cancelled(container.exec(["sleep", "60"]), lambda: asyncio.sleep(0.002))
            await cancelled(container.wait_until("exited"), lambda: asyncio.sleep(0.001))
            async for _ in container.logs():
                pass
        assert sorted(os.listdir("/proc/self/fd")) == before
        await container.remove(force=True)

    run(main())


def test_waiting_is_for_all_lines_of_a_callback(box: aio.Image) -> None:
    """A function that gets the lines has had all of them when `wait` returns."""
    lines: list[str] = []

    async def main() -> None:
        log = cl.LogCallback(lambda line: lines.append(line.text))
        container = await box.run(["seq", "3000"], log=log, stdin=cl.DEVNULL)
        await container.wait(timeout_s=60)
        assert len(lines) == 3000
        await container.remove()

    run(main())
