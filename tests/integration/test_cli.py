"""The command line as its users meet it: a process of its own, with pipes, a terminal and signals."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support import enosys
from support.session import temporary_directory, tracked_root
from support.terminal import Terminal, read_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

LIMIT_S = 60
COMMAND = (sys.executable, "-m", "containerlib")
PROGRAMS = (
    "sh",
    "cat",
    "echo",
    "env",
    "id",
    "ls",
    "pwd",
    "sleep",
    "stty",
    "tr",
    "true",
    "hostname",
    "head",
    "wc",
)
FOREVER = "while :; do :; done"


class CommandLine:
    """The command line on a store of its own."""

    def __init__(self, base: Path) -> None:
        self.environment = os.environ | {
            "CONTAINERLIB_ROOT": str(base / "r"),
            "CONTAINERLIB_RUN_ROOT": str(base / "n"),
            "TERM": "xterm",
        }

    def run(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        given = {"stdin": subprocess.DEVNULL} | options
        if "input" in options:
            del given["stdin"]
        return subprocess.run(
            [*COMMAND, *args],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            env=self.environment,
            **given,
        )

    def output(self, *args: str, **options: Any) -> str:
        """Run a command that succeeds, and return what it printed."""
        done = self.run(*args, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def start(self, *args: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Start a command; it is killed at the end, if it is still there."""
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        with subprocess.Popen([*COMMAND, *args], env=self.environment, **given) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture(scope="module")
def cli() -> Iterator[CommandLine]:
    """Return a command line whose store has the image ``host``."""
    with temporary_directory("c") as base, tracked_root(base / "n"):
        made = CommandLine(base)
        made.output("images", "from-host", "-t", "host", *PROGRAMS)
        made.output("run", "host", "true")
        yield made


def read_to_end(process: subprocess.Popen[bytes]) -> bytes:
    """Read the rest of standard output, which ends when nobody has it open any more."""
    assert process.stdout is not None
    return process.stdout.read()


# Running a command


def test_output_is_the_commands_own(cli: CommandLine) -> None:
    """Both outputs of the command reach the caller, each on its own, and nothing else does."""
    done = cli.run("run", "host", "sh", "-c", "echo out; echo err >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


@pytest.mark.parametrize("code", [0, 3, 125, 255])
def test_exit_code_is_the_commands_own(cli: CommandLine, code: int) -> None:
    """The command line ends with the exit code of the command."""
    assert cli.run("run", "host", "sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        (("run", "host", "/nosuch"), 127, "not found"),
        (("run", "host", "nosuch"), 127, "not found"),
        (("run", "host", "/etc/passwd"), 126, "permission denied"),
        (("run", "--from-host", "nosuch"), 127, "not found"),
        (("run", "--pull=never", "nosuch"), 125, "no image is called 'nosuch'"),
        (("run", "UPPER"), 125, "UPPER"),
        (("run",), 125, "name an image"),
        (("run", "--from-host"), 125, "name a command"),
        (("run", "--nosuch", "host"), 125, "No such option"),
        (("run", "--memory", "lots", "host"), 125, "--memory"),
        (("run", "--memory", "1k", "host", "true"), 125, "'--memory': 1024: the minimum is 6 MiB"),
        (("run", "--network", "none-such", "host", "true"), 125, "'none-such' does not exist"),
        (("run", "--security-opt", "apparmor=x", "host", "true"), 125, "no AppArmor profile"),
        (("run", "--env", "HOME", "host", "true"), 125, "environment is not passed on"),
        (("run", "-v", "/nosuch:/data", "host", "true"), 125, "make it first"),
        (("run", "-v", "data:/data", "host", "true"), 125, "volumes are not supported yet"),
        (("run", "--cap-add", "NOSUCH", "host", "true"), 125, "capability"),
        (("images", "rm", "nosuch"), 125, "nosuch"),
        (("images", "--format", "xml"), 125, "xml"),
        (("nosuch",), 125, "No such command"),
    ],
)
def test_error_is_one_line_and_has_a_code(
    cli: CommandLine, args: tuple[str, ...], code: int, reason: str
) -> None:
    """What is wrong is said in one line with at most one hint, and the exit code is Docker's."""
    done = cli.run(*args)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (code, "")
    assert reason in lines[0]
    assert len(lines) <= 2
    assert all(line.startswith("containerlib: ") for line in lines)


