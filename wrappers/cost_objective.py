"""A second objective beside a task's own reward: what an episode costs."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.tensor.rewards import num_objectives

Step = tuple[Any, Any, bool, bool, dict[str, Any]]


def _steps(action: Any, info: dict[str, Any]) -> float:
    return 1.0


def _effort(action: Any, info: dict[str, Any]) -> float:
    return float(np.square(np.asarray(action, np.float64)).mean())


def _length(action: Any, info: dict[str, Any]) -> float:
    text = action if isinstance(action, str) else info.get("text", "")
    return len(str(text)) / 100.0


def _illegal(action: Any, info: dict[str, Any]) -> float:
    verdict = info.get("verdict")
    is_invalid = isinstance(verdict, dict) and bool(verdict.get("invalid"))
    return float(bool(info.get("illegal_action")) or is_invalid)


def _effort_of_rows(actions: Tensor) -> Tensor:
    return actions.double().square().reshape(len(actions), -1).mean(-1)


COSTS = {"steps": _steps, "effort": _effort, "length": _length, "illegal": _illegal}

ROW_COSTS = {
    "steps": lambda actions: torch.ones(len(actions), device=actions.device),
    "effort": _effort_of_rows,
}  # what actions alone decide


class CostObjective(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Pays for two objectives, (r, -c): the task's own reward r and the cost c of a step, so that a front can be found on any task.

    | cost | c of a step |
    |---|---|
    | "steps" | 1 |
    | "effort" | mean square of the numbers of the action |
    | "length" | hundreds of characters of the answer (a text, or `info["text"]`) |
    | "illegal" | 1 for a forbidden action or an answer that cannot be read |

    Observations, actions, masks and infos pass unchanged. `polyathlon.adapt(env, CMORL, cost="steps")` puts it on outermost.

    Args:
        env: an environment that pays one number.
        cost: what the second objective is.

    Raises:
        UsageError: the environment pays for several objectives already, or the cost is unknown.
    """

    def __init__(self, env: gym.Env[Any, Any], cost: str = "steps") -> None:
        if cost not in COSTS:
            raise unknown_name("cost", str(cost), COSTS)
        found = num_objectives(env)
        if found is not None:
            raise UsageError(f"{env} pays for {found} objectives already: leave CostObjective (cost=) out")
        gym.utils.RecordConstructorArgs.__init__(self, cost=cost)
        gym.Wrapper.__init__(self, env)
        self.cost = cost
        self.reward_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def step(self, action: Any) -> Step:
        """Act; the reward is (r, -c)."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        paid = np.array([float(reward), -COSTS[self.cost](action, info)], np.float32)
        return observation, paid, terminated, truncated, info

    def rows(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> gym.vector.VectorEnv[Any, Any, Any] | None:
        """Return rows of a tensor task (torch output) behind this wrapper; None where the cost asks what an answer was."""
        from .rows import CostRows

        return CostRows(env, ROW_COSTS[self.cost], self.reward_space) if self.cost in ROW_COSTS else None
