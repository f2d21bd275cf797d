"""`polyathlon.envs.random` on Python integers: the same draws, bit for bit, for one game at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ODD = 0xC2B2AE3D27D4EB4F
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


class Key(NamedTuple):
    """The random key of a game, as unsigned 64-bit numbers."""

    first: int
    second: int


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * _FIRST) & _MASK
    x = ((x ^ (x >> 27)) * _SECOND) & _MASK
    return x ^ (x >> 31)


def make_key(seed: int, episode: int) -> Key:
    """Return the key of an episode; see `polyathlon.envs.random.make_keys`."""
    first = _mix((_mix((seed + _GOLDEN) & _MASK) + episode * _ODD) & _MASK)
    second = _mix((_mix((episode + _ODD) & _MASK) + seed * _GOLDEN) & _MASK)
    return Key(first, second)


def bits(key: Key, step: int, position: int = 0, stream: int = 0) -> int:
    """Draw 64 random bits, as an unsigned number; see `polyathlon.envs.random.bits`."""
    counter = (position * _GOLDEN + key.first + step * (_GOLDEN << 32)) & _MASK
    return _mix(_mix(counter) ^ ((key.second + _ODD * stream) & _MASK))


def choice(key: Key, step: int, allowed: Sequence[int], stream: int = 0) -> int:
    """Choose one of the entries, all with equal probability; see `polyathlon.envs.random.choice`."""
    return allowed[(bits(key, step, 0, stream) >> 1) % len(allowed)]


def ranks(key: Key, step: int, count: int, stream: int = 0) -> list[int]:
    """Draw a permutation: the rank of each of `count` drawn numbers, compared as signed ones."""
    drawn = [(bits(key, step, i, stream) ^ (1 << 63)) for i in range(count)]
    order = sorted(range(count), key=drawn.__getitem__)
    result = [0] * count
    for rank, i in enumerate(order):
        result[i] = rank
    return result