def test_signal_death_is_128_and_more(cli: CommandLine) -> None:
    """A command that is killed by a signal ends the command line with 128 and the signal's number."""
    assert cli.run("run", "--init", "host", "sh", "-c", "kill -KILL $$").returncode == 137


def test_options_behind_the_image_are_the_commands(cli: CommandLine) -> None:
    """What stands behind the image is not looked at."""
    assert cli.output("run", "host", "echo", "-t", "--rm", "--nosuch") == "-t --rm --nosuch\n"


def test_dashes_end_the_options(cli: CommandLine) -> None:
    """The image may stand behind two dashes."""
    assert cli.output("run", "--rm", "--", "host", "echo", "--", "x") == "-- x\n"


def test_input_needs_interactive(cli: CommandLine) -> None:
    """Standard input is passed on with -i, and is empty without."""
    assert cli.output("run", "-i", "host", "cat", input="data") == "data"
    assert cli.output("run", "host", "cat", input="data") == ""


def test_large_output_arrives_whole(cli: CommandLine) -> None:
    """Output of any size arrives, because the command writes to our own standard output."""
    text = cli.output("run", "-i", "host", "cat", input="x" * 3_000_000)
    assert len(text) == 3_000_000


def test_timeout_kills(cli: CommandLine) -> None:
    """--timeout ends the container, and says so."""
    done = cli.run("run", "--timeout", "0.3", "host", "sleep", "1000")
    assert (done.returncode, done.stderr) == (137, "containerlib: ended, because it took longer than 0.3 s\n")


def test_timeout_asks_first_if_told_how(cli: CommandLine) -> None:
    """With a stop signal the command may end by itself when the time is up, and is killed if it does not."""
    limit = ("--timeout", "0.3", "--stop-signal", "USR1")
    script = f"trap 'echo asked; exit 4' USR1; {FOREVER}"
    done = cli.run("run", *limit, "host", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (4, "asked\n")
    done = cli.run("run", *limit, "--stop-timeout", "0", "host", "sh", "-c", f"trap '' USR1; {FOREVER}")
    assert done.returncode == 137


def test_from_host_needs_no_image(cli: CommandLine) -> None:
    """--from-host runs a program of the host, given by name or path, with its arguments."""
    assert cli.output("run", "--from-host", "sh", "-c", "echo hello") == "hello\n"
    assert cli.output("run", "--from-host", "/usr/bin/stty", "--version").startswith("stty")


def test_module_and_program_are_the_same(cli: CommandLine) -> None:
    """The entry point that the package declares gives what ``python -m`` gives."""
    code = "import sys; from containerlib.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "host", "sh", "-c", "echo x; exit 4"],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        env=cli.environment,
    )
    assert (done.returncode, done.stdout) == (4, "x\n")


def test_missing_click_is_explained(cli: CommandLine, tmp_path: Path) -> None:
    """Without click the command line says how to install it."""
    (tmp_path / "click.py").write_text(
        "raise ModuleNotFoundError('no click', name='click')", encoding="ascii"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
        "from containerlib.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=cli.environment
    )
    assert done.returncode == 125
    assert "pip install 'containerlib[cli]'" in done.stderr


@pytest.mark.parametrize("heavy", ["rich", "cryptography", "ssl", "asyncio", "logging"])
def test_running_loads_nothing_heavy(cli: CommandLine, heavy: str) -> None:
    """What a run does not need is not loaded."""
    environment = cli.environment | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        [*COMMAND, "run", "host", "true"], capture_output=True, text=True, check=False, env=environment
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert "click" in loaded
    assert heavy not in loaded


# Options


