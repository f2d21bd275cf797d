"""What the forms of the task have in common: infos at the end of a game, pictures and text of the screen."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from .game import ACHIEVEMENTS, Game
from .rules import X, Y
from .settings import LEVEL_SHAPE, TILE


def ending(game: Game) -> dict[str, Any]:
    """Say how the game that is over ended: "how_done", "is_ascended", "death", "achieve" (bits), and where: "depth", "turns".

    NLE's own numbers are zero by then, so depth and turns are those of NetHack's log.
    """
    how, record = game.how_done(), game.record()
    return {
        "depth": int(record.get("deathlev", 0)),
        "turns": int(record.get("turns", 0)),
        "how_done": how,
        "is_ascended": how == "ASCENDED",
        "death": record.get("death", ""),
        "achieve": int(record.get("achieve", "0"), 16),
    }


def named(end: dict[str, Any]) -> dict[str, Any]:
    """Return what `ending` says with "achievements" by name in place of their bits."""
    bits = end["achieve"]
    names = tuple(name for i, name in enumerate(ACHIEVEMENTS) if bits >> i & 1)
    return {**{key: value for key, value in end.items() if key != "achieve"}, "achievements": names}


def crop_round(frame: np.ndarray, blstats: np.ndarray, crop: int, out: np.ndarray) -> None:
    """Copy the `crop` x `crop` tiles round the hero out of a picture of the level; black beyond its edges."""
    half = crop // 2
    top, left = (int(blstats[Y]) - half) * TILE, (int(blstats[X]) - half) * TILE
    bottom, right = top + crop * TILE, left + crop * TILE
    inside = frame[max(top, 0) : bottom, max(left, 0) : right]
    out[...] = 0
    y, x = max(-top, 0), max(-left, 0)
    out[y : y + inside.shape[0], x : x + inside.shape[1]] = inside


def new_frame() -> np.ndarray:
    """Allocate a picture of a level."""
    return np.zeros(LEVEL_SHAPE, np.uint8)


def screen_text(chars: np.ndarray, colors: np.ndarray) -> str:
    """Write the terminal (24, 80) as text, its colours as escape sequences where they are not plain."""
    return "\n".join(_coloured(*line) for line in zip(chars, colors))


def _coloured(chars: np.ndarray, colors: np.ndarray) -> str:
    text = chars.tobytes().decode("latin-1").rstrip()
    # blanks and the terminal's own grey need no colour
    wanted = [0 if letter == " " or color in (0, 7) else color for letter, color in zip(text, colors.tolist())]
    parts = []
    for color, run in itertools.groupby(zip(wanted, text), lambda pair: pair[0]):
        piece = "".join(letter for _, letter in run)
        # bit 3 is brightness, the others are ANSI's colour
        parts.append(f"\033[{int(bool(color & 8))};3{color & 7}m{piece}\033[0m" if color else piece)
    return "".join(parts)
