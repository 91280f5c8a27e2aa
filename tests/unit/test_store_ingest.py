from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from containerlib.errors import DigestMismatch, SizeMismatch
from containerlib.oci.digest import Digest
from containerlib.store.content import ContentStore
from containerlib.store.layout import Layout

if TYPE_CHECKING:
    from pathlib import Path

DATA = os.urandom(3_000_000)
DIGEST = Digest.of(DATA)


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    """Give an empty content store."""
    return ContentStore(Layout(f"{tmp_path}/root", f"{tmp_path}/run"))


def unfinished(content: ContentStore) -> list[str]:
    """Return the names of blobs that are still coming."""
    return os.listdir(content.layout.ingests)


def test_a_blob_in_one_go(content: ContentStore) -> None:
    """A blob that comes whole is published under its digest, and nothing else is left."""
    with content.ingest(DIGEST, len(DATA)) as ingest:
        ingest.write(DATA)
        assert not content.exists(DIGEST)
        ingest.commit()
    assert content.read(DIGEST, limit=len(DATA)) == DATA
    assert unfinished(content) == []
    assert content.exists(DIGEST, size=len(DATA))
    assert not content.exists(DIGEST, size=5)


def test_a_blob_in_parts(content: ContentStore) -> None:
    """What has come is kept when the writer leaves, and the next one goes on behind it."""
    with content.ingest(DIGEST, len(DATA)) as ingest:
        ingest.write(DATA[:1_200_000])
    with content.ingest(DIGEST, len(DATA)) as ingest:
        assert ingest.size == ingest.resumed_bytes == 1_200_000
        ingest.write(DATA[1_200_000:])
        ingest.commit()
    assert content.matches(DIGEST)


def test_nothing_that_came_leaves_nothing(content: ContentStore) -> None:
    """An empty beginning is not worth keeping."""
    with content.ingest(DIGEST, len(DATA)):
        assert len(unfinished(content)) == 1
    assert unfinished(content) == []


def test_wrong_bytes_are_dropped(content: ContentStore) -> None:
    """A blob of the right size and another digest is refused, and not gone on with."""
    with content.ingest(DIGEST, len(DATA)) as ingest:
        ingest.write(DATA[:-1] + bytes([DATA[-1] ^ 1]))
        with pytest.raises(DigestMismatch):
            ingest.commit()
    assert unfinished(content) == []
    assert not content.exists(DIGEST)


def test_too_many_bytes_are_dropped(content: ContentStore) -> None:
    """More bytes than promised end it; fewer are kept and not published."""
    with content.ingest(DIGEST, len(DATA)) as ingest, pytest.raises(SizeMismatch):
        ingest.write(DATA + b"?")
    assert unfinished(content) == []
    with content.ingest(DIGEST, len(DATA)) as ingest:
        ingest.write(DATA[:5])
        with pytest.raises(SizeMismatch):
            ingest.commit()
    assert len(unfinished(content)) == 1


def test_a_beginning_that_is_too_long_is_begun_anew(content: ContentStore) -> None:
    """What a crash or somebody else left is not trusted."""
    os.makedirs(content.layout.ingests)
    with open(content.layout.ingest(DIGEST), "wb") as file:
        file.write(DATA + DATA)
    with content.ingest(DIGEST, len(DATA)) as ingest:
        assert ingest.size == 0
        ingest.write(DATA)
        ingest.commit()
    assert content.matches(DIGEST)


def test_what_comes_can_be_read_meanwhile(content: ContentStore) -> None:
    """A reader sees what was written so far."""
    with content.ingest(DIGEST, len(DATA)) as ingest:
        ingest.write(DATA[:1000])
        fd = ingest.open()
        assert os.pread(fd, 5000, 0) == DATA[:1000]
        ingest.write(DATA[1000:])
        ingest.commit()
        assert os.pread(fd, 5000, 500) == DATA[500:5500]
        os.close(fd)


def test_only_what_nobody_writes_is_collected(content: ContentStore) -> None:
    """A blob that somebody is writing is left alone; another one goes."""
    other = Digest.of(b"other")
    with content.ingest(other, 5) as ingest:
        ingest.write(b"ot")
    with content.ingest(DIGEST, len(DATA)) as ingest:
        ingest.write(DATA[:10])
        assert content.collect_stale() == 1
        assert len(unfinished(content)) == 1
        ingest.write(DATA[10:])
        ingest.commit()
    assert content.matches(DIGEST)
    assert not content.matches(other)
