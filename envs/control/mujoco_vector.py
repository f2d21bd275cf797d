"""The vector environment of MuJoCo tasks: seeds, resets, time limits, infos and saved states."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.envs.tensor.arguments import check_action, parse_autoreset, read_options
from polyathlon.envs.tensor.base import parse_device
from polyathlon.envs.tensor.rewards import reward_space_of

from .mujoco_arrays import Array, NumpyArrays, TorchArrays
from .mujoco_objectives import Objectives, pays_vector
from .mujoco_options import choice, find_task, make_model_env, warn_of_new_contacts
from .mujoco_output import Output
from .mujoco_physics import CpuPhysics, Physics, default_threads

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_NO_LIMIT = 2**62


class MujocoVector(gym.vector.VectorEnv[Any, Any, Any]):
    """Many rows of one of Gymnasium's MuJoCo tasks (v5) in one process.

    On the CPU back end every number equals that of `gym.make("X-v5")`, step for step. Row i of `reset(seed=s)` starts
    as `gym.make("X-v5").reset(seed=s + i)`; each later episode depends on (s + i, its number) alone, whatever the
    number of environments or threads. Infos are batched as in Gymnasium's `SyncVectorEnv`, each with its mask `_key`.

    Attributes:
        task: observation and reward.
        physics: the back end.
        versions: versions of the software that the numbers depend on; MuJoCo's contacts changed in 3.5.0.
        metadata: Gymnasium's, and the version of MuJoCo under "mujoco".
    """

    def __init__(
        self,
        task: str = "HalfCheetah",
        num_envs: int = 1,
        *,
        device: torch.device | str = "cpu",
        output: str = "numpy",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = 1000,
        num_threads: int | None = None,
        backend: str = "cpu",
        dtype: str | None = None,
        render_mode: str | None = None,
        reward: str = "scalar",
        cost_objective: bool = True,
        **options: Any,
    ) -> None:
        """Make the rows.

        Args:
            task: HalfCheetah, Hopper, Walker2d, Ant, Humanoid or Swimmer.
            num_envs: number of environments.
            device: where the tensors of output "torch" go, and where the "warp" back end computes.
            output: "numpy" arrays or "torch" tensors.
            autoreset_mode: Gymnasium's mode (or its name).
            max_episode_steps: steps after which an episode is truncated; None for never.
            num_threads: threads of the physics; None chooses by the cores and the number of environments.
            backend: "cpu" (MuJoCo itself) or "warp" (`mujoco_warp`, for GPUs; float32, close but not equal).
            dtype: "float64" or "float32" of observations, rewards and infos; None: float64 for output "numpy", as
                Gymnasium (whose `reward_ctrl` keeps the type of the action), float32 for "torch".
            render_mode: None or "rgb_array", a picture of row 0.
            reward: "scalar", or "vector" for one number for each objective, float32 as in MO-Gymnasium (see `Objectives`).
            cost_objective: with reward "vector", whether the control cost is an objective of its own.
            options: those of Gymnasium's class, for example `ctrl_cost_weight`, `frame_skip`,
                `terminate_when_unhealthy`, `exclude_current_positions_from_observation`.

        Raises:
            UsageError: something is unknown or out of range; the message says what is allowed.
        """
        super().__init__()
        self.closed = True  # until there is something to close
        self._arguments = {"task": task, "num_envs": num_envs, "device": str(device), "output": output} | options
        self._arguments |= {"autoreset_mode": autoreset_mode, "max_episode_steps": max_episode_steps}
        self._arguments |= {"num_threads": num_threads, "backend": backend, "dtype": dtype, "render_mode": render_mode}
        self._arguments |= {"reward": reward, "cost_objective": cost_objective}
        check_positive_int(num_envs=num_envs)
        self.num_envs = int(num_envs)
        self.output = choice("output", output, ("numpy", "torch"))
        self.backend = choice("backend", backend, ("cpu", "warp"))
        self.render_mode = choice("render_mode", render_mode, (None, "rgb_array"))
        self.device = parse_device(device)
        self.autoreset_mode = parse_autoreset(autoreset_mode)
        if max_episode_steps is not None:
            check_positive_int(max_episode_steps=max_episode_steps)
        self.max_episode_steps = None if max_episode_steps is None else int(max_episode_steps)
        self.dtype = _DTYPES[choice("dtype", dtype or ("float64" if output == "numpy" else "float32"), tuple(_DTYPES))]
        self._out = Output(self.output, self.dtype, self.device)
        kind = find_task(task)
        self._model_env, filled = make_model_env(kind, options, self.render_mode)
        warn_of_new_contacts(kind, self._model_env.model)
        self.task = kind(self._model_env, filled, NumpyArrays() if self.backend == "cpu" else TorchArrays())
        self._objectives = None
        if pays_vector(kind.__name__, reward, cost_objective):
            self._objectives = Objectives(self.task, cost_objective)
            self.single_reward_space = reward_space_of(self._objectives.number)
        self.physics = self._make_physics(num_threads)
        self._now = self.task.views(self.physics.fields)
        self._set_spaces()
        self._set_bookkeeping()
        self.closed = False

    def _make_physics(self, num_threads: int | None) -> Physics:
        env, task = self._model_env, self.task
        threads = default_threads(self.num_envs, task.step_cost) if num_threads is None else num_threads
        check_positive_int(num_threads=threads)
        if self.backend == "cpu":
            shape = (self.num_envs, env.frame_skip, task.has_contact_forces, threads)
            return CpuPhysics(env.model, task.fields, *shape)
        from .mujoco_warp import WarpPhysics

        return WarpPhysics(env.model, task.fields, self.num_envs, env.frame_skip, task.has_contact_forces, self.device)

    def _set_spaces(self) -> None:
        env = self._model_env
        box = env.observation_space
        numpy_dtype = np.float64 if self.dtype == torch.float64 else np.float32
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, box.shape, numpy_dtype)
        self.single_action_space = env.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": env.metadata["render_fps"],
            "autoreset_mode": self.autoreset_mode,
            "mujoco": mujoco.__version__,
        }
        self.versions = {"mujoco": mujoco.__version__, "gymnasium": gym.__version__, "torch": str(torch.__version__)}

    def _set_bookkeeping(self) -> None:
        self._limit = _NO_LIMIT if self.max_episode_steps is None else self.max_episode_steps
        self._seeds = np.zeros(self.num_envs, dtype=np.int64)
        self._episodes = np.zeros(self.num_envs, dtype=np.int64)
        self._t = np.zeros(self.num_envs, dtype=np.int64)
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)
        self._has_ended = False
        self._track: Array | None = None

    # ------------------------------------------------------------------------------------------------ resets

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: row i gets seed + i; or one seed (or None) for each row. None goes on with the next episode of the
                seeds in use, which are drawn from the operating system at first.
            options: {"reset_mask": [N] bool} resets only those rows.

        Returns:
            Observations and infos.

        Raises:
            UsageError: an option is unknown or of the wrong shape, or a seed is negative.
        """
        rows = self._rows_to_reset(options)
        self._assign_seeds(seed, rows)
        self._start(rows)
        self.physics.read(rows)
        track, info = self.task.track(self._now), self.task.measure(self._now)
        if self._track is None or len(rows) == self.num_envs:
            self._track = track
        else:
            self._track[rows] = track[rows]
        self._ended[rows] = False
        self._has_ended = bool(self._ended.any())
        mask = np.zeros(self.num_envs, dtype=np.bool_)
        mask[rows] = True
        return self._out.values(self.task.observe(self._now)), self._out.info(info, mask)

    def _rows_to_reset(self, options: dict[str, Any] | None) -> list[int]:
        options = read_options(options)
        if unknown := sorted(set(options) - {"reset_mask"}):
            raise UsageError(f"unknown reset options {unknown}; known: 'reset_mask', a bool for each environment")
        if "reset_mask" not in options:
            return list(range(self.num_envs))
        if self._track is None:
            raise UsageError(
                "some rows can only be reset after a first reset() of all; call reset() without 'reset_mask'"
            )
        given = options["reset_mask"]
        mask = given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise UsageError(
                f"'reset_mask' must be {self.num_envs} bools with at least one True, got {mask.dtype} of shape {mask.shape}"
            )
        rows: list[int] = np.flatnonzero(mask).tolist()
        return rows

    def _assign_seeds(self, seed: int | Sequence[int | None] | None, rows: list[int]) -> None:
        """Set seed and episode number of the rows that are about to start."""
        if seed is None or isinstance(seed, int | np.integer):
            seeds: list[int | None] = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = [None if item is None else int(item) for item in seed]
        if len(seeds) != self.num_envs:
            raise UsageError(
                f"a list of seeds needs one entry for each of the {self.num_envs} environments, got {len(seeds)}"
            )
        if any(item is not None and not 0 <= item < 2**63 for item in seeds):
            raise UsageError(f"seeds must be from 0 to 2**63 - 1, got {seed!r}")
        fresh = None
        if self._track is None and any(item is None for item in seeds):
            fresh = int(np.random.SeedSequence().generate_state(1)[0])
        for row in rows:
            item = seeds[row]
            if item is None and fresh is None:
                self._episodes[row] += 1
                continue
            self._seeds[row] = (fresh or 0) + row if item is None else item
            self._episodes[row] = 0

    def _start(self, rows: Sequence[int]) -> None:
        """Put rows at the start of the episode whose number is set."""
        starts = [self.task.draw(self._generator(row)) for row in rows]
        self.physics.reset(rows, np.stack([start[0] for start in starts]), np.stack([start[1] for start in starts]))
        self._t[rows] = 0

    def _generator(self, row: int) -> np.random.Generator:
        seed, episode = int(self._seeds[row]), int(self._episodes[row])
        if episode == 0:
            return seeding.np_random(seed)[0]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(episode,))))

    # ------------------------------------------------------------------------------------------------ steps

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act in every row.

        Args:
            actions: [N, nu] array or tensor; MuJoCo clips what is beyond the action space, as in Gymnasium.

        Returns:
            Observations [N, D], rewards [N] or [N, k], terminated [N] bool, truncated [N] bool and infos.

        Raises:
            UsageError: called before `reset`, wrong shape, NaN, infinite or huge actions, or (autoreset DISABLED) a row whose
                episode is over.
        """
        action = self._parse(actions)
        restarted = self._ended if self._has_ended and self.autoreset_mode is AutoresetMode.NEXT_STEP else None
        self._refuse_ended()
        if restarted is None:
            self.physics.step(action, None)
        else:
            if going := np.flatnonzero(~restarted).tolist():
                self.physics.step(action, going)
            self._restart(np.flatnonzero(restarted).tolist())
        self.physics.read()
        self._t += 1
        return self._judge(action, restarted)

    def _restart(self, rows: list[int]) -> None:
        self._episodes[rows] += 1
        self._start(rows)

    def _judge(self, action: np.ndarray, restarted: np.ndarray | None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        assert self._track is not None
        outcome = self.task.act(self._track, self._now, self._for_task(action))
        self._track = outcome.track
        reward, stepped = outcome.reward if self._objectives is None else self._objectives(outcome.info), None
        if outcome.terminated is None:
            terminated = np.zeros(self.num_envs, dtype=np.bool_)
        else:
            terminated = self.task.arrays.numpy(outcome.terminated)
        if restarted is not None:
            stepped = ~restarted
            self._t[restarted] = 0
            terminated &= stepped
            reward[restarted] = 0.0
        truncated = self._t >= self._limit
        ended = terminated | truncated
        self._ended, self._has_ended = ended, bool(ended.any())
        results = self._out.rewards(reward), self._out.flags(terminated), self._out.flags(truncated)
        if self._has_ended and self.autoreset_mode is AutoresetMode.SAME_STEP:
            obs, info = self._reset_same_step(outcome.obs, outcome.info, ended)
            return obs, *results, info
        start_keys = self.task.start_keys if restarted is not None else ()
        return self._out.values(outcome.obs), *results, self._out.info(outcome.info, stepped, start_keys)

    def _for_task(self, values: np.ndarray) -> Array:
        """Bring an array to the library and device in which the task is computed."""
        return values if self.backend == "cpu" else torch.from_numpy(values).to(self.device)

    def _reset_same_step(self, final: Array, info: dict[str, Array], ended: np.ndarray) -> tuple[Any, dict[str, Any]]:
        """Start the next episode of rows that ended, and keep what they saw last."""
        assert self._track is not None
        rows = np.flatnonzero(ended).tolist()
        final_info = self._out.info(info, ended)
        self._restart(rows)
        self.physics.read(rows)
        self._track[rows] = self.task.track(self._now)[rows]
        self._ended, self._has_ended = np.zeros_like(ended), False
        mixed = {**info, **self.task.measure(self._now)}
        given = self._out.info(mixed, ~ended, self.task.start_keys)
        obs = self.task.arrays.copy(final)
        obs[rows] = self.task.observe(self._now)[rows]
        given["final_obs"], given["_final_obs"] = self._out.final(final, rows), self._out.flags(ended.copy())
        given["final_info"], given["_final_info"] = final_info, self._out.flags(ended.copy())
        return self._out.values(obs), given

    def _parse(self, actions: Any) -> np.ndarray:
        """Check actions; float32 and float64 keep their type, because the control cost is computed in it."""
        if self._track is None:
            raise UsageError("step() was called before reset(); call reset() first")
        given = actions.detach().cpu().numpy() if isinstance(actions, Tensor) else np.asarray(actions)
        shape = (self.num_envs, *(self.single_action_space.shape or ()))
        if given.shape != shape or given.dtype.kind not in "fiu":
            raise UsageError(f"actions must be numbers of shape {shape}, got {given.dtype} of shape {given.shape}")
        if given.dtype not in (np.float32, np.float64):
            given = given.astype(np.float64)
        check_action(given)
        return given

    def _refuse_ended(self) -> None:
        if self._has_ended and self.autoreset_mode is AutoresetMode.DISABLED:
            rows = np.flatnonzero(self._ended)[:8].tolist()
            raise UsageError(
                f"the episodes of rows {rows} are over and autoreset is disabled; "
                "call reset(options={'reset_mask': done}) before step()"
            )

    # ------------------------------------------------------------------------------------------------ pictures

    def render(self) -> tuple[Any, ...] | None:
        """Draw row 0: a tuple of one [H, W, 3] uint8 picture; None without a render mode."""
        if self.render_mode is None:
            return None
        self.physics.copy_to(self._model_env.data, 0)
        return (self._model_env.render(),)

    def close_extras(self, **kwargs: Any) -> None:
        """Give back threads and the renderer."""
        # Gymnasium also closes what a refused argument left half made
        if hasattr(self, "physics"):
            self.physics.close()
            self._model_env.close()

    # ------------------------------------------------------------------------------------------------ saved states

    def get_state(self) -> dict[str, Any]:
        """Return a plain dict of tensors from which `set_state` continues to the same bits on the CPU back end."""
        arrays = {"seeds": self._seeds, "episodes": self._episodes, "t": self._t, "ended": self._ended}
        return {
            "task": type(self.task).__name__,
            "backend": self.backend,
            "versions": dict(self.versions),
            **{name: torch.from_numpy(array.copy()) for name, array in arrays.items()},
            "track": None if self._track is None else torch.as_tensor(self._track).clone(),
            "physics": self.physics.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` gave.

        Raises:
            UsageError: it belongs to another task, back end or number of environments.
        """
        here = (type(self.task).__name__, self.backend, self.num_envs)
        there = (state["task"], state["backend"], len(state["seeds"]))
        if here != there:
            raise UsageError(f"the saved state is of (task, backend, num_envs) {there}, this environment is {here}")
        if state["versions"]["mujoco"] != mujoco.__version__:
            warnings.warn(
                f"the state was saved with MuJoCo {state['versions']['mujoco']}, this is {mujoco.__version__}: "
                "the episodes go on, but not to the same numbers",
                stacklevel=2,
            )
        self.physics.set_state(state["physics"])
        self._seeds, self._episodes, self._t, self._ended = (
            state[name].cpu().numpy().copy() for name in ("seeds", "episodes", "t", "ended")
        )
        self._has_ended = bool(self._ended.any())
        track = state["track"]
        self._track = None if track is None else self._for_task(track.cpu().numpy().copy())

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self._arguments, self.get_state(), self.spec)


def _rebuild(cls: type[MujocoVector], arguments: dict[str, Any], state: dict[str, Any], spec: Any) -> MujocoVector:
    env = cls(**arguments)
    env.set_state(state)
    env.spec = spec
    return env
