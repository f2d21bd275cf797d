"""Plain data as bytes: the only form in which values cross the border of the sandbox.

The bytes are those of `marshal` in its version 2, which every Python writes alike and in which exact types alone have a
form: a subclass of int or str has none, so nothing that a program defines is called to write or to compare a value.
They are written by `marshal`, in C; what comes from a program is read by the parser of `polyathlon.envs.code.plain`.
"""

from __future__ import annotations

import marshal
from typing import Any

MAX_DEPTH = 50
MAX_SIZE = 1 << 20
VERSION = 2
_dumps = marshal.dumps  # bound before a program runs, which may replace it in its module
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


def record(nonce: bytes, kind: int, index: int, payload: bytes) -> bytes:
    """Return a record: nonce, kind, index of the input, length of what follows, and that."""
    return b"%b%c%b%b%b" % (nonce, kind, index.to_bytes(4, "little"), len(payload).to_bytes(4, "little"), payload)


def header_of(data: bytes | bytearray) -> tuple[bytes, int, int, int]:
    """Return nonce, kind, index and length of a record that begins with these bytes."""
    kind, rest = data[NONCE], NONCE + 1
    index = int.from_bytes(data[rest : rest + 4], "little")
    return bytes(data[:NONCE]), kind, index, int.from_bytes(data[rest + 4 : rest + 8], "little")
