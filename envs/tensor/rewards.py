"""Whether an environment pays one number or a vector, one number for each objective."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from polyathlon.envs.errors import UsageError

from .quiet import quiet_robots


def checked_reward(reward: Any, env: Any) -> float:
    """Return the reward of an environment as a number.

    Args:
        reward: what the environment paid.
        env: the environment, for its name.

    Raises:
        UsageError: it is no number, or NaN or infinite.
    """
    is_number = isinstance(reward, int | float | np.number | np.bool_) or (
        isinstance(reward, np.ndarray) and reward.ndim == 0 and reward.dtype.kind in "biuf"
    )
    if not is_number or not np.isfinite(reward):
        inner = getattr(env, "unwrapped", env)
        spec = getattr(inner, "spec", None)
        name = type(inner).__name__ if spec is None else f"{spec.id} ({type(inner).__name__})"
        raise UsageError(f"the environment {name} paid the reward {reward!r}: a reward is a finite number, such as 0.0")
    return float(reward)


def reward_space_of(k: int) -> spaces.Box:
    """Return the space of rewards of k objectives, under MO-Gymnasium's convention."""
    return spaces.Box(-np.inf, np.inf, (k,), np.float32)


def num_objectives(env: Any) -> int | None:
    """Return how many objectives an environment pays for, or None where the reward is one number.

    The sign is MO-Gymnasium's: the attribute `reward_space`, a Box of k numbers; for a vector environment that of one
    row is `single_reward_space`, or `reward_space` with the rows in front. The outermost wrapper that has one counts.

    Args:
        env: a Gymnasium environment, a Gymnasium vector environment or an SB3 `VecEnv`.
    """
    inner: Any = env
    while inner is not None:
        if type(inner).__name__ == "LinearReward":  # MO-Gymnasium's hides no space, but pays a number
            return None
        known = vars(inner).get("single_reward_space", vars(inner).get("reward_space"))
        if known is not None:
            return int(known.shape[-1]) if known.shape else None
        inner = _inside(inner)
    return None


def _inside(env: Any) -> Any:
    """Return what an environment wraps, or None."""
    for name in ("env", "venv", "vector_env"):
        if isinstance(env, gym.Env) and name != "env":
            continue
        if name in vars(env):
            return vars(env)[name]
    return None


def make_unchecked(spec: Any, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make an environment as `gym.make` does; without Gymnasium's passive checker where the reward is a vector.

    The checker warns of every reward that is no number.

    Args:
        spec: an id or a spec.
        **kwargs: options of the environment.
    """
    found = gym.registry.get(spec) if isinstance(spec, str) else spec
    with quiet_robots(getattr(found, "entry_point", None)):
        env = gym.make(spec, **kwargs)
        if num_objectives(env) is None:
            return env
        env.close()
        return gym.make(spec, disable_env_checker=True, **kwargs)
