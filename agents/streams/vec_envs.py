"""Scalar environments as a Stable-Baselines3 vector environment, with seeded episodes and a state that can be saved."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common import monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices
from stable_baselines3.common.vec_env.util import dict_to_obs, obs_space_info

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.random import episode_seed
from polyathlon.envs.tensor.rewards import num_objectives, reward_space_of
from polyathlon.envs.tensor.settings import layers

State = dict[str, Any]


def _name(env: gym.Env[Any, Any]) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _refuse_what_came(env: gym.Env[Any, Any], error: Exception) -> None:
    """Refuse what a step returned, where reading it (here or in SB3's Monitor) is what failed, and not the environment itself.

    Raises:
        UsageError: with the error of the reading.
    """
    if traceback.extract_tb(error.__traceback__)[-1].filename in (__file__, monitor.__file__):
        raise UsageError(
            f"{_name(env)} breaks Gymnasium's interface: step() must return an observation, a number, two truth values and a "
            f"dict, and reading what came failed: {type(error).__name__}: {error}"
        ) from error


class ScalarEnvs(VecEnv):
    """Several scalar environments stepped one after the other, every episode seeded by (seed + row, episode index).

    It behaves as SB3's `DummyVecEnv`, with two differences: later episodes do not continue one random stream, so an
    episode can be entered again, and the state of the running episodes can be saved: as (seed, episode index, options of
    the reset, actions since), which `set_state` replays.
    Vector rewards come as (n, k); the return of an episode is then the sum over the objectives.

    Args:
        envs: environments with equal spaces.

    Raises:
        UsageError: there is no environment, or one object is given twice.
    """

    def __init__(self, envs: Sequence[gym.Env[Any, Any]]) -> None:
        if not envs:
            raise UsageError("ScalarEnvs needs at least one environment, got none")
        if len({id(env.unwrapped) for env in envs}) != len(envs):
            raise UsageError("the same environment object was given twice; make one for each row")
        self.envs = list(envs)
        super().__init__(len(envs), envs[0].observation_space, envs[0].action_space)
        self.metadata = envs[0].metadata
        self.keys, self._shapes, self._dtypes = obs_space_info(envs[0].observation_space)
        self.row_seeds = [int(s) for s in np.random.SeedSequence().generate_state(len(envs), np.uint32) >> 1]
        self.episodes = [-1] * len(envs)
        self._trails: list[list[Any]] = [[] for _ in envs]
        self._begun: list[dict[str, Any]] = [{} for _ in envs]  # options of the running episodes
        objectives = num_objectives(envs[0])
        self._reward_shape: tuple[int, ...] = (len(envs),)
        if objectives is not None:
            self.single_reward_space = reward_space_of(objectives)
            self._reward_shape = (len(envs), objectives)
        self._totals, self._lengths = np.zeros(self._reward_shape), np.zeros(len(envs), np.int64)
        self._actions: np.ndarray = np.zeros(0)
        self.last_observation: Any = None

    def _stack(self, observations: Sequence[Any]) -> Any:
        self.last_observation = self._stacked(observations)
        return self.last_observation

    def _stacked(self, observations: Sequence[Any]) -> Any:
        if isinstance(self.observation_space, spaces.Dict):
            return dict_to_obs(
                self.observation_space,
                {k: np.stack([self._array(o[k], k) for o in observations]) for k in self.keys},
            )
        return np.stack([self._array(o, None) for o in observations])

    def _array(self, observation: Any, key: str | None) -> np.ndarray:
        array, shape = np.asarray(observation, self._dtypes[key]), self._shapes[key]
        if shape is not None and array.size != math.prod(shape):  # networks would take it for several rows
            part = "" if key is None else f" {key!r}"
            raise UsageError(
                f"{_name(self.envs[0])} returned an observation{part} of shape {array.shape}, but its space says {shape}"
            )
        return array

    def _start(self, row: int) -> Any:
        self.episodes[row] += 1
        self._trails[row] = []
        self._totals[row], self._lengths[row] = 0, 0
        seed = episode_seed(self.row_seeds[row], self.episodes[row])
        self._begun[row] = self._options[row]
        options = {"options": self._options[row]} if self._options[row] else {}
        observation, self.reset_infos[row] = self.envs[row].reset(seed=seed, **options)
        return observation

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Give row i the seed `seed + i`; it takes effect at the next `reset`."""
        if seed is not None:
            self.row_seeds = [seed + i for i in range(self.num_envs)]
            self.episodes = [-1] * self.num_envs
        return list(self.row_seeds)

    def reset(self) -> Any:
        """Start the next episode of every row.

        Returns:
            Observations, stacked along the first axis.
        """
        observations = [self._start(row) for row in range(self.num_envs)]
        self._reset_options()
        return self._stack(observations)

    def step_async(self, actions: np.ndarray) -> None:
        """Store the actions (n, ...) of the next step."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step every row; finished rows start their next episode at once, as in every SB3 vector environment."""
        observations, infos = [], []
        rewards = np.zeros(self._reward_shape, np.float32)
        dones = np.zeros(self.num_envs, bool)
        for row, env in enumerate(self.envs):
            action = self._actions[row]
            self._trails[row].append(np.copy(action))
            try:
                observation, reward, terminated, truncated, info = env.step(action)
                rewards[row] = reward
                dones[row] = terminated or truncated
                self._totals[row] += reward
                info["TimeLimit.truncated"] = truncated and not terminated
            except (TypeError, ValueError) as error:
                _refuse_what_came(env, error)
                raise
            self._lengths[row] += 1
            if dones[row]:
                info["terminal_observation"] = observation
                if rewards.ndim == 2:  # SB3's Monitor, which notes this otherwise, adds up numbers alone
                    info["episode"] = {"r": float(self._totals[row].sum()), "l": int(self._lengths[row]), "t": 0.0}
                observation = self._start(row)
            observations.append(observation)
            infos.append(info)
        return self._stack(observations), rewards, dones, infos

    def get_state(self) -> State:
        """Return what `set_state` needs to continue the running episodes exactly."""
        rows = []
        for seed, episode, trail, options in zip(self.row_seeds, self.episodes, self._trails, self._begun):
            row = {"seed": seed, "episode": episode, "actions": np.stack(trail) if trail else None}
            rows.append({**row, "options": options} if options else row)
        return {"rows": rows}

    def set_state(self, state: State) -> Any:
        """Continue the episodes saved by `get_state`, by playing their actions again.

        Returns:
            The current observations, stacked.

        Raises:
            UsageError: the number of environments differs, or an episode ends earlier than it did (the environment is then not
                a function of its seed and actions, and an exact resume is impossible).
        """
        if len(state["rows"]) != self.num_envs:
            raise UsageError(f"the saved state has {len(state['rows'])} environments, this one {self.num_envs}")
        observations = []
        for row, saved in enumerate(state["rows"]):
            self.row_seeds[row], self.episodes[row] = saved["seed"], saved["episode"] - 1
            self._options[row] = dict(saved.get("options") or {})
            observation = self._start(row)
            for action in [] if saved["actions"] is None else saved["actions"]:
                observation, reward, terminated, truncated, info = self.envs[row].step(action)
                self._totals[row] += reward
                self._lengths[row] += 1
                self._trails[row].append(np.copy(action))
                self.reset_infos[row] = info
                if terminated or truncated:
                    raise UsageError(
                        f"environment {row} ended early while its episode was replayed: it is not a function of its "
                        "seed and actions, so the run cannot be resumed exactly; start it afresh without --resume"
                    )
            observations.append(observation)
        self._reset_options()
        return self._stack(observations)

    def episode_totals(self) -> np.ndarray:
        """Return what the running episodes have paid [n], the sum over objectives where there are several."""
        return self._totals if self._totals.ndim == 1 else self._totals.sum(1)

    def episode_lengths(self) -> np.ndarray:
        """Return how long the running episodes are [n]."""
        return self._lengths

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return a picture of every environment."""
        return [env.render() for env in self.envs]  # type: ignore[misc]

    def _chosen(self, indices: VecEnvIndices) -> Iterable[gym.Env[Any, Any]]:
        return [self.envs[i] for i in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the chosen environments."""
        return [env.get_wrapper_attr(attr_name) for env in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the chosen environments, in the layer that has it.

        Raises:
            UsageError: an environment has none of this name.
        """
        for env in self._chosen(indices):
            if not env.has_wrapper_attr(attr_name):
                known = {name for layer in layers(env) for name in vars(layer) if not name.startswith("_")}
                raise unknown_name("attribute of the environment", attr_name, known)
            env.set_wrapper_attr(attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method of the chosen environments."""
        return [env.get_wrapper_attr(method_name)(*args, **kwargs) for env in self._chosen(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Tell which environments are wrapped in `wrapper_class`."""
        from stable_baselines3.common.env_util import is_wrapped

        return [is_wrapped(env, wrapper_class) for env in self._chosen(indices)]
