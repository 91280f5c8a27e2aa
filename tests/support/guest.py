"""A test guest that runs: boots, is given its payload, says line by line what happens in it, powers off."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

from support.checkout import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from support.guest_image import GuestImage

__all__ = ["Guest", "GuestStopped", "Words", "pack"]

Words = dict[str, object]
"""What the guest says: see tests/vm/guest/report.py."""

_NODES, _MEMORY_OF_NODE_MIB = 2, 1536  # each with one processor
_TAIL_LINES = 40
_PAUSE_S = 0.05


class GuestStopped(Exception):
    """The guest has ended, or says nothing any more; the message has the end of its console."""


class Guest:
    """A guest under software emulation, for the length of a block.

    Args:
        image: What it boots.
        payload: Archive that it unpacks and runs; see `pack`.
        directory: Where its console and what it says go.
        arguments: Further words for the kernel's command line, which the guest's init understands.
        limit_s: How long it may run.
        silence_s: How long it may say nothing.
    """

    def __init__(
        self,
        image: GuestImage,
        payload: Path,
        directory: Path,
        *,
        arguments: str,
        limit_s: float,
        silence_s: float,
    ) -> None:
        self.console, self.said = directory / "console.log", directory / "said.jsonl"
        self._silence_s = silence_s
        self._deadline = time.monotonic() + limit_s
        self.said.touch()
        # It dies with us, even by SIGKILL.
        command = ["setpriv", "--pdeathsig=KILL", *_command(image, payload, directory, arguments)]
        environment = {**os.environ, "TMPDIR": str(directory)}  # what it writes to its disk goes there
        with (directory / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

    def words(self) -> Iterator[Words]:
        """Yield what it says, as it says it, until it is over.

        Raises:
            GuestStopped: It ended before, or took too long.
        """
        last = time.monotonic()
        with self.said.open("rb") as said:
            line = b""
            while True:
                has_ended = self._process.poll() is not None
                line += said.readline()
                if line.endswith(b"\n"):
                    last, found, line = time.monotonic(), json.loads(line), b""
                    yield found
                    if found["kind"] == "over":
                        return
                    continue
                if has_ended:
                    raise GuestStopped(self._report(f"the guest ended with {self._process.returncode}"))
                if time.monotonic() > self._deadline:
                    raise GuestStopped(self._report("the guest took longer than it may"))
                if time.monotonic() > last + self._silence_s:
                    raise GuestStopped(self._report(f"the guest said nothing for {self._silence_s:g} s"))
                time.sleep(_PAUSE_S)

    def _report(self, what: str) -> str:
        lines = self.console.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join([f"{what}; the end of its console:", *lines])

    @property
    def is_running(self) -> bool:
        """Whether qemu has not ended."""
        return self._process.poll() is None

    def close(self, timeout_s: float = 30) -> None:
        """Let it power off, or end it."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _command(image: GuestImage, payload: Path, directory: Path, more: str) -> list[str]:
    arguments = f"console=ttyS0 root=/dev/vda rw init=/vm-init panic=-1 quiet {more}"
    return [
        *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"),
        *("-m", str(_NODES * _MEMORY_OF_NODE_MIB), "-smp", str(_NODES)),
        *(word for node in range(_NODES) for word in _node(node)),
        *("-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", arguments),
        *("-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on"),
        *("-drive", f"file={payload},format=raw,if=virtio,readonly=on"),
        *("-serial", f"file:{directory}/console.log"),
        *("-device", "virtio-serial", "-chardev", f"file,id=said,path={directory}/said.jsonl"),
        *("-device", "virtserialport,chardev=said,name=said"),
    ]


def _node(number: int) -> tuple[str, ...]:
    memory = f"memory-backend-ram,id=m{number},size={_MEMORY_OF_NODE_MIB}M"
    return ("-object", memory, "-numa", f"node,nodeid={number},cpus={number},memdev=m{number}")


def pack(
    directory: Path,
    package: Path,
    programs: Mapping[str, Path],
    tests: Sequence[str],
    options: Sequence[str],
) -> Path:
    """Make the archive that a guest runs.

    Args:
        directory: Where.
        package: The package under test, as it is installed here.
        programs: Further files, by the names that they have in the guest.
        tests: Ids of the tests to run.
        options: Options of pytest.
    """
    top = directory / "payload"
    top.mkdir()
    ignored = ["--exclude=__pycache__", "--exclude=.hypothesis"]
    for parent, name in ((package.parent, package.name), (CHECKOUT, "tests"), (CHECKOUT, "pyproject.toml")):
        _pipe(["tar", "-C", str(parent), *ignored, "-cf", "-", name], ["tar", "-C", str(top), "-xf", "-"])
    for name, path in programs.items():
        (top / name).write_bytes(path.read_bytes())
        (top / name).chmod(0o755)
    (top / "tests.txt").write_text("".join(f"{test}\n" for test in tests), encoding="utf-8")
    files = dict.fromkeys(test.partition("::")[0] for test in tests)
    words = ["python3", "-m", "pytest", "-p", "report", "-p", "no:cacheprovider", *options, *files]
    (top / "command").write_text("\0".join(words), encoding="utf-8")
    archive = directory / "payload.tar"
    subprocess.run(["tar", "-C", str(top), "-cf", str(archive), "."], check=True)
    return archive


def _pipe(first: list[str], second: list[str]) -> None:
    with subprocess.Popen(first, stdout=subprocess.PIPE) as source:
        subprocess.run(second, stdin=source.stdout, check=True)
    assert source.returncode == 0, first
