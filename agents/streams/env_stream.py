"""Where an agent's experience comes from: one tensor interface over every kind of vector environment."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvWrapper
from torch import Tensor

from polyathlon.agents.parts.observations import in_space_type
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.sb3 import SB3VecEnv, row_of, to_numpy

from .episode_ring import EpisodeRing
from .packing import Packing

Observation = Tensor | dict[str, Tensor]
CHOICES = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)  # actions that masks can forbid


class NonFiniteError(UsageError):
    """An environment returned NaN or infinity."""


class Step(NamedTuple):
    """One transition of every row.

    Attributes:
        next_obs: the true next observation; for a finished row its final one, not the one after the reset.
        reward: [N] float32 (or [N, k] for a vector reward).
        terminated: [N] bool, the task ended the episode: the value of `next_obs` is zero.
        truncated: [N] bool, a limit cut the episode: the value of `next_obs` must be bootstrapped.
        infos: the environment's infos as it gave them.
        raw_next_obs, raw_reward: `next_obs` and `reward` before `VecNormalize`, where that is around the environment.
    """

    next_obs: Observation
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    infos: Any
    raw_next_obs: Observation | None = None
    raw_reward: Tensor | None = None


def to_tensor(value: Any, device: torch.device) -> Observation:
    """Move an observation to `device`; 64-bit floats become float32, other types stay as they are."""
    if isinstance(value, dict):
        return {key: to_tensor(item, device) for key, item in value.items()}  # type: ignore[misc]
    tensor = torch.as_tensor(value, device=device)
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _is_finite(value: Any) -> bool | Tensor:
    """Return whether every number of an array or tensor is finite; on an accelerator the answer stays there."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if not value.dtype.is_floating_point:
        return True
    if value.device.type == "cpu":  # a sum is finite where all are, and costs a third of asking each
        return math.isfinite(float(value.sum(dtype=torch.float64)))
    return torch.isfinite(value).all()


