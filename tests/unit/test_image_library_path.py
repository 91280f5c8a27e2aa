"""The loader's search rules, compared with what the real loader says."""

from __future__ import annotations

import functools
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containerlib.image import elf, library_path
from containerlib.image.elf import Machine
from containerlib.image.host_files import HostFile, HostFiles
from containerlib.image.library_cache import build_cache, parse_cache
from containerlib.image.library_path import LibrarySearch, search_for

MACHINE = Machine(os.uname().machine)
GLIBC = {Machine.X86_64: "/lib64/ld-linux-x86-64.so.2", Machine.AARCH64: "/lib/ld-linux-aarch64.so.1"}[
    MACHINE
]
MUSL = f"/lib/ld-musl-{MACHINE.value}.so.1"

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
needs_glibc = pytest.mark.skipif(not os.path.exists(GLIBC), reason="this host has no glibc loader to ask")


@functools.cache
def empty_source(directory: Path) -> Path:
    """Make a source file that links alone."""
    source = directory / "empty.c"
    source.write_text("void _start(void) { for (;;) ; }\n")
    return source


def make_library(path: Path, *flags: str | Path, soname: str | None = None) -> Path:
    """Link an empty library, with a name of its own unless told otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own_name = [f"-Wl,-soname,{soname or path.name}"]
    link: list[str | Path] = ["gcc", "-shared", "-nostdlib", "-Wl,--no-as-needed", *own_name, "-o", path]
    subprocess.run([*link, empty_source(path.parent), *flags], check=True)
    return path


def make_program(path: Path, *flags: str | Path, loader: str = GLIBC) -> Path:
    """Link an empty program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    link: list[str | Path] = ["gcc", "-nostdlib", "-pie", "-Wl,--no-as-needed", "-o", path]
    flags = (
        f"-Wl,--dynamic-linker={loader}",
        "-Wl,--allow-shlib-undefined",
        "-Wl,--unresolved-symbols=ignore-all",
        *flags,
    )
    subprocess.run([*link, empty_source(path.parent), *flags], check=True)
    return path


def located(files: HostFiles, path: str | Path) -> HostFile:
    """Resolve a path that must exist."""
    file = files.resolve(str(path))
    assert file is not None
    return file


def closure_of(program: str | Path, root: str | Path = "") -> tuple[set[str], set[str]]:
    """Give real paths of the libraries of a program, and the names that are missing."""
    files = HostFiles(str(root))
    file = located(files, program)
    interpreter = files.elf(file).interpreter
    assert interpreter is not None
    closure = search_for(files, interpreter, MACHINE).closure(file)
    return {library.file.path for library in closure.libraries}, {name for _, name in closure.missing}


def loader_says(program: str | Path) -> tuple[set[str], set[str]]:
    """Ask the real loader the same; it lists the libraries and does not start the program."""
    # The loader is not run by name here: it would not know where the program really lies.
    assert not os.stat(program).st_mode & 0o6000, "with a set-id bit the loader would start the program"
    answer = subprocess.run(
        [program], env={"LD_TRACE_LOADED_OBJECTS": "1"}, capture_output=True, text=True, check=False
    ).stdout
    loader = os.path.realpath(GLIBC)
    paths = {os.path.realpath(path) for path in re.findall(r"(/\S+) \(0x", answer)}
    return paths - {loader}, set(re.findall(r"(\S+) => not found", answer))


def dynamic_programs() -> list[str]:
    """Choose programs of this host to compare: well-known ones, and a sample of all."""
    known = [
        "/bin/ls",
        "/bin/sh",
        "/usr/bin/git",
        "/usr/bin/python3",
        "/usr/bin/curl",
        "/usr/bin/ssh",
        "/usr/bin/tar",
    ]
    everything = sorted(entry.path for entry in os.scandir("/usr/bin") if entry.is_file())
    files, chosen = HostFiles(), []
    for path in [*known, *everything[::25]]:
        file = files.resolve(path)
        if file is None or elf.identify(files.head(file)) is not MACHINE:
            continue
        if files.elf(file).interpreter == GLIBC and not file.status.st_mode & 0o6000:
            chosen.append(path)
    return chosen


# HostFiles


