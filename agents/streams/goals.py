"""The rewards that goal environments compute for goals in hindsight, whatever form they come in."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .env_stream import environment_name

METHOD = "compute_reward"


def refuse_no_rewards(env: Any) -> None:
    """Refuse an SB3 vector environment whose tasks do not compute rewards for goals.

    Raises:
        UsageError: so.
    """
    if not env.has_attr(METHOD):
        raise UsageError(
            f"HerReplayBuffer asks the environment for the rewards of new goals, and {environment_name(env)} has no method "
            "compute_reward(achieved_goal, desired_goal, info): write one, or leave replay_buffer_class out"
        )


def goal_rewards(env: Any, achieved: Tensor, desired: Tensor, infos: list[dict[str, Any]]) -> Tensor:
    """Ask an SB3 vector environment for the rewards of goals, by one call of its first environment's method.

    Args:
        env: every environment of it is of one kind.
        achieved: [B, ...] goals that were reached.
        desired: [B, ...] goals that were wanted.
        infos: B dicts.

    Returns:
        [B] on the goals' device; a tensor task gets and gives tensors, so that nothing leaves it.

    Raises:
        UsageError: the rewards are not one number for each goal.
    """
    given: Any = (achieved, desired)
    if not getattr(env, "speaks_torch", False):
        given = tuple(goal.cpu().numpy() for goal in given)
    reward = env.env_method(METHOD, *given, infos, indices=[0])[0]
    found = torch.as_tensor(reward if isinstance(reward, Tensor) else np.asarray(reward), device=achieved.device)
    if found.numel() != achieved.shape[0]:
        raise UsageError(
            f"compute_reward of {environment_name(env)} gave rewards of shape {tuple(found.shape)} for {achieved.shape[0]} goals "
            "at once: one number for each is needed"
        )
    return found.reshape(-1)
