"""The masks of an environment: of an agent's own, for a `predict` that is given none, and of one that is played."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from polyathlon.envs.errors import UsageError

from .env_stream import CHOICES


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


def mask_reader(env: gym.Env[Any, Any]) -> Callable[[dict[str, Any]], Any]:
    """Return what reads the mask of the next action of an environment from its info, or else by its method `action_masks()`, as learning does.

    Args:
        env: a scalar environment.

    Returns:
        info -> mask, or None where everything is allowed.
    """
    # a tensor task tells masks in its infos; without masks, its method is an error
    tells = isinstance(env.action_space, CHOICES) and env.has_wrapper_attr("action_masks")
    method = env.get_wrapper_attr("action_masks") if tells and not env.has_wrapper_attr("engine") else None

    def read(info: dict[str, Any]) -> Any:
        mask = info.get("action_mask")
        return np.asarray(method(), bool) if mask is None and method is not None else mask

    return read


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
