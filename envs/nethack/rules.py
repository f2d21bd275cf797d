"""What the tasks pay and when they end: NLE's formulas, for one game in Python's numbers and for many in arrays alike."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from polyathlon.envs.errors import unknown_name

from .keys import nethack

RUNNING, DEATH, SUCCESS, ABORTED = 0, 1, 2, -1  # NLE's `end_status`
PENALTY_MODES = ("constant", "exp", "square", "linear", "always")
TASKS = ("score", "staircase", "staircase_pet", "oracle", "gold", "eat", "scout", "challenge")
_MOST_DOUBLINGS = 100
ENDING = ("staircase", "staircase_pet", "oracle")  # tasks that can be fulfilled
X, Y, SCORE, DEPTH, GOLD, TIME, DUNGEON, LEVEL = 0, 1, 9, 12, 13, 20, 23, 24  # of `blstats`


class Seen(NamedTuple):
    """What a reward is made of, at one moment: numbers of one game, or arrays [n] of many.

    Attributes:
        time: turns.
        paid: what the task counts: score, gold, or hunger points.
    """

    time: Any
    paid: Any


@dataclass(frozen=True)
class Rules:
    """A task.

    Attributes:
        task: one of `TASKS`.
        penalty_mode: how the penalty grows with the steps in which the game's clock stands still; of "exp" it doubles with
            each of the first hundred.
        penalty_step: what one such step costs.
        penalty_time: what one turn costs.

    Raises:
        UsageError: the task or the mode is unknown.
    """

    task: str = "score"
    penalty_mode: str = "constant"
    penalty_step: float = -0.01
    penalty_time: float = -0.0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise unknown_name("task", str(self.task), (*TASKS, "minihack:..."))
        if self.penalty_mode not in PENALTY_MODES:
            raise unknown_name("penalty_mode", str(self.penalty_mode), PENALTY_MODES)

    def penalty(self, frozen: Any, elapsed: Any) -> Any:
        """Return the time penalty of a step.

        Args:
            frozen: number of steps, this one included, in which the clock stood still; 0 where it went on.
            elapsed: turns that went by.
        """
        count: Any = frozen * 0 + 1
        if self.penalty_mode == "constant":
            count = frozen > 0
        elif self.penalty_mode == "exp":
            # a float of Python raises beyond 2^1023, one of numpy becomes infinite
            count = 2.0 ** np.minimum(frozen, _MOST_DOUBLINGS)
        elif self.penalty_mode == "square":
            count = frozen * frozen
        elif self.penalty_mode == "linear":
            count = frozen
        penalty = count * self.penalty_step
        return penalty + elapsed * self.penalty_time if self.penalty_time else penalty

    def reward(self, before: Seen, after: Seen, frozen: Any, is_playing: Any, success: Any, found: Any) -> Any:
        """Return the reward of a step.

        score: score_t - score_t-1 + penalty; gold the same of gold; eat: max(0, hunger points gained) + penalty; scout:
        glyphs found + penalty; staircase, staircase_pet, oracle: 1 where fulfilled + penalty.

        Args:
            before: what was seen before.
            after: what is seen now.
            frozen: see `penalty`.
            is_playing: False once the game is over, whose numbers are zero then.
            success: whether the task is fulfilled.
            found: number of glyphs found (scout).
        """
        penalty = self.penalty(frozen, after.time - before.time)
        gained = after.paid - before.paid
        if self.task in ENDING:
            return success * 1.0 + penalty
        if self.task in ("score", "challenge"):
            return gained * is_playing + penalty
        if self.task == "gold":
            return (gained + penalty) * is_playing
        if self.task == "eat":
            return (gained * (gained > 0) + penalty) * is_playing
        return (found + penalty) * is_playing

    def is_near(self, stairs: bool, glyphs: np.ndarray, x: int, y: int) -> bool:
        """Tell whether one game's task is fulfilled.

        Args:
            stairs: whether the hero stands on stairs down.
            glyphs: (21, 79).
            x: the hero's column.
            y: the hero's row.
        """
        if self.task == "staircase":
            return stairs
        if self.task == "staircase_pet" and not stairs:
            return False
        around = glyphs[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        if self.task == "staircase_pet":
            return bool(np.any(nethack.glyph_is_pet(around)))
        return bool((around == oracle_glyph()).any())


class Explored:
    """Numbers of glyphs seen on each level (scout)."""

    def __init__(self) -> None:
        self.levels: dict[tuple[int, int], int] = {}

    def find(self, blstats: np.ndarray, seen: int) -> int:
        """Return how many more glyphs are seen on this level than before."""
        key = (int(blstats[DUNGEON]), int(blstats[LEVEL]))
        more = seen - self.levels.get(key, 0)
        self.levels[key] = seen
        return more


@functools.cache
def oracle_glyph() -> int:
    """Return the glyph of the Oracle."""
    return next(
        glyph
        for glyph in range(nethack.GLYPH_MON_OFF, nethack.GLYPH_PET_OFF)
        if nethack.permonst(nethack.glyph_to_mon(glyph)).mname == "Oracle"
    )


def count_glyphs(glyphs: np.ndarray) -> Any:
    """Count what is not blank stone in [..., 21, 79] glyphs."""
    return (glyphs != nethack.GLYPH_CMAP_OFF).sum((-2, -1))
