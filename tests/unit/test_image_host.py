"""Images of host programs: what is collected, from this host and from small roots made for the purpose."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from containerlib.errors import InvalidInputError, InvalidOption, UnsupportedHost
from containerlib.image.elf import Machine
from containerlib.image.host import DEFAULT_COMMANDS, collect
from containerlib.image.library_cache import build_cache, parse_cache
from containerlib.layer.archive import LayerEntry, write_layer

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = Machine(os.uname().machine)
GLIBC = {Machine.X86_64: "/lib64/ld-linux-x86-64.so.2", Machine.AARCH64: "/lib/ld-linux-aarch64.so.1"}[
    MACHINE
]
BASE_PATHS = {
    *("dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "var/tmp"),
    *("etc/group", "etc/hosts", "etc/nsswitch.conf", "etc/passwd"),
}

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def by_path(entries: list[LayerEntry]) -> dict[str, LayerEntry]:
    """Index entries by path, which must be unique."""
    index = {entry.path: entry for entry in entries}
    assert len(index) == len(entries)
    return index


def added(commands: list[str], root: Path) -> dict[str, LayerEntry]:
    """Collect from a root and leave out what every image has."""
    entries = by_path(collect(commands, root=str(root)))
    assert set(entries) >= BASE_PATHS
    return {path: entry for path, entry in entries.items() if path not in BASE_PATHS}


def follow(entries: dict[str, LayerEntry], path: str) -> str | None:
    """Follow a path inside an image; `None` when it leads out of the image or nowhere."""
    pending, current = path.split("/")[::-1], ""
    for _ in range(1000):
        if not pending:
            return current if current in entries or not current else None
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            current = os.path.dirname(current)
            continue
        child = f"{current}/{part}".lstrip("/")
        if child not in entries:
            return None
        if entries[child].kind == "symlink":
            target = entries[child].linkname
            current = "" if target.startswith("/") else current
            pending += target.split("/")[::-1]
        else:
            current = child
    return None


def link_empty(path: Path, *flags: str | Path) -> Path:
    """Link an ELF file with nothing in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.parent / "empty.c"
    source.write_text("void _start(void) { for (;;) ; }\n")
    link: list[str | Path] = ["gcc", "-nostdlib", "-Wl,--no-as-needed", "-Wl,--unresolved-symbols=ignore-all"]
    subprocess.run([*link, "-o", path, source, *flags], check=True)
    source.unlink()
    return path


def make_library(path: Path, *flags: str | Path) -> Path:
    """Link a shared library named after its file."""
    return link_empty(path, "-shared", f"-Wl,-soname,{path.name}", *flags)


def make_program(path: Path, *flags: str | Path) -> Path:
    """Link a program for the usual loader."""
    return link_empty(path, "-pie", f"-Wl,--dynamic-linker={GLIBC}", *flags)


