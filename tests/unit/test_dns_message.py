"""Messages of the domain name system: what is understood, what is answered, and what is not."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.network.dns_message import (
    ADDRESS,
    NO_SUCH_NAME,
    POINTER,
    answer,
    parse_question,
    pointed_at,
    refuse,
    truncated,
)


def query(name: str, kind: int = ADDRESS, *, flags: int = 0x0100, group: int = 1, count: int = 1) -> bytes:
    """A question as a client asks it."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    return (
        struct.pack("!HHHHHH", 77, flags, count, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, group)
    )


def test_question() -> None:
    """Name and type are read, whatever letters; what stands behind the question is of no interest."""
    question = parse_question(query("Db.Example") + b"more")
    assert question is not None
    assert (question.number, question.name, question.kind) == (77, "db.example", ADDRESS)
    assert parse_question(query("")) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        query("db")[:11],
        query("db")[:-1],
        query("db", flags=0x8000),
        query("db", flags=0x2800),
        query("db", count=0),
        query("db", count=2),
        query("db", group=3),
        struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c" + b"\0\1\0\1",
        struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + b"\x3f" + b"a" * 10,
        query(".".join(["a" * 60] * 5)),
    ],
)
def test_no_questions(data: bytes) -> None:
    """What is cut short, no question, or several of them is not answered."""
    assert parse_question(data) is None


def test_answers() -> None:
    """An address, a name, or nothing of the kind that was asked for; the question is repeated."""
    question = parse_question(query("db"))
    assert question is not None
    data = answer(question, ["10.0.0.1", "10.0.0.2"], ["db"])
    number, flags, *counts = struct.unpack_from("!HHHHHH", data)
    assert (number, flags & 0x8000, flags & 0xF, counts) == (77, 0x8000, 0, [1, 2, 0, 0])
    assert data.endswith(b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x0a\0\0\2")
    other = parse_question(query("db", 28))
    assert other is not None
    assert struct.unpack_from("!HHHHHH", answer(other, ["10.0.0.1"], []))[3] == 0
    back = parse_question(query("1.0.0.10.in-addr.arpa", POINTER))
    assert back is not None
    assert answer(back, [], ["my.db"]).endswith(b"\0\7\2my\2db\0"[0:2] + b"\2my\2db\0")
    assert struct.unpack_from("!HH", refuse(question, NO_SUCH_NAME))[1] & 0xF == NO_SUCH_NAME
    assert struct.unpack_from("!HH", truncated(question))[1] & 0x0200


def test_pointers() -> None:
    """Names of addresses are read backwards."""
    assert pointed_at("4.3.2.1.in-addr.arpa") == "1.2.3.4"
    for name in (
        "3.2.1.in-addr.arpa",
        "4.3.2.1.ip6.arpa",
        "x.3.2.1.in-addr.arpa",
        "256.3.2.1.in-addr.arpa",
        "",
    ):
        assert pointed_at(name) is None


@given(st.binary(max_size=300))
def test_anything(data: bytes) -> None:
    """Whatever comes in is understood or not, and nothing else."""
    question = parse_question(data)
    if question is not None:
        assert parse_question(data[: 12 + len(question.wire)]) == question
        answer(question, ["10.0.0.1"], ["a"])
