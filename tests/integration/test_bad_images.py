"""Archives, directories and names that are no images: a typed error, and nothing left in the store."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import re
import stat
from typing import TYPE_CHECKING

import pytest
import zstandard
from support.archives import archive, directory, file, header, link, member, symlink

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib import Engine, Image

pytestmark = pytest.mark.root

MEBIBYTE = 1 << 20
NOISE = random.Random(1).randbytes(3 * MEBIBYTE)  # noqa: S311 - only content


def contents(root: str) -> set[str]:
    """List the files of a store, without locks, which stay, and leases, which an open engine may drop."""
    paths = (os.path.join(parent, name) for parent, _, names in os.walk(root) for name in names)
    return {path for path in paths if "/locks/" not in path and "/leases/" not in path}


@pytest.fixture(autouse=True)
def _nothing_remains(shared_engine: Engine, image: Image) -> Iterator[None]:
    """After every test the store is as before, and its images still run."""
    before = contents(shared_engine.root)
    yield
    assert contents(shared_engine.root) == before
    assert shared_engine.containers.list() == []
    assert image.call(["echo", "works"]).text == "works\n"


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (file(b"../evil"), "../evil"),
        (file(b"a/../../evil"), "a/../../evil"),
        (directory(b".."), ".."),
        (link(b"hard", b"../../etc/passwd"), "../../etc/passwd"),
        (member(b"dev/sda", b"4", major=8, minor=0), "dev/sda"),
        (member(b"dev/tty", b"3", major=5, minor=0), "dev/tty"),
    ],
)
def test_archive_that_could_harm(
    shared_engine: Engine, entry: bytes, name: str, compress: Callable[[bytes], bytes]
) -> None:
    """An entry that leads outside, or is a device, is refused by name, and so is the whole archive."""
    data = compress(archive(file(b"first"), entry, file(b"last")))
    with pytest.raises(cl.UnsafePath, match=re.escape(repr(name))):
        shared_engine.images.from_tar(io.BytesIO(data), reference="bad:1")
    with pytest.raises(cl.ImageNotFound):
        shared_engine.images.get("bad:1")


@pytest.mark.parametrize("target", ["{}", "../../../../../../..{}"])
def test_links_of_an_archive_stay_inside(engine: Engine, tmp_path: Path, target: str) -> None:
    """What an archive writes through its own links stays inside the image."""
    way = symlink(b"out", target.format(tmp_path).encode())
    made = engine.images.from_tar(io.BytesIO(archive(way, file(b"out/x"), directory(b"out/d"))))
    assert os.listdir(tmp_path) == []
    assert made.layers


def bomb() -> bytes:
    """Return a compressed file of zeros, over a thousand times larger when unpacked."""
    return gzip.compress(archive(file(b"zeros", bytes(100 * MEBIBYTE))), 1)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(bomb, id="gzip bomb"),
        pytest.param(lambda: archive(file(b"a", NOISE))[: 2 * MEBIBYTE], id="truncated"),
        pytest.param(lambda: gzip.compress(archive(file(b"a", NOISE)))[:MEBIBYTE], id="truncated gzip"),
        pytest.param(lambda: bz2.compress(archive(file(b"a", NOISE)))[:MEBIBYTE], id="truncated bzip2"),
        pytest.param(
            lambda: lzma.compress(archive(file(b"a", NOISE)), preset=0)[:MEBIBYTE], id="truncated xz"
        ),
        pytest.param(lambda: gzip.compress(archive(file(b"a")))[:-8] + bytes(8), id="wrong checksum"),
        pytest.param(lambda: NOISE, id="noise"),
        pytest.param(lambda: gzip.compress(NOISE), id="compressed noise"),
        pytest.param(lambda: b"text", id="short text"),
        pytest.param(lambda: archive(header(b"a", checksum=b"000000\0 ")), id="wrong header checksum"),
        pytest.param(lambda: archive(header(b"a", size=b"77777777777\0")), id="larger than anything"),
    ],
)
def test_damaged_archive(shared_engine: Engine, tmp_path: Path, make: Callable[[], bytes]) -> None:
    """An archive that is damaged or too large is refused, from a path and from a stream."""
    path = tmp_path / "archive"
    path.write_bytes(make())
    with pytest.raises(cl.LayerError):
        shared_engine.images.from_tar(path)
    with path.open("rb") as stream, pytest.raises(cl.LayerError):
        shared_engine.images.from_tar(stream)


@pytest.mark.parametrize("name", ["missing", "."])
def test_archive_that_is_no_file(shared_engine: Engine, tmp_path: Path, name: str) -> None:
    """A path without a file is refused, with the path."""
    path = os.path.normpath(tmp_path / name)
    with pytest.raises(cl.InvalidInputError, match=re.escape(repr(path))):
        shared_engine.images.from_tar(path)


def test_stream_that_fails(shared_engine: Engine) -> None:
    """An error of the caller's own stream reaches the caller."""

    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, _: object) -> int:
            raise ConnectionResetError("mine")

    with pytest.raises(ConnectionResetError, match="mine"):
        shared_engine.images.from_tar(Broken())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["missing", "file"])
