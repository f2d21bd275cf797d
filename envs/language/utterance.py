"""The space of texts, and how Gymnasium's vector environments carry it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import (
    batch_differing_spaces,
    batch_space,
    concatenate,
    create_empty_array,
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError, check_positive_int

DEFAULT_MAX_BYTES = 1 << 16
_HEADER = 8
_SAMPLE_LENGTH = 32
# letters, digits, punctuation, Latin, Greek, Cyrillic, Arabic, Devanagari, CJK, emoji: first and last code point
_ALPHABETS = (
    (0x20, 0x7E),
    (0xA1, 0x17F),
    (0x391, 0x3C9),
    (0x410, 0x44F),
    (0x621, 0x64A),
    (0x905, 0x939),
    (0x4E00, 0x9FA5),
    (0x1F600, 0x1F64F),
)


class Utterance(gym.Space[str]):
    """Any text: a `str` whose UTF-8 form takes at most `max_bytes` bytes.

    Gymnasium's own `Text` has a fixed alphabet and cannot be read from the shared memory of an `AsyncVectorEnv`; this
    space can: batches are tuples of strings in every vector environment.

    Args:
        max_bytes: the longest text in bytes. A vector environment with shared memory holds so many bytes a row.
        seed: seed of `sample`, or a generator.

    Raises:
        UsageError: `max_bytes` is not a positive integer.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES, seed: int | np.random.Generator | None = None) -> None:
        check_positive_int(max_bytes=max_bytes)
        self.max_bytes = int(max_bytes)
        super().__init__(shape=None, dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Return whether the space flattens to a Box: never, a text has no fixed length."""
        return False

    def sample(self, mask: int | None = None, probability: None = None) -> str:
        """Draw a text of letters, digits and signs of several scripts.

        Args:
            mask: number of characters; None draws a length of 0 to 32.
            probability: not used; refused when given.

        Raises:
            UsageError: `mask` is not a length that fits, or `probability` is given.
        """
        if probability is not None:
            raise UsageError("Utterance.sample takes no probability; give the length as mask=, or nothing")
        longest = self.max_bytes // 4
        if mask is None:
            length = int(self.np_random.integers(0, min(_SAMPLE_LENGTH, max(longest, 1)) + 1))
        elif isinstance(mask, bool) or not isinstance(mask, int | np.integer) or not 0 <= mask <= longest:
            raise UsageError(f"the length of a sample is an integer from 0 to {longest}, got {mask!r}")
        else:
            length = int(mask)
        # half of the texts are plain ASCII, as most text is
        reach = 1 if self.np_random.random() < 0.5 else len(_ALPHABETS)
        alphabets = self.np_random.integers(0, reach, length)
        text = "".join(chr(int(self.np_random.integers(*_ALPHABETS[a], endpoint=True))) for a in alphabets)
        return text if len(text.encode()) <= self.max_bytes else ""

    def contains(self, x: Any) -> bool:
        """Return whether `x` is a string of at most `max_bytes` bytes (lone surrogates count three bytes each)."""
        if not isinstance(x, str):
            return False
        return len(x) * 4 <= self.max_bytes or len(x.encode("utf-8", "surrogatepass")) <= self.max_bytes

    def to_jsonable(self, sample_n: Sequence[str]) -> list[str]:
        """Return the texts as a list, which JSON can hold."""
        return list(sample_n)

    def from_jsonable(self, sample_n: list[Any]) -> list[str]:
        """Read back what `to_jsonable` returned."""
        return [str(x) for x in sample_n]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Utterance) and self.max_bytes == other.max_bytes

    def __hash__(self) -> int:
        return hash((Utterance, self.max_bytes))

    def __repr__(self) -> str:
        return f"Utterance(max_bytes={self.max_bytes})"


class SharedTexts(Sequence[str]):
    """The texts that worker processes wrote last, read from shared memory each time an item is taken.

    A deep copy is a tuple of strings, which no later step changes; vector environments hand out such copies.
    """

    def __init__(self, memory: Any, row_bytes: int, n: int) -> None:
        self._rows = _rows_of(memory, row_bytes, n)

    def _text(self, i: int) -> str:
        row = self._rows[i]
        size = int(row[:_HEADER].view(np.int64)[0])
        return bytes(row[_HEADER : _HEADER + size]).decode("utf-8", "surrogatepass")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Any:
        return tuple(self)[i] if isinstance(i, slice) else self._text(i)

    def __iter__(self) -> Iterator[str]:
        return (self._text(i) for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        return repr(tuple(self))


def _row_bytes(space: Utterance) -> int:
    return _HEADER + (space.max_bytes + 7) // 8 * 8


def _rows_of(memory: Any, row_bytes: int, n: int) -> NDArray[np.uint8]:
    return np.frombuffer(memory.get_obj(), dtype=np.uint8).reshape(n, row_bytes)


def _batch(space: Utterance, n: int = 1) -> gym.spaces.Tuple:
    batched = gym.spaces.Tuple(tuple(Utterance(space.max_bytes) for _ in range(n)))
    batched.seed([int(x) for x in copy.deepcopy(space.np_random).integers(0, 10**8, n)])
    return batched


def _batch_differing(spaces: list[Utterance]) -> gym.spaces.Tuple:
    return gym.spaces.Tuple(tuple(copy.deepcopy(space) for space in spaces))


def _concatenate(space: Utterance, items: Any, out: Any) -> tuple[str, ...]:
    return tuple(items)


def _empty(space: Utterance, n: int | None = 1, fn: Any = np.zeros) -> Any:
    return "" if n is None else ("",) * n


def _shared(space: Utterance, n: int = 1, ctx: Any = None) -> Any:
    if ctx is None:
        import multiprocessing as ctx
    return ctx.Array("B", n * _row_bytes(space))


def _read(space: Utterance, shared_memory: Any, n: int = 1) -> Any:
    return SharedTexts(shared_memory, _row_bytes(space), n)


def _write(space: Utterance, index: int, value: str, shared_memory: Any) -> None:
    encoded = value.encode("utf-8", "surrogatepass")
    if len(encoded) > space.max_bytes:
        raise UsageError(
            f"a text of {len(encoded)} bytes does not fit in the {space.max_bytes} bytes that each environment has in "
            f"shared memory: give the space a larger max_bytes, or AsyncVectorEnv shared_memory=False"
        )
    row_bytes = _row_bytes(space)
    rows = np.frombuffer(shared_memory.get_obj(), dtype=np.uint8)
    row = rows[index * row_bytes : (index + 1) * row_bytes]
    row[_HEADER : _HEADER + len(encoded)] = np.frombuffer(encoded, dtype=np.uint8)
    row[:_HEADER].view(np.int64)[0] = len(encoded)


batch_space.register(Utterance, _batch)
batch_differing_spaces.register(Utterance, _batch_differing)
concatenate.register(Utterance, _concatenate)
create_empty_array.register(Utterance, _empty)
create_shared_memory.register(Utterance, _shared)
read_from_shared_memory.register(Utterance, _read)
write_to_shared_memory.register(Utterance, _write)
