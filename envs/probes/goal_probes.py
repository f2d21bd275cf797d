"""A probe with goals: whether what was reached by chance is learned from."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs import random
from polyathlon.envs.errors import UsageError, check_positive, check_positive_int
from polyathlon.envs.tensor import TensorEnv


class ReachState(NamedTuple):
    """State of `ReachPoint`.

    Attributes:
        key: [B, 2] int64 random key.
        t: [B] int64 number of steps taken.
        position: [B, D] where the point is.
        goal: [B, D] where it should be.
    """

    key: Tensor
    t: Tensor
    position: Tensor
    goal: Tensor


class ReachPoint(TensorEnv):
    """Move a point in [-1, 1]^D from the middle to a goal drawn evenly: pays 0 within `tolerance` of it, else -1.

    An action moves the point by at most 0.2 in each direction; the episode goes on for 15 steps, so every goal is reached by
    the fifth and a perfect policy is paid -4 at worst. Observed are "observation" and "achieved_goal", both the position, and
    "desired_goal"; `info["is_success"]` tells whether the goal is reached. A walk of random actions comes near a goal so
    seldom that nothing is learned from the rewards alone, but every episode shows how to reach where it led.

    Args:
        dimension: D.
        tolerance: largest distance at which the goal counts as reached.
        device: where the tensors live.
        dtype: floating type of the observation.

    Raises:
        UsageError: a number is impossible.
    """

    max_episode_steps = 15
    reach = 0.2

    def __init__(
        self,
        *,
        dimension: int = 2,
        tolerance: float = 0.1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(device=device, dtype=dtype)
        check_positive_int(dimension=dimension)
        check_positive(tolerance=tolerance)
        self.dimension, self.tolerance = dimension, tolerance
        place = spaces.Box(-1.0, 1.0, (dimension,), self.numpy_dtype)
        self.observation_space = spaces.Dict(dict.fromkeys(("observation", "achieved_goal", "desired_goal"), place))
        self.action_space = spaces.Box(-1.0, 1.0, (dimension,), self.numpy_dtype)

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> ReachState:
        """Start in the middle with a new goal for each key; there are no options.

        Raises:
            UsageError: an option is given.
        """
        if options:
            raise UsageError(f"a probe has no reset options, got {sorted(options)}")
        goal = 2 * random.uniform(keys, 0, (self.dimension,), self.dtype) - 1
        t = torch.zeros(keys.shape[0], dtype=torch.int64, device=keys.device)
        return ReachState(keys, t, torch.zeros_like(goal), goal)

    def step(self, state: ReachState, action: Tensor) -> tuple[ReachState, Tensor, Tensor]:
        """Move, and pay; nothing ends before the limit."""
        position = (state.position + self.reach * action.clamp(-1, 1).to(self.dtype)).clamp(-1, 1)
        reward = self.compute_reward(position, state.goal)
        return state._replace(t=state.t + 1, position=position), reward, torch.zeros_like(state.t, dtype=torch.bool)

    def compute_reward(self, achieved_goal: Tensor, desired_goal: Tensor, info: Any = None) -> Tensor:
        """Return [...] float32: 0 where the goals [..., D] are within the tolerance of each other, else -1."""
        return ((achieved_goal - desired_goal).norm(dim=-1) <= self.tolerance).to(torch.float32) - 1.0

    def observe(self, state: ReachState, player: Tensor | None = None) -> dict[str, Tensor]:
        """Return the position twice, and the goal."""
        position = state.position
        return {
            "observation": position.clone(),
            "achieved_goal": position.clone(),
            "desired_goal": state.goal.clone(),
        }

    def info(self, state: ReachState) -> dict[str, Tensor]:
        """Return whether the goal is reached, [B] bool."""
        return {"is_success": self.compute_reward(state.position, state.goal) == 0}
