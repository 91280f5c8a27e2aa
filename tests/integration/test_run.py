"""Running a command to its end: `containerlib.run` and `Image.call`."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

import containerlib as cl

if TYPE_CHECKING:
    from pathlib import Path

    from containerlib import Image

pytestmark = [pytest.mark.root, pytest.mark.guest]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MEBIBYTE = 1 << 20


def shell(script: str) -> list[str]:
    """Return the command that runs a script."""
    return ["sh", "-c", script]


def namespace_members(namespace: str) -> list[str]:
    """List the processes of a PID namespace, by what `readlink` says of it."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and os.readlink(f"/proc/{name}/ns/pid") == namespace:
                found.append(name)
        except OSError:
            continue
    return found


def test_every_exit_code_is_reported(image: Image) -> None:
    """All exit codes from 0 to 255 reach the caller as they are."""
    codes = [image.call(["bash", "-c", f"exit {code}"]).exit_code for code in range(256)]
    assert codes == list(range(256))


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "USR1", "SEGV", "TERM", "KILL"])
def test_payload_killed_by_a_signal(image: Image, name: str) -> None:
    """A payload below the reaper that dies of signal n gives 128 + n."""
    result = image.call(shell(f"kill -{name} $$"), init=True)
    assert result.exit_code == 128 + getattr(signal, f"SIG{name}")
    assert not result.oom_killed


def test_first_process_killed_from_outside(image: Image) -> None:
    """SIGKILL for process 1 gives 137, the signal, and no mention of memory."""
    with image.run(["sleep", "1000"], stdin=cl.DEVNULL) as container:
        container.kill("KILL")
        status = container.wait()
    assert (status.exit_code, status.signal, status.oom_killed) == (137, 9, False)


def test_streams_are_separate(image: Image) -> None:
    """Standard output and standard error arrive each in its own field, byte for byte."""
    result = image.call(shell(r"printf 'a\0\377'; printf 'b\n' >&2; exit 3"))
    assert (result.stdout, result.stderr, result.exit_code) == (b"a\0\xff", b"b\n", 3)
    assert (result.signal, result.oom_killed) == (0, False)


@pytest.mark.parametrize(
    ("stderr", "expected"), [(cl.STDOUT, (b"one\ntwo\n", b"")), (cl.DEVNULL, (b"one\n", b""))]
)
def test_standard_error_goes_elsewhere(image: Image, stderr: int, expected: tuple[bytes, bytes]) -> None:
    """Standard error can be merged into the output, in order, or thrown away."""
    result = image.call(shell("echo one; echo two >&2"), stderr=stderr)
    assert (result.stdout, result.stderr) == expected


@pytest.mark.parametrize("size", [0, 1, 65536, 5 * MEBIBYTE + 1])
def test_input_bytes(image: Image, size: int) -> None:
    """Bytes given as standard input are read whole, whatever their number, and come back."""
    data = random.Random(size).randbytes(size)  # noqa: S311 - only content
    result = image.call(["cat"], stdin=data)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


def test_input_is_empty_by_default(image: Image) -> None:
    """Without `stdin` the command reads an end of file at once, not the caller's terminal."""
    assert image.call(shell("cat; readlink /proc/self/fd/0")).text == "/dev/null\n"


def test_input_from_a_file(image: Image, tmp_path: Path) -> None:
    """A file open for reading is the command's standard input."""
    path = tmp_path / "input"
    path.write_bytes(b"from a file")
    with path.open("rb") as file:
        assert image.call(["cat"], stdin=file).stdout == b"from a file"


def test_much_output_on_both_streams(image: Image) -> None:
    """Both streams may be full at once, while input is read as well, without a deadlock."""
    size = 4 * MEBIBYTE
    script = f"head -c {size} /dev/zero & head -c {size} /dev/zero | tr '\\0' x >&2; wc -c >&2; wait"
    result = image.call(shell(script), stdin=bytes(size))
    assert result.stdout == bytes(size)
    assert result.stderr == b"x" * size + b"%d\n" % size


def test_text_replaces_what_is_not_utf8(image: Image) -> None:
    """The output as text is UTF-8, with a replacement character for every other byte."""
    assert image.call(["printf", "gr\u00fc\u00df \\377"]).text == "gr\u00fc\u00df \ufffd"


def test_check_raises_with_the_end_of_standard_error(image: Image) -> None:
    """With `check`, another exit code than 0 is an error that ends with the last output."""
    with pytest.raises(cl.ContainerFailed, match=r"(?s)exited with 4: .*the reason$") as caught:
        image.call(shell("seq 10000 >&2; echo the reason >&2; exit 4"), check=True)
    assert caught.value.exit_code == 4
    assert caught.value.stderr_tail.endswith("the reason")
    assert len(caught.value.stderr_tail) <= 4096
    assert image.call(["true"], check=True).exit_code == 0


def test_check_names_the_signal(image: Image) -> None:
    """With `check`, death by a signal is told as such."""
    with pytest.raises(cl.ContainerFailed) as caught:
        image.call(shell("kill -KILL $$"), init=True, check=True)
    assert caught.value.exit_code == 137


