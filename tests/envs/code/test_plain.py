"""Plain data: what comes back is what went, nothing else gets through, no bytes stall or crash the reader."""

from __future__ import annotations

import contextlib
import enum
import math
import time
from collections import OrderedDict, namedtuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyathlon.envs.code.plain import NotPlainError, PlainDict, PlainSet, decode, encode, natural, same

ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(1 << 200), 1 << 200),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters(), max_size=8),
    st.binary(max_size=8),
)
KEYS = st.one_of(
    st.integers(), st.text(max_size=4), st.binary(max_size=4), st.tuples(st.integers(), st.text(max_size=2))
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sets(KEYS, max_size=4),
    ),
    max_leaves=12,
)


@given(VALUES)
@settings(max_examples=300, deadline=None)
def test_what_goes_over_comes_back(value):
    found = decode(encode(value))
    assert same(found, value)
    assert repr(natural(found)) == repr(value) or isinstance(value, set | dict | list | tuple)


@given(VALUES, VALUES)
@settings(max_examples=200, deadline=None)
def test_two_values_are_the_same_only_if_they_are(a, b):
    if same(decode(encode(a)), b):
        assert type(a) is type(b) and (a == b or a != a or "nan" in repr(a))


@given(st.binary(max_size=200))
@settings(max_examples=1000, deadline=None)
def test_any_bytes_are_a_value_or_malformed(data):
    try:
        value = decode(data)
    except NotPlainError:
        return
    natural(value)
    same(value, [1]), same(value, {1: 2}), same(value, {1})


@given(VALUES, st.data())
@settings(max_examples=300, deadline=None)
def test_spoilt_bytes_are_a_value_or_malformed(value, data):
    spoilt = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(NotPlainError):
        natural(decode(bytes(spoilt)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"i\x01",
        b"[\xff\xff\xff\xff",
        b"[\x02\x00\x00\x00N",
        b"NN",
        b"{NN",
        b"{N",
        b"l\x01\x00\x00\x00\x00\x80",
        b"l\x00\x00\x00\x00",
        b"l\x00\x00\x00\x80" + b"\x01\x00" * 8,
        b"u\x01\x00\x00\x00\xff",
        b"<\x02\x00\x00\x00NN",
        b"{NNNN0",
        b"c" + bytes(40),  # a code object
        b"r\x00\x00\x00\x00",  # a reference
        b">\x01\x00\x00\x00N",  # a frozenset
        b"[\x01\x00\x00\x00" * 60 + b"N",
    ],
)
def test_malformed_bytes_are_refused(data):
    with pytest.raises(NotPlainError):
        decode(data)


class Number(int):
    pass


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value", [Number(1), Colour.RED, OrderedDict(a=1), namedtuple("P", "x")(1), object(), iter([]), len, type, range(3)]
)
def test_other_types_do_not_go_over(value):
    with pytest.raises(NotPlainError, match="allowed are int, float"):
        encode(value)
    with pytest.raises(NotPlainError):
        encode([value])


def test_large_and_deep_values_do_not_go_over():
    with pytest.raises(NotPlainError, match="at most 100"):
        encode("x" * 200, 100)
    deep = None
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(NotPlainError):
        encode(deep)


def test_types_count():
    def compare(found, expected, **options):
        return same(decode(encode(found)), expected, **options)

    assert not compare(True, 1) and not compare(1, True) and not compare(1, 1.0) and compare(1, 1.0, exact_types=False)
    assert not compare([1], (1,)) and not compare("1", 1) and not compare(b"a", "a") and not compare(None, False)
    assert compare(0.0, -0.0) and compare(math.nan, math.nan) and not compare(math.nan, 0.0)
    assert compare(math.inf, math.inf, tolerance=1.0) and not compare(math.inf, 1e308, tolerance=1.0)
    assert compare([1.0, {"a": 2.0}], [1.0 + 1e-9, {"a": 2.0}], tolerance=1e-6)
    assert not compare(1.1, 1.0, tolerance=1e-6) and not compare(10**400, 1.0, tolerance=1e-6, exact_types=False)
    assert compare({1, 2}, {2, 1}) and not compare({1}, {True}) and not compare({1, 2}, {1}) and not compare([1], {1})
    assert compare({"a": 1, "b": 2}, {"b": 2, "a": 1}) and not compare({1: 1}, {True: 1}) and not compare({}, set())
    assert compare({1.0, 2.0}, {1.0 + 1e-12, 2.0}, tolerance=1e-9)
    assert compare(1 + 2j, 1 + 2j) and not compare(1 + 2j, 1 + 3j)


def test_forged_collections_of_equal_hashes_do_not_stall():
    collide = [k * (2**61 - 1) for k in range(20_000)]
    data = encode(collide, 1 << 24)
    for head in (b"<",):
        began = time.process_time()
        found = decode(head + data[1:])
        assert isinstance(found, PlainSet) and natural(found) is found
        assert not same(found, {1, 2, 3})
        assert time.process_time() - began < 2.0
    assert isinstance(decode(encode({1: 2})), PlainDict)


def test_long_integers_are_read_in_little_time():
    value = (1 << 4_000_000) - 1
    began = time.process_time()
    assert decode(encode(value)) == value and decode(encode(-value)) == -value
    assert time.process_time() - began < 5.0