@pytest.mark.parametrize(
    ("args", "script", "expected"),
    [
        (("-e", "A=1", "--env", "B=x y"), 'echo "$A $B"', "1 x y"),
        (("-w", "/tmp"), "pwd", "/tmp"),
        (("--user", "65534:5", "--group-add", "6"), "id -u; id -G", "65534\n5 6"),
        (("--hostname", "box"), "hostname", "box"),
        (("-h", "box"), "hostname", "box"),
        (("--read-only",), "echo x >/etc/x 2>/dev/null || echo refused", "refused"),
        (("--tmpfs", "/run:size=64k,mode=700"), "ls -ld /run | cut -c1-10", "drwx------"),
        (("--mount", "type=tmpfs,target=/new"), "echo x >/new/x && cat /new/x", "x"),
        (("--ulimit", "nofile=100:200"), "ulimit -n; ulimit -Hn", "100\n200"),
        (("--shm-size", "1m"), "df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d' ' -f2", "1024"),
        (("--sysctl", "kernel.msgmax=1234"), "cat /proc/sys/kernel/msgmax", "1234"),
        (("--cap-drop", "ALL"), "grep CapEff /proc/self/status | tr -d '\\t'", "CapEff:0000000000000000"),
        (("--device", "/dev/full:/dev/other:rw"), "ls /dev/other", "/dev/other"),
        (("--network", "host"), "ls -d /sys/class/net", "/sys/class/net"),
        (("--domainname", "example.org"), "cat /proc/sys/kernel/domainname", "example.org"),
        (("--oom-score-adj", "500"), "cat /proc/self/oom_score_adj", "500"),
        (("--init",), "tr '\\0' ' ' </proc/1/cmdline | cut -c1-3; echo $$ | tr 2-9 x", "ctr\nx"),
        (
            ("--security-opt", "seccomp=unconfined"),
            "grep ^Seccomp: /proc/self/status | tr -d '\\t'",
            "Seccomp:2" if enosys.ACTIVE else "Seccomp:0",
        ),
        (
            ("--security-opt", "no-new-privileges=false"),
            "grep NoNewPrivs /proc/self/status | tr -d '\\t'",
            "NoNewPrivs:0",
        ),
    ],
)
def test_option_reaches_the_container(
    cli: CommandLine, args: tuple[str, ...], script: str, expected: str
) -> None:
    """An option has in the container the effect that it has with Docker."""
    assert cli.output("run", *args, "--from-host", "sh", "-c", script).strip() == expected


@pytest.mark.cgroup
def test_limits_are_accepted(cli: CommandLine) -> None:
    """Limits in Docker's words are taken, and zeros are no limits."""
    limits = (
        "-m",
        "64m",
        "--memory-swap",
        "-1",
        "--cpus",
        "0.5",
        "--pids-limit",
        "50",
        "--cpu-shares",
        "512",
    )
    zeros = ("--memory", "0", "--cpus", "0", "--pids-limit", "0", "--cpu-quota", "0", "--blkio-weight", "0")
    for options in (limits, zeros):
        assert cli.output("run", *options, "host", "echo", "x") == "x\n"


@pytest.mark.cgroup
def test_lack_of_memory_is_told(cli: CommandLine) -> None:
    """A container that ran out of memory ends with 137, and the reason is told."""
    script = "x=$(cat /dev/zero | tr '\\0' x)"
    done = cli.run(
        "run", "-m", "16m", "--memory-swap", "16m", "host", "sh", "-c", f"exec 2>/dev/null; {script}"
    )
    assert "lack of memory; raise --memory" in done.stderr


def test_entrypoint_is_replaced(cli: CommandLine) -> None:
    """--entrypoint comes before the arguments, and an empty one is none."""
    assert cli.output("run", "--entrypoint", "echo", "host", "a", "b") == "a b\n"
    assert cli.output("run", "--entrypoint", "", "host", "echo", "a") == "a\n"


def test_env_file_is_read(cli: CommandLine, tmp_path: Path) -> None:
    """Variables come from a file, and -e counts before them."""
    path = tmp_path / "env"
    path.write_text("# note\nA=1\nB=2\n", encoding="ascii")
    output = cli.output("run", "--env-file", str(path), "-e", "B=3", "host", "env")
    assert {"A=1", "B=3"} <= set(output.splitlines())


def test_nothing_of_the_hosts_environment_gets_in(cli: CommandLine) -> None:
    """The container has none of the variables of whoever runs the command."""
    assert "CONTAINERLIB_ROOT" not in cli.output("run", "host", "env")


@pytest.mark.parametrize(
    "form", ["--volume={0}:/data{1}", "--mount=type=bind,source={0},target=/data{2}", "-v./:/data{1}"]
)
def test_bind_mount_shows_the_host(cli: CommandLine, tmp_path: Path, form: str) -> None:
    """A bind mount can be written to, unless it is read-only."""
    script = "echo text 2>/dev/null >/data/file || echo refused"
    for words, expected in ((("", ""), ""), ((":ro", ",readonly"), "refused\n")):
        option = form.format(tmp_path, *words)
        assert cli.output("run", option, "host", "sh", "-c", script, cwd=tmp_path) == expected
    assert (tmp_path / "file").read_text(encoding="ascii") == "text\n"


