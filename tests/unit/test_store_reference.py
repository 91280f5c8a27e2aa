from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from containerlib.errors import InvalidInputError, NameInUse, NotFoundError, StoreCorrupted
from containerlib.oci.descriptor import Descriptor
from containerlib.store.layout import Layout
from containerlib.store.record import RecordStore
from containerlib.store.reference import ReferenceStore

if TYPE_CHECKING:
    from pathlib import Path

A = Descriptor.of(b"a", "type/a")
B = Descriptor.of(b"b", "type/b")


@pytest.fixture
def references(tmp_path: Path) -> ReferenceStore:
    """Give an empty reference store."""
    return ReferenceStore(Layout(f"{tmp_path}/root", f"{tmp_path}/run"), durable=False)


@pytest.fixture
def records(tmp_path: Path) -> RecordStore:
    """Give an empty record store."""
    return RecordStore(f"{tmp_path}/records", "thing", durable=False)


def test_references_point(references: ReferenceStore) -> None:
    """A reference points at what was set last, and at nothing after its removal."""
    assert references.get("x") is None
    references.set("x", A)
    references.set("x", B)
    references.set("docker.io/a:1", A)
    assert references.get("x") == B
    assert references.list() == {"docker.io/a:1": A, "x": B}
    assert references.remove("x")
    assert not references.remove("x")
    assert references.list() == {"docker.io/a:1": A}
    assert len(os.listdir(references.layout.references)) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.text(min_size=1, max_size=1024).filter(lambda text: text.isprintable()))
def test_any_name_is_safe(references: ReferenceStore, name: str) -> None:
    """A name with slashes, dots, or longer than a file name is stored in the one directory."""
    references.set(name, A)
    assert references.get(name) == A
    assert name in references.list()
    references.remove(name)
    assert os.listdir(references.layout.references) == []


def test_names_have_a_length(references: ReferenceStore) -> None:
    """Empty and endless names are refused."""
    for name in ("", "x" * 2000):
        with pytest.raises(InvalidInputError):
            references.get(name)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"{}", b'{"name":"y","target":{}}', b'{"name":"x","target":{}}']
)
def test_damage_is_reported(references: ReferenceStore, damage: bytes) -> None:
    """A damaged file is reported with its path, not taken for an absent reference."""
    references.set("x", A)
    (name,) = os.listdir(references.layout.references)
    with open(os.path.join(references.layout.references, name), "wb") as file:
        file.write(damage)
    with pytest.raises(StoreCorrupted) as caught:
        references.get("x")
    assert caught.value.path.endswith(name)


def test_records(records: RecordStore) -> None:
    """Documents are created once, changed under their lock and removed with it."""
    records.create("a", {"n": 0})
    with pytest.raises(NameInUse):
        records.create("a", {})
    assert records.update("a", lambda document: {**document, "n": 1}) == {"n": 1}
    records.set("b", {})
    assert records.list() == ["a", "b"]
    assert (records.get("a"), records.exists("a"), records.exists("c")) == ({"n": 1}, True, False)
    assert records.remove("a")
    assert not records.remove("a")
    with pytest.raises(NotFoundError, match="thing 'a'"):
        records.get("a")
    with pytest.raises(InvalidInputError):
        records.set("../x", {})
    assert os.listdir(records.directory) == ["b.json"]


def test_updates_are_not_lost(records: RecordStore) -> None:
    """Threads that count in one document lose nothing, and readers never see half a document."""
    records.create("counter", {"n": 0, "padding": "x" * 5000})

    def count() -> None:
        for _ in range(50):
            records.update("counter", lambda document: {**document, "n": int(str(document["n"])) + 1})
            assert len(str(records.get("counter")["padding"])) == 5000

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert records.get("counter")["n"] == 200
