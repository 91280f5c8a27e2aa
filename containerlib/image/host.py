"""Images made of programs of this host: which files a program needs, and nothing that it does not.

Takes names of programs and directories, gives the `LayerEntry` list of a layer: the programs, their loaders,
libraries and script interpreters, each symbolic link on the way to them, and a few generated files such as
`/etc/passwd`. Nothing is executed and no file is copied here: entries name the host file that the archive
writer will read. Knows nothing about the store, about manifests, or about containers.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final

import attrs

from containerlib.errors import InvalidInputError, InvalidOption, UnsupportedHost
from containerlib.image import elf
from containerlib.image.elf import Machine
from containerlib.image.host_files import HostFile, HostFiles
from containerlib.image.library_path import LibrarySearch, search_for
from containerlib.layer.archive import LayerEntry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["DEFAULT_COMMANDS", "collect"]

DEFAULT_COMMANDS: Final[tuple[str, ...]] = (
    *("sh", "bash", "env"),
    *("cat", "ls", "cp", "mv", "rm", "mkdir", "rmdir", "ln", "chmod", "chown", "touch", "mktemp"),
    *("head", "tail", "wc", "sort", "uniq", "cut", "tr", "tee", "od", "seq", "yes", "echo", "printf"),
    *("true", "false", "test", "[", "expr", "sleep", "timeout", "date"),
    *("id", "whoami", "uname", "hostname", "nproc", "ps"),
    *("pwd", "readlink", "realpath", "basename", "dirname", "stat", "dd", "df", "du", "sync"),
    *("base64", "sha256sum", "md5sum"),
    *("grep", "sed", "awk", "mawk", "find", "xargs", "tar", "gzip"),
)
_SHELLS: Final = ("sh", "bash")

# Fixed, so that the same call gives the same image whoever makes it.
_SEARCH_PATH: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

# Hosts with a merged /usr have links here, and programs name each other through them ("#!/bin/sh").
_MERGED_DIRECTORIES: Final = ("/bin", "/sbin", "/lib", "/lib64")

# A container has its own file systems here, which would hide whatever an image has.
_VIRTUAL_DIRECTORIES: Final = frozenset({"/proc", "/sys", "/dev"})

_BASE_DIRECTORIES: Final = {
    "/dev": 0o755,
    "/etc": 0o755,
    "/proc": 0o755,
    "/root": 0o700,
    "/run": 0o755,
    "/sys": 0o755,
    "/tmp": 0o1777,  # noqa: S108
    "/var": 0o755,
    "/var/tmp": 0o1777,  # noqa: S108
}
_BASE_FILES: Final = {
    "/etc/passwd": (
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "/etc/group": b"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "/etc/hosts": b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "/etc/nsswitch.conf": b"passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
}

# Which loader maps a library that names none, because a program with its own loader opens it.
_USUAL_LOADERS: Final = {
    Machine.X86_64: ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"),
    Machine.AARCH64: ("/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-aarch64.so.1"),
}

# Before 2.34, glibc opened these by name whenever a program looked up a user or a host.
_NAME_SERVICE_LIBRARIES: Final = ("libnss_files.so.2", "libnss_dns.so.2")
_NAME_SERVICE_BUILT_IN: Final = b"\0GLIBC_2.34\0"

_MAX_SCRIPT_DEPTH: Final = 5  # the kernel's own limit, exec_binprm() in fs/exec.c
_MAX_ENTRIES: Final = 1_000_000
_MAX_LINKS: Final = 40


def collect(commands: Sequence[str] | None = None, *, root: str = "") -> list[LayerEntry]:
    """List the files of an image that can run `commands`.

    A program comes with its loader and the libraries its loader maps, a script with its interpreter (and with
    the program that `env` is told to run). A directory comes whole, with the libraries that its programs and
    `*.so` files need from outside; what it lacks on the host it lacks in the image. Every symbolic link on
    the way to a file is kept, and so is what it leads to. Libraries that a program opens by name while it
    runs are not seen; name their directory, or the libraries themselves.

    Everything belongs to root. Modes become 0755 or 0644 by the executable bit: set-id bits, capabilities and
    other attributes of the host are not taken over. Files keep their modification time, because compiled
    Python files are tied to it; directories and links have none, because they change with things that are not
    in the image.

    Args:
        commands: Absolute paths of programs, files or directories, or names of programs that are looked up in
            the usual directories (never in `$PATH`). `None` for `DEFAULT_COMMANDS`, as far as they exist.
        root: Directory that is taken for the host's `/`, such as an unpacked distribution.

    Returns:
        Entries sorted by path, each directory before its contents and each hard link after its target. The
        same host files give the same list.

    Raises:
        InvalidOption: A command does not exist, is of an unsupported kind, or needs what does not exist.
        InvalidInputError: A program or library is damaged or for another machine.
        UnsupportedHost: The processor is neither x86-64 nor arm64, or there is no shell for the default list.
        OSError: A file or directory cannot be read.

    Cost: a few system calls for each file and none that depends on the size of programs; about 15 ms for the
    default list when the kernel has the files cached.
    """
    collection = _Collection(HostFiles(root), _host_machine())
    if isinstance(commands, str | bytes):
        raise InvalidOption("commands", commands, "give a list of commands, not a single string")
    if commands is None:
        collection.add_defaults()
    else:
        for command in commands:
            collection.add_command(command)
    return collection.finish()


def _host_machine() -> Machine:
    name = os.uname().machine
    try:
        return Machine(name)
    except ValueError:
        raise UnsupportedHost(
            "an image of host programs", needed="an x86-64 or arm64 processor", found=name
        ) from None


class _Collection:
    """The entries of one image, by absolute path, while they are gathered."""

    def __init__(self, files: HostFiles, machine: Machine) -> None:
        self._files = files
        self._machine = machine
        self._entries: dict[str, LayerEntry] = {}
        self._loaders: dict[object, LibrarySearch] = {}
        self._c_libraries: set[tuple[int, int]] = set()
        self._copied: set[str] = set()

    # What the caller asks for

    def add_defaults(self) -> None:
        found = {name: self._look_up(name) for name in DEFAULT_COMMANDS}
        if not any(found[shell] for shell in _SHELLS):
            raise UnsupportedHost(
                "an image of host programs",
                needed=f"a shell ({' or '.join(_SHELLS)}) in {':'.join(_SEARCH_PATH)}",
                found="none",
            )
        for name, file in found.items():
            if file is not None:
                self._add_program(file, name)

    def add_command(self, command: object) -> None:
        if not isinstance(command, str) or not command or "\0" in command:
            raise InvalidOption("commands", command, "a command is a path or a name")
        if "/" in command and not command.startswith("/"):
            raise InvalidOption("commands", command, "give an absolute path, or a name without '/'")
        file = self._look_up(command)
        if file is None:
            raise InvalidOption("commands", command, f"{_absence(command)}; install it, or leave it out")
        if file.path == "/":
            raise InvalidOption(
                "commands", command, "the whole host is no image; name the directories you need"
            )
        if file.is_directory:
            self._keep(file)
            self._copy_directory(file.path)
        elif file.is_regular:
            self._add_program(file, command)
        else:
            raise InvalidOption("commands", command, "it is neither a file nor a directory")

    def _look_up(self, command: str) -> HostFile | None:
        """Find what a command names: anything for a path, only an executable file for a name."""
        if command.startswith("/"):
            return self._files.resolve(command)
        for directory in _SEARCH_PATH:
            file = self._files.resolve(f"{directory}/{command}")
            if file is not None and file.is_regular and file.status.st_mode & 0o111:
                return file
        return None

    # Programs, scripts and libraries

    def _add_program(self, file: HostFile, command: str, depth: int = 0) -> None:
        """Add a file with everything that the kernel and the loader need to execute it."""
        self._keep(file)
        head = self._files.head(file)
        if head.startswith(elf.MAGIC):
            self._add_elf(file)
        elif head.startswith(b"#!"):
            if depth >= _MAX_SCRIPT_DEPTH:
                raise InvalidOption(
                    "commands", command, f"more than {_MAX_SCRIPT_DEPTH} interpreters run each other"
                )
            for needed in _script_programs(head):
                program = self._look_up(needed)
                if program is None or not program.is_regular:
                    reason = f"it is a script for {needed!r}, but {_absence(needed)}; install that"
                    raise InvalidOption("commands", command, reason)
                self._add_program(program, command, depth + 1)

    def _add_elf(self, file: HostFile) -> None:
        program = self._files.elf(file)
        if program.machine is not self._machine:
            raise InvalidInputError(
                f"{file.path!r} is for {program.machine.value}, but this host is {self._machine.value}"
            )
        if program.interpreter is not None:
            loader = self._files.resolve(program.interpreter)
            if loader is None:
                raise InvalidInputError(f"{file.path!r}: its loader {program.interpreter!r} does not exist")
            self._keep(loader)
        missing = self._add_libraries(file)
        if missing:
            requester, name = missing[0]
            raise InvalidInputError(
                f"{file.path!r}: its loader would not find {name!r}, which {requester!r} needs; install it"
            )

    def _add_part(self, file: HostFile) -> None:
        """Add what a file of a copied directory needs, if it is a program or library that could be loaded.

        Whatever is missing or damaged there is so on the host, too: data of tests, plugins for programs that
        are not installed, libraries that only the program which opens them can find.
        """
        name = os.path.basename(file.path)
        if not (file.status.st_mode & 0o111 or name.endswith(".so") or ".so." in name):
            return
        if elf.identify(self._files.head(file)) is not self._machine:
            return
        with contextlib.suppress(InvalidInputError):
            interpreter = self._files.elf(file).interpreter
            loader = self._files.resolve(interpreter) if interpreter else None
            if loader is not None:
                self._keep(loader)
            self._add_libraries(file)

    def _add_libraries(self, file: HostFile) -> tuple[tuple[str, str], ...]:
        """Add the libraries of a program or library and say which are missing."""
        program = self._files.elf(file)
        if not program.needed:
            return ()
        search = self._search_for(program)
        closure = search.closure(file)
        for library in closure.libraries:
            self._keep(library.file)
            if library.elf.soname == "libc.so.6":
                self._add_name_services(library.file, search)
        return closure.missing

    def _search_for(self, program: elf.Elf) -> LibrarySearch:
        interpreter = program.interpreter
        if interpreter is None:
            glibc, musl = _USUAL_LOADERS[self._machine]
            needs_musl = any(name == "libc.so" or name.startswith("libc.musl-") for name in program.needed)
            interpreter = musl if needs_musl else glibc
        loader = self._files.resolve(interpreter)
        key: object = interpreter if loader is None else loader.identity
        if key not in self._loaders:
            self._loaders[key] = search_for(self._files, interpreter, self._machine)
        return self._loaders[key]

    def _add_name_services(self, libc: HostFile, search: LibrarySearch) -> None:
        if libc.identity in self._c_libraries:
            return
        self._c_libraries.add(libc.identity)
        with self._files.open(libc) as fd:
            strings = elf.dynamic_strings(fd, libc.path, self._files.elf(libc))
        if _NAME_SERVICE_BUILT_IN in strings:
            return
        for name in _NAME_SERVICE_LIBRARIES:
            library = search.find(name, libc)
            if library is not None:
                self._keep(library.file)
                self._add_libraries(library.file)

    # Directories

    def _copy_directory(self, path: str) -> None:
        """Add everything below a directory, and what links in it lead to."""
        pending = [path]
        while pending:
            directory = pending.pop()
            if directory in self._copied or directory in _VIRTUAL_DIRECTORIES:
                continue
            self._copied.add(directory)
            for name in sorted(os.listdir(self._files.host_path(directory))):
                pending.extend(self._copy_child(f"{directory}/{name}"))
            if len(self._entries) > _MAX_ENTRIES:
                raise InvalidOption(
                    "commands", path, f"an image of more than {_MAX_ENTRIES} files; name less"
                )

    def _copy_child(self, path: str) -> Iterator[str]:
        """Add one member of a copied directory; give directories to be copied as well."""
        status = self._files.status(path)
        if status is None:
            return
        self._record(path)
        file = self._files.resolve(path)
        # Links that lead nowhere, or into file systems that are the container's own, stay as they are.
        if file is None or not _VIRTUAL_DIRECTORIES.isdisjoint(file.trail):
            return
        self._keep(file)
        if file.is_regular:
            self._add_part(file)
        elif file.is_directory and (file.path == path or not _is_below(path, file.path)):
            # A link to a directory above itself adds nothing but that directory.
            yield file.path

    # Entries

    def _keep(self, file: HostFile) -> None:
        """Record a file and everything on the way to it."""
        if not _VIRTUAL_DIRECTORIES.isdisjoint(file.trail):
            reason = "containers have file systems of their own in /proc, /sys and /dev; put it elsewhere"
            raise InvalidOption("commands", file.path, reason)
        for path in file.trail:
            self._record(path)

    def _record(self, path: str) -> None:
        """Make the entry for a path of the host; sockets, pipes and devices have none."""
        if path in self._entries:
            return
        status = self._files.status(path)
        if status is None:
            return
        if stat.S_ISDIR(status.st_mode):
            self._entries[path] = _directory(path, 0o755)
        elif stat.S_ISLNK(status.st_mode):
            self._entries[path] = LayerEntry(
                path=path, kind="symlink", mode=0o777, linkname=self._files.target(path)
            )
        elif stat.S_ISREG(status.st_mode):
            self._entries[path] = LayerEntry(
                path=path,
                kind="file",
                mode=0o755 if status.st_mode & 0o111 else 0o644,
                source=self._files.host_path(path),
                size=status.st_size,
                mtime=max(0, int(status.st_mtime)),
            )

    def finish(self) -> list[LayerEntry]:
        """Add what every image has, and put all in order."""
        for path in _MERGED_DIRECTORIES:
            status, file = self._files.status(path), self._files.resolve(path)
            if status is not None and stat.S_ISLNK(status.st_mode) and file is not None and file.is_directory:
                self._keep(file)
        for path, mode in _BASE_DIRECTORIES.items():
            self._generate_directory(path, mode)
        for path, content in _BASE_FILES.items():
            self._generate_file(path, content)
        for search in self._loaders.values():
            configuration = search.configuration()
            if configuration is not None:
                self._generate_file(*configuration)
        return self._linked(sorted(self._entries))

    def _generate_directory(self, path: str, mode: int) -> None:
        path = self._landing(path)
        if path not in self._entries or self._entries[path].kind == "directory":
            self._entries[path] = _directory(path, mode)

    def _generate_file(self, path: str, content: bytes) -> None:
        """Add a file unless the caller asked for the host's own."""
        directory = os.path.dirname(path)
        if self._landing(directory) not in self._entries:
            self._generate_directory(directory, 0o755)
        path = f"{self._landing(directory)}/{os.path.basename(path)}"
        if path not in self._entries:
            self._entries[path] = LayerEntry(
                path=path, kind="file", mode=0o644, source=content, size=len(content)
            )

    def _landing(self, path: str) -> str:
        """Follow `path` through the links of the image; hosts may have links even for /tmp or /root."""
        pending = path.split("/")[::-1]
        current, links = "", 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                current = current.rpartition("/")[0]
                continue
            entry = self._entries.get(f"{current}/{part}")
            if entry is None or entry.kind != "symlink" or links >= _MAX_LINKS:
                current = f"{current}/{part}"
                continue
            links += 1
            current = "" if entry.linkname.startswith("/") else current
            pending.extend(entry.linkname.split("/")[::-1])
        return current

    def _linked(self, paths: list[str]) -> list[LayerEntry]:
        """Turn further names of one file into hard links to the first, and name all as in an archive."""
        entries: list[LayerEntry] = []
        firsts: dict[tuple[int, int], str] = {}
        for path in paths:
            entry = attrs.evolve(self._entries[path], path=path.removeprefix("/"))
            status = self._files.status(path) if isinstance(entry.source, str) else None
            if status is not None and status.st_nlink > 1:
                first = firsts.setdefault((status.st_dev, status.st_ino), entry.path)
                if first != entry.path:
                    entry = attrs.evolve(entry, kind="hardlink", linkname=first, source=None, size=0)
            entries.append(entry)
        return entries


