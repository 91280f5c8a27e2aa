"""What a container's record holds is what it was made with, whatever that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from attrs import evolve

import containerlib as cl
from containerlib._native.supervisor import Order
from containerlib._util import strict_json
from containerlib.container.config_document import config_document, parse_config
from containerlib.container.detached import DetachedRecord, Run, config_text, read_record, write_record
from containerlib.container.log_files import LOST, START, LogFiles
from containerlib.container.logs import _Lines
from containerlib.errors import StoreCorrupted
from containerlib.oci.image_config import Config
from containerlib.runtime.config import merge
from containerlib.runtime.identity import ProcessIdentity
from containerlib.runtime.usage import ExitStatus, Usage
from containerlib.store.layout import Layout

if TYPE_CHECKING:
    from pathlib import Path

FULL = merge(
    Config(),
    command=["sh", "-c", "\udcff ä \n"],
    env={"A": "b", "Ä": "\udc80"},
    workdir="/w",
    user="1:2",
    name="n",
    hostname="h",
    mounts=[cl.Mount.bind("/a", "/b", read_only=True), cl.Mount.tmpfs("/t", size_bytes=4096)],
    labels={"l": "v"},
    sysctls={"net.core.somaxconn": "5"},
    group_add=["5"],
    devices=[cl.Device(source="/dev/null")],
    rlimits=[cl.Rlimit(name="nofile", soft=5, hard=6)],
    stop_signal="INT",
    lifetime="detached",
    resources=cl.Resources(
        memory_bytes=64 << 20, device_read_bps=(("/dev/sda", 5),), unified={"pids.max": "3"}
    ),
    security=cl.Security(cap_add=("NET_RAW",), seccomp={"defaultAction": "SCMP_ACT_ALLOW"}),
    restart=cl.RestartPolicy(name="on-failure", max_retries=3),
    health=cl.HealthCheck(command=("true",), retries=1),
    console_size=(80, 24),
    tty=True,
)


def test_a_configuration_survives_json() -> None:
    """Every field comes back, even texts that are no UTF-8."""
    text = strict_json.dumps(config_document(FULL))
    assert parse_config(strict_json.loads_object(text, limit=1 << 20)) == FULL


@pytest.mark.parametrize(
    "change", [{"args": None}, {"unheard": 1}, {"mounts": [{"kind": "bind"}]}, {"user": 5}]
)
def test_a_damaged_configuration_is_refused(change: dict[str, object]) -> None:
    """A field that is missing, unknown or of another kind is an error and no default."""
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        parse_config({**config_document(FULL), **change})


def test_a_record_survives(tmp_path: Path) -> None:
    """A record comes back as it was written; a damaged one is told by its path."""
    layout = Layout(str(tmp_path / "r"), str(tmp_path / "run"))
    record = DetachedRecord(
        id="ab",
        name="n",
        image_id="sha256:1",
        image_name="i",
        config_text=config_text(FULL),
        created_at=1.5,
        run=Run(supervisor=ProcessIdentity(1, 2, "boot"), generation=3, cgroup_paths=("/x",)),
        ended_generation=4,
        exit_status=ExitStatus(exit_code=None, oom_killed=True, usage=Usage(pids_peak=3)),
        finished_at=2.5,
    )
    (tmp_path / "r" / "containers" / "ab").mkdir(parents=True)
    write_record(layout, record)
    found = read_record(layout, "ab")
    assert found == record
    assert found.config == FULL
    write_record(layout, evolve(record, config_text="{}"))
    damaged = read_record(layout, "ab")
    assert damaged is not None
    with pytest.raises(StoreCorrupted, match="configuration"):
        _ = damaged.config
    assert read_record(layout, "cd") is None
    (tmp_path / "r" / "containers" / "ab" / "record.json").write_text("{}")
    with pytest.raises(StoreCorrupted, match=r"record\.json"):
        read_record(layout, "ab")


def piece(stream: int, data: bytes, time_ns: int = 7) -> bytes:
    """Return a record of a log."""
    return (
        time_ns.to_bytes(8, "little") + len(data).to_bytes(4, "little") + stream.to_bytes(4, "little") + data
    )


def write_log(directory: Path, number: int, *pieces: bytes) -> Path:
    """Write a file of a log."""
    path = directory / f"{number:08}"
    path.write_bytes(b"CTRLOG1\0" + number.to_bytes(8, "little") + b"".join(pieces))
    return path


def read_lines(directory: Path) -> list[tuple[str, bytes, bool]]:
    """Return all lines of a log."""
    files, lines = LogFiles(str(directory)), _Lines()
    try:
        found = [line for each in files.read() for line in lines.add(each)] + list(lines.rest())
    finally:
        files.close()
    return [(line.stream, line.data, line.is_partial) for line in found]


def test_lines_over_pieces_and_files(tmp_path: Path) -> None:
    """Lines are joined for each stream, over files that begin anywhere; what was cut off is left out."""
    write_log(tmp_path, 7, piece(1, b"a\nb"), piece(2, b"x"), piece(1, b"c\n"))
    write_log(tmp_path, 9, piece(2, b"y\n"), piece(LOST, (5).to_bytes(8, "little")), piece(1, b"end"))
    write_log(tmp_path, 10, piece(START, b""), piece(1, b"new\n"), piece(1, b"cut")[:-1])
    assert read_lines(tmp_path) == [
        ("stdout", b"a", False),
        ("stdout", b"bc", False),
        ("stderr", b"xy", False),
        ("lost", b"5 bytes could not be written", False),
        ("stdout", b"end", True),
        ("stdout", b"new", False),
    ]


@pytest.mark.parametrize("content", [b"x" * 64, b"CTRLOG1\0" + bytes(8) + b"\xff" * 32])
def test_what_is_no_log(tmp_path: Path, content: bytes) -> None:
    """A file of another kind, or a record without measure, is damage and named."""
    (tmp_path / "00000001").write_bytes(content)
    with pytest.raises(StoreCorrupted, match="00000001"):
        read_lines(tmp_path)


def test_an_order_that_does_not_fit() -> None:
    """Paths of control groups beyond the room of the message are left to be collected later."""
    short, long = Order(cgroups=("/a",)).encode(), Order(cgroups=("/" + "a" * 5000,)).encode()
    assert len(short) == len(long)
    assert b"aaaa" not in long


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: cl.RestartPolicy(name="sometimes"), "sometimes"),  # type: ignore[arg-type]
        (lambda: cl.RestartPolicy(name="always", max_retries=3), "max_retries"),
        (lambda: cl.RestartPolicy(name="on-failure", max_retries=-1), "max_retries"),
        (lambda: cl.HealthCheck(command="true"), "list"),  # type: ignore[arg-type]
        (lambda: cl.HealthCheck(command=()), "list"),
        (lambda: cl.HealthCheck(command=("a",), interval_s=0), "interval_s"),
        (lambda: cl.HealthCheck(command=("a",), timeout_s=float("nan")), "timeout_s"),
        (lambda: cl.HealthCheck(command=("a",), retries=0), "retries"),
        (lambda: cl.HealthCheck(command=("a",), start_period_s=-1), "start_period_s"),
        (lambda: cl.EngineConfig(offline="no"), "offline"),  # type: ignore[arg-type]
        (lambda: cl.EngineConfig(image_devices="maybe"), "image_devices"),  # type: ignore[arg-type]
    ],
)
def test_values_out_of_range(make: object, match: str) -> None:
    """Each value that means nothing is refused with its name."""
    with pytest.raises(cl.InvalidOption, match=match):
        make()  # type: ignore[operator]
