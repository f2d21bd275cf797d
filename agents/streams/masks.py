"""The masks of an agent's own environment, for a `predict` that is given none."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from polyathlon.envs.errors import UsageError


def own_masks(agent: Any, observation: Any) -> np.ndarray | None:
    """Return what the agent's own environment allows, where `observation` is what it shows now.

    Args:
        agent: has `env`, and `learned_with_masks`, whether there were masks while it learned.
        observation: one observation, or a batch with the environment's number of rows.

    Returns:
        [N, A] bool, or None where the agent never saw a mask.

    Raises:
        UsageError: there were masks while the agent learned, and it cannot be told what is allowed here.
    """
    if not agent.learned_with_masks:
        return None
    env = agent.env
    while isinstance(env, VecEnvWrapper):
        env = env.venv
    if _are_equal(getattr(env, "last_observation", None), observation):
        return np.asarray(env.env_method("action_masks"), bool)
    raise UsageError(
        f"{type(agent).__name__} learned with action masks, and this observation does not tell what is allowed: give "
        "predict(observation, action_masks=...). `polyathlon evaluate` and the evaluate_policy and MaskableEvalCallback of "
        "sb3_contrib.common.maskable do; SB3's evaluate_policy can with the agent's own environment, agent.get_env()"
    )


def _are_equal(shown: Any, given: Any) -> bool:
    if isinstance(shown, dict):
        return (
            isinstance(given, dict)
            and shown.keys() == given.keys()
            and all(_are_equal(shown[k], given[k]) for k in shown)
        )
    if shown is None or isinstance(given, dict):
        return False
    shown, given = np.asarray(shown), np.asarray(given)
    if given.shape == shown.shape[1:]:
        given = given[None]
    return bool(np.array_equal(shown, given))
