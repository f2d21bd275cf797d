"""How many players an environment has, whatever its form and its wrappers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


def num_players(env: Any) -> int:
    """Return the number of players that an agent which is given `env` moves for.

    The outermost wrapper with a `num_players` of its own decides, so that a wrapper which plays for the others says 1.

    Args:
        env: a Gymnasium environment, a vector environment or a Stable-Baselines3 vector environment.
    """
    inner = env
    while True:
        if "num_players" in {*dir(type(inner)), *getattr(inner, "__dict__", ())}:
            return int(inner.num_players)
        if isinstance(inner, gym.Wrapper | gym.vector.VectorWrapper):
            inner = inner.env
        elif hasattr(inner, "venv"):
            inner = inner.venv
        elif hasattr(inner, "vector_env"):
            inner = inner.vector_env
        elif getattr(inner, "envs", None):
            inner = inner.envs[0]
        else:
            return int(getattr(getattr(inner, "task", None), "num_players", 1))
