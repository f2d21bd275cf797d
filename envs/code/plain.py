"""Reading and comparing what came out of the sandbox, which may be forged down to the byte.

The bytes are read by a parser of our own: no pickle, no eval. Members of sets and dicts are kept under their bytes,
whose hashes are secret, so a program cannot choose values whose hashes collide and stall the reader.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, NoReturn

from .child.wire import MAX_DEPTH, MAX_SIZE, NotPlainError, encode

__all__ = ["MAX_DEPTH", "MAX_SIZE", "NotPlainError", "PlainDict", "PlainSet", "decode", "encode", "natural", "same"]

_NATURAL = 1024
_CONSTANTS = {ord("N"): None, ord("T"): True, ord("F"): False}
_I32, _U32, _F64 = struct.Struct("<i").unpack_from, struct.Struct("<I").unpack_from, struct.Struct("<d").unpack_from
_END_OF_DICT = ord("0")
_DIGIT_BITS = 15


@dataclass(frozen=True)
class PlainSet:
    """A set as it was read: the bytes of a member -> the member."""

    members: dict[bytes, Any]

    def __len__(self) -> int:
        return len(self.members)


@dataclass(frozen=True)
class PlainDict:
    """A dict as it was read: the bytes of a key -> (key, value)."""

    members: dict[bytes, tuple[Any, Any]]

    def __len__(self) -> int:
        return len(self.members)


def decode(data: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Return the value of bytes from an untrusted side; sets and dicts as `PlainSet` and `PlainDict`.

    Args:
        data: the bytes of one value, all of them.
        max_depth: how deep containers may nest.

    Raises:
        NotPlainError: the bytes are not those of a value.
    """
    value, end = _read(data, 0, max_depth)
    if end != len(data):
        _malformed(f"{len(data) - end} bytes too many")
    return value


def _malformed(why: str) -> NoReturn:
    raise NotPlainError(f"no plain data: {why}")


def _read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if at >= len(data):
        _malformed("it is cut off")
    kind = data[at]
    at += 1
    if kind in _CONSTANTS:
        return _CONSTANTS[kind], at
    if kind in b"igy":
        return _read_number(data, at, kind)
    if kind == ord("l"):
        return _read_long(data, at)
    if kind in b"us":
        return _read_text(data, at, kind)
    if depth <= 0:
        _malformed("containers nested too deep")
    if kind in b"[(":
        count, at = _read_count(data, at)
        items = []
        for _ in range(count):
            item, at = _read(data, at, depth - 1)
            items.append(item)
        return (items if kind == ord("[") else tuple(items)), at
    if kind == ord("<"):
        return _read_set(data, at, depth - 1)
    if kind == ord("{"):
        return _read_dict(data, at, depth - 1)
    _malformed(f"there is no type {kind}")


def _room(data: bytes, at: int, size: int) -> int:
    if size < 0 or at + size > len(data):
        _malformed("it is cut off")
    return at + size


def _read_count(data: bytes, at: int) -> tuple[int, int]:
    end = _room(data, at, 4)
    count = _U32(data, at)[0]
    _room(data, end, count)  # a member takes at least one byte
    return count, end