def test_resolve_keeps_the_trail(tmp_path: Path) -> None:
    """Links are followed inside the root, and everything passed on the way is listed."""
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "usr/bin/awk").symlink_to("/etc/awk")
    (tmp_path / "etc/awk").symlink_to("../usr/bin/mawk")
    (tmp_path / "usr/bin/mawk").write_text("x")
    file = HostFiles(str(tmp_path)).resolve("/bin/./awk")
    assert file is not None
    assert file.path == "/usr/bin/mawk"
    assert file.is_regular
    expected = [
        "/bin",
        "/usr",
        "/usr/bin",
        "/usr/bin/awk",
        "/etc",
        "/etc/awk",
        "/usr",
        "/usr/bin",
        "/usr/bin/mawk",
    ]
    assert list(file.trail) == expected


def test_resolve_gives_up_on_circles_and_gaps(tmp_path: Path) -> None:
    """A circle of links, a missing part, a file used as a directory, and impossible names lead nowhere."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "file").write_text("x")
    files = HostFiles(str(tmp_path))
    paths = ("/a", "/none/x", "/file/x", "/file/", "/file\0", "/" + "x" * 300, "/x" * 3000)
    assert [files.resolve(path) for path in paths] == [None] * len(paths)


def test_resolve_cannot_leave_the_root(tmp_path: Path) -> None:
    """`..` at the top stays at the top."""
    (tmp_path / "inside").write_text("x")
    (tmp_path / "link").symlink_to("../../../../inside")
    file = HostFiles(str(tmp_path)).resolve("/link")
    assert file is not None
    assert file.path == "/inside"


# glibc, against the real loader


@needs_glibc
@pytest.mark.parametrize("program", dynamic_programs() if os.path.exists(GLIBC) else [])
def test_closure_is_what_the_loader_maps(program: str) -> None:
    """For programs of this host the closure is exactly the loader's."""
    assert closure_of(program) == loader_says(program)


@needs_glibc
def test_default_directories_are_the_loaders() -> None:
    """The default directories read out of the loader are those it prints."""
    answer = subprocess.run([GLIBC, "--help"], capture_output=True, text=True, check=False).stdout
    printed = re.findall(r"^  (/\S+) \(system search path\)", answer, re.MULTILINE)
    if not printed:
        pytest.skip("this loader does not print its directories")
    search = search_for(HostFiles(), GLIBC, MACHINE)
    assert isinstance(search, library_path._GlibcSearch)
    assert list(search.defaults) == printed


@needs_gcc
@needs_glibc
@pytest.mark.parametrize("origin", ["$ORIGIN", "${ORIGIN}"])
@pytest.mark.parametrize("tags", ["--enable-new-dtags", "--disable-new-dtags"])
def test_origin_is_the_programs_directory(tmp_path: Path, origin: str, tags: str) -> None:
    """Both spellings of `$ORIGIN`, in both kinds of search path, start where the program really lies."""
    library = make_library(tmp_path / "app/lib/liba.so")
    program = make_program(tmp_path / "app/bin/main", library, f"-Wl,{tags}", f"-Wl,-rpath,{origin}/../lib")
    (tmp_path / "main").symlink_to(program)
    assert closure_of(tmp_path / "main") == loader_says(tmp_path / "main") == ({str(library)}, set())


@needs_gcc
@needs_glibc
@pytest.mark.parametrize(
    ("tags", "is_found"),
    [("--disable-new-dtags", True), ("--enable-new-dtags", False)],
    ids=["rpath", "runpath"],
)
def test_only_rpath_is_inherited(tmp_path: Path, tags: str, is_found: bool) -> None:  # noqa: FBT001
    """A library's libraries are found by the program's DT_RPATH, but not by its DT_RUNPATH."""
    second = make_library(tmp_path / "lib/libsecond.so")
    first = make_library(tmp_path / "lib/libfirst.so", second)
    program = make_program(tmp_path / "main", first, f"-Wl,{tags}", "-Wl,-rpath,$ORIGIN/lib")
    expected = ({str(first), str(second)}, set()) if is_found else ({str(first)}, {"libsecond.so"})
    assert closure_of(program) == loader_says(program) == expected