def test_directory_that_is_none(shared_engine: Engine, tmp_path: Path, name: str) -> None:
    """A path without a directory is refused, with the path."""
    (tmp_path / "file").touch()
    with pytest.raises(cl.InvalidInputError, match=re.escape(str(tmp_path / name))):
        shared_engine.images.from_directory(tmp_path / name)


def test_directory_with_a_device(shared_engine: Engine, tmp_path: Path) -> None:
    """A directory with a device in it is no image."""
    os.mknod(tmp_path / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with pytest.raises((cl.InvalidInputError, cl.LayerError), match="device"):
        shared_engine.images.from_directory(tmp_path)


@pytest.mark.parametrize(
    "commands", [["no-such-program"], ["/no/such/file"], ["relative/path"], ["sh", ""], "sh"]
)
def test_programs_that_do_not_exist(shared_engine: Engine, commands: list[str]) -> None:
    """Programs that this host does not have are refused by name."""
    with pytest.raises(
        cl.InvalidOption, match=re.escape(repr(commands if commands == "sh" else commands[-1]))
    ):
        shared_engine.images.from_host(commands)


REFERENCES = ["UPPER", "a b", "", "a:b:c", "-a", "a/", "a@sha256:12", "a:" + "x" * 129, "a\n", "\u00fc"]


@pytest.mark.parametrize("reference", REFERENCES)
def test_invalid_reference(shared_engine: Engine, image: Image, reference: str) -> None:
    """What is no reference is refused wherever one is expected, with the text."""
    images = shared_engine.images
    for act in (
        lambda: images.get(reference),
        lambda: image.tag(reference),
        lambda: images.from_tar(io.BytesIO(archive(file(b"a"))), reference=reference),
        lambda: images.from_host(["true"], reference=reference),
    ):
        with pytest.raises(cl.InvalidReference) as caught:
            act()
        assert repr(reference)[:20].rstrip("'") in str(caught.value)


@pytest.mark.parametrize(
    "name", ["no-such-image", "localhost:5000/a/b:1", "sha256:" + 64 * "0", "abcdef0123"]
)
def test_image_that_does_not_exist(shared_engine: Engine, name: str) -> None:
    """A name without an image is told as such."""
    for act in (shared_engine.images.get, shared_engine.images.remove):
        with pytest.raises(cl.ImageNotFound, match=re.escape(repr(name))):
            act(name)


def test_run_of_an_image_that_does_not_exist(default_image: str) -> None:
    """`run` and `Popen` with an unknown name start nothing."""
    for act in (cl.run, cl.Popen):
        with pytest.raises(cl.ImageNotFound, match="'no-such-image'"):
            act(["true"], image="no-such-image", pull="never")
    assert cl.run(["sh", "-c", "exit 3"], image=default_image, pull="never").exit_code == 3


@pytest.mark.parametrize("env", [["NAME"], ["=x"], ["A\0=x"]])
def test_defaults_that_are_none(env: list[str]) -> None:
    """Defaults of an image are checked when they are made."""
    with pytest.raises(cl.InvalidManifest, match="NAME=VALUE"):
        cl.ImageDefaults(env=env)


@pytest.mark.parametrize(
    ("defaults", "text"),
    [
        (cl.ImageDefaults(user="nobody-here"), "'nobody-here'"),
        (cl.ImageDefaults(user="0x0"), "user='0x0'"),
        (cl.ImageDefaults(working_dir="relative"), "workdir='relative'"),
        (cl.ImageDefaults(working_dir="/no/such"), "workdir='/no/such'"),
        (cl.ImageDefaults(stop_signal="NOPE"), "signal='NOPE'"),
        (cl.ImageDefaults(), "name one"),
    ],
)
def test_image_whose_defaults_are_bad(
    engine: Engine, tmp_path: Path, defaults: cl.ImageDefaults, text: str
) -> None:
    """Bad defaults of an image are told when a container of it is made, and can be replaced."""
    (tmp_path / "bin").mkdir()
    made = engine.images.from_directory(tmp_path, config=defaults)
    command = None if text == "name one" else ["true"]
    with pytest.raises(cl.InvalidOption, match=re.escape(text)):
        made.call(command)
    good = {"user": "0", "workdir": "/", "stop_signal": "TERM"}
    with pytest.raises(cl.CommandNotFound):
        made.call(["true"], **good)  # type: ignore[arg-type]
