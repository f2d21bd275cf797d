"""A scripted player of Gymnasium's pendulum."""

from __future__ import annotations

import math
from typing import Any

UPRIGHT = 0.85  # cosine of the angle from which on it is balanced
LIMIT = 2.0  # of the torque


def swing_up(observation: Any) -> float:
    """Return the torque that pumps energy into the pendulum until it is nearly upright, and then balances it.

    With m = l = 1, g = 10 and the energy E = w^2 / 6 + 5 (cos - 1), 0 upright at rest: the largest torque in the direction of
    (0 - E) w below, a linear feedback -(16 angle + 4 w) above (Astrom and Furuta 2000, "Swinging up a pendulum by energy control").

    Args:
        observation: cosine and sine of the angle from upright, and its speed in rad/s.
    """
    cosine, sine, speed = (float(x) for x in observation)
    if cosine > UPRIGHT:
        torque = -(16.0 * math.atan2(sine, cosine) + 4.0 * speed)
    else:
        energy = speed * speed / 6.0 + 5.0 * (cosine - 1.0)
        torque = -math.copysign(LIMIT, energy * speed) if abs(speed) > 1e-3 else LIMIT
    return min(max(torque, -LIMIT), LIMIT)
