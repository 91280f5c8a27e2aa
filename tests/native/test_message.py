"""The message between Python and C: whatever is in it, it is refused or understood, and nothing breaks.

What may crash runs in a process of its own, with the message directly before memory that nobody may touch,
so that a single byte read too much is a crash.
"""

from __future__ import annotations

import errno
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.faults import DEADLINE_S
from support.garbage import full_spec, overwritten, with_word

from containerlib._native.channel import Channel, new_pair
from containerlib._native.explain import STEPS
from containerlib._native.ffi import ffi, lib
from containerlib._native.message import encode
from containerlib._native.spawn import Spawner
from containerlib._native.spec import NativeMount
from containerlib.errors import InvalidOption, SpawnError
from containerlib.options import Mount

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from containerlib import Image
    from containerlib._native.spawn import SpawnRequest

FDS = 12
MESSAGE = encode(full_spec(), join_count=3, cgroup_fd=True)

# Reads lengths and messages, puts each at the end of a page, checks it, prints how many were accepted.
GUARDED = """
import ctypes, mmap, struct, sys
from containerlib._native.ffi import ffi, lib
PAGE = mmap.PAGESIZE
area = mmap.mmap(-1, 65 * PAGE)
start = ctypes.addressof(ctypes.c_char.from_buffer(area))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mprotect(ctypes.c_void_p(start + 64 * PAGE), ctypes.c_size_t(PAGE), 0) == 0
accepted = 0
while head := sys.stdin.buffer.read(8):
    size, fds = struct.unpack("=II", head)
    place = 64 * PAGE - size
    area[place : place + size] = sys.stdin.buffer.read(size)
    result = lib.ctr_check_message(ffi.cast("void *", start + place), size + int(sys.argv[1]), fds)
    assert result in (0, -74), result
    accepted += result == 0
print(accepted)
"""


def check(message: bytes, fds: int = FDS) -> int:
    """What C says to a message: 0, or an error number."""
    return -int(lib.ctr_check_message(ffi.from_buffer(message), len(message), fds))


def run_guarded(messages: Iterable[bytes], *, lie: int = 0) -> subprocess.CompletedProcess[bytes]:
    """Check messages beside forbidden memory, as if each were `lie` bytes longer."""
    heads = ((len(message), message) for message in messages)
    data = b"".join(struct.pack("=II", size, FDS) + message for size, message in heads)
    command = [sys.executable, "-c", GUARDED, str(lie)]
    return subprocess.run(command, input=data, capture_output=True, check=False)


def check_guarded(messages: Iterable[bytes]) -> int:
    """Check messages beside forbidden memory, and return how many were accepted."""
    child = run_guarded(messages)
    assert child.returncode == 0, (child.returncode, child.stderr.decode())
    return int(child.stdout)


def test_the_whole_message_is_accepted() -> None:
    """What Python writes is what C expects, also directly before forbidden memory."""
    assert check(MESSAGE) == 0
    assert check_guarded([MESSAGE]) == 1


def test_the_forbidden_memory_is_forbidden() -> None:
    """One byte read too much is noticed, so the tests that use this prove something."""
    longer = with_word(MESSAGE, ffi.offsetof("struct ctr_spec", "size"), len(MESSAGE) + 1)
    assert run_guarded([longer], lie=1).returncode == -signal.SIGSEGV


def test_every_truncation_is_refused() -> None:
    """No shorter message is taken for a whole one."""
    assert {check(MESSAGE[:size]) for size in range(len(MESSAGE))} == {errno.EBADMSG}
    assert check_guarded([MESSAGE[:size] for size in range(0, len(MESSAGE), 8)]) == 0


def test_a_number_of_descriptors_that_does_not_fit_is_refused() -> None:
    """The fixed descriptors have to be there, and those that the message speaks of."""
    needed = lib.CTR_FD_FIRST_FREE + 3 + 1 + 1
    verdicts = {fds: check(MESSAGE, fds) for fds in (0, 1, 5, 6, needed - 1, needed, 240, 241, 2**32 - 1)}
    assert {fds for fds, verdict in verdicts.items() if verdict == 0} == {needed, 240}
    assert set(verdicts.values()) == {0, errno.EBADMSG}


