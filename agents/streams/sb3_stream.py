"""Experience from Stable-Baselines3 vector environments."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnv
from torch import Tensor

from polyathlon.agents.parts.observations import in_space_type
from polyathlon.envs.errors import UsageError

from .env_stream import CHOICES, EnvStream, Observation, Step, refuse_unsupported, to_tensor
from .vec_envs import ScalarEnvs


class SB3EnvStream(EnvStream):
    """Experience from any SB3 vector environment, moved to the device row batch by row batch."""

    def __init__(self, vec_env: VecEnv, device: torch.device, name: str) -> None:
        super().__init__(vec_env.num_envs, device, name)
        self.vec_env = vec_env
        # sb3-contrib's way to tell masks, a method of the environment or of its ActionMasker
        self._tells_masks = isinstance(vec_env.action_space, CHOICES) and vec_env.has_attr("action_masks")
        if self._tells_masks and vec_env.has_attr("engine"):
            self._tells_masks = False  # a tensor task tells them in its infos; without masks, its method is an error
        self._normalize = unwrap_vec_normalize(vec_env)
        self._returns, self._lengths = np.zeros(vec_env.num_envs), np.zeros(vec_env.num_envs, np.int64)

    def _receive(self, observation: Any, infos: list[dict[str, Any]], *more: np.ndarray) -> list[Tensor]:
        if self._normalize is not None:
            self.raw_obs = to_tensor(self._normalize.get_original_obs(), self.device)
        masks = None
        if infos and "action_mask" in infos[0]:
            masks = [info["action_mask"] for info in infos]
        elif self._tells_masks:
            masks = self.vec_env.env_method("action_masks")  # of the episodes that the finished rows have begun
        return self.receive(observation, None if masks is None else np.asarray(masks, bool), *more)

    def reset(self, seed: int | None = None) -> None:
        """Start a new episode in every row; row i uses `seed + i` when a seed is given."""
        if seed is not None:
            self.vec_env.seed(seed)
        observation = self.vec_env.reset()
        self._returns[:], self._lengths[:] = 0, 0
        self._receive(observation, list(self.vec_env.reset_infos))
        self.started = True

    def step(self, action: Tensor) -> Step:
        """Act in every row; see `EnvStream.step`."""
        self.steps += 1
        self._action = action
        acted = in_space_type(action.detach().cpu().numpy(), self.vec_env.action_space)
        observation, reward, done, infos = self.vec_env.step(acted)
        self.check("reward", np.asarray(reward))
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos], bool) & done
        resets = self.vec_env.reset_infos
        shown = [resets[i] if done[i] else info for i, info in enumerate(infos)]
        paid, terminated, cut = self._receive(observation, shown, np.asarray(reward), done & ~truncated, truncated)
        next_obs = self._true_next(done, infos) if done.any() else self.obs
        raw_next, raw_reward = self._raw(done, infos, reward)
        self._count_episodes(raw_reward if self._normalize is not None else reward, done, infos)
        return Step(
            next_obs,
            paid.float(),
            terminated,
            cut,
            infos,
            raw_next,
            None if raw_reward is None else torch.as_tensor(raw_reward, device=self.device).float(),
        )

    def _raw(self, done: np.ndarray, infos: list[dict[str, Any]], reward: Any) -> tuple[Observation | None, Any]:
        """Return the next observations and rewards before `VecNormalize`."""
        if self._normalize is None:
            return None, None
        raw = self.raw_obs
        if done.any():
            normalize = self._normalize
            finals = [
                {"terminal_observation": normalize.unnormalize_obs(info["terminal_observation"])} if ended else {}
                for info, ended in zip(infos, done)
            ]
            raw = self._true_next(done, finals, raw)
        return raw, self._normalize.get_original_reward()

    def _count_episodes(self, reward: Any, done: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """Note the finished episodes, as `Monitor` counted them where there is one."""
        reward = np.asarray(reward, np.float64)
        self._returns += reward if reward.ndim == 1 else reward.sum(1)
        self._lengths += 1
        for row in np.flatnonzero(done):
            info = infos[row]
            info.setdefault("episode", {"r": float(self._returns[row]), "l": int(self._lengths[row]), "t": 0.0})
            self.ring.finished.append((float(info["episode"]["r"]), int(info["episode"]["l"])))
            self._returns[row], self._lengths[row] = 0, 0

    def info_rows(self, step: Step) -> list[dict[str, Any]]:
        """Return the infos as they came."""
        return list(step.infos)

    def _true_next(
        self, done: np.ndarray, infos: list[dict[str, Any]], after: Observation | None = None
    ) -> Observation:
        after = self.obs if after is None else after

        def fill(current: Tensor, key: str | None) -> Tensor:
            result = current.clone()
            for row in np.flatnonzero(done):
                final = infos[row]["terminal_observation"]
                value = np.asarray(final if key is None else final[key])
                self.check("observation", value)
                result[row] = torch.as_tensor(value, device=self.device).to(current.dtype)
            return result

        if isinstance(after, dict):
            return {key: fill(value, key) for key, value in after.items()}
        return fill(after, None)

    def get_state(self) -> dict[str, Any]:
        """Return the state of the rows, or a note that this vector environment cannot be saved."""
        if not isinstance(self.vec_env, ScalarEnvs):
            return {"unsupported": type(self.vec_env).__name__}
        return {"environment": self.vec_env.get_state(), "steps": self.steps}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; see `EnvStream.set_state`."""
        refuse_unsupported(state)
        if not isinstance(self.vec_env, ScalarEnvs):
            raise UsageError(f"a run saved on scalar environments cannot continue on {type(self.vec_env).__name__}")
        observation = self.vec_env.set_state(state["environment"])
        self._returns[:] = self.vec_env.episode_totals()
        self._lengths[:] = self.vec_env.episode_lengths()
        self._receive(observation, list(self.vec_env.reset_infos))
        self.steps = state["steps"]
        self.started = True