def _read_number(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    end = _room(data, at, {ord("i"): 4, ord("g"): 8, ord("y"): 16}[kind])
    if kind == ord("i"):
        return _I32(data, at)[0], end
    first = _F64(data, at)[0]
    return (first if kind == ord("g") else complex(first, _F64(data, at + 8)[0])), end


def _read_long(data: bytes, at: int) -> tuple[int, int]:
    """Read an integer of more than 32 bits: a signed number of digits, then the digits to the base 2**15."""
    end = _room(data, at, 4)
    signed = _I32(data, at)[0]
    at, end = end, _room(data, end, 2 * abs(signed))
    digits = struct.unpack(f"<{abs(signed)}H", data[at:end])
    if not digits or max(digits) >= 1 << _DIGIT_BITS:
        _malformed("an integer has wrong digits")
    # adding digit by digit would take time that grows with the square of their number
    value = int("".join(f"{digit:015b}" for digit in reversed(digits)), 2)
    return (value if signed > 0 else -value), end


def _read_text(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    count, at = _read_count(data, at)
    raw = data[at : at + count]
    if kind == ord("s"):
        return raw, at + count
    try:
        return raw.decode("utf-8", "surrogatepass"), at + count
    except UnicodeDecodeError:
        _malformed("a text is no UTF-8")


def _read_set(data: bytes, at: int, depth: int) -> tuple[PlainSet, int]:
    count, at = _read_count(data, at)
    members: dict[bytes, Any] = {}
    for _ in range(count):
        start = at
        item, at = _read(data, at, depth)
        members[data[start:at]] = item
    if len(members) != count:
        _malformed("a member occurs twice")
    return PlainSet(members), at


def _read_dict(data: bytes, at: int, depth: int) -> tuple[PlainDict, int]:
    members: dict[bytes, tuple[Any, Any]] = {}
    while _room(data, at, 1) and data[at] != _END_OF_DICT:
        start = at
        key, at = _read(data, at, depth)
        name = data[start:at]
        if name in members:
            _malformed("a key occurs twice")
        value, at = _read(data, at, depth)
        members[name] = (key, value)
    return PlainDict(members), at + 1


def natural(value: Any) -> Any:
    """Return a value with sets and dicts as Python's own, where they are small and their members can be hashed."""
    if isinstance(value, list | tuple):
        return type(value)(natural(item) for item in value)
    if isinstance(value, PlainSet | PlainDict) and len(value) <= _NATURAL:
        try:
            if isinstance(value, PlainSet):
                return {natural(item) for item in value.members.values()}
            return {natural(key): natural(item) for key, item in value.members.values()}
        except TypeError:
            return value
    return value


def same(found: Any, expected: Any, tolerance: float = 0.0, exact_types: bool = True) -> bool:
    """Compare a value from the sandbox with the right one.

    True, False and None equal themselves alone; 1 is neither True nor "1"; a list is no tuple. Two floats are equal
    if they are within the tolerance, absolute or relative; NaN equals NaN, infinities equal themselves, 0.0 equals
    -0.0. Sets and dicts are compared without regard to order.

    Args:
        found: a value that `decode` returned.
        expected: the right value, of Python's own types.
        tolerance: how far two floats may differ, absolutely or as a part of the larger one.
        exact_types: an int is no float; otherwise 2 equals 2.0, as in Python.
    """
    if isinstance(expected, set | frozenset):
        return isinstance(found, PlainSet) and _same_sets(found, expected, tolerance, exact_types)
    if isinstance(expected, dict):
        return isinstance(found, PlainDict) and _same_dicts(found, expected, tolerance, exact_types)
    if isinstance(expected, list | tuple):
        if type(found) is not type(expected) or len(found) != len(expected):
            return False
        return all(same(a, b, tolerance, exact_types) for a, b in zip(found, expected))
    if isinstance(expected, complex):
        kinds = (complex,) if exact_types else (complex, float, int)
        if type(found) not in kinds:
            return False
        found = complex(found)
        return _close(found.real, expected.real, tolerance) and _close(found.imag, expected.imag, tolerance)
    if type(expected) in (int, float) and type(found) in (int, float):
        if exact_types and type(found) is not type(expected):
            return False
        if type(found) is int and type(expected) is int:
            return found == expected
        return _close(found, expected, tolerance)
    return type(found) is type(expected) and bool(found == expected)


def same_in_python(found: Any, expected: Any) -> bool:
    """Compare a value from the sandbox with the right one as Python's `==` does: 1, 1.0 and True are equal.

    Args:
        found: a value that `decode` returned.
        expected: the right value, of Python's own types.
    """
    if isinstance(expected, set | frozenset):
        return isinstance(found, PlainSet) and _key_of(found) == _key_of(decode(encode(set(expected))))
    if isinstance(expected, dict):
        if not isinstance(found, PlainDict) or len(found) != len(expected):
            return False
        given = {_key_of(key): value for key, value in found.members.values()}
        keys = [(_key_of(decode(encode(key))), value) for key, value in expected.items()]
        return all(key in given and same_in_python(given[key], value) for key, value in keys)
    if isinstance(expected, list | tuple):
        if type(found) is not type(expected) or len(found) != len(expected):
            return False
        return all(same_in_python(a, b) for a, b in zip(found, expected))
    # plain data, so that nothing of a program's is called; sets and dicts are classes of this module
    return bool(found == expected)


def _key_of(value: Any) -> Any:
    """Return what equals for equal members of sets and keys of dicts; its hash is secret."""
    if isinstance(value, tuple):
        return tuple(_key_of(item) for item in value)
    if isinstance(value, PlainSet):
        return frozenset(_key_of(item) for item in value.members.values())
    if isinstance(value, bool):
        value = int(value)
    elif isinstance(value, complex) and not value.imag:
        value = value.real
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return encode(value)


def _close(found: float, expected: float, tolerance: float) -> bool:
    if found == expected or (found != found and expected != expected):
        return True
    if not tolerance:
        return False
    try:
        found, expected = float(found), float(expected)
    except OverflowError:
        return False
    if not (math.isfinite(found) and math.isfinite(expected)):
        return False
    return abs(found - expected) <= tolerance * max(1.0, abs(found), abs(expected))


def _same_sets(found: PlainSet, expected: Any, tolerance: float, exact_types: bool) -> bool:
    if len(found) != len(expected):
        return False
    if found.members.keys() == {encode(item) for item in expected}:
        return True
    kinds = (int, float)
    right = [item for item in expected if type(item) in kinds]
    given = [item for item in found.members.values() if type(item) in kinds]
    if len(right) != len(expected) or len(given) != len(found) or any(item != item for item in right + given):
        return False
    return all(same(a, b, tolerance, exact_types) for a, b in zip(sorted(given), sorted(right)))


def _same_dicts(found: PlainDict, expected: dict[Any, Any], tolerance: float, exact_types: bool) -> bool:
    if len(found) != len(expected):
        return False
    for key, value in expected.items():
        pair = found.members.get(encode(key))
        if pair is None or not same(pair[1], value, tolerance, exact_types):
            return False
    return True