def test_output_limit(image: Image) -> None:
    """A command that writes without end is killed when the limit is reached."""
    with pytest.raises(cl.OutputLimitExceeded, match="100000"):
        image.call(["yes"], output_limit_bytes=100_000)
    assert (
        len(image.call(["head", "-c", "100000", "/dev/zero"], output_limit_bytes=100_000).stdout) == 100_000
    )


def test_timeout_keeps_what_was_written(image: Image) -> None:
    """A command that takes too long is killed; the error has its output so far and the command."""
    with pytest.raises(cl.OperationTimeout, match=r"1\.5 s") as caught:
        image.call(shell("printf partial; printf problem >&2; exec sleep 1000"), timeout_s=1.5)
    assert (caught.value.stdout, caught.value.stderr) == (b"partial", b"problem")
    assert caught.value.timeout_s == 1.5
    assert "sleep 1000" in caught.value.__notes__[0]


def test_timeout_ends_daemons(busybox_image: Image) -> None:
    """Sessions of their own, double forks and ignored signals do not save a process from the timeout."""
    script = (
        "trap '' TERM HUP INT; setsid sh -c 'sleep 1000 & sleep 1000' & "
        "(setsid sh -c 'setsid sleep 1000 & exit' &) ; (sleep 1000 &) ; echo ready; exec sleep 1000"
    )
    with cl.Popen(shell(script), image=busybox_image, stdin=cl.DEVNULL, stdout=cl.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        namespace = os.readlink(f"/proc/{process.pid}/ns/pid")
        assert len(namespace_members(namespace)) >= 3
        with pytest.raises(cl.OperationTimeout):
            process.communicate(timeout_s=0.01)
        assert namespace_members(namespace) == []


def test_end_of_the_command_ends_its_children(busybox_image: Image) -> None:
    """What the command leaves running ends with it, and does not keep the output open."""
    result = busybox_image.call(shell("setsid sleep 1000 & (sleep 1000 &); echo done"))
    assert (result.stdout, result.exit_code) == (b"done\n", 0)


def test_usage_is_plausible(image: Image) -> None:
    """Processor time, memory and processes are counted over the whole container."""
    begin = time.monotonic()
    script = f"head -c {20 * MEBIBYTE} /dev/zero | tail -c {20 * MEBIBYTE} | sha256sum; seq 1000000 | md5sum"
    usage = image.call(shell(script)).usage
    assert 0.001 < usage.cpu_user_s <= usage.cpu_s
    assert usage.cpu_s <= (time.monotonic() - begin) * (os.cpu_count() or 1) + 0.1
    assert 20 * MEBIBYTE < usage.memory_peak_bytes < 400 * MEBIBYTE
    assert usage.pids_peak is None or 3 <= usage.pids_peak < 20


@pytest.mark.cgroup
@pytest.mark.parametrize(("script", "code"), [("exec tail /dev/zero", 137), ("tail /dev/zero; exit 5", 5)])
def test_lack_of_memory_is_told(image: Image, script: str, code: int) -> None:
    """A container over its memory limit says so, whether the first process or another one was killed."""
    limits = cl.Resources(memory_bytes=32 * MEBIBYTE, memory_swap_bytes=32 * MEBIBYTE)
    result = image.call(shell(script), resources=limits)
    assert (result.exit_code, result.oom_killed) == (code, True)
    with pytest.raises(cl.ContainerFailed, match=r"lack of memory.*memory_bytes"):
        result.check()


def test_reaper_collects_orphans(image: Image) -> None:
    """With `init`, processes that lost their parents leave no zombies."""
    script = (
        "for i in $(seq 30); do (true &); done; "
        "while grep -qs '^State:.Z' /proc/[0-9]*/status; do :; done; echo $$; ls -d /proc/[0-9]* | wc -l"
    )
    own, left = image.call(shell(script), init=True, timeout_s=60).text.split()
    assert own != "1"
    assert int(left) <= 5


def test_reaper_passes_signals_on(image: Image) -> None:
    """With `init`, a signal reaches the command, whose exit code is the container's."""
    script = "trap 'echo caught; exit 7' TERM; sleep 1000 & echo ready; wait"
    with image.run(shell(script), init=True, stdin=cl.DEVNULL, stdout=cl.PIPE) as container:
        assert container.stdout is not None
        assert container.stdout.readline() == b"ready\n"
        container.kill("TERM")
        assert container.wait(timeout_s=60).exit_code == 7
        assert container.stdout.read() == b"caught\n"


def test_without_reaper_the_command_is_process_1(image: Image) -> None:
    """Without `init` nothing stands between the kernel and the command."""
    assert image.call(shell("echo $$; cat /proc/1/comm")).text == "1\nsh\n"


def test_labels_and_name(busybox_image: Image) -> None:
    """Labels are kept, and a container without a name gets one that can be said."""
    with busybox_image.run(["true"], labels={"a": "1"}, stdin=cl.DEVNULL) as container:
        assert container.labels == {"a": "1"}
        assert re.fullmatch(r"[a-z]+_[a-z]+_[0-9a-f]{4}", container.name)
        assert re.fullmatch(r"[0-9a-f]{64}", container.id)
        container.wait()
    with busybox_image.run(["true"], name="chosen.name-1", stdin=cl.DEVNULL) as container:
        assert container.name == "chosen.name-1"
        container.wait()


def test_host_name(image: Image) -> None:
    """Host and domain name are what was asked for; else the host name is the beginning of the id."""
    script = "hostname; cat /proc/sys/kernel/domainname /etc/hostname; echo $HOSTNAME"
    given = image.call(shell(script), hostname="web-1", domainname="example.org")
    assert given.text.split() == ["web-1", "example.org", "web-1", "web-1"]
    with image.run(["hostname"], stdin=cl.DEVNULL, stdout=cl.PIPE) as container:
        assert container.stdout is not None
        assert container.stdout.read() == container.id[:12].encode() + b"\n"
    assert os.uname().nodename != "web-1"


def test_small_files_without_a_network(image: Image) -> None:
    """The names of the container itself can be looked up, and there is no resolver to ask."""
    script = "cat /etc/hosts; echo --; cat /etc/resolv.conf"
    hosts, resolvers = image.call(shell(script), hostname="web", domainname="lan").text.split("--\n")
    rows = [line.split() for line in hosts.splitlines()]
    assert ["127.0.0.1", "localhost"] in rows
    assert ["127.0.1.1", "web.lan", "web"] in rows
    assert resolvers == ""


def test_small_files_with_the_hosts_network(image: Image) -> None:
    """On the host's network the host's own names and resolvers are seen."""
    found = image.call(["cat", "/etc/hosts", "/etc/resolv.conf"], network="host").stdout
    expected = b""
    for path in ("/etc/hosts", "/etc/resolv.conf"):
        with open(path, "rb") as file:
            expected += file.read()
    assert found == expected


def test_small_files_give_way_to_mounts(image: Image, tmp_path: Path) -> None:
    """Where the caller mounts a file or all of /etc, nothing of ours appears, on the host neither."""
    own = tmp_path / "hosts"
    own.write_text("mine\n", encoding="ascii")
    mounts = [cl.Mount.bind(str(own), "/etc/hosts")]
    assert image.call(shell("cat /etc/hosts; test -s /etc/hostname"), mounts=mounts).text == "mine\n"
    mounts = [cl.Mount.bind(str(tmp_path), "/etc")]
    assert image.call(["ls", "/etc"], mounts=mounts).text == "hosts\n"
    assert [path.name for path in tmp_path.iterdir()] == ["hosts"]


@pytest.mark.parametrize(
    ("options", "home"),
    [
        ({}, "/root"),
        ({"user": "nobody"}, "/nonexistent"),
        ({"user": "65534:0"}, "/nonexistent"),
        ({"user": "4711"}, "/"),
        ({"env": {"HOME": "/else"}}, "/else"),
    ],
)
def test_home_comes_from_the_image(image: Image, options: dict[str, object], home: str) -> None:
    """HOME is what the image's passwd file says of the user, unless the caller sets it."""
    assert image.call(shell("echo $HOME"), **options).text == f"{home}\n"  # type: ignore[arg-type]


def test_environment_has_nothing_of_the_host(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is the defaults and what was given, whatever the caller's own holds."""
    monkeypatch.setenv("SECRET_OF_THE_HOST", "1")
    given = {"PLAIN": "a b", "EMPTY": "", "EQUALS": "x=y", "LINES": "1\n2", "WIDE": "\u00fc"}
    found = image.call(["cat", "/proc/self/environ"], env=given, hostname="h").stdout
    expected = {"PATH": DEFAULT_PATH, "HOSTNAME": "h", "HOME": "/root", **given}
    assert dict(entry.split("=", 1) for entry in found.decode().rstrip("\0").split("\0")) == expected


@pytest.mark.parametrize("env", [{"PATH": "/bin", "X": "1"}, ["PATH=/bin", "X=1"]])
def test_environment_forms(image: Image, env: dict[str, str] | list[str]) -> None:
    """A mapping and a list of texts mean the same, and PATH can be replaced."""
    assert image.call(shell("echo $PATH $X"), env=env).text == "/bin 1\n"


def test_run_by_the_name_of_an_image(default_image: str) -> None:
    """`run` with the name of an image uses the default engine."""
    result = cl.run(["sh", "-c", "cat; exit 9"], image=default_image, stdin=b"x")
    assert (result.exit_code, result.stdout, result.args) == (9, b"x", ("sh", "-c", "cat; exit 9"))


def test_run_leaves_no_container(image: Image) -> None:
    """After `run` the engine has no container any more, whether it went well or not."""
    engine_of = image._session
    cl.run(["true"], image=image)
    with pytest.raises(cl.CommandNotFound):
        cl.run(["no-such-command"], image=image)
    assert engine_of.entries() == []


def test_compressed_output_is_untouched(image: Image) -> None:
    """Binary output of a real program can be read by its counterpart on the host."""
    data = os.urandom(200_000)
    assert gzip.decompress(image.call(["gzip", "-c"], stdin=data).stdout) == data
