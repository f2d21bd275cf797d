"""The wrappers of a tensor task on many rows at once, so that an agent which acts in a Box need not step one row after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from torch import Tensor

from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.lazy_info import LazyInfo
from polyathlon.envs.tensor.output import to_numpy

from .encoders import Encoder


class WrappedRows(gym.vector.VectorWrapper):
    """Base of a wrapper on the rows of a tensor task with torch output, in autoreset mode SAME_STEP.

    Args:
        env: the rows.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        self.output, self.device, self.task = "torch", env.device, env.task  # type: ignore[attr-defined]

    def show(self, observation: Any) -> Any:
        """Return what the agent sees of an observation of all rows."""
        raise NotImplementedError

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a new episode in every row; see `gymnasium.vector.VectorEnv.reset`."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self.show(observation), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act in every row; `info["final_obs"]` is shown as observations are."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        if "final_obs" in info:
            info["final_obs"] = self.show(info["final_obs"])
        return self.show(observation), reward, terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        """Return a dict of tensors from which `set_state` continues bit for bit."""
        return {"rows": self.env.get_state()}  # type: ignore[attr-defined]

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned.

        Raises:
            UsageError: it is the state of scalar environments.
        """
        self.env.set_state(rows_state(state))  # type: ignore[attr-defined]

    def action_masks(self) -> Any:
        """Return the masks of the rows within.

        Raises:
            UsageError: the actions are points of a Box.
        """
        return self.env.action_masks()  # type: ignore[attr-defined]


def rows_state(state: dict[str, Any]) -> Any:
    """Return the state of the rows within a wrapper's state.

    Raises:
        UsageError: it is the state of scalar environments.
    """
    if isinstance(state.get("rows"), list):
        raise UsageError(
            "the run was saved on scalar environments, one after the other, and these rows are one batch: begin the run anew, or "
            "give the agent the scalar environments as a vector environment (polyathlon.agents.streams.vec_envs.ScalarEnvs)"
        )
    return state["rows"]


class FlatRows(WrappedRows):
    """`VectorObservation` on rows: the observation of each as one vector [N, D] float32.

    Args:
        env: the rows.
        encoder: of one observation.
        space: of one vector.
    """

    def __init__(
        self, env: gym.vector.VectorEnv[Any, Any, Any], encoder: Encoder, space: gym.spaces.Space[Any]
    ) -> None:
        super().__init__(env)
        self.encoder = encoder
        self.single_observation_space = space
        self.observation_space = batch_space(space, self.num_envs)

    def show(self, observation: Any) -> Tensor:
        """Write each row by the encoder."""
        out, seen = np.empty((self.num_envs, self.encoder.size), np.float32), to_numpy(observation)
        for row in range(self.num_envs):
            own = {key: value[row] for key, value in seen.items()} if isinstance(seen, dict) else seen[row]
            self.encoder.write(own, out[row])
        return torch.as_tensor(out, device=self.device)


class CostRows(WrappedRows):
    """`CostObjective` on rows: pays (r, -c), [N, 2] float32.

    Args:
        env: the rows, which pay one number.
        cost: function from the actions [N, ...] to the costs [N] of a step.
        space: of the rewards of one row.
    """

    def __init__(
        self, env: gym.vector.VectorEnv[Any, Any, Any], cost: Callable[[Tensor], Tensor], space: gym.spaces.Space[Any]
    ) -> None:
        super().__init__(env)
        self._cost, self.single_reward_space = cost, space

    def show(self, observation: Any) -> Any:
        """Return the observation as it is."""
        return observation

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act in every row; the rewards are (r, -c)."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        cost = self._cost(torch.as_tensor(actions, device=self.device)).to(reward.dtype)
        return observation, torch.stack([reward, -cost], -1), terminated, truncated, info


class ChoiceRows(WrappedRows):
    """`ContinuousAction` on rows: points [N, k] of a Box mean the allowed choices that are nearest.

    Args:
        env: the rows.
        space: of one point.
        codes: [A, k] points of the choices; None where they are the rows of an observed table.
    """

    def __init__(
        self, env: gym.vector.VectorEnv[Any, Any, Any], space: gym.spaces.Box, codes: np.ndarray | None
    ) -> None:
        super().__init__(env)
        self.single_action_space = space
        self.action_space = batch_space(space, self.num_envs)
        self._first = int(env.single_action_space.start)  # type: ignore[attr-defined]
        self._codes = None if codes is None else torch.as_tensor(codes, device=self.device)
        self._mask: Tensor | None = None

    def show(self, observation: Any) -> Any:
        """Return the observation as it is."""
        return observation

    def points(self, actions: Tensor) -> Tensor:
        """Return the points [N, k] that actions mean, in the units of the codes."""
        return actions

    def see(self, observation: Any) -> None:
        """Note what the next choice needs of an observation."""

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a new episode in every row; the mask is no longer told."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self.show(observation), self._noted(observation, info)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take in every row the allowed choice that is nearest to its point; `info["choice"]` [N] holds them.

        Raises:
            UsageError: the points have another shape, are not finite, or a row allows no choice at all.
        """
        chosen = self.choices(torch.as_tensor(actions, device=self.device, dtype=torch.float32))
        observation, reward, terminated, truncated, info = self.env.step(chosen)
        info = self._noted(observation, info)
        if "final_obs" in info:
            info["final_obs"] = self.show(info["final_obs"])
        info["choice"] = chosen
        return self.show(observation), reward, terminated, truncated, info

    def choices(self, actions: Tensor) -> Tensor:
        """Return the actions [N] of the task that points [N, k] mean at the moment; see `step` for errors."""
        shape = (self.num_envs, *self.single_action_space.shape)  # type: ignore[misc]
        if tuple(actions.shape) != shape:
            raise UsageError(f"the actions must have shape {shape}, got {tuple(actions.shape)}")
        if not bool(actions.isfinite().all()):
            raise UsageError(f"the actions are not finite: {actions.tolist()}")
        if self._codes is None:
            raise UsageError("there is no running episode: call reset before step")
        score = (self._codes * self.points(actions)[:, None]).sum(-1) - 0.5 * self._codes.square().sum(-1)
        if self._mask is not None:
            if not bool(self._mask.any(-1).all()):
                raise UsageError("the task allows no action at all in some row: its action mask holds no True")
            score = score.masked_fill(~self._mask, -torch.inf)
        return score.argmax(-1) + self._first

    def _noted(self, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        self.see(observation)
        self._mask = info.get("action_mask")
        if self._mask is None:
            return info
        return info.without("action_mask") if isinstance(info, LazyInfo) else _without_mask(info)

    def get_state(self) -> dict[str, Any]:
        """Return a dict of tensors from which `set_state` continues bit for bit."""
        return {"rows": self.env.get_state(), "mask": self._mask, "codes": self._codes}  # type: ignore[attr-defined]

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned; see `WrappedRows.set_state`."""
        self.env.set_state(rows_state(state))  # type: ignore[attr-defined]
        self._mask, self._codes = (None if x is None else x.to(self.device) for x in (state["mask"], state["codes"]))

    def action_masks(self) -> Any:
        """Points of a Box have no masks.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"the actions are points of {self.single_action_space}, which have no action masks")


class NodeRows(ChoiceRows):
    """`NodeAction` on rows: the choices are the rows of each observed table.

    Args:
        env: the rows.
        space: of one point.
        columns: [k] features of the table by which they are chosen.
        middle, width: [k] of the bounds of these features.
        shown: space of what the agent sees of an observation.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        space: gym.spaces.Box,
        columns: np.ndarray,
        middle: np.ndarray,
        width: np.ndarray,
        shown: gym.spaces.Space[Any],
    ) -> None:
        super().__init__(env, space, None)
        self._columns, self._middle, self._width = (
            torch.as_tensor(x, device=self.device) for x in (columns, middle, width)
        )
        self.single_observation_space = shown
        self.observation_space = batch_space(shown, self.num_envs)

    def show(self, observation: Any) -> Any:
        """Return the parts that the agent sees."""
        return {key: observation[key] for key in self.single_observation_space.spaces}  # type: ignore[attr-defined]

    def points(self, actions: Tensor) -> Tensor:
        """Return the points in the units of the table."""
        return self._middle + self._width * actions

    def see(self, observation: Any) -> None:
        """Note the tables [N, n, k]."""
        self._codes = observation["nodes"][..., self._columns].float()


def _without_mask(info: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in info.items() if key != "action_mask"}