def test_no_boundary_value_reads_outside_of_the_message() -> None:
    """Each word of the message replaced by each value that breaks sums is refused or harmless."""
    count = check_guarded(overwritten(MESSAGE))
    # Some words (ids, modes, limits) may have any value.
    assert 0 < count < len(MESSAGE) // 4 * 7


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), flips=st.integers(1, 64))
def test_random_damage_is_refused_or_harmless(seed: int, flips: int) -> None:
    """Any number of wrong bytes gives an answer."""
    chance = random.Random(seed)  # noqa: S311 - a reproducible choice is what is wanted
    damaged = bytearray(MESSAGE)
    for _ in range(flips):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    assert check(bytes(damaged)) in {0, errno.EBADMSG}


@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=4096))
def test_noise_is_refused(noise: bytes) -> None:
    """Bytes that nobody wrote as a message are not one."""
    assert check(noise or b"\0") == errno.EBADMSG


@pytest.mark.parametrize(
    "change",
    [
        {"args": ("true", "a\0b")},
        {"env": ("A=b\0c",)},
        {"hostname": "a\0"},
        {"workdir": "/\0"},
        {"staging": "\0"},
        {"root_lowers": ("/a", "/b\0")},
    ],
)
def test_a_text_with_nul_is_not_written(change: dict[str, object]) -> None:
    """A text that C would see cut short is refused before it is sent."""
    with pytest.raises(ValueError, match="embedded NUL"):
        encode(evolve(full_spec(), **change), join_count=0, cgroup_fd=False)


def test_more_than_the_limits_is_refused() -> None:
    """Lists that C does not take give EBADMSG, however large the message is."""
    many = tuple(NativeMount(kind=lib.CTR_MOUNT_FILESYSTEM, target="/t", type="tmpfs") for _ in range(10_000))
    spec = full_spec()
    big = {
        "mounts": evolve(spec, fixed=evolve(spec.fixed, mounts=many)),
        "args": evolve(spec, args=("a",) * (lib.CTR_MAX_STRINGS + 1)),
        "env": evolve(spec, env=("a=b",) * (lib.CTR_MAX_STRINGS + 1)),
        "groups": evolve(spec, groups=(1,) * (lib.CTR_MAX_GROUPS + 1)),
        "programs": evolve(spec, programs=("/a",) * 257),
        "root_lowers": evolve(spec, root_lowers=("/a",) * 513),
        "seccomp": evolve(spec, fixed=evolve(spec.fixed, seccomp=bytes(8 * 4097))),
    }
    verdicts = {name: check(encode(each, join_count=3, cgroup_fd=True)) for name, each in big.items()}
    assert verdicts == dict.fromkeys(big, errno.EBADMSG)
    assert check(encode(evolve(spec, args=("a" * 200_000,)), join_count=3, cgroup_fd=True)) == 0


def test_long_arguments_arrive_whole(busybox_image: Image) -> None:
    """An argument of 100 KiB and an environment of half a megabyte are neither cut nor refused."""
    text = "x" * 100_000
    env = {f"V{number}": "y" * 50_000 for number in range(10)}
    result = busybox_image.call(["/bin/sh", "-c", "echo ${#1} ${#V0} ${#V9}", "sh", text], env=env)
    assert result.stdout == b"100000 50000 50000\n"


def test_too_long_arguments_are_the_kernels_to_refuse(busybox_image: Image) -> None:
    """An argument over the kernel's own limit is an error of exec, with its errno."""
    with pytest.raises(SpawnError) as caught:
        busybox_image.call(["/bin/true", "x" * (1 << 20)])
    assert (caught.value.step, caught.value.errno) == ("exec", errno.E2BIG)
    with pytest.raises(InvalidOption, match="at most 131072 arguments"):
        busybox_image.call(["/bin/true", *["x"] * lib.CTR_MAX_STRINGS])


def test_ten_thousand_mounts_are_a_typed_error(busybox_image: Image) -> None:
    """Too many mounts are refused as such, and nothing is mounted."""
    with pytest.raises(InvalidOption, match="200 bind mounts"):
        busybox_image.call(["/bin/true"], mounts=[Mount.bind("/usr", f"/m{n}") for n in range(10_000)])
    with pytest.raises(SpawnError) as caught:
        busybox_image.call(["/bin/true"], mounts=[Mount.tmpfs(f"/m{n}") for n in range(10_000)])
    assert (caught.value.step, caught.value.errno) == ("message", errno.EBADMSG)


