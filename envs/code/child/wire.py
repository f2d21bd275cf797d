"""Plain data as bytes: the only form in which values cross the border of the sandbox.

One byte names the type, then comes the content. Types are exact: a subclass is no plain data, so nothing that a
program defines is ever called here or on the other side. Sets are written in the order of their members' bytes, so
equal sets have equal bytes.

| byte | type | content |
|---|---|---|
| N T F | None, True, False | - |
| i s b | int, str, bytes | length (u32), two's complement little endian / UTF-8 / bytes |
| f c | float, complex | one or two doubles, little endian |
| l t S d | list, tuple, set, dict | number of members (u32), the members; of a dict key and value in turns |
"""

from __future__ import annotations

import struct
from typing import Any

MAX_DEPTH = 50
MAX_SIZE = 1 << 20
# a record: nonce, kind, index of the input, length of what follows
RECORD = struct.Struct("<16sBII")
VALUE, ERROR, UNPLAIN, LOAD_ERROR, DONE = range(5)
# the program may replace any builtin; what is used after it has run is bound here, before
_type, _len, _sorted, _str, _bytearray, _int_to_bytes = type, len, sorted, str.encode, bytearray, int.to_bytes
_bit_length = int.bit_length
_u32 = struct.Struct("<I").pack
_f64 = struct.Struct("<d").pack
_read_u32 = struct.Struct("<I").unpack_from
_read_f64 = struct.Struct("<d").unpack_from


class NotPlainError(Exception):
    """A value that is no plain data, is too large, or nests too deep."""


def encode(value: Any, max_size: int = MAX_SIZE, max_depth: int = MAX_DEPTH) -> bytes:
    """Return a value as bytes.

    Args:
        value: None, bool, int, float, complex, str, bytes, or a list, tuple, set or dict of these; exact types alone.
        max_size: the longest result in bytes.
        max_depth: how deep containers may nest.

    Raises:
        NotPlainError: the value is of another type, too large, or nested too deep.
    """
    out = _bytearray()
    _write(value, out, max_size, max_depth)
    if _len(out) > max_size:
        raise NotPlainError(f"more than {max_size} bytes")
    return bytes(out)


def _write(value: Any, out: bytearray, room: int, depth: int) -> None:
    kind = _type(value)
    if value is None or value is True or value is False:
        out += b"N" if value is None else b"T" if value is True else b"F"
    elif kind is int:
        length = _bit_length(value) // 8 + 1
        if length > room:
            raise NotPlainError(f"an integer of more than {room} bytes")
        out += b"i" + _u32(length) + _int_to_bytes(value, length, "little", signed=True)
    elif kind is str or kind is bytes:
        if _len(value) > room:
            raise NotPlainError(f"a text of more than {room} characters")
        data = _str(value, "utf-8", "surrogatepass") if kind is str else value
        out += (b"s" if kind is str else b"b") + _u32(_len(data)) + data
    elif kind is float:
        out += b"f" + _f64(value)
    elif kind is complex:
        out += b"c" + _f64(value.real) + _f64(value.imag)
    elif kind is list or kind is tuple or kind is set or kind is dict:
        if depth <= 0:
            raise NotPlainError("containers nested too deep")
        _write_container(value, kind, out, room, depth - 1)
    else:
        raise NotPlainError("a value of a type other than int, float, str, bool, None, list, tuple, dict, set, bytes")
    if _len(out) > room:
        raise NotPlainError(f"more than {room} bytes")


def _write_container(value: Any, kind: type, out: bytearray, room: int, depth: int) -> None:
    count = _len(value)
    if count > room:
        raise NotPlainError(f"more than {room} members")
    out += (b"l" if kind is list else b"t" if kind is tuple else b"S" if kind is set else b"d") + _u32(count)
    if kind is set:
        members = []
        for item in value:
            member = _bytearray()
            _write(item, member, room, depth)
            room -= _len(member)
            members.append(bytes(member))
        for member_bytes in _sorted(members):
            out += member_bytes
    elif kind is dict:
        for key, item in value.items():
            _write(key, out, room, depth)
            _write(item, out, room, depth)
    else:
        for item in value:
            _write(item, out, room, depth)


def decode(data: bytes) -> Any:
    """Return the value of bytes that `encode` wrote; for bytes from a trusted side alone."""
    return _read(data, 0)[0]


def _read(data: bytes, at: int) -> tuple[Any, int]:
    kind = data[at : at + 1]
    at += 1
    if kind in (b"N", b"T", b"F"):
        return {b"N": None, b"T": True, b"F": False}[kind], at
    if kind == b"f":
        return _read_f64(data, at)[0], at + 8
    if kind == b"c":
        return complex(_read_f64(data, at)[0], _read_f64(data, at + 8)[0]), at + 16
    count = _read_u32(data, at)[0]
    at += 4
    if kind in (b"i", b"s", b"b"):
        raw = data[at : at + count]
        at += count
        if kind == b"i":
            return int.from_bytes(raw, "little", signed=True), at
        return (raw.decode("utf-8", "surrogatepass") if kind == b"s" else raw), at
    items = []
    for _ in range(2 * count if kind == b"d" else count):
        item, at = _read(data, at)
        items.append(item)
    if kind == b"d":
        return dict(zip(items[::2], items[1::2])), at
    return {b"l": list, b"t": tuple, b"S": set}[kind](items), at
