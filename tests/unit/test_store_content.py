from __future__ import annotations

import io
import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from containerlib._util.atomic_file import TEMPORARY_PREFIX
from containerlib.errors import BlobNotFound, DigestMismatch, InvalidInputError, SizeMismatch, StoreCorrupted
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest
from containerlib.store.content import Blob, ContentStore
from containerlib.store.layout import Layout, checked_name

if TYPE_CHECKING:
    from pathlib import Path

DATA = b"content" * 1000
DIGEST = Digest.of(DATA)


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    """Give an empty content store."""
    return ContentStore(Layout(f"{tmp_path}/root", f"{tmp_path}/run"))


def files(content: ContentStore) -> list[str]:
    """Return every file below the store."""
    return [name for _, _, names in os.walk(content.layout.root) for name in names]


def test_what_is_put_can_be_read(content: ContentStore) -> None:
    """A blob is found under the digest of its bytes, once, however often it is put."""
    assert not content.exists(DIGEST)
    assert content.put(DATA) == content.put(DATA, digest=DIGEST) == Blob(DIGEST, len(DATA))
    assert content.exists(DIGEST)
    assert content.read(DIGEST, limit=len(DATA)) == DATA
    with content.open(DIGEST) as file:
        assert file.read() == DATA
    assert content.size(DIGEST) == len(DATA)
    assert list(content.list()) == [Blob(DIGEST, len(DATA))]
    assert content.read_descriptor(Descriptor("x", DIGEST, len(DATA)), limit=1 << 20) == DATA


def test_sha512(content: ContentStore) -> None:
    """A blob promised by sha512 is stored under that."""
    digest = Digest.of(DATA, "sha512")
    assert content.put_stream(io.BytesIO(DATA), digest=digest).digest == digest
    assert content.read(digest, limit=1 << 20) == DATA


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"digest": Digest.of(b"other")}, DigestMismatch),
        ({"digest": DIGEST, "size": len(DATA) + 1}, SizeMismatch),
        ({"digest": DIGEST, "size": len(DATA) - 1}, SizeMismatch),
        ({"limit": len(DATA) - 1}, SizeMismatch),
    ],
)
def test_lies_leave_nothing(
    content: ContentStore, options: dict[str, object], error: type[Exception]
) -> None:
    """Content that is not what was promised is refused and not kept."""
    with pytest.raises(error):
        content.put_stream(io.BytesIO(DATA), **options)  # type: ignore[arg-type]
    assert files(content) == []


def test_too_long_stream_is_stopped_early(content: ContentStore) -> None:
    """Of an endless stream no more than one chunk beyond the promise is read."""

    class Endless(io.RawIOBase):
        produced = 0

        def read(self, size: int = -1) -> bytes:
            self.produced += size
            return bytes(size)

    stream = Endless()
    with pytest.raises(SizeMismatch):
        content.put_stream(stream, digest=DIGEST, size=10)  # type: ignore[arg-type]
    assert stream.produced <= 1 << 20
    assert files(content) == []


def test_nothing_is_visible_before_the_commit(content: ContentStore) -> None:
    """A blob being written is in no list and under no digest, and vanishes without a commit."""
    with content.writer(digest=DIGEST) as writer:
        writer.write(DATA)
        assert not content.exists(DIGEST)
        assert list(content.list()) == []
        assert content.collect_stale() == 0
        assert writer.digest == DIGEST
    assert files(content) == []


def test_dead_writers_leave_only_garbage(content: ContentStore) -> None:
    """What a killed writer left is no blob, and is collected."""
    content.put(DATA)
    dead = os.path.join(content.layout.blob_directory("sha256"), f"{TEMPORARY_PREFIX}1-x")
    with open(dead, "wb") as file:
        file.write(b"half")
    assert len(list(content.list())) == 1
    assert content.collect_stale() == 1
    assert len(files(content)) == 1


def test_missing_blobs(content: ContentStore) -> None:
    """A blob that is not there raises BlobNotFound."""
    for verb in (content.open, content.size, lambda digest: content.read(digest, limit=1)):
        with pytest.raises(BlobNotFound):
            verb(DIGEST)
    assert not content.delete(DIGEST)


def test_damage_is_noticed(content: ContentStore) -> None:
    """A blob whose file was changed is not returned, and putting it again repairs it."""
    content.put(DATA)
    path = content.layout.blob(DIGEST)
    for damaged in (DATA[:-1], DATA[:-1] + b"x", DATA + b"x", b""):
        with open(path, "wb") as file:
            file.write(damaged)
        with pytest.raises(StoreCorrupted, match="pull it again"):
            content.read(DIGEST, limit=1 << 20)
    content.put(DATA)
    assert content.read(DIGEST, limit=1 << 20) == DATA
    os.unlink(path)
    os.symlink("/etc/passwd", path)
    with pytest.raises(StoreCorrupted, match="not a file"):
        content.read(DIGEST, limit=1 << 20)


def test_read_is_bounded(content: ContentStore) -> None:
    """A blob larger than the caller expects is not read into memory."""
    content.put(DATA)
    with pytest.raises(SizeMismatch):
        content.read(DIGEST, limit=len(DATA) - 1)
    with pytest.raises(SizeMismatch):
        content.read_descriptor(Descriptor("x", DIGEST, 1), limit=1 << 20)


def test_permissions(content: ContentStore) -> None:
    """Nobody but the owner can look into the store."""
    old = os.umask(0)
    try:
        content.put(DATA)
    finally:
        os.umask(old)
    for top, directories, names in os.walk(content.layout.root):
        assert stat.S_IMODE(os.stat(top).st_mode) == 0o700, top
        for name in names:
            assert stat.S_IMODE(os.stat(os.path.join(top, name)).st_mode) == 0o600
        del directories


def test_threads_put_the_same_blob(content: ContentStore) -> None:
    """Many threads that put one blob all succeed, and one copy is left."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                content.put(DATA, digest=DIGEST)
        except BaseException as error:  # noqa: BLE001 - reported below
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(files(content)) == 1


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "-a", ".a", "a\n", "a\0", "ä", "a" * 256, "a b"]
)
def test_unsafe_names_are_refused(name: str, tmp_path: Path) -> None:
    """No path is built from a name that is not one plain component."""
    layout = Layout(str(tmp_path), str(tmp_path))
    for build in (
        checked_name,
        layout.container,
        layout.container_run,
        layout.volume,
        layout.active_snapshot,
    ):
        with pytest.raises(InvalidInputError):
            build(name)