# Signals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal_is_passed_on(cli: CommandLine, number: int, code: int) -> None:
    """A signal to the command line ends a command that has no handler for it, if there is an init."""
    with cli.start("run", "--init", "host", "sh", "-c", "echo ready; exec sleep 1000") as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"ready\n")
        process.send_signal(number)
        assert process.wait(LIMIT_S) == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_command_decides_about_a_signal(cli: CommandLine, number: int) -> None:
    """A command with a handler for a signal gets it, and says how it ends."""
    name = signal.Signals(number).name.removeprefix("SIG")
    script = f"trap 'exit 7' {name}; echo ready; {FOREVER}"
    with cli.start("run", "host", "sh", "-c", script) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"ready\n")
        process.send_signal(number)
        assert process.wait(LIMIT_S) == 7


def test_second_interrupt_kills(cli: CommandLine) -> None:
    """A command that goes on after a first Ctrl-C is killed by the second."""
    with cli.start("run", "host", "sh", "-c", f"trap 'echo again' INT; echo ready; {FOREVER}") as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"ready\n")
        process.send_signal(signal.SIGINT)
        read_until(process.stdout.fileno(), b"again\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 137


def test_ignored_signal_stays_ignored(cli: CommandLine) -> None:
    """Under nohup, a hang-up does not reach the container."""
    script = f"trap 'echo hang-up' HUP; trap 'exit 5' USR1; echo ready; {FOREVER}"
    with cli.start(
        "run",
        "host",
        "sh",
        "-c",
        script,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"ready\n")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(LIMIT_S) == 5
        assert read_to_end(process) == b""


def test_killed_command_line_takes_the_container_along(cli: CommandLine) -> None:
    """After SIGKILL no process of the container is left, and the next command clears up the rest."""
    with cli.start("run", "host", "sh", "-c", "sleep 1000 & echo ready; wait") as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"ready\n")
        process.kill()
        # End of file: whoever had it open, has ended.
        assert read_to_end(process) == b""
    assert cli.output("run", "host", "echo", "x") == "x\n"


def test_closed_output_ends_quietly(cli: CommandLine) -> None:
    """Whoever does not read a list to its end gets no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with cli.start("images", stdout=writer) as process:
            _, errors = process.communicate(timeout=LIMIT_S)
    finally:
        os.close(writer)
    assert (process.returncode, errors) == (141, b"")


# The terminal


@contextmanager
def terminal(cli: CommandLine, *args: str, **options: Any) -> Iterator[Terminal]:
    """Open a terminal for the time of the context."""
    opened = Terminal(*args, environment=cli.environment, **options)
    try:
        yield opened
    finally:
        opened.close()


def test_terminal_connects_both_ways(cli: CommandLine) -> None:
    """Keys reach the command, its output reaches the user, and our terminal is raw meanwhile."""
    with terminal(cli, "-it", "host", "sh", "-c", 'echo ready; read line; echo "got $line"; exit 6') as user:
        user.read_until(b"ready\r\n")
        assert user.is_raw
        user.type(b"keys\r")
        assert b"keys\r\n" in user.read_until(b"got keys\r\n")
        assert user.process.wait(LIMIT_S) == 6
        assert user.is_as_before


def test_terminal_has_our_size(cli: CommandLine) -> None:
    """The container's terminal begins with the size of ours, and follows it."""
    script = 'stty size; while [ "$(stty size)" != "41 123" ]; do :; done; echo followed'
    with terminal(cli, "-it", "host", "sh", "-c", script) as user:
        user.read_until(b"30 90\r\n")
        termios.tcsetwinsize(user.master, (41, 123))
        user.read_until(b"followed\r\n")
        assert user.process.wait(LIMIT_S) == 0