class Recorder:
    """Sends the request of a container as it is, and keeps what the next ones need to be like it."""

    def __init__(self, spawner: Spawner) -> None:
        self.spawner = spawner
        self.request: SpawnRequest | None = None

    def spawn(self, request: SpawnRequest) -> Channel:
        """Take the place of `Spawner.spawn`."""
        self.request = request
        # Without a group to be born in: the container's own is gone by the time the copies are sent.
        self.message = encode(request.spec, join_count=len(request.join_fds), cgroup_fd=False)
        return Spawner.spawn(self.spawner, request)


def send(spawner: Spawner, message: bytes, more: Sequence[int], *, spec_fd: int | None = None) -> Channel:
    """Send a message as it is, with standard streams that lead nowhere and `more` descriptors."""
    ours, theirs = new_pair()
    error_ours, error_theirs = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    fd = os.memfd_create("garbage") if spec_fd is None else os.dup(spec_fd)
    if spec_fd is None:
        os.write(fd, message)
    fds = [fd, theirs, error_theirs, null, null, null, *more]
    assert lib.ctr_send(spawner._control, bytes(4), 4, fds, len(fds)) == 0
    for each in (theirs, error_theirs, null, fd):
        os.close(each)
    return Channel(ours, error_ours)


def settle(channel: Channel) -> str:
    """Wait for the answer to a request, end what it started, and say how it went."""
    poller = select.poll()
    poller.register(channel._error_fd, select.POLLIN)
    assert poller.poll(DEADLINE_S * 1000), "no answer"
    data = os.read(channel._error_fd, ffi.sizeof("struct ctr_error"))
    channel.abort()
    if not data:
        return "started"
    error = ffi.from_buffer("struct ctr_error *", data)
    return f"{STEPS[error.step]}: {errno.errorcode[error.err]}"


def recorded(image: Image, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Start one container of `image`, and return its request."""
    recorder = Recorder(image._session.runner._spawner)
    with monkeypatch.context() as patch:
        patch.setattr(recorder.spawner, "spawn", recorder.spawn)
        image.call(["/bin/true"])
    return recorder


def test_the_spawner_survives_damaged_requests(busybox_image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred requests with one wrong word each are refused or run, and then a container starts.

    The values are such that no accepted message can name a path that the right one does not name.
    """
    recorder = recorded(busybox_image, monkeypatch)
    assert recorder.request is not None
    variants = list(overwritten(recorder.message))
    chosen = random.Random(1).sample(variants, 200)  # noqa: S311 - a reproducible choice is what is wanted
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    more = [null] * len(recorder.request.join_fds)
    try:
        answers = [settle(send(recorder.spawner, message, more)) for message in chosen]
    finally:
        os.close(null)
    assert {"message: EBADMSG", "started"} <= set(answers)
    assert recorder.spawner.is_usable
    assert busybox_image.call(["/bin/true"]).exit_code == 0


def test_the_spawner_survives_what_is_no_request(busybox_image: Image) -> None:
    """Too few descriptors, too many, none, and files that hold no message change nothing for others."""
    spawner = busybox_image._session.runner._spawner
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    huge = os.memfd_create("huge")
    os.ftruncate(huge, 1 << 40)
    directory = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    pipe = os.pipe()
    with socket.socket(fileno=os.dup(spawner._control)) as control:
        for count in (0, 1, 5, 241, 253):
            fds = [null] * count
            socket.send_fds(control, [b"word"], fds) if fds else control.send(b"word")
        control.send(b"x" * 4096)
    answers = [settle(send(spawner, b"", (), spec_fd=fd)) for fd in (null, huge, directory, pipe[0])]
    answers.append(settle(send(spawner, b"", ())))
    for fd in (null, huge, directory, *pipe):
        os.close(fd)
    assert all(answer.startswith("message: ") for answer in answers), answers
    assert busybox_image.call(["/bin/true"]).exit_code == 0
