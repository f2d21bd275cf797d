"""Fixed encoders of observations: numbers out of anything, with nothing to learn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError

from .action_kinds import is_glyph_space, is_picture_space, is_text_space, is_token_space

Array = NDArray[np.float32]
MAX_ONE_HOT = 1024
NGRAMS = (1, 2, 3)
_LARGE = np.float32(3e38)
_MIXER = np.uint64(0x9E3779B97F4A7C15)


class Encoder(ABC):
    """Writes an element of one space as `size` numbers.

    Attributes:
        low: [size] least values.
        high: [size] largest values.
    """

    def __init__(self, low: Any, high: Any, size: int) -> None:
        self.size = size
        self.low: Array = np.broadcast_to(np.asarray(low, np.float32), (size,)).copy()
        self.high: Array = np.broadcast_to(np.asarray(high, np.float32), (size,)).copy()

    @abstractmethod
    def write(self, value: Any, out: Array) -> None:
        """Write `value` into `out` [size]."""


class Numbers(Encoder):
    """A Box or MultiBinary, flattened; what float32 cannot hold is clipped."""

    def __init__(self, space: spaces.Box | spaces.MultiBinary) -> None:
        size = int(np.prod(space.shape))
        if isinstance(space, spaces.Box):
            low, high = (_float32(bound).reshape(-1) for bound in (space.low, space.high))
        else:
            low, high = np.zeros(size, np.float32), np.ones(size, np.float32)
        super().__init__(low, high, size)

    def write(self, value: Any, out: Array) -> None:
        """Write the flattened numbers."""
        out[:] = _float32(np.asarray(value)).reshape(-1)


class Picture(Encoder):
    """A picture (H, W, C) of uint8, averaged over a grid of 12 x 12 fields, in [0, 1]."""

    side = 12

    def __init__(self, space: spaces.Box) -> None:
        height, width, self.channels = space.shape
        self._rows, self._columns = (np.arange(self.side) * size // self.side for size in (height, width))
        heights, widths = (
            np.diff(np.append(starts, size)) for starts, size in ((self._rows, height), (self._columns, width))
        )
        self._scale = (1.0 / (255.0 * np.outer(heights, widths)))[:, :, None]
        super().__init__(0.0, 1.0, self.side * self.side * self.channels)

    def write(self, value: Any, out: Array) -> None:
        """Write the averages, field by field."""
        sums = np.add.reduceat(np.asarray(value, np.float64), self._rows, axis=0)
        out[:] = (np.add.reduceat(sums, self._columns, axis=1) * self._scale).reshape(-1)


class Choice(Encoder):
    """A Discrete number: one-hot, or its binary digits where there are more than `MAX_ONE_HOT` choices."""

    def __init__(self, number: int, start: int = 0) -> None:
        self.number, self.start = number, start
        self.is_one_hot = number <= MAX_ONE_HOT
        super().__init__(0.0, 1.0, number if self.is_one_hot else (number - 1).bit_length())

    def write(self, value: Any, out: Array) -> None:
        """Write the digits."""
        index = int(value) - self.start
        if self.is_one_hot:
            out[:] = 0.0
            out[index] = 1.0
        else:
            out[:] = [index >> bit & 1 for bit in range(self.size)]


class HashedText(Encoder):
    """A text as signed counts of its byte n-grams (n = 1, 2, 3) in buckets, scaled to length 1, and the text's length.

    Weinberger et al. 2009, "Feature hashing for large scale multitask learning": a fixed hash gives each n-gram a bucket
    and a sign, so that inner products stay those of the counts in expectation. Counts enter by their square root.
    """

    def __init__(self, size: int) -> None:
        self.buckets = size - 1
        super().__init__(-1.0, 1.0, size)

    def write(self, value: Any, out: Array) -> None:
        """Write the counts and log(1 + bytes) / 20."""
        data = np.frombuffer(str(value).encode("utf-8", "surrogatepass"), np.uint8).astype(np.uint64)
        total = np.zeros(self.buckets)
        for n in NGRAMS:
            if len(data) < n:
                break
            code = np.full(len(data) - n + 1, n, np.uint64)
            for k in range(n):
                code = code << np.uint64(8) | data[k : len(data) - n + 1 + k]
            bucket, sign = _hash(code, self.buckets)
            total += np.bincount(bucket, sign, minlength=self.buckets)
        total = np.sign(total) * np.sqrt(np.abs(total))
        norm = float(np.linalg.norm(total))
        out[:-1] = total / norm if norm else 0.0
        out[-1] = min(np.log1p(len(data)) / 20.0, 1.0)


class ProjectedTokens(Encoder):
    """Token ids through a fixed random projection: the last ones in order, the mean of all, and the length.

    Every id has the same vector of +-1 / sqrt(width) in every process. Padding counts nothing.
    """

    def __init__(self, space: spaces.Dict, window: int, width: int) -> None:
        tokens = space["tokens"]
        assert isinstance(tokens, spaces.Box)
        self.window, self.width = window, width
        self.max_length = int(np.prod(tokens.shape))
        super().__init__(-1.0, 1.0, (window + 1) * width + 1)

    def vectors(self, ids: Any) -> Array:
        """Return the vectors [k, width] of the ids [k]."""
        ids = np.asarray(ids).astype(np.uint64).reshape(-1, 1)
        _, sign = _hash(ids * np.uint64(self.width) + np.arange(self.width, dtype=np.uint64), 2)
        return (sign / np.sqrt(self.width)).astype(np.float32)

    def write(self, value: Any, out: Array) -> None:
        """Write the projections."""
        length = int(np.asarray(value["length"]).reshape(-1)[0])
        vectors = self.vectors(np.asarray(value["tokens"]).reshape(-1)[:length])
        out[:] = 0.0
        last = vectors[-self.window :] if length else vectors
        # the newest token always stands in the same place
        end = self.window * self.width
        out[end - last.size : end] = last.reshape(-1)
        if length:
            out[end:-1] = vectors.mean(0)
        out[-1] = length / max(self.max_length, 1)


class Parts(Encoder):
    """A Dict or Tuple, part after part (a Dict in the order of its keys)."""

    def __init__(self, encoders: dict[Any, Encoder]) -> None:
        self.encoders = encoders
        low = np.concatenate([e.low for e in encoders.values()]) if encoders else np.zeros(0)
        high = np.concatenate([e.high for e in encoders.values()]) if encoders else np.zeros(0)
        super().__init__(low, high, len(low))

    def write(self, value: Any, out: Array) -> None:
        """Write every part."""
        start = 0
        for key, encoder in self.encoders.items():
            encoder.write(value[key], out[start : start + encoder.size])
            start += encoder.size


def encoder_of(space: gym.Space[Any], text_features: int, token_window: int, token_width: int) -> Encoder:
    """Make the encoder of an observation space.

    Args:
        space: any of Gymnasium's fundamental spaces, Dict, Tuple, texts and tokens.
        text_features: numbers for each text.
        token_window: number of last tokens that are written in order.
        token_width: numbers for each of them.

    Raises:
        UsageError: the space has no fixed number of elements (Sequence, Graph) or is unknown.
    """

    def make(part: gym.Space[Any]) -> Encoder:
        return encoder_of(part, text_features, token_window, token_width)

    if is_token_space(space) and isinstance(space, spaces.Dict):
        rest = {key: make(part) for key, part in space.spaces.items() if key not in ("tokens", "length")}
        tokens = ProjectedTokens(space, token_window, token_width)
        return _TokensAndRest(tokens, rest) if rest else tokens
    if is_glyph_space(space) and isinstance(space, spaces.Dict):
        from .glyph_encoder import GlyphView

        rest = {key: make(part) for key, part in space.spaces.items() if key not in GlyphView.read}
        return GlyphView(space, text_features, rest)
    if is_text_space(space):
        return HashedText(text_features)
    if is_picture_space(space) and isinstance(space, spaces.Box):
        return Picture(space)
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return Numbers(space)
    if isinstance(space, spaces.Discrete):
        return Choice(int(space.n), int(space.start))
    if isinstance(space, spaces.MultiDiscrete):
        numbers, starts = space.nvec.reshape(-1).tolist(), space.start.reshape(-1).tolist()
        return _Flattened({i: Choice(int(n), int(s)) for i, (n, s) in enumerate(zip(numbers, starts))})
    if isinstance(space, spaces.Dict):
        return Parts({key: make(part) for key, part in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return Parts(dict(enumerate(make(part) for part in space.spaces)))
    raise UsageError(
        f"VectorObservation encodes Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple, texts and tokens, got {space}; "
        "turn it into one of these with a wrapper first"
    )


class _Flattened(Parts):
    """The components of a MultiDiscrete of any shape."""

    def write(self, value: Any, out: Array) -> None:
        super().write(np.asarray(value).reshape(-1), out)


class _TokensAndRest(Parts):
    """Tokens, and whatever else their Dict holds."""

    def __init__(self, tokens: ProjectedTokens, rest: dict[Any, Encoder]) -> None:
        super().__init__({None: tokens, **rest})

    def write(self, value: Any, out: Array) -> None:
        super().write({None: value, **{key: value[key] for key in self.encoders if key is not None}}, out)


def _float32(value: Any) -> Array:
    value = np.asarray(value)
    if value.dtype == np.float64 or value.dtype.kind in "iu":
        # infinite bounds stay infinite; finite numbers beyond float32 become its largest
        finite = np.clip(value.astype(np.float64), -float(_LARGE), float(_LARGE))
        return np.where(np.isfinite(value.astype(np.float64)), finite, value.astype(np.float64)).astype(np.float32)
    return value.astype(np.float32)


def _hash(code: NDArray[np.uint64], buckets: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return a bucket and a sign for each code (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        z = (code + np.uint64(1)) * _MIXER
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z = z ^ z >> np.uint64(31)
    sign = 1.0 - 2.0 * (z >> np.uint64(63)).astype(np.float64)
    return (z % np.uint64(buckets)).astype(np.int64), sign
