"""Plain data as bytes: the only form in which values cross the border of the sandbox.

The bytes are those of `marshal` in its version 2, which every Python writes alike and in which exact types alone have a
form: a subclass of int or str has none, so nothing that a program defines is called to write or to compare a value.
They are written by `marshal`, in C; what comes from a program is read by the parser of `polyathlon.envs.code.plain`.
"""

from __future__ import annotations

import marshal
import sys
from typing import Any

MAX_DEPTH = 50
MAX_SIZE = 1 << 20
VERSION = 2
_dumps = marshal.dumps  # bound before a program runs, which may replace it in its module
_EMPTY: dict[Any, Any] = {}
_SETS: tuple[Any, ...] = (set, frozenset, type(_EMPTY.keys()), type(_EMPTY.items()))
_SCALARS: tuple[Any, ...] = (bool, int, float, complex, str, bytes)
NONCE = 16
HEADER = NONCE + 1 + 4 + 4
VALUE, ERROR, UNPLAIN, LOAD_ERROR, DONE = range(5)


class NotPlainError(Exception):
    """A value that is no plain data, is too large, or nests too deep."""


def encode(value: Any, max_size: int = MAX_SIZE) -> bytes:
    """Return a value as bytes.

    Args:
        value: None, bool, int, float, complex, str, bytes, or a list, tuple, set or dict of these; exact types alone.
        max_size: the longest result in bytes.

    Raises:
        NotPlainError: the value is of another type, too large, or nested too deep.
    """
    try:
        data = _dumps(value, VERSION)
    except ValueError as error:
        raise NotPlainError(
            "no plain data: allowed are int, float, complex, str, bytes, bool, None, and list, tuple, set, dict of them"
        ) from error
    if len(data) > max_size:
        raise NotPlainError(f"a value of {len(data)} bytes; at most {max_size} are taken")
    return data


def encode_as_base(value: Any) -> bytes:
    """Return a value as bytes, each part of a subclass of a plain type as that type: a Counter as a dict.

    Fractions and decimals that equal a float count as one, and views of a dict as sets, as for Python's `==`. This runs
    the program's code, if it overrides something; what comes of it is plain data, and judged as such.

    Raises:
        NotPlainError: the value is of another type, too large, or nested too deep.
    """
    try:
        return encode(value)
    except NotPlainError:
        return encode(_as_base(value, MAX_DEPTH))


def _as_base(value: Any, depth: int) -> Any:
    if depth < 0:
        raise NotPlainError(f"containers nested deeper than {MAX_DEPTH}")
    if value is None or type(value) in _SCALARS:
        return value
    for base in _SCALARS:
        if isinstance(value, base):
            return base.__add__(value, base())  # a plain one, whatever the subclass says of itself
    if isinstance(value, dict):
        return {_as_base(key, depth - 1): _as_base(one, depth - 1) for key, one in dict.items(value)}
    if isinstance(value, list):
        return [_as_base(one, depth - 1) for one in list.__iter__(value)]
    if isinstance(value, tuple):
        return tuple([_as_base(one, depth - 1) for one in tuple.__iter__(value)])
    if isinstance(value, _SETS):
        return {_as_base(one, depth - 1) for one in value}
    return _as_float(value)


def _as_float(value: Any) -> Any:
    for module, name in (("fractions", "Fraction"), ("decimal", "Decimal")):
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(value, kind):
            whole = int(value)
            found = whole if whole == value else float(value)
            return found if found == value else value
    return value


def record(nonce: bytes, kind: int, index: int, payload: bytes) -> bytes:
    """Return a record: nonce, kind, index of the input, length of what follows, and that."""
    return b"%b%c%b%b%b" % (nonce, kind, index.to_bytes(4, "little"), len(payload).to_bytes(4, "little"), payload)


def header_of(data: bytes | bytearray) -> tuple[bytes, int, int, int]:
    """Return nonce, kind, index and length of a record that begins with these bytes."""
    kind, rest = data[NONCE], NONCE + 1
    index = int.from_bytes(data[rest : rest + 4], "little")
    return bytes(data[:NONCE]), kind, index, int.from_bytes(data[rest + 4 : rest + 8], "little")