def _directory(path: str, mode: int) -> LayerEntry:
    return LayerEntry(path=path, kind="directory", mode=mode)


def _is_below(path: str, directory: str) -> bool:
    return path.startswith(f"{directory.rstrip('/')}/")


def _absence(command: str) -> str:
    if command.startswith("/"):
        return f"{command!r} does not exist"
    return f"no program {command!r} in {':'.join(_SEARCH_PATH)}"


def _script_programs(head: bytes) -> list[str]:
    """Read the first line of a script: its interpreter, and for `env` the program that `env` runs."""
    words = os.fsdecode(head[2:].partition(b"\n")[0]).strip(" \t").split(maxsplit=1)
    if not words:
        return []
    if os.path.basename(words[0]) != "env" or len(words) == 1:
        return words[:1]
    program = _env_program(words[1])
    return [words[0], program] if program else words[:1]


def _env_program(argument: str) -> str | None:
    """Find the program in the argument of `env`, which is one word unless it asks to be split (env(1))."""
    words = [argument]
    for option in ("--split-string=", "--split-string", "-S"):
        if argument.startswith(option):
            words = argument.removeprefix(option).split()
            break
    while words:
        word = words.pop(0)
        if word in ("-u", "--unset", "-C", "--chdir"):
            words = words[1:]
        elif not word.startswith("-") and "=" not in word:
            return word
    return None
