"""Where the dynamic loader of a program finds the libraries the program needs.

Takes a program on the host, gives its `Closure`: every library its loader would map, by the rules of ld.so(8)
for glibc and of musl's dynlink.c, with an empty environment. Nothing is executed: files are read through
`HostFiles`, which follows symbolic links itself and remembers what it saw. Variants for newer processors
(`glibc-hwcaps` and the older capability directories) are passed over, so that the result is the baseline one,
which every processor of the architecture can run. Knows nothing about images.
"""

from __future__ import annotations

import abc
import errno
import functools
import os
import re
from collections import deque
from typing import TYPE_CHECKING, Final

import attrs

from containerlib.image import elf
from containerlib.image.elf import Elf, Machine
from containerlib.image.library_cache import build_cache, parse_cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.image.host_files import HostFile, HostFiles

__all__ = [
    "Closure",
    "Library",
    "LibrarySearch",
    "search_for",
]

_MAX_LINKS: Final = 40  # the kernel's own limit, path_resolution(7)
_ABSENCE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG))
_HEAD_BYTES: Final = 256  # what the kernel looks at to tell the format of a program
_MAX_TEXT_BYTES: Final = 1024 * 1024
_MAX_LOADER_BYTES: Final = 16 * 1024 * 1024
_MAX_CACHE_BYTES: Final = 64 * 1024 * 1024
_MAX_INCLUDES: Final = 10


@attrs.frozen(eq=False)
class Library:
    """A program or library in the state of being loaded.

    Attributes:
        path: Path by which the loader found it; `$ORIGIN` is the directory part of this.
        file: Where that path leads.
        elf: Its contents, as far as the loader cares.
        requester: The first library that needed it; `None` for the program itself.
    """

    path: str
    file: HostFile
    elf: Elf
    requester: Library | None = None

    @property
    def ancestry(self) -> Iterator[Library]:
        """This library, the one that needed it, and so on up to the program."""
        library: Library | None = self
        while library is not None:
            yield library
            library = library.requester


@attrs.frozen
class Closure:
    """All that a program needs to be loaded.

    Attributes:
        libraries: In the order in which the loader opens them, without the program. A file that is needed by
            two names is there twice.
        missing: Pairs: the path of a program or library, and the name it needs but the loader does not find.
    """

    libraries: tuple[Library, ...]
    missing: tuple[tuple[str, str], ...]


class LibrarySearch(abc.ABC):
    """The search rules of one dynamic loader.

    Args:
        files: View of the host.
        interpreter: Path of the loader.
        machine: Processor; libraries for another one are passed over.
    """

    def __init__(self, files: HostFiles, interpreter: str, machine: Machine) -> None:
        self._files = files
        self._interpreter = interpreter
        self._machine = machine
        self._shared: dict[str, tuple[str, HostFile] | None] = {}

    def closure(self, program: HostFile) -> Closure:
        """Find every library that loading `program` maps, breadth first like the loader.

        Raises:
            InvalidInputError: The program, or a library found, is malformed.
        """
        main = Library(path=program.path, file=program, elf=self._files.elf(program))
        loader = self._files.resolve(main.elf.interpreter) if main.elf.interpreter else None
        mapped = {file.identity for file in (program, loader) if file is not None}
        names = self._names_of(main) | self._names_of_loader(loader)
        libraries: list[Library] = []
        missing: list[tuple[str, str]] = []
        queue = deque([main])
        while queue:
            requester = queue.popleft()
            for name in requester.elf.needed:
                if name in names:
                    continue
                names.add(name)
                located = self._locate(name, requester)
                if located is None:
                    missing.append((requester.path, name))
                    continue
                path, file = located
                library = Library(path=path, file=file, elf=self._files.elf(file), requester=requester)
                # A second name of a mapped file is opened, too, before the loader sees that it has it.
                libraries.append(library)
                if file.identity not in mapped:
                    mapped.add(file.identity)
                    names |= self._names_of(library)
                    queue.append(library)
        return Closure(libraries=tuple(libraries), missing=tuple(missing))

    def find(self, name: str, requester: HostFile) -> Library | None:
        """Find a library that `requester` would open by name while it runs; `None` when there is none."""
        main = Library(path=requester.path, file=requester, elf=self._files.elf(requester))
        located = self._locate(name, main)
        if located is None:
            return None
        path, file = located
        return Library(path=path, file=file, elf=self._files.elf(file), requester=main)

    @abc.abstractmethod
    def configuration(self) -> tuple[str, bytes] | None:
        """Give path and content of the file without which the loader would not find all that was found.

        It covers every search made so far, and is `None` when the loader's built-in rules are enough.
        """

    @abc.abstractmethod
    def _locate(self, name: str, requester: Library) -> tuple[str, HostFile] | None:
        """Find the file for one needed name: the path by which the loader opens it, and where that leads."""

    @abc.abstractmethod
    def _names_of(self, library: Library) -> set[str]:
        """Names, besides the one it was found by, for which the loader takes a library it already has."""

    @abc.abstractmethod
    def _names_of_loader(self, loader: HostFile | None) -> set[str]:
        """Names for which a program's loader takes itself, which is mapped from the start."""

    def _probe(self, path: str) -> tuple[str, HostFile] | None:
        """Look whether `path` is a library for this machine."""
        file = self._files.resolve(path) if path.startswith("/") else None
        if file is None or not file.is_regular:
            return None
        if elf.identify(self._files.head(file)) is not self._machine:
            return None
        return (path, file)

    def _probe_each(self, directories: tuple[str, ...], name: str) -> tuple[str, HostFile] | None:
        for directory in directories:
            located = self._probe(f"{directory.rstrip('/')}/{name}")
            if located is not None:
                return located
        return None


