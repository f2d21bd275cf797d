"""Wrong answers that are near a right number."""

from __future__ import annotations

import numpy as np


def near_numbers(right: str, rng: np.random.Generator) -> list[str]:
    """Return numbers near a right answer that is a whole number, in a random order."""
    if not right.removeprefix("-").isdecimal():
        return []
    steps = [-10, -2, -1, 1, 2, 10, 100]
    return [str(int(right) + steps[i]) for i in rng.permutation(len(steps))]
