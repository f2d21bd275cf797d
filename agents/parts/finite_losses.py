"""Losses that are no longer numbers end a run by name, before they spoil what it has learnt."""

from __future__ import annotations

import math
from collections.abc import Mapping

ADVICE = "lower the learning rate, bound the gradient (max_grad_norm), or look for division by zero in that loss"


def what_is_wrong(name: str, value: float) -> str:
    """Return "NaN" or "infinite" for a number that no training can go on with, else "".

    A loss (its name ends so, but for the number of a network's member in "critic_loss.1") must be finite; a measure beside it, such as a
    ratio, may be infinite, but not NaN.
    """
    if math.isnan(value):
        return "NaN"
    return "infinite" if math.isinf(value) and name.partition(".")[0].endswith("loss") else ""


def refuse_lost_losses(values: Mapping[str, float], when: str) -> None:
    """Refuse losses that are NaN or infinite, and measures that are NaN.

    Args:
        values: the numbers of an update by name.
        when: the step, as the message says it, such as "at gradient step 3".

    Raises:
        FloatingPointError: naming the first of them and the step.
    """
    for name, value in values.items():
        if wrong := what_is_wrong(name, value):
            raise FloatingPointError(f"{name} is {wrong} {when}; {ADVICE}")
