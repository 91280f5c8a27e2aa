"""Engines and images for tests, in the session's own short directories.

`engine` is new and empty for each test. `shared_engine` lives as long as the module and has everything that
is made lazily made already, so the leak check sees no difference in the first test that starts a container.
The store below it is one for the whole session: images are made once. `default_image` does the same for the
engine of `containerlib.run` and `containerlib.Popen`.

Nothing here imports containerlib before a test asks for an engine.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.capabilities import need
from support.session import base_directory, temporary_directory, tracked_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containerlib import Engine, Image

__all__ = ["BUSYBOX", "busybox_tree", "new_engine"]

BUSYBOX = Path("/bin/busybox")
ENVIRONMENT = {"CONTAINERLIB_ROOT": "r", "CONTAINERLIB_RUN_ROOT": "n"}


def new_engine(root: Path, run_root: Path, **options: Any) -> Engine:
    """Make an engine; `options` go to its constructor."""
    import containerlib  # noqa: PLC0415 - unit tests run without the compiled extension

    return containerlib.Engine(root=root, run_root=run_root, **options)


def busybox_tree(target: Path) -> Path:
    """Fill `target` with busybox and a link for each of its applets."""
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
        (target / name).mkdir(parents=True, exist_ok=True)
    (target / "tmp").chmod(0o1777)
    program = target / "bin" / "busybox"
    program.write_bytes(BUSYBOX.read_bytes())
    program.chmod(0o755)
    applets = subprocess.run([str(BUSYBOX), "--list"], capture_output=True, text=True, check=True).stdout
    for name in applets.split():
        if name != "busybox":
            (target / "bin" / name).symlink_to("busybox")
    (target / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="ascii")
    (target / "etc" / "group").write_text("root:x:0:\n", encoding="ascii")
    return target


@pytest.fixture(scope="session", autouse=True)
def _default_directories() -> Iterator[None]:
    """Keep the default engine, and that of child processes, out of the host's directories."""
    base = base_directory()
    with pytest.MonkeyPatch.context() as patch:
        for variable, name in ENVIRONMENT.items():
            patch.setenv(variable, str(base / f"d{name}"))
        yield


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Return a new engine with an empty store; it is closed and its directories are removed afterwards."""
    with temporary_directory("e") as base:
        run_root = base / "n"
        with tracked_root(run_root), new_engine(base / "r", run_root) as made:
            yield made


@pytest.fixture(scope="session")
def _shared_root() -> Iterator[Path]:
    """Return the root of the store that all shared engines use."""
    with temporary_directory("s") as base:
        yield base / "r"


@pytest.fixture(scope="module")
def shared_engine(_shared_root: Path) -> Iterator[Engine]:
    """Return an engine for all tests of the module, on the session's store."""
    with temporary_directory("m") as base:
        run_root = base / "n"
        with tracked_root(run_root), new_engine(_shared_root, run_root) as made:
            yield made


@pytest.fixture(scope="module")
def default_image() -> Iterator[str]:
    """Return the name of an image in the store of the default engine, after one container of it has run."""
    import containerlib  # noqa: PLC0415 - as above

    engine = containerlib.default_engine()
    with tracked_root(Path(engine.run_root)), engine:
        made = engine.images.from_host(["sh", "cat"], reference="shell:test")
        made.call(["/bin/sh", "-c", ":"])
        yield "shell:test"


@pytest.fixture(scope="session")
def _made_images() -> dict[str, str]:
    """Remember the ids of the images that the session's store has."""
    return {}


def _find_or_make(engine: Engine, made: dict[str, str], kind: str, make: Callable[[], Image]) -> Image:
    """Return the session's image of this kind, after one container of it has run."""
    found = engine.images.get(made[kind]) if kind in made else make()
    made[kind] = found.id
    # With its layer on disk, because the first such container opens the lease of the engine.
    found.call(["/bin/true"], layer="disk")
    return found


@pytest.fixture(scope="module")
def image(shared_engine: Engine, _made_images: dict[str, str]) -> Image:
    """Return the host's own userland as an image of `shared_engine`."""
    return _find_or_make(shared_engine, _made_images, "host", shared_engine.images.from_host)


@pytest.fixture(scope="module")
def busybox_image(
    shared_engine: Engine, _made_images: dict[str, str], request: pytest.FixtureRequest
) -> Iterator[Image]:
    """Return an image of `shared_engine` with busybox and nothing else."""
    need(request.config, "peers", ("busybox",))
    with temporary_directory("b") as tree:
        busybox_tree(tree)
        yield _find_or_make(
            shared_engine, _made_images, "busybox", lambda: shared_engine.images.from_directory(tree)
        )