class EnvStream(ABC):
    """Rollout side of an environment.

    After `reset` and after each `step`, `obs` is what to act on and `mask` what is allowed (None when everything is);
    both stay valid until the following `step`. Rows that finish start their next episode by themselves.

    Attributes:
        num_envs: number of environments N.
        device: where the tensors live.
        obs: [N, ...] tensor, or a dict of them.
        mask: [N, A] bool or None.
        raw_obs: `obs` before `VecNormalize`; None where there is none.
        ring: returns and lengths of the episodes.
    """

    check_every = 128  # steps between two questions to an accelerator (are numbers finite, which episodes ended): asking stalls it

    def __init__(self, num_envs: int, device: torch.device, name: str) -> None:
        self.num_envs = num_envs
        self.device = device
        self.name = name
        self.obs: Observation = torch.zeros(0)
        self.mask: Tensor | None = None
        self.raw_obs: Observation | None = None
        self._action: Tensor | None = None  # the last one, to tell whose numbers went wrong
        self.ring = EpisodeRing(num_envs, device, self.check_every)
        self.steps = 0
        self.started = False
        self._flags: dict[str, Tensor] = {}
        self._packing = None if device.type == "cpu" else Packing(device)

    @abstractmethod
    def reset(self, seed: int | None = None) -> None:
        """Start a new episode in every row; row i uses `seed + i` when a seed is given."""

    @abstractmethod
    def step(self, action: Tensor) -> Step:
        """Act in every row.

        Args:
            action: [N, ...] in the environment's own units.

        Raises:
            NonFiniteError: an observation or a reward is NaN or infinite.
        """

    @abstractmethod
    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` needs to continue exactly where this source stands."""

    @abstractmethod
    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""

    @abstractmethod
    def info_rows(self, step: Step) -> list[dict[str, Any]]:
        """Return the infos of the last step as SB3 has them, a dict for each row."""

    @property
    def episodes(self) -> list[tuple[float, int]]:
        """(return, length) of the finished episodes that nobody took; an accelerator is waited for."""
        self.ring.read()
        return self.ring.finished

    def pop_episode_stats(self) -> list[tuple[float, int]]:
        """Return the (return, length) of the episodes finished since the last call, and forget them.

        On an accelerator those of the last `check_every` steps may be missing; `ring.read()` before asks for them.
        """
        finished, self.ring.finished = self.ring.finished, []
        return finished

    def receive(self, observation: Any, mask: Any, *more: Any) -> list[Tensor]:
        """Take observations and masks (None: all is allowed) over to the device, and return `more` [N, ...] as tensors there.

        Arrays go to an accelerator side by side in one transfer.
        """
        self.check("observation", observation)
        names: list[Any] = list(observation) if isinstance(observation, dict) else [None]
        values = [observation if name is None else observation[name] for name in names]
        values += [*more] if mask is None else [*more, mask]
        if self._packing is not None and all(isinstance(value, np.ndarray) for value in values):
            moved: list[Any] = self._packing.move(values)
        else:
            moved = [to_tensor(value, self.device) for value in values]
        count = len(names)
        self.obs = moved[0] if names == [None] else dict(zip(names, moved[:count]))
        self.mask = None if mask is None else moved[-1].bool()
        return moved[count : count + len(more)]

    def check(self, key: str, value: Any) -> None:
        """Refuse NaN and infinity in `value`, a tensor, an array or a dict of them."""
        if isinstance(value, dict):
            for name, item in value.items():
                self.check(f"{key}[{name!r}]", item)
            return
        finite = _is_finite(value)
        if isinstance(finite, Tensor):
            self._flags[key] = self._flags.get(key, torch.ones_like(finite)) & finite
            if self.steps % self.check_every:
                return
            finite = bool(self._flags.pop(key))
        if not finite:
            if self._action is not None and not bool(_is_finite(self._action)):
                raise NonFiniteError(
                    f"the policy gave the environment {self.name} an action that is not finite (NaN or infinity) at step {self.steps}, "
                    f"and got such a value of {key} for it: its weights are no numbers any more. Lower the learning rate, or scale "
                    "the rewards down."
                )
            raise NonFiniteError(
                f"the environment {self.name} returned a value of {key} that is not finite (NaN or infinity) at step {self.steps}; "
                "training on it would destroy the policy. Mend the environment, or clip its output with a wrapper."
            )


class VectorEnvStream(EnvStream):
    """Experience from a Gymnasium vector environment in SAME_STEP mode; with torch output nothing leaves the device."""

    def __init__(self, vec_env: SB3VecEnv, device: torch.device, name: str) -> None:
        super().__init__(vec_env.num_envs, device, name)
        self.vec_env = vec_env
        self.vector_env = vec_env.vector_env
        self._speaks_torch = getattr(self.vector_env, "output", "numpy") == "torch"
        self._tells_masks = False
        rows: Any = self.vector_env.unwrapped
        if isinstance(vec_env.action_space, CHOICES) and isinstance(rows, SyncVectorEnv):
            names = [(env.has_wrapper_attr("action_masks"), env.has_wrapper_attr("engine")) for env in rows.envs]
            self._tells_masks = all(tells and not is_tensor for tells, is_tensor in names)

    def _method_masks(self) -> np.ndarray:
        rows: Any = self.vector_env.unwrapped
        return np.asarray(rows.call("action_masks"), bool)

    def _mask_of(self, info: dict[str, Any]) -> Any:
        return self._method_masks() if self._tells_masks and "action_mask" not in info else info.get("action_mask")

    def reset(self, seed: int | None = None) -> None:
        """Start a new episode in every row; row i uses `seed + i` when a seed is given."""
        self.ring.read()
        self.ring.start()
        observation, info = self.vector_env.reset(seed=seed)
        self.receive(observation, self._mask_of(info))
        self.started = True

    def step(self, action: Tensor) -> Step:
        """Act in every row; see `EnvStream.step`."""
        self.steps += 1
        self._action = action
        observation, reward, terminated, truncated, info = self.vector_env.step(
            action if self._speaks_torch else in_space_type(action.detach().cpu().numpy(), self.vec_env.action_space)
        )
        self.check("reward", reward)
        reward, terminated, truncated = self.receive(observation, self._mask_of(info), reward, terminated, truncated)
        reward = reward.float()
        next_obs = self.obs
        if "final_obs" in info:
            next_obs = self._true_next(info)
        self.ring.add(reward, terminated | truncated)
        return Step(next_obs, reward, terminated, truncated, info)

    def info_rows(self, step: Step) -> list[dict[str, Any]]:
        """Return a dict for each row: every entry of the vector info, and of finished rows what SB3's vectors tell."""
        columns = {key: to_numpy(value) for key, value in step.infos.items() if not key.startswith("_")}
        for key in ("final_obs", "final_info", "episode"):
            columns.pop(key, None)
        rows: list[dict[str, Any]] = []
        ended = self.ring.last()
        for row in range(self.num_envs):
            found = {key: row_of(value, row) for key, value in columns.items() if _has_row(step.infos, key, value, row)}
            if row in ended:
                found["terminal_observation"] = row_of(_observation_numpy(step.next_obs), row)
                found["TimeLimit.truncated"] = bool(step.truncated[row] & ~step.terminated[row])
                found["episode"] = {"r": ended[row][0], "l": ended[row][1], "t": 0.0}
            rows.append(found)
        return rows

    def _true_next(self, info: dict[str, Any]) -> Observation:
        ended = torch.as_tensor(info["_final_obs"], device=self.device)
        final = info["final_obs"]
        if isinstance(final, np.ndarray) and final.dtype == object:
            return self._from_objects(final, ended)
        final = to_tensor(final, self.device)
        return _select(ended, final, self.obs)

    def _from_objects(self, final: np.ndarray, ended: Tensor) -> Observation:
        """Fill the finished rows from Gymnasium's object array of single observations."""
        rows = torch.nonzero(ended)[:, 0].tolist()

        def fill(current: Tensor, key: str | None) -> Tensor:
            result = current.clone()
            for row in rows:
                value = final[row] if key is None else final[row][key]
                result[row] = torch.as_tensor(value, device=self.device).to(current.dtype)
            return result

        if isinstance(self.obs, dict):
            return {key: fill(value, key) for key, value in self.obs.items()}
        return fill(self.obs, None)

    def get_state(self) -> dict[str, Any]:
        """Return the state of the environment and of the running episode statistics."""
        if not hasattr(self.vector_env, "get_state"):
            return {"unsupported": type(self.vector_env).__name__}
        return {
            "environment": self.vector_env.get_state(),
            "obs": self.obs,
            "mask": self.mask,
            "returns": self.ring.returns.clone(),
            "lengths": self.ring.lengths.clone(),
            "steps": self.steps,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; see `EnvStream.set_state`."""
        refuse_unsupported(state)
        self.vector_env.set_state(state["environment"])  # type: ignore[attr-defined]
        self.obs = _moved(state["obs"], self.device)
        self.mask = None if state["mask"] is None else state["mask"].to(self.device)
        self.ring.start()
        self.ring.returns.copy_(state["returns"])
        self.ring.lengths.copy_(state["lengths"])
        self.steps = state["steps"]
        self.started = True


class StreamState:
    """Where an agent's environments stand, as a state of the agent.

    Args:
        agent: has `source`, a stream or None.
    """

    def __init__(self, agent: Any) -> None:
        self.agent = agent

    def state_dict(self) -> dict[str, Any]:
        """Return where the environments stand, and the episodes that nobody has read yet."""
        source = self.agent.source
        if source is None or not source.started:
            return {"stream": None, "episodes": []}
        source.ring.read()
        return {"stream": source.get_state(), "episodes": list(source.ring.finished)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there.

        Raises:
            UsageError: the environments cannot be put there.
        """
        source = self.agent.source
        if source is None:
            return
        if state["stream"] is not None:
            source.set_state(state["stream"])
        source.ring.finished = list(state["episodes"])


def _has_row(info: dict[str, Any], key: str, value: Any, row: int) -> bool:
    """Tell whether a vector info has an entry of this row: its mask "_key" says so, else every row has one."""
    if isinstance(value, dict):
        return all(_has_row(value, name, item, row) for name, item in value.items())
    if not hasattr(value, "__len__") or len(value) <= row:
        return False
    return bool(info[f"_{key}"][row]) if f"_{key}" in info else True


def _observation_numpy(obs: Observation) -> Any:
    return {key: value.cpu().numpy() for key, value in obs.items()} if isinstance(obs, dict) else obs.cpu().numpy()


def refuse_unsupported(state: dict[str, Any]) -> None:
    """Raise when the saved run stood on an environment whose state cannot be saved."""
    if "unsupported" in state:
        raise UsageError(
            f"the run was made on a {state['unsupported']}, whose state cannot be saved, so it cannot be resumed exactly; "
            "give the agent an id, a Gymnasium environment or one of polyathlon's vector environments instead"
        )


def _select(ended: Tensor, final: Observation, current: Observation) -> Observation:
    """Take `final` in the rows that ended and `current` elsewhere."""
    if isinstance(current, dict):
        assert isinstance(final, dict)
        return {key: _select(ended, final[key], value) for key, value in current.items()}  # type: ignore[misc]
    assert isinstance(final, Tensor)
    return torch.where(ended.reshape(-1, *[1] * (current.dim() - 1)), final, current)


def _moved(observation: Observation, device: torch.device) -> Observation:
    if isinstance(observation, dict):
        return {key: value.to(device) for key, value in observation.items()}
    return observation.to(device)


def make_env_stream(vec_env: VecEnv, device: torch.device) -> EnvStream:
    """Make the source that reads `vec_env` with the fewest copies.

    Args:
        vec_env: an agent's vector environment; wrappers such as `VecNormalize` are honoured.
        device: where the agent's tensors live.
    """
    from .sb3_stream import SB3EnvStream

    name = environment_name(vec_env)
    if isinstance(vec_env, SB3VecEnv):
        return VectorEnvStream(vec_env, device, name)
    return SB3EnvStream(vec_env, device, name)


def environment_name(vec_env: VecEnv) -> str:
    """Return the id of the environment behind `vec_env`, for messages."""
    inner: Any = vec_env
    while isinstance(inner, VecEnvWrapper):
        inner = inner.venv
    candidate = getattr(inner, "vector_env", None) or (inner.envs[0] if getattr(inner, "envs", None) else inner)
    spec = getattr(candidate, "spec", None)
    return str(spec.id) if spec is not None else type(candidate.unwrapped).__name__  # the task's own, not its wrapper's
