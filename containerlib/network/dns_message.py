"""Messages of the domain name system, as far as a resolver needs them that knows names of its own. Pure.

What comes in is hostile: every length is checked, and nothing but one plain question is understood.

Source: RFC 1035, sections 3 and 4; RFC 6891 for the size that a client takes.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

__all__ = [
    "ADDRESS",
    "NO_SUCH_NAME",
    "POINTER",
    "SERVER_FAILED",
    "Question",
    "answer",
    "parse_question",
    "pointed_at",
    "refuse",
    "truncated",
]

ADDRESS, POINTER, _ANY = 1, 12, 255
_INTERNET = 1
_HEADER = struct.Struct("!HHHHHH")
_KIND = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_IS_ANSWER, _IS_AUTHORITY, _IS_CUT, _RECURSION = 0x8000, 0x0400, 0x0200, 0x0080
_ASKS_RECURSION, _OPERATION = 0x0100, 0x7800
_MOST_LABEL, _MOST_NAME = 63, 253
_TO_QUESTION = 0xC000 | _HEADER.size
_SECONDS = 0  # who was here a moment ago need not be now
_NO_ERROR, SERVER_FAILED, NO_SUCH_NAME = 0, 2, 3


class Question(NamedTuple):
    """One question.

    Attributes:
        number: Which answer it wants.
        flags: Of its header.
        name: In lower case, without the dot at the end.
        kind: Type of the records.
        wire: The question as it stood in the message.
    """

    number: int
    flags: int
    name: str
    kind: int
    wire: bytes


def parse_question(data: bytes) -> Question | None:
    """The question of a message; None if it is none that can be answered, or even refused."""
    if len(data) < _HEADER.size:
        return None
    number, flags, questions, *_ = _HEADER.unpack_from(data)
    if flags & (_IS_ANSWER | _OPERATION) or questions != 1:
        return None
    labels = []
    position = _HEADER.size
    while position < len(data) and (size := data[position]):
        if size > _MOST_LABEL or position + 1 + size > len(data):
            return None
        labels.append(data[position + 1 : position + 1 + size])
        position += 1 + size
    end = position + 1 + _KIND.size
    if end > len(data) or position - _HEADER.size > _MOST_NAME + 1:
        return None
    kind, group = _KIND.unpack_from(data, position + 1)
    if group not in {_INTERNET, _ANY}:
        return None
    name = b".".join(labels).decode("ascii", "replace").lower()
    return Question(number, flags, name, kind, data[_HEADER.size : end])


def _message(question: Question, code: int, records: list[bytes], *, is_cut: bool = False) -> bytes:
    flags = _IS_ANSWER | _IS_AUTHORITY | _RECURSION | code | (question.flags & _ASKS_RECURSION)
    head = _HEADER.pack(question.number, flags | (_IS_CUT if is_cut else 0), 1, len(records), 0, 0)
    return head + question.wire + b"".join(records)


def answer(question: Question, addresses: list[str], names: list[str]) -> bytes:
    """An answer with addresses or names, whichever were asked for; an empty one if there are none."""
    records = []
    if question.kind in {ADDRESS, _ANY}:
        records += [_record(ADDRESS, ipaddress.IPv4Address(address).packed) for address in addresses]
    if question.kind in {POINTER, _ANY}:
        records += [_record(POINTER, _encoded(name)) for name in names]
    return _message(question, _NO_ERROR, records)


def refuse(question: Question, code: int) -> bytes:
    """An answer that says why there is none."""
    return _message(question, code, [])


def truncated(question: Question) -> bytes:
    """An answer that asks the client to come again by TCP."""
    return _message(question, _NO_ERROR, [], is_cut=True)


def _record(kind: int, data: bytes) -> bytes:
    return struct.pack("!H", _TO_QUESTION) + _RECORD.pack(kind, _INTERNET, _SECONDS, len(data)) + data


def _encoded(name: str) -> bytes:
    labels = [label.encode("ascii", "replace")[:_MOST_LABEL] for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def pointed_at(name: str) -> str | None:
    """The address that a name below in-addr.arpa stands for; None if it is no such name."""
    labels = name.split(".")
    if len(labels) != 6 or labels[4:] != ["in-addr", "arpa"]:  # noqa: PLR2004 - four numbers
        return None
    text = ".".join(reversed(labels[:4]))
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        return None
