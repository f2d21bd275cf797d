"""Reading and comparing what came out of the sandbox, which may be forged down to the byte.

The bytes are read by a parser of our own: no pickle, no eval. Members of sets and dicts are kept under their bytes,
whose hashes are secret, so a program cannot choose values whose hashes collide and stall the reader.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn

from .child.wire import MAX_DEPTH, MAX_SIZE, NotPlainError, _read_f64, _read_u32, encode

__all__ = ["MAX_DEPTH", "MAX_SIZE", "NotPlainError", "PlainDict", "PlainSet", "decode", "encode", "natural", "same"]

_NATURAL = 1024
_CONSTANTS = {78: None, 84: True, 70: False}


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
    if kind in b"fc":
        end = at + (8 if kind == 102 else 16)
        if end > len(data):
            _malformed("it is cut off")
        first = _read_f64(data, at)[0]
        return (first if kind == 102 else complex(first, _read_f64(data, at + 8)[0])), end
    if kind not in b"isbltSd":
        _malformed(f"there is no type {kind}")
    if at + 4 > len(data):
        _malformed("it is cut off")
    count = _read_u32(data, at)[0]
    at += 4
    if kind in b"isb":
        return _read_atom(data, at, at + count, kind)
    if count > len(data) - at:
        _malformed("it is cut off")
    if depth <= 0:
        _malformed("containers nested too deep")
    if kind in b"Sd":
        return _read_members(data, at, count, kind, depth - 1)
    items = []
    for _ in range(count):
        item, at = _read(data, at, depth - 1)
        items.append(item)
    return (items if kind == 108 else tuple(items)), at


def _read_atom(data: bytes, at: int, end: int, kind: int) -> tuple[Any, int]:
    if end > len(data):
        _malformed("it is cut off")
    raw = data[at:end]
    if kind == 105:
        return int.from_bytes(raw, "little", signed=True), end
    if kind == 98:
        return raw, end
    try:
        return raw.decode("utf-8", "surrogatepass"), end
    except UnicodeDecodeError:
        _malformed("a text is no UTF-8")


def _read_members(data: bytes, at: int, count: int, kind: int, depth: int) -> tuple[Any, int]:
    members: dict[bytes, Any] = {}
    for _ in range(count):
        start = at
        key, at = _read(data, at, depth)
        name = data[start:at]
        if name in members:
            _malformed("a member occurs twice")
        if kind == 100:
            value, at = _read(data, at, depth)
            members[name] = (key, value)
        else:
            members[name] = key
    return (PlainDict(members) if kind == 100 else PlainSet(members)), at


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