def test_interrupt_key_reaches_the_command(cli: CommandLine) -> None:
    """Ctrl-C is a key like others: the container's terminal makes a signal of it."""
    with terminal(cli, "-it", "host", "sh", "-c", f"trap 'exit 9' INT; echo ready; {FOREVER}") as user:
        user.read_until(b"ready\r\n")
        user.type(b"\x03")
        assert user.process.wait(LIMIT_S) == 9
        assert user.is_as_before


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_terminal_is_put_back_after_a_signal(cli: CommandLine, number: int, code: int) -> None:
    """A signal from elsewhere is passed on as well, and the terminal is as before after it."""
    with terminal(cli, "-it", "--init", "host", "sh", "-c", "echo ready; exec sleep 1000") as user:
        user.read_until(b"ready\r\n")
        user.process.send_signal(number)
        assert user.process.wait(LIMIT_S) == code
        assert user.is_as_before


def test_terminal_is_put_back_after_a_timeout(cli: CommandLine) -> None:
    """When the time is up the terminal is as before, too."""
    with terminal(cli, "-it", "--timeout", "0.5", "host", "sleep", "1000") as user:
        assert user.process.wait(LIMIT_S) == 137
        assert user.is_as_before


def test_terminal_is_untouched_without_a_container(cli: CommandLine) -> None:
    """A command that is not found leaves the terminal alone."""
    with terminal(cli, "-it", "host", "nosuch") as user:
        assert user.process.wait(LIMIT_S) == 127
        assert user.is_as_before


def test_terminal_output_is_complete(cli: CommandLine) -> None:
    """Nothing of the last output is lost when the command ends."""
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
    with terminal(cli, "-it", "host", "sh", "-c", script) as user:
        seen = user.read_until(b"line 1999\r\n")
        assert user.process.wait(LIMIT_S) == 0
    assert seen.count(b"\n") == 2000


def test_much_is_typed(cli: CommandLine) -> None:
    """More keys than the container's terminal holds are kept until it takes them."""
    count = 50_000
    script = f"stty -icanon -echo; echo ready; head -c {count} | tr -d x | wc -c; echo done"
    with terminal(cli, "-it", "host", "sh", "-c", script) as user:
        user.read_until(b"ready\r\n")
        left = b"x" * count
        while left:
            left = left[os.write(user.master, left[:1000]) :]
        assert b"0\r\ndone" in user.read_until(b"done\r\n")
        assert user.process.wait(LIMIT_S) == 0


def test_terminal_without_input(cli: CommandLine) -> None:
    """With -t alone the command has a terminal, and ours stays as it is."""
    with terminal(
        cli, "-t", "host", "sh", "-c", f"test -t 0 && trap 'exit 8' INT; echo ready; {FOREVER}"
    ) as user:
        user.read_until(b"ready")
        assert user.is_as_before
        user.type(b"\x03")
        assert user.process.wait(LIMIT_S) == 8


def test_terminal_output_through_a_pipe(cli: CommandLine) -> None:
    """With -t and no terminal at all, the output is that of a terminal."""
    assert cli.output("run", "-t", "host", "sh", "-c", "echo x; test -t 1 && echo y") == "x\ny\n"


def test_terminal_needs_a_terminal(cli: CommandLine) -> None:
    """Keys cannot be read from what is no terminal."""
    done = cli.run("run", "-it", "host", "sh")
    assert (done.returncode, done.stderr) == (125, "containerlib: the input device is not a TTY\n")


# Images


def test_images_are_listed(cli: CommandLine) -> None:
    """The list has each name with id, age and size, as a table, as JSON, or ids only."""
    header, *rows = cli.output("images").splitlines()
    assert header.split("  ")[0] == "REPOSITORY"
    row = next(row.split() for row in rows if row.startswith("host "))
    assert (row[1], len(row[2]), row[3]) == ("latest", 12, "N/A")
    documents = [json.loads(line) for line in cli.output("images", "ls", "--format", "json").splitlines()]
    document = next(each for each in documents if "docker.io/library/host:latest" in each["references"])
    assert document["id"].startswith(f"sha256:{row[2]}")
    assert row[2] in cli.output("images", "-q").split()


def test_images_are_made_named_and_removed(cli: CommandLine, tmp_path: Path) -> None:
    """An image of a directory runs under each of its names until they are removed."""
    (tmp_path / "bin").mkdir()
    host_id = cli.output("images", "from-host", "-t", "one", "sh", "echo").strip()
    assert host_id.startswith("sha256:")
    cli.output("images", "tag", "one", "two:v1")
    assert cli.output("run", "two:v1", "echo", "x") == "x\n"
    assert cli.output("images", "rm", "one") == "Untagged: one:latest\n"
    assert f"Deleted: {host_id}" in cli.output("rmi", "two:v1")
    assert cli.run("run", "two:v1", "true").returncode == 125


