"""What becomes of a guest that hangs or ends before its time, and of the process behind it."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest
from support.guest import Guest, GuestStopped
from support.guest_image import guest_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.vm


def payload(directory: Path, *command: str) -> Path:
    """Make an archive whose command is this one."""
    path = directory / "payload.tar"
    data = "\0".join(command).encode()
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("command")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Guest]:
    """Boot a guest that says its last words and stands still; it is ended afterwards."""
    script = "echo these are its last words; sleep 600"
    guest = Guest(
        guest_image(),
        payload(tmp_path, "sh", "-c", script),
        tmp_path,
        arguments="",
        limit_s=300,
        silence_s=45,
    )
    yield guest
    guest.close(timeout_s=0)


def test_a_guest_that_hangs(boot: Guest) -> None:
    """It is given up when it has said nothing for long, with the end of its console."""
    with pytest.raises(GuestStopped, match=r"said nothing for 45 s(?s:.*)these are its last words"):
        list(boot.words())
    assert boot.is_running
    boot.close(timeout_s=0)
    assert not boot.is_running


def test_a_guest_that_ends_too_early(tmp_path: Path) -> None:
    """Its end is told with the end of its console."""
    archive = payload(tmp_path, "sh", "-c", "echo these are its last words; exit 3")
    guest = Guest(guest_image(), archive, tmp_path, arguments="", limit_s=300, silence_s=120)
    try:
        with pytest.raises(
            GuestStopped, match=r"the guest ended with 0(?s:.*)last words(?s:.*)ended with status"
        ):
            list(guest.words())
    finally:
        guest.close(timeout_s=0)
