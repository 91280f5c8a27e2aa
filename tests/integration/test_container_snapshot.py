"""Snapshots and forks: containers that begin with what another one had written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.engine import BUSYBOX, busybox_tree
from support.failpoints import died_at, record_steps

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Container, Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.guest]

SCRIPT = (
    "echo first >/data/file; mkdir /data/sub; ln /data/file /data/hard; ln -s file /data/link; "
    "rm /data/old; rm -r /data/gone; mkdir /data/gone; chown 7:8 /data/sub; mkfifo /data/pipe"
)
LIST = ["sh", "-c", "cd /data; find . | sort; cat link; stat -c %u:%g sub; stat -c %h file"]
LISTED = ".\n./file\n./gone\n./hard\n./link\n./pipe\n./sub\nfirst\n7:8\n2\n"


@pytest.fixture
def box(engine: Engine, tmp_path: Path) -> Iterator[Image]:
    """Return an image with busybox and some data."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    tree = busybox_tree(tmp_path / "tree")
    for path in ("data/old", "data/gone/below"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text("of the image\n", encoding="ascii")
    yield engine.images.from_directory(tree, reference="box:1")
    for container in engine.containers.list():
        container.remove(force=True)


def ended(container: Container) -> Container:
    """Run a container to its end."""
    container.start(stdin=cl.DEVNULL, stdout=cl.DEVNULL, stderr=cl.DEVNULL)
    assert container.wait(timeout_s=60).exit_code == 0
    return container


def output(container: Container) -> str:
    """Start a container and return what it writes."""
    container.start(stdin=cl.DEVNULL, stdout=cl.PIPE, stderr=cl.STDOUT)
    assert container.stdout is not None
    text = container.stdout.read().decode()
    container.wait(timeout_s=60)
    return text


def layers_of(engine: Engine) -> list[str]:
    """Return the frozen layers of the store."""
    try:
        return sorted(os.listdir(engine._session.stores.layout.frozen_layers))
    except FileNotFoundError:
        return []


def test_a_fork_begins_with_what_the_other_one_had(box: Image, engine: Engine) -> None:
    """Files, absence, links and owners are there; afterwards neither sees what the other one writes."""
    first = ended(engine.containers.create(box, ["sh", "-c", SCRIPT]))
    with first.snapshot() as snapshot:
        assert output(snapshot.create(LIST)) == LISTED
        writer = ended(snapshot.create(["sh", "-c", "echo other >/data/file; echo x >/new"]))
        assert output(snapshot.create(LIST)) == LISTED
        runs = snapshot.run(["true"], stdout=cl.DEVNULL)
        runs.wait(timeout_s=60)
        assert output(runs.fork()) == ""
    assert (first.fs / "data/file").read_text() == "first\n"
    assert not (first.fs / "new").exists()
    assert (writer.fs / "data/file").read_text() == "other\n"
    (first.fs / "data/file").write_text("changed")
    assert (writer.fs / "data/file").read_text() == "other\n"


def test_a_fork_is_as_the_first_one_was(box: Image, engine: Engine) -> None:
    """Command, environment and labels are taken over, the name is not; forks of forks go on."""
    command = ["sh", "-c", "echo $A >>/data/log; cat /data/log"]
    first = ended(engine.containers.create(box, command, name="first", env={"A": "b"}, labels={"l": "v"}))
    second = first.fork()
    third = (ended(second)).fork(name="third")
    assert second.name not in {"first", "third"}
    assert third.name == "third"
    assert third.labels["l"] == "v"
    assert output(third) == "b\nb\nb\n"
    assert output(first) == "b\nb\n"
    assert output(second.fork()) == "b\nb\nb\n"


@pytest.mark.parametrize("lifetime", ["process", "detached"])
def test_a_paused_container(box: Image, engine: Engine, lifetime: str) -> None:
    """Its files are copied while it stands still, and it goes on as if nothing had been."""
    script = f"{SCRIPT}; mkfifo /go; echo ready; cat /go; echo later >/data/file; sleep 60"
    container = engine.containers.create(box, ["sh", "-c", script], lifetime=lifetime, init=True)  # type: ignore[arg-type]
    container.start(stdin=cl.DEVNULL, stdout=cl.PIPE, stderr=cl.DEVNULL)
    assert container.stdout is not None
    assert container.stdout.readline() == b"ready\n"
    container.pause()
    with container.snapshot() as snapshot:
        assert container.state == "paused"
        container.unpause()
        assert (
            container.exec(["sh", "-c", "echo >/go; until grep -q later /data/file; do :; done"]).exit_code
            == 0
        )
        assert (container.fs / "data/file").read_text() == "later\n"
        assert output(snapshot.create(LIST)) == LISTED
    container.remove(force=True)


@pytest.mark.parametrize("lifetime", ["process", "detached"])
def test_nothing_is_left_once_nothing_stands_on_it(box: Image, engine: Engine, lifetime: str) -> None:
    """A frozen layer stays as long as a container or an open snapshot needs it, and not longer."""
    options = {"lifetime": lifetime}
    first = ended(engine.containers.create(box, ["sh", "-c", SCRIPT], **options))  # type: ignore[arg-type]
    snapshot = first.snapshot()
    again = first.snapshot()
    assert len(layers_of(engine)) == 2
    fork = snapshot.create(LIST, **options)  # type: ignore[arg-type]
    snapshot.remove()
    snapshot.remove()
    again.remove()
    assert len(layers_of(engine)) == 1
    first.remove()
    assert len(layers_of(engine)) == 1
    assert output(fork) == LISTED
    assert engine.check() == ()
    fork.remove()
    assert layers_of(engine) == []


def test_many_forks_of_one_stand_on_one_layer(box: Image, engine: Engine) -> None:
    """Snapshots of what has not changed do not pile up."""
    first = ended(engine.containers.create(box, ["sh", "-c", SCRIPT]))
    forks = [first.fork() for _ in range(50)]
    assert len(layers_of(engine)) == 1
    assert {len(fork._entry.find_layers().lowers) for fork in forks} == {len(box.record.lowers) + 1}
    for fork in forks:
        fork.remove()


def test_the_root_directory_itself(box: Image, engine: Engine) -> None:
    """Its mode and owner are the first one's, too, even if that has changed nothing else."""
    first = ended(engine.containers.create(box, ["sh", "-c", "chmod 751 /; chown 3:4 /"]))
    for container in (first.fork(), first):
        container.start(stdin=cl.DEVNULL, stdout=cl.DEVNULL, stderr=cl.DEVNULL)
        container.wait()
        info = (container.fs / "").stat()
        assert (info.st_mode & 0o777, info.st_uid, info.st_gid) == (0o751, 3, 4)


def test_a_fork_as_an_image(box: Image, engine: Engine) -> None:
    """Changes, archive and image of a fork are those of all that was written above the image."""
    first = ended(engine.containers.create(box, ["sh", "-c", SCRIPT]))
    fork = ended(first.snapshot().create(["sh", "-c", "echo x >/new; rm /data/link"]))
    kinds = {change.path: change.kind for change in fork.changes()}
    assert kinds["/new"] == "added"
    assert kinds["/data/file"] == "added"
    assert kinds["/data/old"] == "deleted"
    assert "/data/link" not in kinds
    image = fork.commit("forked:1")
    assert len(image.layers) == len(box.layers) + 2
    assert image.call(["cat", "/new", "/data/hard"]).text == "x\nfirst\n"
    assert image.call(["test", "-e", "/data/old"]).exit_code == 1


def test_a_detached_container_and_another_process(box: Image, engine: Engine) -> None:
    """What another engine has frozen is seen by this one, which starts the container on it."""
    first = ended(engine.containers.create(box, ["sh", "-c", SCRIPT], lifetime="detached", name="first"))
    layout = engine._session.stores.layout
    with cl.Engine(root=layout.root, run_root=layout.run_root) as other:
        fork = other.containers.get("first").fork(name="fork")
        assert fork.state == "created"
    assert (first.fs / "data/file").read_text() == "first\n"
    first.start(stdout=cl.DEVNULL, stderr=cl.DEVNULL)
    assert first.wait(timeout_s=60).exit_code != 0  # its directories exist by now
    mine = engine.containers.get("fork")
    mine.start(stdout=cl.DEVNULL, stderr=cl.DEVNULL)
    assert mine.wait(timeout_s=60).exit_code != 0
    assert (mine.fs / "data/hard").read_text() == "first\n"


def test_states_that_have_no_snapshot(box: Image, engine: Engine) -> None:
    """One that runs, was removed or keeps its layer in memory is refused, and so is a removed snapshot."""
    running = engine.containers.run(box, ["sleep", "60"], init=True)
    with pytest.raises(cl.InvalidState, match=r"cannot snapshot .* is running.*pause or stop it first"):
        running.snapshot()
    running.remove(force=True)
    with pytest.raises(cl.InvalidState, match=r"cannot snapshot .* is removed"):
        running.fork()
    memory = engine.containers.create(box, ["true"], layer="memory")
    with pytest.raises(cl.InvalidState, match="layer is in memory"):
        memory.snapshot()
    snapshot = engine.containers.create(box, ["true"]).snapshot()
    with pytest.raises(cl.InvalidOption, match="layer"):
        snapshot.create(["true"], layer="memory")
    with pytest.raises(cl.InvalidOption, match="name"):
        snapshot.fork(name="/")
    snapshot.remove()
    with pytest.raises(cl.InvalidState, match=r"snapshot .* was removed"):
        snapshot.create(["true"])
    assert layers_of(engine) == []


def test_a_name_that_is_taken(box: Image, engine: Engine) -> None:
    """Nothing is left of a fork that could not be made."""
    first = engine.containers.create(box, ["true"], name="first")
    with pytest.raises(cl.NameInUse):
        first.fork(name="first")
    assert layers_of(engine) == []
    assert len(engine.containers.list()) == 1


def test_the_image_stays(box: Image, engine: Engine) -> None:
    """An image that a snapshot stands on is not collected."""
    container = ended(engine.containers.create(box, ["sh", "-c", SCRIPT]))
    snapshot = container.snapshot()
    container.remove()
    engine.images.remove("box:1")
    engine.images.prune()
    assert output(snapshot.create(LIST)) == LISTED


def test_whoever_is_killed_in_the_midst_of_it(box: Image, engine: Engine) -> None:
    """At each durable step: the container has what it had, can be frozen again, and nothing else is left."""
    container = engine.containers.create(box, ["true"], name="first", lifetime="detached")
    root = engine._session.stores.layout.root

    def freeze() -> None:
        engine.containers.get("first").snapshot()

    (container.fs / "number").write_text("0")
    steps = record_steps(freeze, root)
    assert {"rename containers", "move containers", "make directory containers"} <= {
        step.name for step in steps
    }
    for number, step in enumerate(steps):
        (container.fs / "number").write_text(str(number))
        died_at(freeze, root, step)
        # Whichever verb comes first finds it whole.
        if number % 2:
            assert "/number" in {change.path for change in container.changes()}, step
        fork = container.fork()
        assert (container.fs / "number").read_text() == str(number), step
        assert (fork.fs / "number").read_text() == str(number), step
        fork.remove()
    ended(container)
    container.remove()
    assert layers_of(engine) == []