def make_script(path: Path, first_line: str) -> Path:
    """Write an executable script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{first_line}\necho\n")
    path.chmod(0o755)
    return path


def make_static(path: Path) -> Path:
    """Write the smallest static program: a header is all that is looked at."""
    number = {Machine.X86_64: 62, Machine.AARCH64: 183}[MACHINE]
    path.parent.mkdir(parents=True, exist_ok=True)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    path.write_bytes(ident + (2).to_bytes(2, "little") + number.to_bytes(2, "little") + bytes(44))
    path.chmod(0o755)
    return path


# This host


@pytest.fixture(scope="module")
def userland() -> list[LayerEntry]:
    """Collect the default userland of this host."""
    return collect()


def test_default_userland_is_complete(userland: list[LayerEntry]) -> None:
    """Everything of the list that this host has can be reached by its name; base files are there."""
    entries = by_path(userland)
    assert set(entries) >= BASE_PATHS
    for name in DEFAULT_COMMANDS:
        if path := shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"):
            reached = follow(entries, path)
            assert reached is not None, name
            assert entries[reached].mode == 0o755


def test_every_link_leads_somewhere(userland: list[LayerEntry]) -> None:
    """The image contains what each of its links leads to."""
    entries = by_path(userland)
    for entry in userland:
        if entry.kind == "symlink":
            assert follow(entries, entry.path) is not None, entry


def test_entries_are_normal_and_in_order(userland: list[LayerEntry]) -> None:
    """Sorted, parents first, owned by root, modes by the executable bit, the same each time."""
    paths = [entry.path for entry in userland]
    assert paths == sorted(paths)
    seen = {""}
    for entry in userland:
        assert os.path.dirname(entry.path) in seen
        seen.add(entry.path)
        assert (entry.uid, entry.gid) == (0, 0)
        if entry.kind == "file":
            assert entry.mode in (0o755, 0o644)
            assert isinstance(entry.source, str | bytes)
            content_size = os.path.getsize if isinstance(entry.source, str) else len
            assert content_size(entry.source) == entry.size
    assert collect() == userland


def test_layer_of_the_userland_is_the_same_each_time(userland: list[LayerEntry]) -> None:
    """The archive writer takes the entries as they are, and two collections give one digest."""
    first, second = (write_layer(entries, io.BytesIO(), mtime=2**40) for entries in (userland, collect()))
    assert first == second
    assert first.entries == len(userland)


def test_a_file_that_changed_since_is_refused(tmp_path: Path) -> None:
    """Content is read by the archive writer, which sees that it is not what was collected."""
    program = make_static(tmp_path / "bin/sh")
    entries = collect(["sh"], root=str(tmp_path))
    program.write_bytes(program.read_bytes() + b"more")
    with pytest.raises(InvalidInputError, match="bin/sh"):
        write_layer(entries, io.BytesIO())


def test_nothing_of_the_host_leaks(userland: list[LayerEntry]) -> None:
    """Files in /etc are generated, except links by which programs are found."""
    for entry in userland:
        if entry.path.startswith("etc/") and entry.kind == "file":
            assert isinstance(entry.source, bytes)


def test_base_directories_have_their_modes(userland: list[LayerEntry]) -> None:
    """Temporary directories are sticky and open, root's home is closed."""
    entries = by_path(userland)
    modes = {path: entries[path].mode for path in ("tmp", "var/tmp", "root", "proc")}
    assert modes == {"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700, "proc": 0o755}


def test_default_userland_is_quick() -> None:
    """The default list takes well under 50 ms once the kernel has the files."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        collect()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


def test_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`$PATH` and `$LD_LIBRARY_PATH` change nothing."""
    make_static(tmp_path / "sh")
    before = collect(["sh"])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert collect(["sh"]) == before


# Refusals


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        pytest.param(["/nonexistent/program"], "does not exist", id="no-path"),
        pytest.param(
            ["no-such-program-anywhere"], "no program 'no-such-program-anywhere' in /usr/local", id="no-name"
        ),
        pytest.param(["bin/sh"], "absolute path", id="relative"),
        pytest.param([""], "a path or a name", id="empty"),
        pytest.param(["sh\0"], "a path or a name", id="nul"),
        pytest.param([7], "a path or a name", id="number"),
        pytest.param(["/"], "the whole host", id="root"),
        pytest.param(["/proc/self/exe", "/proc/self"], "file systems of their own", id="proc"),
        pytest.param(["/dev/null"], "neither a file nor a directory", id="device"),
    ],
)
def test_bad_commands_are_refused(commands: list[str], reason: str) -> None:
    """Each refusal names the option, the value, and what to do or what is wrong."""
    with pytest.raises(InvalidOption, match=reason) as caught:
        collect(commands)
    assert caught.value.option == "commands"


def test_a_single_string_is_refused() -> None:
    """A string in place of a list is a mistake, not a list of letters."""
    with pytest.raises(InvalidOption, match="give a list"):
        collect("sh")


def test_a_host_without_shell_is_unsupported(tmp_path: Path) -> None:
    """The default list needs at least a shell."""
    make_static(tmp_path / "bin/ls")
    with pytest.raises(UnsupportedHost, match="a shell"):
        collect(root=str(tmp_path))


def test_another_processor_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    """On other processors nothing is collected."""
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "n", "6.1", "v", "riscv64")))
    with pytest.raises(UnsupportedHost, match="riscv64"):
        collect(["sh"])


@needs_gcc
def test_a_missing_library_is_named(tmp_path: Path) -> None:
    """A program that could not start is refused with the name of the library."""
    make_library(tmp_path / GLIBC.lstrip("/"))
    library = make_library(tmp_path / "usr/lib/libgone.so.3")
    make_program(tmp_path / "bin/main", library)
    library.unlink()
    with pytest.raises(InvalidInputError, match=r"'/bin/main'.*'libgone\.so\.3'"):
        collect(["main"], root=str(tmp_path))


