"""A reward for several objectives as one number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError
from polyathlon.envs.language.batch import LanguageBatch
from polyathlon.envs.tensor.rewards import num_objectives


class LinearReward(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Turns a vector reward r into the number w . r, so that an agent that maximises one number can train on it.

    Observations, actions and action masks pass unchanged; `info["vector_reward"]` keeps the vector.

    Args:
        env: an environment that pays for k objectives.
        weight: the k weights w, of any sign; None weighs all objectives with 1 / k.

    Attributes:
        weight: (k,) float64.

    Raises:
        UsageError: the reward of `env` is a number already, or the weights are not k finite numbers.
    """

    def __init__(self, env: gym.Env[Any, Any], weight: Sequence[float] | NDArray[Any] | None = None) -> None:
        objectives = num_objectives(env)
        if objectives is None:
            raise UsageError(
                f"LinearReward weighs the objectives of a vector reward, but {env} pays one number: leave it out"
            )
        self.weight = self._read(weight, objectives)
        gym.utils.RecordConstructorArgs.__init__(self, weight=self.weight.tolist())
        gym.Wrapper.__init__(self, env)

    @staticmethod
    def _read(weight: Sequence[float] | NDArray[Any] | None, objectives: int) -> NDArray[np.float64]:
        if weight is None:
            return np.full(objectives, 1.0 / objectives)
        try:
            given = np.asarray(weight, dtype=np.float64)
        except (TypeError, ValueError):
            given = np.empty(0)
        if given.shape != (objectives,) or not np.isfinite(given).all():
            raise UsageError(
                f"the environment has {objectives} objectives: give as many finite weights, got {weight!r}"
            )
        return given

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act; the reward is the weighted sum."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        number = float(np.asarray(reward) @ self.weight)
        return observation, number, terminated, truncated, {**info, "vector_reward": reward}

    def batch(self, n: int) -> WeighedBatch:
        """Return n episodes at once of a task in words that answer at once, with weighted rewards.

        Raises:
            UsageError: the environment is no task in words, or a wrapper between changes it.
        """
        layer: Any = self.env
        while isinstance(layer, gym.wrappers.OrderEnforcing | gym.wrappers.PassiveEnvChecker):
            layer = layer.env
        rows = layer.batch(n) if callable(getattr(type(layer), "batch", None)) else None
        if not isinstance(rows, LanguageBatch):
            raise UsageError(
                f"{layer} has no rows of texts to weigh; put LinearReward directly around the task in words"
            )
        return WeighedBatch(rows.task, n, self.weight)


class WeighedBatch(LanguageBatch):
    """Rows of a task in words whose reward vectors are weighted to numbers."""

    def __init__(self, task: Any, n: int, weight: NDArray[np.float64]) -> None:
        super().__init__(task, n)
        self.weight = weight

    def step(self, texts: Sequence[str], rows: Sequence[int] | None = None) -> Any:
        """Answer in some rows; see `LanguageBatch.step`."""
        said, reward, *ends, infos = super().step(texts, rows)
        infos = [{**info, "vector_reward": own} for info, own in zip(infos, reward)]
        return said, (reward @ self.weight).astype(np.float32), *ends, infos
