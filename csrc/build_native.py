"""Builds the two C products: the extension module and the static program `ctr-spawner`.

Needs a C compiler with a static C library and the kernel's headers, nothing else. As a script it compiles the
program alone: `python csrc/build_native.py --cc aarch64-linux-gnu-gcc --output DIR`.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAM = "ctr-spawner"
PROGRAM_SOURCES = [
    "main.c",
    "spawner.c",
    "starter.c",
    "supervisor.c",
    "creator.c",
    "companion.c",
    "streams.c",
    "health.c",
    "event.c",
    "log.c",
    "remove.c",
    "init.c",
    "child.c",
    "user_namespace.c",
    "scheduling.c",
    "root.c",
    "overlay.c",
    "device.c",
    "view.c",
    "credential.c",
    "mount.c",
    "path.c",
    "message.c",
    "channel.c",
    "unpack.c",
    "confine.c",
    "apply.c",
    "attribute.c",
    "notes.c",
    "tree.c",
    "tar.c",
    "tar_input.c",
    "tar_pax.c",
    "tar_sparse.c",
]
C_FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden"]
HARDENING = ["-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"]


def declarations() -> str:
    """The parts of the headers that C and Python share."""
    parts = []
    for name in ("ctr.h", "extension.h"):
        text = (HERE / name).read_text()
        parts += re.findall(r"/\* CDEF BEGIN \*/(.*?)/\* CDEF END \*/", text, re.DOTALL)
    return "\n".join(parts)


def emit_extension(path: Path) -> None:
    """Write the C source of the extension module to `path`."""
    from cffi import FFI  # noqa: PLC0415 - a build dependency only, absent when the program alone is compiled

    ffi = FFI()
    ffi.cdef(declarations())
    ffi.set_source("containerlib._native._ctr", '#include "extension.h"')
    path.parent.mkdir(parents=True, exist_ok=True)
    ffi.emit_c_code(str(path))


def build_program(compiler: list[str], output: Path) -> None:
    """Compile and strip the static program into the directory `output`."""
    output.mkdir(parents=True, exist_ok=True)
    sources = [str(HERE / name) for name in PROGRAM_SOURCES]
    command = [*compiler, *C_FLAGS, *HARDENING, "-static", "-s", *sources, "-o", str(output / PROGRAM)]
    subprocess.run(command, check=True)


def default_compiler() -> list[str]:
    """The compiler that `CC` names, else the one Python was built with."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "gcc")[:1]


try:
    from setuptools.command.build_ext import build_ext
except ImportError:  # compiling the program alone needs no setuptools
    pass
else:

    class BuildNative(build_ext):
        """build_ext that generates the module's source first and compiles the program last."""

        def run(self) -> None:
            """Build both products where the wheel, or an editable install, expects them."""
            generated = Path(self.build_temp) / "_ctr.c"
            emit_extension(generated)
            for extension in self.extensions:
                extension.sources.append(str(generated))
                extension.include_dirs.append(str(HERE))
                extension.extra_compile_args += ["-std=gnu11", "-Wall", "-Wextra", "-fvisibility=hidden"]
            super().run()
            for extension in self.extensions:
                # What stays listed goes into the source distribution, where this file does not exist.
                extension.sources.remove(str(generated))
            target = Path(self.get_ext_fullpath("containerlib._native._ctr")).parent
            build_program(default_compiler(), target)

        def get_outputs(self) -> list[str]:
            """The module and the program."""
            outputs = super().get_outputs()
            return [*outputs, *(str(Path(path).parent / PROGRAM) for path in outputs)]

        def get_output_mapping(self) -> dict[str, str]:
            """For editable installs: both products go into the source tree."""
            mapping = dict(super().get_output_mapping())
            for built, placed in list(mapping.items()):
                mapping[str(Path(built).parent / PROGRAM)] = str(Path(placed).parent / PROGRAM)
            return mapping


def main() -> None:
    """Compile the program alone, for this or another architecture."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cc", default=" ".join(default_compiler()), help="compiler")
    parser.add_argument("--output", type=Path, required=True, help="directory for the program")
    arguments = parser.parse_args()
    build_program(shlex.split(arguments.cc), arguments.output)


if __name__ == "__main__":
    main()