@needs_gcc
def test_a_missing_loader_is_named(tmp_path: Path) -> None:
    """A program whose loader is not installed is refused."""
    make_program(tmp_path / "bin/main")
    with pytest.raises(InvalidInputError, match=GLIBC):
        collect(["main"], root=str(tmp_path))


def test_a_foreign_program_is_refused(tmp_path: Path) -> None:
    """A program for the other architecture is refused."""
    program = make_static(tmp_path / "bin/main")
    content = bytearray(program.read_bytes())
    content[18:20] = (62 if MACHINE is Machine.AARCH64 else 183).to_bytes(2, "little")
    program.write_bytes(content)
    with pytest.raises(InvalidInputError, match="this host is"):
        collect(["main"], root=str(tmp_path))


def test_a_damaged_program_is_refused_by_name(tmp_path: Path) -> None:
    """Damage is reported with the path."""
    program = make_static(tmp_path / "bin/main")
    program.write_bytes(program.read_bytes()[:40])
    with pytest.raises(InvalidInputError, match="'/bin/main'"):
        collect(["main"], root=str(tmp_path))


# Small roots


def test_merged_directories_stay_links(tmp_path: Path) -> None:
    """Links of a merged /usr are in every image, with the directories they lead to."""
    make_static(tmp_path / "usr/bin/sh")
    for name in ("sbin", "lib", "lib64"):
        (tmp_path / "usr" / name).mkdir()
    for name in ("bin", "sbin", "lib", "lib64"):
        (tmp_path / name).symlink_to(f"usr/{name}")
    entries = added(["sh"], tmp_path)
    assert {path: entry.linkname for path, entry in entries.items() if entry.kind == "symlink"} == {
        "bin": "usr/bin",
        "sbin": "usr/sbin",
        "lib": "usr/lib",
        "lib64": "usr/lib64",
    }
    assert set(entries) >= {"usr/bin/sh", "usr/sbin", "usr/lib", "usr/lib64"}


def test_a_host_without_merged_directories(tmp_path: Path) -> None:
    """Names are found in /bin, too, and no link is invented."""
    make_static(tmp_path / "bin/sh")
    assert set(added(["sh"], tmp_path)) == {"bin", "bin/sh"}


def test_alternatives_are_kept_as_links(tmp_path: Path) -> None:
    """A chain of links is reproduced link by link."""
    make_static(tmp_path / "usr/bin/mawk")
    (tmp_path / "etc/alternatives").mkdir(parents=True)
    (tmp_path / "usr/bin/awk").symlink_to("/etc/alternatives/awk")
    (tmp_path / "etc/alternatives/awk").symlink_to("../../usr/bin/mawk")
    entries = added(["/usr/bin/awk"], tmp_path)
    assert entries["usr/bin/awk"].linkname == "/etc/alternatives/awk"
    assert entries["etc/alternatives/awk"].linkname == "../../usr/bin/mawk"
    assert entries["usr/bin/mawk"].kind == "file"


def test_set_id_bits_are_dropped(tmp_path: Path) -> None:
    """Modes are 0755 or 0644 and nothing else."""
    make_static(tmp_path / "bin/su").chmod(0o4711)
    (tmp_path / "bin/data").write_text("x")
    (tmp_path / "bin/data").chmod(0o600)
    entries = added(["su", "/bin/data"], tmp_path)
    assert (entries["bin/su"].mode, entries["bin/data"].mode) == (0o755, 0o644)


def test_files_are_named_not_read(tmp_path: Path) -> None:
    """An entry says where the content is, how long it is, and from when."""
    program = make_static(tmp_path / "bin/sh")
    os.utime(program, (1234567890.7, 1234567890.7))
    entry = added(["sh"], tmp_path)["bin/sh"]
    assert (entry.source, entry.size, entry.mtime) == (str(program), program.stat().st_size, 1234567890)


def test_second_names_become_hard_links(tmp_path: Path) -> None:
    """Two names of one file are one file in the image, whatever the order they were asked for."""
    make_static(tmp_path / "bin/gzip")
    os.link(tmp_path / "bin/gzip", tmp_path / "bin/zcat")
    entries = added(["zcat", "gzip"], tmp_path)
    assert entries["bin/gzip"].kind == "file"
    assert (entries["bin/zcat"].kind, entries["bin/zcat"].linkname) == ("hardlink", "bin/gzip")