@needs_gcc
@needs_glibc
def test_runpath_of_a_library_hides_inherited_rpath(tmp_path: Path) -> None:
    """A library with a DT_RUNPATH of its own does not use its ancestors' DT_RPATH."""
    second = make_library(tmp_path / "lib/libsecond.so")
    first = make_library(
        tmp_path / "lib/libfirst.so", second, "-Wl,--enable-new-dtags", "-Wl,-rpath,/nonexistent"
    )
    program = make_program(tmp_path / "main", first, "-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/lib")
    assert closure_of(program) == loader_says(program) == ({str(first)}, {"libsecond.so"})


@needs_gcc
@needs_glibc
def test_origin_of_a_library_is_where_it_was_found(tmp_path: Path) -> None:
    """`$ORIGIN` of a library reached by a link is the directory of the link."""
    make_library(tmp_path / "real/libsecond.so")
    beside = make_library(tmp_path / "links/libsecond.so")
    first = make_library(tmp_path / "real/libfirst.so", beside, "-Wl,-rpath,$ORIGIN")
    (tmp_path / "links/libfirst.so").symlink_to(first)
    program = make_program(tmp_path / "main", first, "-Wl,-rpath,$ORIGIN/links")
    assert closure_of(program) == loader_says(program) == ({str(first), str(beside)}, set())


@needs_gcc
@needs_glibc
def test_a_loaded_name_is_not_searched_again(tmp_path: Path) -> None:
    """A library that is already mapped under its own name serves everyone who needs that name."""
    chosen = make_library(tmp_path / "one/libx.so.1")
    other = make_library(tmp_path / "two/libx.so.1")
    user = make_library(tmp_path / "two/libuser.so", other, "-Wl,-rpath,$ORIGIN")
    program = make_program(tmp_path / "main", chosen, user, "-Wl,-rpath,$ORIGIN/one:$ORIGIN/two")
    assert closure_of(program) == loader_says(program) == ({str(chosen), str(user)}, set())


@needs_gcc
@needs_glibc
def test_names_with_a_slash_are_paths(tmp_path: Path) -> None:
    """A needed name with a slash is opened as it is."""
    library = make_library(tmp_path / "odd/libslash.so", soname=str(tmp_path / "odd/libslash.so"))
    program = make_program(tmp_path / "main", library)
    assert closure_of(program) == loader_says(program) == ({str(library)}, set())


@needs_gcc
@needs_glibc
def test_lib_and_platform_are_expanded(tmp_path: Path) -> None:
    """`$LIB` and `$PLATFORM` become what the loader of this host makes of them."""
    search = search_for(HostFiles(), GLIBC, MACHINE)
    assert isinstance(search, library_path._GlibcSearch)
    directory = search.defaults[0].removeprefix("/usr").removeprefix("/")
    library = make_library(tmp_path / directory / MACHINE.value / "liba.so")
    program = make_program(tmp_path / "main", library, "-Wl,-rpath,$ORIGIN/$LIB/${PLATFORM}")
    assert closure_of(program) == loader_says(program) == ({str(library)}, set())


@needs_gcc
@needs_glibc
def test_another_machines_library_is_passed_over(tmp_path: Path) -> None:
    """A library of the right name for the wrong machine does not end the search."""
    foreign = make_library(tmp_path / "first/liba.so")
    content = bytearray(foreign.read_bytes())
    struct.pack_into("<H", content, 18, 62 if MACHINE is Machine.AARCH64 else 183)
    foreign.write_bytes(content)
    library = make_library(tmp_path / "second/liba.so")
    program = make_program(tmp_path / "main", library, "-Wl,-rpath,$ORIGIN/first:$ORIGIN/second")
    assert closure_of(program) == loader_says(program) == ({str(library)}, set())


# A root of its own


def add_loader(root: Path, path: str = GLIBC) -> None:
    """Put something that is a loader by its place and form."""
    make_library(root / path.lstrip("/"))


def glibc_root(tmp_path: Path) -> Path:
    """Make a root with a loader and nothing else."""
    root = tmp_path / "root"
    add_loader(root)
    return root