def test_image_of_a_directory_and_of_an_archive(cli: CommandLine, tmp_path: Path) -> None:
    """A tree makes an image, and so does an archive of it, from a file or from standard input."""
    (tmp_path / "tree" / "etc").mkdir(parents=True)
    archive = tmp_path / "tree.tar"
    subprocess.run(["tar", "-C", str(tmp_path / "tree"), "-cf", str(archive), "."], check=True)
    cli.output("images", "from-directory", str(tmp_path / "tree"), "-t", "tree")
    from_file = cli.output("images", "from-tar", str(archive), "-t", "file")
    with archive.open("rb") as source:
        assert cli.output("images", "from-tar", "-", "-t", "stdin", stdin=source) == from_file
    assert cli.run("images", "rm", "tree", "nosuch", "file", "stdin").returncode == 125
    assert "stdin" not in cli.output("images")


# Containers and versions


def wait_for_record(cli: CommandLine, name: str) -> dict[str, Any]:
    """Look until another process's container is listed: its output may come before its record."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        for line in cli.output("ps", "-a", "--format", "json").splitlines():
            document: dict[str, Any] = json.loads(line)
            if document["name"] == name:
                return document
    raise AssertionError(f"no container {name!r} was listed")


def test_containers_of_other_processes_are_listed(cli: CommandLine) -> None:
    """A running container is seen from other processes, and not any more after its end."""
    args = ("run", "-i", "--name", "seen", "-l", "a=b", "host", "sh", "-c", "echo ready; cat")
    with cli.start(*args, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        read_until(process.stdout.fileno(), b"ready\n")
        document = wait_for_record(cli, "seen")
        assert (document["state"], document["labels"]) == ("running", {"a": "b"})
        header, row = cli.output("ps").splitlines()
        assert header.split()[-1] == "NAMES"
        assert row.split()[0] == document["id"][:12]
        assert row.split()[-1] == "seen"
        assert cli.output("ps", "-q").split() == [document["id"][:12]]
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0
    assert cli.output("ps", "-a", "-q") == ""


def test_damaged_records_are_left_out(cli: CommandLine) -> None:
    """Files that no engine has written, or not completely, do not keep the others from being listed."""
    with cli.start("run", "-i", "--name", "whole", "host", "cat", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        document = wait_for_record(cli, "whole")
        directory = f"{cli.environment['CONTAINERLIB_RUN_ROOT']}/engines/{document['engine_id']}/containers"
        damaged = ("", "{", "[]", "{}", json.dumps(document | {"state": "odd"}), json.dumps({"id": "x"}))
        for number, text in enumerate(damaged):
            with open(f"{directory}/{number}", "w", encoding="ascii") as file:
                file.write(text)
        assert cli.output("ps", "-q").split() == [document["id"][:12]]
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0


def test_version_names_what_runs(cli: CommandLine) -> None:
    """The versions of the library, of Python and of the kernel are told."""
    document = json.loads(cli.output("version", "--format", "json"))
    assert (document["python"], document["kernel"]) == (platform.python_version(), os.uname().release)
    assert document["containerlib"] in cli.output("version")
    assert cli.output("--version") == f"containerlib {document['containerlib']}\n"


@pytest.mark.parametrize("args", [(), ("run",), ("images",), ("ps",), ("doctor",), ("version",)])
def test_help_is_there(cli: CommandLine, args: tuple[str, ...]) -> None:
    """Each command explains itself."""
    assert cli.output(*args, "--help").startswith("Usage: containerlib")


def test_tables_fit_the_terminal(cli: CommandLine) -> None:
    """On a terminal a table has the same content as in a pipe, however wide the terminal is."""
    for args in (("images",), ("ps",), ("doctor",)):
        with terminal(cli, *args, command=()) as user:
            seen = user.read_until(cli.output(*args).split()[0].encode())
            assert user.process.wait(LIMIT_S) == 0
            assert b"Traceback" not in seen


def test_shell_completion(cli: CommandLine) -> None:
    """The shell completes commands and options."""
    environment = cli.environment | {"_CONTAINERLIB_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    done = subprocess.run(
        COMMAND,
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"COMP_WORDS": "containerlib run --mem"},
    )
    assert {"plain,--memory", "plain,--memory-swap"} <= set(done.stdout.split())