@pytest.mark.parametrize(
    ("first_line", "needed"),
    [
        ("#!/bin/sh", {"bin/sh"}),
        ("#! /bin/sh -e", {"bin/sh"}),
        ("#!/usr/bin/env python3", {"usr/bin/env", "bin/python3"}),
        ("#!/usr/bin/env -S python3 -u", {"usr/bin/env", "bin/python3"}),
        ("#!/usr/bin/env -S A=1 -u B python3 -u", {"usr/bin/env", "bin/python3"}),
        ("#!/usr/bin/env", {"usr/bin/env"}),
        ("#!", set()),
        ("plain text", set()),
    ],
)
def test_scripts_bring_their_interpreter(tmp_path: Path, first_line: str, needed: set[str]) -> None:
    """A script comes with what the kernel and `env` would run for it."""
    for path in ("bin/sh", "bin/python3", "usr/bin/env"):
        make_static(tmp_path / path)
    make_script(tmp_path / "opt/script", first_line)
    found = {path for path, entry in added(["/opt/script"], tmp_path).items() if entry.kind == "file"}
    assert found == {"opt/script"} | needed


def test_interpreters_that_are_scripts(tmp_path: Path) -> None:
    """An interpreter may be a script, as deep as the kernel allows; a circle is refused."""
    make_static(tmp_path / "bin/sh")
    make_script(tmp_path / "bin/one", "#!/bin/sh")
    make_script(tmp_path / "bin/two", "#!/bin/one")
    assert {"bin/one", "bin/two", "bin/sh"} <= set(added(["two"], tmp_path))
    make_script(tmp_path / "bin/circle", "#!/bin/circle")
    with pytest.raises(InvalidOption, match="interpreters"):
        collect(["circle"], root=str(tmp_path))


def test_a_script_without_interpreter_is_refused(tmp_path: Path) -> None:
    """The missing interpreter is named."""
    make_script(tmp_path / "bin/tool", "#!/usr/bin/perl -w")
    with pytest.raises(InvalidOption, match=r"tool.*/usr/bin/perl"):
        collect(["tool"], root=str(tmp_path))


@needs_gcc
def test_program_brings_exactly_its_libraries(tmp_path: Path) -> None:
    """Loader and libraries come, with links and indirect needs; what lies beside them does not."""
    make_library(tmp_path / GLIBC.lstrip("/"))
    make_library(tmp_path / "usr/lib/libunused.so")
    second = make_library(tmp_path / "usr/lib/libb.so.1")
    first = make_library(tmp_path / "usr/lib/liba.so.1", second)
    first.rename(tmp_path / "usr/lib/liba.so.1.2.3")
    first.symlink_to("liba.so.1.2.3")
    make_program(tmp_path / "bin/main", first)
    found = {path for path, entry in added(["main"], tmp_path).items() if entry.kind != "directory"}
    libraries = {"usr/lib/liba.so.1", "usr/lib/liba.so.1.2.3", "usr/lib/libb.so.1"}
    assert found == {"bin/main", GLIBC.lstrip("/")} | libraries


@needs_gcc
def test_libraries_elsewhere_bring_a_cache_of_their_own(tmp_path: Path) -> None:
    """The image has a cache with just the libraries that its loader would not find without."""
    loader = make_library(tmp_path / GLIBC.lstrip("/"))
    with loader.open("ab") as stream:
        stream.write(b"\0/etc/ld.so.cache\0")
    special = make_library(tmp_path / "opt/x/libspecial.so")
    usual = make_library(tmp_path / "usr/lib/libusual.so")
    make_program(tmp_path / "bin/main", special, usual)
    paths = {
        "libspecial.so": "/opt/x/libspecial.so",
        "libusual.so": "/usr/lib/libusual.so",
        "libsecret.so": "/s",
    }
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ld.so.cache").write_bytes(build_cache(paths, MACHINE))
    entry = added(["main"], tmp_path)["etc/ld.so.cache"]
    assert isinstance(entry.source, bytes)
    assert entry.size == len(entry.source)
    assert parse_cache(entry.source, MACHINE) == {"libspecial.so": "/opt/x/libspecial.so"}