@needs_gcc
def test_cache_wins_over_default_directories(tmp_path: Path) -> None:
    """A name in the cache is taken from there; a stale entry is not."""
    root = glibc_root(tmp_path)
    make_library(root / "opt/x/libcached.so")
    default = make_library(root / "usr/lib/libcached.so")
    make_library(root / "usr/lib/libstale.so")
    paths = {"libcached.so": "/opt/x/libcached.so", "libstale.so": "/opt/x/libstale.so"}
    (root / "etc").mkdir()
    (root / "etc/ld.so.cache").write_bytes(build_cache(paths, MACHINE))
    # This stand-in for a loader does not name the cache, as a loader that reads it does.
    with (root / GLIBC.lstrip("/")).open("ab") as loader:
        loader.write(b"\0/etc/ld.so.cache\0")
    make_program(root / "bin/main", default, root / "usr/lib/libstale.so")
    assert closure_of("/bin/main", root) == ({"/opt/x/libcached.so", "/usr/lib/libstale.so"}, set())


@needs_gcc
def test_configured_directories_stand_in_for_a_missing_cache(tmp_path: Path) -> None:
    """Without a cache the directories of `ld.so.conf` and what it includes are searched."""
    root = glibc_root(tmp_path)
    with (root / GLIBC.lstrip("/")).open("ab") as loader:
        loader.write(b"\0/etc/ld.so.cache\0")
    one, two = make_library(root / "opt/one/libone.so"), make_library(root / "opt/two/libtwo.so")
    (root / "etc/ld.so.conf.d").mkdir(parents=True)
    (root / "etc/ld.so.conf").write_text("# ours\ninclude ld.so.conf.d/*.conf\n/opt/two # second\n")
    (root / "etc/ld.so.conf.d/one.conf").write_text("/opt/one/\ninclude /etc/ld.so.conf\n")
    program = make_program(root / "bin/main", one, two)
    files = HostFiles(str(root))
    search = search_for(files, GLIBC, MACHINE)
    closure = search.closure(located(files, "/bin/main"))
    assert {library.path for library in closure.libraries} == {"/opt/one/libone.so", "/opt/two/libtwo.so"}
    assert program.exists()
    configuration = search.configuration()
    assert configuration is not None
    path, content = configuration
    assert path == "/etc/ld.so.cache"
    assert parse_cache(content, MACHINE) == {
        "libone.so": "/opt/one/libone.so",
        "libtwo.so": "/opt/two/libtwo.so",
    }


@needs_gcc
def test_baseline_variant_is_chosen(tmp_path: Path) -> None:
    """Variants for newer processors are passed over."""
    root = glibc_root(tmp_path)
    library = make_library(root / "usr/lib/liba.so")
    make_library(root / "usr/lib/glibc-hwcaps/x86-64-v3/liba.so")
    make_program(root / "bin/main", library)
    assert closure_of("/bin/main", root) == ({"/usr/lib/liba.so"}, set())


@needs_gcc
def test_default_directories_need_no_configuration(tmp_path: Path) -> None:
    """When the loader finds all by itself, it needs no file to tell it."""
    root = glibc_root(tmp_path)
    make_program(root / "bin/main", make_library(root / "usr/lib/liba.so"))
    files = HostFiles(str(root))
    search = search_for(files, GLIBC, MACHINE)
    assert not search.closure(located(files, "/bin/main")).missing
    assert search.configuration() is None


@needs_gcc
def test_nodeflib_skips_default_directories(tmp_path: Path) -> None:
    """A program linked with `-z nodefaultlib` does not find what is only in a default directory."""
    root = glibc_root(tmp_path)
    make_program(root / "bin/main", make_library(root / "usr/lib/liba.so"), "-Wl,-z,nodefaultlib")
    assert closure_of("/bin/main", root) == (set(), {"liba.so"})


def musl_search(root: Path) -> tuple[HostFiles, LibrarySearch]:
    """Give the search rules of a musl root."""
    files = HostFiles(str(root))
    return files, search_for(files, MUSL, MACHINE)


