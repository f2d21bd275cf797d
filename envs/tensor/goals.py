"""What goal tasks pay, asked from outside: for goals that an episode reached without being given them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import TensorEnv
from .output import to_numpy


def goal_reward(task: TensorEnv) -> Callable[[Any, Any, Any], Any]:
    """Return `compute_reward(achieved_goal, desired_goal, info)` of a task, for arrays and for tensors.

    Raises:
        AttributeError: the task has no goals.
    """
    pay: Callable[..., Tensor] = task.compute_reward  # type: ignore[attr-defined]

    def compute_reward(achieved_goal: Any, desired_goal: Any, info: Any = None) -> Any:
        goals = (torch.as_tensor(goal, device=task.device) for goal in (achieved_goal, desired_goal))
        reward = pay(*goals, info)
        return reward if isinstance(achieved_goal, Tensor) else to_numpy(reward)

    return compute_reward
