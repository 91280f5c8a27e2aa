"""A root file system of Debian, as real as images are, made by mmdebstrap and kept between sessions.

The archive is the one that apt of this host is set up for, and nothing here knows its name. What was made is
kept in the user's cache directory, below a name that depends on everything that went into it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.capabilities import need, skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["DebianArchiveError", "apt_sources", "cached", "debian_root"]

_EPOCH = "1700000000"
_SOURCES = ["apt-get", "indextargets", "--format", "deb $(REPO_URI) $(CODENAME) $(COMPONENT)"]


class DebianArchiveError(Exception):
    """The archive cannot be used from here; the message is what the program said."""


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time do what belongs to `path`."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached(name: str, inputs: object, make: Callable[[Path], None]) -> Path:
    """Return what `make` has made at the path it is given, made now if it was not before.

    Args:
        name: How it is called, with its suffix.
        inputs: Everything that it depends on, as JSON can write it.
        make: Makes a file or a directory. What it has made when it fails is not used.
    """
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = home / "containerlib-tests"
    directory.mkdir(parents=True, exist_ok=True)
    wanted = directory / f"{key}-{name}"
    with _locked(directory / f"{key}.lock"):
        if not wanted.exists():
            unfinished = directory / f"{key}-unfinished-{name}"
            subprocess.run(["rm", "-rf", str(unfinished)], check=True)
            make(unfinished)
            unfinished.rename(wanted)
    return wanted


def debian_root(packages: Sequence[str] = ("python3",)) -> Path:
    """Return an archive, not compressed, of this host's release of Debian with these packages.

    Raises:
        DebianArchiveError: It is not in the cache, and cannot be made.

    Cost: half a minute for the first time.
    """
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    sources = apt_sources(suite)
    # Images have no device nodes: engines make those themselves.
    options = ["--quiet", "--variant=minbase", "--skip=output/dev", f"--include={','.join(packages)}"]
    command = ["mmdebstrap", *options, suite]

    def make(path: Path) -> None:
        environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [*command, str(path), "-"],
            input="\n".join(sources),
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if done.returncode:
            raise DebianArchiveError(f"mmdebstrap: {done.stderr.strip()[-500:]}")

    return cached("debian.tar", [command, sources, os.uname().machine], make)


def apt_sources(suite: str) -> list[str]:
    """Return the archives of apt's configuration that belong to `suite`, as lines of a sources.list."""
    try:
        listed = subprocess.run(
            [*_SOURCES, "Created-By: Packages"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise DebianArchiveError(f"apt does not say where it finds packages: {error}") from error
    lines = sorted({line for line in listed.splitlines() if line.split()[2].split("-")[0] == suite})
    if not lines:
        raise DebianArchiveError(f"apt knows no archive of {suite or 'this release'}")
    return lines


@pytest.fixture(scope="session")
def debian_tar(request: pytest.FixtureRequest) -> Path:
    """Return an archive, not compressed, of Debian with Python; skips where there is none to be had."""
    need(request.config, "peers", ("mmdebstrap", "apt-get"))
    try:
        return debian_root()
    except DebianArchiveError as error:
        skip_or_fail(request.config, "peers", f"no Debian archive: {error}")
