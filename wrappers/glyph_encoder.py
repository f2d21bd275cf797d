"""A NetHack level as a vector: what is round the hero, the bottom lines and the message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from .encoders import Array, Encoder, HashedText, Parts, ProjectedTokens

CROP = 9
WIDTH = 8
LOG_SCALE = 10.0  # log(1 + x) of the largest numbers in sight, turns and scores, is about 10


class GlyphView(Encoder):
    """The glyphs round the hero through a fixed random projection, squashed numbers, and the message as hashed text.

    Glyph ids have no order, so each has a vector of its own, +-1 / sqrt(8), the same in every process; squares beyond the map
    are zero. A number x of `blstats` becomes sign(x) log(1 + |x|) / 10, clipped to [-1, 1].

    Args:
        space: the Dict.
        text_features: numbers for the message, where there is one.
        rest: encoders of further keys.
    """

    read = ("glyphs", "blstats", "message")

    def __init__(self, space: spaces.Dict, text_features: int, rest: Mapping[str, Encoder]) -> None:
        self.numbers = int(np.prod(space["blstats"].shape or ()))
        self.rest = Parts(dict(rest))
        self.message = HashedText(text_features) if "message" in space.spaces else None
        highest = space["glyphs"].high.max()  # type: ignore[attr-defined]
        tokens = spaces.Dict(tokens=spaces.Box(0, highest, (1,), np.int64), length=spaces.Discrete(2))
        self._projection = ProjectedTokens(tokens, 1, WIDTH)
        self._table = self._projection.vectors(np.arange(int(highest) + 2))
        self._table[-1] = 0.0  # beyond the map
        sizes = [CROP * CROP * WIDTH, self.numbers, 0 if self.message is None else self.message.size]
        self._bounds = np.cumsum([0, *sizes, self.rest.size]).tolist()
        low, high = np.full(sum(sizes), -1.0), np.ones(sum(sizes))
        super().__init__(np.concatenate([low, self.rest.low]), np.concatenate([high, self.rest.high]), self._bounds[-1])

    def write(self, value: Any, out: Array) -> None:
        """Write crop, numbers, message and the rest."""
        stats = np.asarray(value["blstats"], np.float64)
        a, b, c, d, e = self._bounds
        out[a:b] = self._table[crop(np.asarray(value["glyphs"]), stats, len(self._table) - 1)].reshape(-1)
        out[b:c] = np.clip(np.sign(stats) * np.log1p(np.abs(stats)) / LOG_SCALE, -1.0, 1.0)
        if self.message is not None:
            text = bytes(np.asarray(value["message"], np.uint8)).split(b"\0", 1)[0].decode("latin-1")
            self.message.write(text, out[c:d])
        self.rest.write(value, out[d:e])


def crop(glyphs: np.ndarray, stats: np.ndarray, outside: int) -> np.ndarray:
    """Return the (9, 9) glyphs round the hero, `outside` beyond the map."""
    half = CROP // 2
    padded = np.pad(glyphs.astype(np.int64), half, constant_values=outside)
    y, x = int(stats[1]), int(stats[0])
    y, x = min(max(y, 0), glyphs.shape[0] - 1), min(max(x, 0), glyphs.shape[1] - 1)
    return padded[y : y + CROP, x : x + CROP]