def search_for(files: HostFiles, interpreter: str, machine: Machine) -> LibrarySearch:
    """Give the search rules of the loader at path `interpreter`, glibc's unless it is musl's by name."""
    if os.path.basename(interpreter).startswith("ld-musl-"):
        return _MuslSearch(files, interpreter, machine)
    return _GlibcSearch(files, interpreter, machine)


# glibc

_TOKEN: Final = re.compile(r"\$(?:\{(ORIGIN|LIB|PLATFORM)\}|(ORIGIN|LIB|PLATFORM)(?![A-Za-z0-9_]))")
_CACHE_PATH: Final = "/etc/ld.so.cache"
_CONFIGURATION_PATH: Final = "/etc/ld.so.conf"
# The loader holds its default directories as one run of strings, each with a slash at its end: `system_dirs`
# in dl-load.c.
_BUILT_IN_DIRECTORIES: Final = re.compile(rb"(?<=\0)(?:/[!-~]*lib[!-~]*/\0)+")
_USUAL_DIRECTORIES: Final = {
    Machine.X86_64: (
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
    ),
    Machine.AARCH64: (
        "/lib/aarch64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
    ),
}


class _GlibcSearch(LibrarySearch):
    """ld.so(8): DT_RPATH, DT_RUNPATH, cache, default directories."""

    def __init__(self, files: HostFiles, interpreter: str, machine: Machine) -> None:
        super().__init__(files, interpreter, machine)
        loader = files.content(interpreter, _MAX_LOADER_BYTES)
        runs = _BUILT_IN_DIRECTORIES.findall(loader or b"")
        longest: bytes = max(runs, key=lambda run: run.count(b"\0"), default=b"")
        self._defaults = (
            tuple(os.fsdecode(directory.rstrip(b"/")) for directory in longest.split(b"\0")[:-1])
            or _USUAL_DIRECTORIES[machine]
        )
        # Distributions that keep several C libraries build loaders that read no cache of the system.
        self._reads_cache = loader is None or f"\0{_CACHE_PATH}\0".encode() in loader
        self._beyond_defaults: dict[str, str] = {}

    @property
    def defaults(self) -> tuple[str, ...]:
        """The directories that this loader searches on its own."""
        return self._defaults

    def configuration(self) -> tuple[str, bytes] | None:
        # The loader reads no ld.so.conf, only the cache. The host's own cache would list every library that
        # is installed here, which is nobody's business in an image and would change with each installation.
        if not self._beyond_defaults:
            return None
        return (_CACHE_PATH, build_cache(self._beyond_defaults, self._machine))

    def _names_of(self, library: Library) -> set[str]:
        return {library.elf.soname} if library.elf.soname else set()

    def _names_of_loader(self, loader: HostFile | None) -> set[str]:
        if loader is None:
            return set()
        return {self._files.elf(loader).soname or os.path.basename(loader.path)}

    def _locate(self, name: str, requester: Library) -> tuple[str, HostFile] | None:
        name = self._expand(name, requester)
        if "/" in name:
            return self._probe(name)
        if requester.elf.runpath is None:
            for ancestor in requester.ancestry:
                located = self._probe_each(self._expand_each(ancestor.elf.rpath, ancestor), name)
                if located is not None:
                    return located
        else:
            located = self._probe_each(self._expand_each(requester.elf.runpath, requester), name)
            if located is not None:
                return located
        if requester.elf.ignores_defaults:
            return self._locate_configured(name, but_not_in=self._defaults)
        if name not in self._shared:
            self._shared[name] = self._locate_shared(name)
        return self._shared[name]

    def _locate_shared(self, name: str) -> tuple[str, HostFile] | None:
        """Search where the search does not depend on who asks."""
        default = self._probe_each(self._defaults, name)
        located = self._locate_configured(name)
        if located is None:
            return default
        if default is None or default[1].identity != located[1].identity:
            self._beyond_defaults[name] = located[0]
        return located

    def _locate_configured(
        self, name: str, *, but_not_in: tuple[str, ...] = ()
    ) -> tuple[str, HostFile] | None:
        if self._cache is None:
            directories = tuple(path for path in self._configured if path not in but_not_in)
            located = self._probe_each(directories, name)
        else:
            path = self._cache.get(name, "")
            located = None if os.path.dirname(path) in but_not_in else self._probe(path)
        if located is not None and but_not_in:
            self._beyond_defaults[name] = located[0]
        return located

    @functools.cached_property
    def _cache(self) -> dict[str, str] | None:
        """Names and paths in the loader's cache; `None` when there is no usable one."""
        if not self._reads_cache:
            return {}
        content = self._files.content(_CACHE_PATH, _MAX_CACHE_BYTES)
        return None if content is None else parse_cache(content, self._machine)

    @functools.cached_property
    def _configured(self) -> tuple[str, ...]:
        """Directories from which the cache would be made if there were one."""
        return tuple(dict.fromkeys(_configured_directories(self._files, _CONFIGURATION_PATH)))

    def _expand_each(self, elements: tuple[str, ...], library: Library) -> tuple[str, ...]:
        # An empty or relative element means the working directory, which an image does not have.
        expanded = (self._expand(element, library) for element in elements)
        return tuple(element for element in expanded if element.startswith("/"))

    def _expand(self, text: str, library: Library) -> str:
        if "$" not in text:
            return text
        values = {
            "ORIGIN": os.path.dirname(library.path),
            # Debian's loader says lib/x86_64-linux-gnu, Fedora's lib64, Arch's lib.
            "LIB": self._defaults[0].removeprefix("/usr").removeprefix("/"),
            "PLATFORM": self._machine.value,
        }
        return _TOKEN.sub(lambda match: values[match[1] or match[2]], text)


