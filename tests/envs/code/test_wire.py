"""Values and records as they cross the border of the sandbox; what is read by `polyathlon.envs.code.plain`."""

from __future__ import annotations

import collections
import enum
import marshal
from decimal import Decimal
from fractions import Fraction

import pytest

from polyathlon.envs.code.child import wire
from polyathlon.envs.code.child.wire import NotPlainError, encode, encode_as_base, header_of, record

VALUES = [None, True, 0, -(2**70), 1.5, 2j, "ä", b"\0", [1, [2]], (1,), {1, 2}, {"a": {"b": None}}, frozenset({1})]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_plain_values_come_back_with_their_types(value):
    data = encode(value)
    assert marshal.loads(data) == value and type(marshal.loads(data)) is type(value)
    assert encode_as_base(value) == data


class Text(str):
    def __add__(self, other):
        return "not this"


class Number(int):
    pass


class Level(enum.IntEnum):
    HIGH = 3


Pair = collections.namedtuple("Pair", "a b")


SUBCLASSES = [
    (Text("a"), "a"),
    (Number(4), 4),
    (Level.HIGH, 3),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    (collections.OrderedDict(x=Number(1)), {"x": 1}),
    (Pair(1, Text("b")), (1, "b")),
    ([Text("a"), (Number(2),)], ["a", (2,)]),
    ({1: 2}.keys(), {1}),
    ({1: 2}.items(), {(1, 2)}),
    (Fraction(4, 2), 2),
    (Fraction(1, 2), 0.5),
    (Decimal("0.25"), 0.25),
    ({Text("k"): [Fraction(3)]}, {"k": [3]}),
]


@pytest.mark.parametrize(("value", "plain"), SUBCLASSES, ids=range(len(SUBCLASSES)))
def test_subclasses_count_as_what_they_are_made_of(value, plain):
    with pytest.raises(NotPlainError, match="no plain data"):
        encode(value)
    found = marshal.loads(encode_as_base(value))
    assert found == plain and type(found) is type(plain)


NOT_PLAIN = [object(), print, Fraction(1, 3), Decimal("0.1"), [object()], {1: {2: object()}}]


@pytest.mark.parametrize("value", NOT_PLAIN, ids=range(len(NOT_PLAIN)))
def test_what_has_no_plain_form_is_refused(value):
    with pytest.raises(NotPlainError, match="no plain data"):
        encode_as_base(value)


def test_a_value_may_be_as_large_as_said():
    size = len(encode("a" * 100))
    assert encode("a" * 100, size)
    with pytest.raises(NotPlainError, match=f"a value of {size} bytes; at most {size - 1} are taken"):
        encode("a" * 100, size - 1)
    with pytest.raises(NotPlainError, match="at most 1048576 are taken"):
        encode(b"a" * 2**20)


def test_subclasses_may_nest_as_deep_as_said():
    def nested(depth):
        value = Text("x")
        for _ in range(depth):
            value = [value]
        return value

    assert encode_as_base(nested(wire.MAX_DEPTH))
    with pytest.raises(NotPlainError, match="deeper than 50"):
        encode_as_base(nested(wire.MAX_DEPTH + 1))
    endless = [Text("x")]
    endless.append(endless)
    with pytest.raises(NotPlainError):
        encode_as_base(endless)


def test_a_record_is_read_from_its_header():
    nonce = bytes(range(16))
    data = record(nonce, wire.UNPLAIN, 70_000, b"payload")
    assert len(data) == wire.HEADER + 7 and data[wire.HEADER :] == b"payload"
    assert header_of(data) == header_of(bytearray(data)) == (nonce, wire.UNPLAIN, 70_000, 7)
    assert header_of(record(nonce, 0, 0, b"x" * 300)) == (nonce, 0, 0, 300)