@needs_gcc
def test_old_c_library_brings_name_services(tmp_path: Path) -> None:
    """A C library without built-in name services comes with those it opens itself."""
    make_library(tmp_path / GLIBC.lstrip("/"))
    libc = make_library(tmp_path / "usr/lib/libc.so.6")
    make_library(tmp_path / "usr/lib/libnss_files.so.2", make_library(tmp_path / "usr/lib/libhelp.so"))
    make_library(tmp_path / "usr/lib/libnss_compat.so.2")
    make_program(tmp_path / "bin/main", libc)
    found = set(added(["main"], tmp_path))
    assert {"usr/lib/libnss_files.so.2", "usr/lib/libhelp.so"} <= found
    assert "usr/lib/libnss_compat.so.2" not in found


# Directories


@needs_gcc
def test_directory_comes_whole_with_outside_libraries(tmp_path: Path) -> None:
    """All files below are there, and the libraries of its extension modules from outside."""
    make_library(tmp_path / GLIBC.lstrip("/"))
    library = make_library(tmp_path / "usr/lib/libssl.so.3")
    make_library(tmp_path / "usr/lib/python3/ext/_ssl.so", library)
    (tmp_path / "usr/lib/python3/os.py").write_text("x")
    (tmp_path / "usr/lib/python3/empty").mkdir()
    (tmp_path / "usr/lib/other").mkdir()
    entries = added(["/usr/lib/python3"], tmp_path)
    inside = {"usr/lib/python3/os.py", "usr/lib/python3/empty", "usr/lib/python3/ext/_ssl.so"}
    assert set(entries) >= inside | {"usr/lib/libssl.so.3"}
    assert "usr/lib/other" not in entries


def test_links_in_a_directory_bring_what_they_lead_to(tmp_path: Path) -> None:
    """Targets outside come along; dangling links, and links into kernel file systems, stay as they are."""
    for directory in ("app", "etc/app", "share/data", "proc/self"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/app/main.conf").write_text("x")
    (tmp_path / "etc/app/private").write_text("x")
    (tmp_path / "share/data/one").write_text("x")
    (tmp_path / "proc/self/mounts").write_text("x")
    links = {
        "conf": "../etc/app/main.conf",
        "data": "/share/data",
        "up": "..",
        "self": ".",
        "gone": "nowhere",
    }
    links["mounts"] = "/proc/self/mounts"
    for name, target in links.items():
        (tmp_path / "app" / name).symlink_to(target)
    entries = added(["/app"], tmp_path)
    assert {path: entry.linkname for path, entry in entries.items() if entry.kind == "symlink"} == {
        f"app/{name}": target for name, target in links.items()
    }
    assert {path for path, entry in entries.items() if entry.kind == "file"} == {
        "etc/app/main.conf",
        "share/data/one",
    }


def test_odd_files_in_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sockets and pipes have no entry; damaged libraries and odd scripts are data."""
    app = tmp_path / "app"
    app.mkdir()
    os.mkfifo(app / "pipe")
    monkeypatch.chdir(app)  # addresses of sockets have to be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    damaged = make_static(app / "damaged.so")
    damaged.write_bytes(damaged.read_bytes()[:30])
    (app / "linker-script.so").write_text("INPUT(libx.so.1)")
    make_script(app / "tool", "#!/nonexistent")
    found = {path for path, entry in added(["/app"], tmp_path).items() if entry.kind != "directory"}
    assert found == {"app/damaged.so", "app/linker-script.so", "app/tool"}


def test_what_the_caller_names_replaces_generated_files(tmp_path: Path) -> None:
    """A base file that was asked for is the host's own; base directories keep their modes."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text("10.0.0.1 gateway\n")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp/data").write_text("x")
    entries = by_path(collect(["/etc/hosts", "/tmp/data"], root=str(tmp_path)))
    assert entries["etc/hosts"].source == str(tmp_path / "etc/hosts")
    assert isinstance(entries["etc/passwd"].source, bytes)
    assert entries["tmp"].mode == 0o1777


def test_base_directories_that_are_links(tmp_path: Path) -> None:
    """Where a host has a link that the image needs, the base directory is made where it leads."""
    (tmp_path / "var/scratch").mkdir(parents=True)
    (tmp_path / "var/scratch/data").write_text("x")
    (tmp_path / "tmp").symlink_to("var/scratch")
    entries = by_path(collect(["/tmp/data"], root=str(tmp_path)))
    assert (entries["tmp"].kind, entries["tmp"].linkname) == ("symlink", "var/scratch")
    assert entries["var/scratch"].mode == 0o1777
