"""The journal of events: appended to by anybody, put aside when full, read while it is written."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containerlib.store import journal as module
from containerlib.store.journal import HEADER, MAGIC, Journal, JournalRecord, Tail

if TYPE_CHECKING:
    from pathlib import Path


def names(records: list[JournalRecord]) -> list[str]:
    """Return what the records are of."""
    return [record.id for record in records]


def supervisors(kind: int, value: int = 0, code: int = 0, identity: str = "c" * 64) -> bytes:
    """Return a record as a supervisor writes it."""
    return HEADER.pack(MAGIC, HEADER.size, 5, kind, value, code, 0, identity.encode())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Records come back whole and in order; nothing is made before the first."""
    journal = Journal(f"{tmp_path}/events")
    assert list(journal.history()) == []
    assert not (tmp_path / "events").exists()
    journal.record("container", "start", "c" * 64, "web", {"image": "a:1"})
    journal.record("image", "pull", f"sha256:{'1' * 64}", "a:1")
    with open(tmp_path / "events" / "journal", "ab") as file:
        file.write(supervisors(2, 137, 9) + supervisors(3, 2))
    first, second, third, fourth = journal.history()
    assert first.document["attributes"] == {"image": "a:1"}
    assert (first.id, second.id) == ("c" * 64, f"sha256:{'1' * 64}")
    assert second.time_ns >= first.time_ns > 0
    assert (third.kind, third.value, third.code, third.id) == ("die", 137, 9, "c" * 64)
    assert (fourth.kind, fourth.value) == ("health", 2)
    assert (tmp_path / "events" / "journal").stat().st_mode & 0o777 == 0o600


def test_a_full_one_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files at most, of which the older is read first; a reader that is under way misses nothing."""
    monkeypatch.setattr(module, "_FULL_BYTES", 1000)
    journal = Journal(str(tmp_path))
    seen: list[str] = []
    with Tail(str(tmp_path)) as tail:
        for number in range(100):
            journal.record("container", "start", str(number))
            seen += names(list(tail.read()))
    assert seen == [str(number) for number in range(100)]
    assert sorted(os.listdir(tmp_path)) == ["journal", "journal.1", "lock"]
    kept = [int(name) for name in names(list(journal.history()))]
    assert kept == list(range(kept[0], 100))
    assert kept[0] > 0


def test_a_slow_reader_goes_on_with_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was left behind by several files goes on, in order and without anything twice."""
    monkeypatch.setattr(module, "_FULL_BYTES", 1000)
    journal = Journal(str(tmp_path))
    journal.record("container", "start", "0")
    with Tail(str(tmp_path)) as tail:
        seen = names(list(tail.read()))
        for number in range(1, 100):
            journal.record("container", "start", str(number))
        seen += names(list(tail.read()))
    numbers = list(map(int, seen))
    assert numbers == sorted(set(numbers))
    assert (numbers[0], numbers[-1]) == (0, 99)


def test_many_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of several writers never mix, and each one's are in order."""
    monkeypatch.setattr(module, "_FULL_BYTES", 1 << 30)
    journal = Journal(str(tmp_path))

    def write(writer: int) -> None:
        for number in range(200):
            journal.record("container", "start", f"{writer}-{number}", "x" * 100)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = names(list(journal.history()))
    assert len(found) == 800
    for writer in range(4):
        own = [name for name in found if name.startswith(f"{writer}-")]
        assert own == [f"{writer}-{number}" for number in range(200)]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"x",
        b"x" * 1000,
        MAGIC.to_bytes(4, "little"),
        HEADER.pack(MAGIC, 2**31, 5, 0, 0, 0, 0, b""),
        HEADER.pack(MAGIC, 3, 5, 0, 0, 0, 0, b""),
        HEADER.pack(MAGIC, HEADER.size + 4, 5, 0, 0, 0, 0, b"") + b"{}{}",
        HEADER.pack(MAGIC, HEADER.size, 5, 99, 0, 0, 0, b""),
        HEADER.pack(MAGIC, HEADER.size + 60, 5, 0, 0, 0, 0, b"") + b'{"type":"container"',
    ],
)
def test_damage_is_passed_over(tmp_path: Path, damage: bytes) -> None:
    """A record that was cut off or is none does not take those behind it along."""
    journal = Journal(str(tmp_path))
    journal.record("container", "start", "before")
    with open(tmp_path / "journal", "ab") as file:
        file.write(damage)
    journal.record("container", "start", "after")
    journal.record("container", "die", "last")
    assert names(list(journal.history())) == ["before", "after", "last"]


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    """Whatever is in the file, reading ends without an error."""
    tail = Tail("/nonexistent")
    for record in tail._parse(data):
        assert record.kind


def test_what_cannot_be_written_is_missing(tmp_path: Path) -> None:
    """No operation fails for its event."""
    (tmp_path / "file").write_text("", encoding="ascii")
    Journal(f"{tmp_path}/file/events").record("container", "start", "x")
    assert Journal(f"{tmp_path}/file/events").open_directory() == -1
    journal = Journal(f"{tmp_path}/events")
    journal.record("container", "start", "x", "n", {"label": "v" * 100_000})
    (found,) = journal.history()
    assert found.document["attributes"] == {}
    journal.record("container", "start", "y", "n", {"label": "\udc80"})
    assert names(list(journal.history())) == ["x"]
