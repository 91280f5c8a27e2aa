"""Names of archive entries: made safe to walk, and made safe to show. Pure."""

from __future__ import annotations

from containerlib.errors import UnsafePath, UnsupportedLayer

__all__ = ["MAX_COMPONENT_BYTES", "MAX_PATH_BYTES", "clean", "shown"]

MAX_PATH_BYTES = 4096
MAX_COMPONENT_BYTES = 255


def shown(path: bytes) -> str:
    """Return `path` for messages: bounded, and with nothing that a terminal could obey."""
    text = path[:256].decode("utf-8", "backslashreplace")
    return text if text.isprintable() else ascii(text)[1:-1]


def clean(name: bytes) -> bytes:
    """Return the path of an archive entry relative to the root, without empty, ``.`` and ``..`` parts.

    The root itself is the empty path.

    Raises:
        UnsafePath: ``..`` leads above the root, or there is a NUL byte.
        UnsupportedLayer: The path or a part of it is longer than Linux allows.
    """
    if b"\0" in name:
        raise UnsafePath(shown(name), "name holds a NUL byte")
    if len(name) > MAX_PATH_BYTES:
        raise UnsupportedLayer(f"archive entry {shown(name)[:64]!r}...: path over {MAX_PATH_BYTES} bytes")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise UnsafePath(shown(name), "'..' leads out of the tree")
            parts.pop()
        elif part and part != b".":
            if len(part) > MAX_COMPONENT_BYTES:
                raise UnsupportedLayer(
                    f"archive entry {shown(name)[:64]!r}...: component over {MAX_COMPONENT_BYTES} bytes"
                )
            parts.append(part)
    return b"/".join(parts)
