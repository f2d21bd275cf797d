"""Any Gymnasium vector environment, tensor tasks among them, as a Stable-Baselines3 vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices

from polyathlon.envs.errors import UsageError

from .rewards import num_objectives


class SB3VecEnv(VecEnv):
    """A Gymnasium vector environment as an SB3 vector environment.

    Args:
        vector_env: a vector environment in SAME_STEP autoreset mode, numpy or torch output.
        takes_objectives: allow vector rewards (n, k), which Stable-Baselines3's own agents and helpers do not know; the
            return of an episode is then the sum over the objectives.

    Raises:
        UsageError: another autoreset mode, or a vector reward that is not allowed.
    """

    def __init__(self, vector_env: gym.vector.VectorEnv[Any, Any, Any], takes_objectives: bool = False) -> None:
        mode = vector_env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise UsageError(
                f"agents need a vector environment in autoreset mode SAME_STEP, got {mode}; make it with "
                "gym.make_vec(id, num_envs=n, vectorization_mode='sync', vector_kwargs={'autoreset_mode': "
                "AutoresetMode.SAME_STEP}) (polyathlon's ids take autoreset_mode= directly, without the other two), "
                "or give the agent the id and n_envs=n"
            )
        objectives = num_objectives(vector_env)
        if objectives is not None and not takes_objectives:
            raise UsageError(
                f"Stable-Baselines3 takes one number as a reward, this environment pays for {objectives} objectives; "
                "make it with a scalar reward, or use the vector environment itself"
            )
        self.vector_env = vector_env
        super().__init__(vector_env.num_envs, vector_env.single_observation_space, vector_env.single_action_space)
        self.metadata = vector_env.metadata
        self._pending_seed: int | None = None
        self._actions: Any = None
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._info: dict[str, Any] = {}
        self.last_observation: Any = None

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Set the seed of the next `reset`; row i uses `seed + i`."""
        self._pending_seed = seed
        return [None if seed is None else seed + i for i in range(self.num_envs)]

    def reset(self) -> Any:
        """Start a new episode in every row, with the options of `set_options`.

        Raises:
            UsageError: the options differ from row to row, which a vector environment does not take.
        """
        options = self._options[0] if self._options else {}
        if any(one is not options and not _are_equal(one, options) for one in self._options):
            raise UsageError("the rows of a vector environment start with the same options: give set_options one dict")
        given = {"options": options} if options else {}
        observation, self._info = self.vector_env.reset(seed=self._pending_seed, **given)
        self._pending_seed = None
        self._reset_options()
        self._returns[:], self._lengths[:] = 0, 0
        self.last_observation = to_numpy(observation)
        return self.last_observation

    def step_async(self, actions: np.ndarray) -> None:
        """Store the actions (n, ...) of the next step."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step every row; only finished rows carry entries in their info."""
        actions = self._actions
        if getattr(self.vector_env, "output", "numpy") == "torch":
            import torch

            actions = torch.as_tensor(actions, device=getattr(self.vector_env, "device", "cpu"))
        observation, reward, terminated, truncated, self._info = self.vector_env.step(actions)
        reward, terminated, truncated = (to_numpy(x) for x in (reward, terminated, truncated))
        self._returns += reward if reward.ndim == 1 else reward.sum(1)
        self._lengths += 1
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if dones.any():
            final = to_numpy(self._info["final_obs"])
            for row in np.flatnonzero(dones).tolist():
                infos[row] = {
                    "terminal_observation": row_of(final, row),
                    "TimeLimit.truncated": bool(truncated[row] and not terminated[row]),
                    "episode": {"r": float(self._returns[row]), "l": int(self._lengths[row]), "t": 0.0},
                }
            self._returns[dones], self._lengths[dones] = 0, 0
        self.last_observation = to_numpy(observation)
        return self.last_observation, np.asarray(reward, np.float32), dones, infos

    def action_masks(self) -> np.ndarray:
        """Return the bool mask (n, A) of the allowed actions.

        Raises:
            UsageError: the rows tell no masks.
        """
        if "action_mask" not in self._info and hasattr(self.vector_env, "action_masks"):
            return np.asarray(to_numpy(self.vector_env.action_masks()), bool)
        if "action_mask" not in self._info:
            raise UsageError(
                f'{self.vector_env} tells no action masks: its infos hold no "action_mask" after a reset or step'
            )
        return np.asarray(to_numpy(self._info["action_mask"]), bool)

    def close(self) -> None:
        """Close the vector environment."""
        self.vector_env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return the pictures that the vector environment renders."""
        return list(self.vector_env.render() or [])

    @property
    def speaks_torch(self) -> bool:
        """Whether the vector environment takes and gives tensors."""
        return getattr(self.vector_env, "output", "numpy") == "torch"

    def has_attr(self, attr_name: str) -> bool:
        """Tell whether the vector environment, or every row of a Gymnasium one, has an attribute or method."""
        if hasattr(self.vector_env, attr_name):
            return True
        inner: Any = self.vector_env.unwrapped
        if isinstance(inner, gym.vector.SyncVectorEnv):
            return all(env.has_wrapper_attr(attr_name) for env in inner.envs)
        # the answer, for the attribute itself need not pass between processes
        return isinstance(inner, gym.vector.AsyncVectorEnv) and all(inner.call("has_wrapper_attr", attr_name))

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute, once for each chosen row."""
        value = getattr(self.vector_env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the chosen rows of a `SyncVectorEnv` or `AsyncVectorEnv`.

        Raises:
            UsageError: the rows have no such attribute; those of a tensor task are one batch and have none to set.
        """
        inner: Any = self.vector_env.unwrapped
        rows = list(self._get_indices(indices))
        if not isinstance(inner, gym.vector.SyncVectorEnv | gym.vector.AsyncVectorEnv):
            raise UsageError(
                f"{attr_name!r} cannot be set on the rows of {type(inner).__name__}, which are one batch: give it to "
                f"gym.make_vec(id, num_envs=n, {attr_name}=...), or set it on a scalar environment and give the agent that with n_envs=n"
            )
        if isinstance(inner, gym.vector.SyncVectorEnv) and not all(
            inner.envs[i].has_wrapper_attr(attr_name) for i in rows
        ):
            raise UsageError(f"the rows have no attribute {attr_name!r}, so that setting it would change nothing")
        values = list(inner.get_attr(attr_name))
        for row in rows:
            values[row] = value
        inner.set_attr(attr_name, values)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call `action_masks` row by row, or a method of the vector environment, else of the rows, once for each chosen row."""
        rows = list(self._get_indices(indices))
        if method_name == "action_masks":
            masks = self.action_masks()
            return [masks[row] for row in rows]
        inner: Any = self.vector_env.unwrapped
        if not hasattr(self.vector_env, method_name):
            if isinstance(inner, gym.vector.SyncVectorEnv):
                return [inner.envs[row].get_wrapper_attr(method_name)(*args, **kwargs) for row in rows]
            if isinstance(inner, gym.vector.AsyncVectorEnv):
                found = inner.call(method_name, *args, **kwargs)
                return [found[row] for row in rows]
        return [getattr(self.vector_env, method_name)(*args, **kwargs) for _ in rows]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Tell which rows behave as wrapped in `wrapper_class`: episode statistics are reported as by `Monitor`."""
        return [issubclass(Monitor, wrapper_class) for _ in self._get_indices(indices)]


def _are_equal(one: Any, other: Any) -> bool:
    """Tell whether two dicts of options are the same; they may hold arrays and tensors."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_are_equal(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(np.array_equal(to_numpy(one), to_numpy(other)))


def to_numpy(value: Any) -> Any:
    """Turn a tensor, an array or a dict of them into numpy, leaving other values alone."""
    if isinstance(value, dict):
        return {key: to_numpy(item) for key, item in value.items()}
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def row_of(value: Any, row: int) -> Any:
    """Take one row of an array, an object array or a dict of arrays."""
    return {key: item[row] for key, item in value.items()} if isinstance(value, dict) else value[row]