def _configured_directories(files: HostFiles, path: str, depth: int = 0) -> Iterator[str]:
    """Read one file of directories in the form of ldconfig(8), with the files it includes."""
    content = files.content(path, _MAX_TEXT_BYTES)
    if content is None or depth > _MAX_INCLUDES:
        return
    for line in os.fsdecode(content).splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0] == "include":
            for pattern in words[1:]:
                for included in files.glob(os.path.join(os.path.dirname(path), pattern)):
                    yield from _configured_directories(files, included, depth + 1)
        elif words[0].startswith("/"):
            # "directory=kind" is how a directory was tied to one C library; ldconfig still takes it.
            yield words[0].partition("=")[0].rstrip("/") or "/"


# The cache: `struct cache_file`, `cache_file_new` and `file_entry_new` in dl-cache.h.

_MUSL_TOKEN: Final = re.compile(r"\$(?:ORIGIN|\{ORIGIN\})")
_MUSL_DEFAULTS: Final = ("/lib", "/usr/local/lib", "/usr/lib")
# musl's loader is the C library as well and answers to these names itself.
_MUSL_OWN_NAMES: Final = re.compile(r"lib(?:c|pthread|rt|m|dl|util|xnet)\.")


class _MuslSearch(LibrarySearch):
    """dynlink.c: paths in the file and in all that led to it, then one list of directories."""

    def __init__(self, files: HostFiles, interpreter: str, machine: Machine) -> None:
        super().__init__(files, interpreter, machine)
        prefix = os.path.dirname(os.path.dirname(interpreter)).rstrip("/")
        self._list_path = f"{prefix}/etc/ld-musl-{machine.value}.path"
        content = files.content(self._list_path, _MAX_TEXT_BYTES)
        listed = None if content is None else re.split(r"[:\n]", os.fsdecode(content))
        self._directories = _MUSL_DEFAULTS if listed is None else tuple(filter(None, listed))

    def configuration(self) -> tuple[str, bytes] | None:
        if self._directories == _MUSL_DEFAULTS:
            return None
        return (self._list_path, os.fsencode("\n".join(self._directories) + "\n"))

    def _names_of(self, library: Library) -> set[str]:  # noqa: ARG002
        return set()

    def _names_of_loader(self, loader: HostFile | None) -> set[str]:  # noqa: ARG002
        return set()

    def _locate(self, name: str, requester: Library) -> tuple[str, HostFile] | None:
        if "/" in name:
            return self._probe(name)
        if _MUSL_OWN_NAMES.match(name):
            return self._probe(self._interpreter)
        for ancestor in requester.ancestry:
            located = self._probe_each(self._embedded(ancestor), name)
            if located is not None:
                return located
        if name not in self._shared:
            self._shared[name] = self._probe_each(self._directories, name)
        return self._shared[name]

    def _embedded(self, library: Library) -> tuple[str, ...]:
        """Search path inside a library; musl treats both kinds the same and drops what it cannot expand."""
        origin = os.path.dirname(library.path)
        elements = library.elf.rpath if library.elf.runpath is None else library.elf.runpath
        expanded = [_MUSL_TOKEN.sub(lambda _: origin, element) for element in elements]
        if any("$" in _MUSL_TOKEN.sub("", element) for element in elements):
            return ()
        return tuple(expanded)
