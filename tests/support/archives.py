"""Archives made by hand, block by block, so that they can be wrong in every way."""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)

__all__ = [
    "BLOCK",
    "END",
    "archive",
    "base256",
    "directory",
    "file",
    "header",
    "link",
    "member",
    "pax",
    "symlink",
]


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int | bytes = 0,
    linkname: bytes = b"",
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    major: int | bytes = 0,
    minor: int | bytes = 0,
    prefix: bytes = b"",
    magic: bytes = b"ustar\0" + b"00",
    checksum: bytes | None = None,
) -> bytes:
    """Return one header block; numbers may be given as the bytes of their field."""
    block = bytearray(BLOCK)

    def put(offset: int, width: int, value: int | bytes) -> None:
        data = value if isinstance(value, bytes) else b"%0*o" % (width - 1, value)
        block[offset : offset + len(data)] = data[:width]

    put(0, 100, name)
    put(100, 8, mode)
    put(108, 8, uid)
    put(116, 8, gid)
    put(124, 12, size)
    put(136, 12, mtime)
    block[156:157] = kind
    put(157, 100, linkname)
    put(257, 8, magic)
    put(329, 8, major)
    put(337, 8, minor)
    put(345, 155, prefix)
    block[148:156] = b" " * 8
    put(148, 8, b"%06o\0 " % sum(block) if checksum is None else checksum)
    return bytes(block)


def member(name: bytes, kind: bytes = b"0", data: bytes = b"", **fields: int | bytes) -> bytes:
    """Return a header, its data and the padding."""
    fields.setdefault("size", len(data))
    return header(name, kind, **fields) + data + bytes(-len(data) % BLOCK)  # type: ignore[arg-type]


def file(name: bytes, data: bytes = b"data", **fields: int | bytes) -> bytes:
    """Return a regular file."""
    return member(name, b"0", data, **fields)


def directory(name: bytes, **fields: int | bytes) -> bytes:
    """Return a directory."""
    fields.setdefault("mode", 0o755)
    return member(name, b"5", **fields)  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes) -> bytes:
    """Return a symbolic link."""
    return member(name, b"2", linkname=target, mode=0o777)


def link(name: bytes, target: bytes) -> bytes:
    """Return a hard link."""
    return member(name, b"1", linkname=target)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """Return an extended header with these records."""
    data = b""
    for key, value in records:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body)
        while length != len(body) + len(str(length)):
            length = len(body) + len(str(length))
        data += str(length).encode() + body
    return member(b"PaxHeaders/x", kind, data)


def base256(number: int, width: int) -> bytes:
    """Return a number in the binary form that GNU tar uses for what octal digits cannot hold."""
    data = bytearray(number.to_bytes(width, "big", signed=True))
    data[0] |= 0x80
    return bytes(data)


def archive(*members: bytes) -> bytes:
    """Return the members with the end mark."""
    return b"".join(members) + END
