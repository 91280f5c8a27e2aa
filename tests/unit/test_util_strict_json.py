from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib._util import strict_json
from containerlib.errors import InvalidInputError

LIMIT = 1 << 16

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=20,
)


@given(JSON)
def test_round_trip(value: object) -> None:
    """What is printed is read back as the same value, and printed again as the same bytes."""
    data = strict_json.dumps(value)
    assert strict_json.loads(data, limit=LIMIT) == value
    assert strict_json.dumps(strict_json.loads(data, limit=LIMIT)) == data


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    """No input makes the parser fail in another way."""
    with contextlib.suppress(InvalidInputError):
        strict_json.loads(data, limit=LIMIT)


@given(st.text(alphabet='{}[]:,"\\\\ue0129.-+NaInfity \t', max_size=60))
def test_json_like_text_parses_or_is_refused(text: str) -> None:
    """Text that is nearly JSON is accepted only if the ordinary parser accepts it too."""
    try:
        value = strict_json.loads(text.encode(), limit=LIMIT)
    except InvalidInputError:
        return
    assert json.loads(text) == value


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"x":{"a":1,"b":2,"a":3}}',
        b'{"a":1,"\\u0061":2}',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e999",
        b"[-1e999]",
        b'"\xff"',
        b'"\\ud800"',
        b'{"\\ud800":1}',
        b"\xef\xbb\xbf{}",
        b"[" * 65 + b"]" * 65,
        b"[" * 60000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b"1" * 5000,
        b"{}{}",
        b"",
        b" ",
        b"{'a':1}",
        b"[1,]",
    ],
)
def test_ambiguous_documents_are_refused(data: bytes) -> None:
    """What two parsers could read as two things is refused."""
    with pytest.raises(InvalidInputError):
        strict_json.loads(data, limit=LIMIT)


def test_limits_are_inclusive() -> None:
    """A document of exactly the limit, and nesting of exactly the depth, are accepted."""
    deep = b"[" * strict_json.MAX_DEPTH + b"]" * strict_json.MAX_DEPTH
    assert strict_json.loads(deep, limit=len(deep)) is not None
    with pytest.raises(InvalidInputError, match="limit"):
        strict_json.loads(deep, limit=len(deep) - 1)


def test_object_is_insisted_on() -> None:
    """A caller that needs an object gets one or an error."""
    assert strict_json.loads_object(b'{"a":1}', limit=LIMIT) == {"a": 1}
    with pytest.raises(InvalidInputError, match="thing: not an object"):
        strict_json.loads_object(b"[]", limit=LIMIT, what="thing")


def test_equal_values_have_equal_bytes() -> None:
    """The order in which keys were added does not matter."""
    assert (
        strict_json.dumps({"b": 1, "a": "é"})
        == strict_json.dumps({"a": "é", "b": 1})
        == '{"a":"é","b":1}'.encode()
    )