@needs_gcc
def test_musl_searches_its_list(tmp_path: Path) -> None:
    """The loader of musl takes the directories of its list, inherits DT_RUNPATH, and is its own C library."""
    root = tmp_path / "root"
    add_loader(root, MUSL)
    libc = make_library(tmp_path / "libc.so")
    third = make_library(root / "srv/libthird.so")
    second = make_library(root / "opt/lib/libsecond.so", third)
    first = make_library(root / "usr/local/lib/libfirst.so", second, libc)
    make_program(root / "bin/main", first, "-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN/../srv", loader=MUSL)
    (root / "etc").mkdir()
    (root / f"etc/ld-musl-{MACHINE.value}.path").write_text("/lib:/opt/lib\n/usr/local/lib\n")
    files, search = musl_search(root)
    closure = search.closure(located(files, "/bin/main"))
    assert [library.path for library in closure.libraries] == [
        "/usr/local/lib/libfirst.so",
        "/opt/lib/libsecond.so",
        MUSL,
        "/bin/../srv/libthird.so",
    ]
    assert closure.missing == ()
    list_path = f"/etc/ld-musl-{MACHINE.value}.path"
    assert search.configuration() == (list_path, b"/lib\n/opt/lib\n/usr/local/lib\n")


@needs_gcc
def test_musl_drops_paths_it_cannot_expand(tmp_path: Path) -> None:
    """The loader of musl ignores a search path with any other `$` in it."""
    root = tmp_path / "root"
    add_loader(root, MUSL)
    library = make_library(root / "opt/liba.so")
    make_program(root / "bin/main", library, "-Wl,-rpath,/opt:$ORIGIN/$LIB", loader=MUSL)
    assert closure_of("/bin/main", root) == (set(), {"liba.so"})
    assert musl_search(root)[1].configuration() is None


# The cache


@needs_glibc
def test_cache_agrees_with_ldconfig() -> None:
    """The cache of this host reads as ldconfig prints it."""
    ldconfig = shutil.which("ldconfig", path="/sbin:/usr/sbin")
    if ldconfig is None or not os.path.exists("/etc/ld.so.cache"):
        pytest.skip("this host has no cache, or no ldconfig to print it")
    answer = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    kind = "x86-64" if MACHINE is Machine.X86_64 else "AArch64"
    printed: dict[str, str] = {}
    for name, flags, path in re.findall(r"^\t(\S+) \((.*)\) => (\S+)$", answer, re.MULTILINE):
        if kind in flags and "hwcap" not in flags:
            printed.setdefault(name, path)
    assert parse_cache(Path("/etc/ld.so.cache").read_bytes(), MACHINE) == printed


@needs_glibc
def test_built_cache_is_in_the_loaders_order() -> None:
    """A cache built from this host's libraries has them in the order that ldconfig wrote."""
    if not os.path.exists("/etc/ld.so.cache"):
        pytest.skip("this host has no cache")
    original = parse_cache(Path("/etc/ld.so.cache").read_bytes(), MACHINE)
    assert original is not None
    rebuilt = parse_cache(build_cache(original, MACHINE), MACHINE)
    assert rebuilt is not None
    assert list(rebuilt.items()) == list(original.items())


def test_cache_behind_the_old_format_is_read() -> None:
    """Caches that begin with a table for libc5-time loaders have the usable one behind it, aligned."""
    new = build_cache({"liba.so.1": "/opt/liba.so.1"}, Machine.X86_64)
    for count in (0, 1, 2):
        old = struct.pack("<11sxI", b"ld.so-1.7.0", count) + bytes(12 * count)
        content = old + bytes(-len(old) % 8) + new
        assert parse_cache(content, Machine.X86_64) == {"liba.so.1": "/opt/liba.so.1"}


def test_cache_entries_for_others_are_left_out() -> None:
    """Entries for another machine or for a processor with more capabilities do not count."""
    content = bytearray(build_cache({"liba.so": "/a", "libb.so": "/b"}, Machine.X86_64))
    assert parse_cache(bytes(content), Machine.AARCH64) == {}
    struct.pack_into("<Q", content, 48 + 16, 1 << 62)
    assert parse_cache(bytes(content), Machine.X86_64) == {"liba.so": "/a"}


@settings(max_examples=300, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    length=st.integers(0, 200),
)
def test_damaged_caches_do_no_harm(flips: list[tuple[int, int]], length: int) -> None:
    """A damaged cache is no cache, or has fewer libraries, but never an error."""
    content = bytearray(build_cache({"liba.so.1": "/opt/liba.so.1", "libb.so": "/b"}, Machine.X86_64))
    for position, value in flips:
        content[position % len(content)] = value
    for candidate in (bytes(content), bytes(content[:length])):
        assert isinstance(parse_cache(candidate, Machine.X86_64), dict | None)
