"""A tensor task as a Gymnasium vector environment, with numpy arrays or with tensors that stay on their device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from polyathlon.envs.errors import UsageError, check_positive_int, unknown_name

from .arguments import parse_autoreset, read_options
from .base import TensorEnv
from .engine import Engine, RowsStep
from .goals import goal_reward
from .lazy_info import LazyInfo
from .output import actor_reward, collect_info, interface_info, row_of, task_info, to_numpy
from .rewards import reward_space_of
from .rules import read_action

_OUTPUTS = ("numpy", "torch")
_VIEWS = ("mover", "all")


def player_space(task: TensorEnv) -> gym.Space[Any]:
    """Return the space of the actions of one row: of all players where they move at once."""
    if not task.simultaneous:
        return task.action_space
    if isinstance(task.action_space, gym.spaces.Discrete):
        return gym.spaces.MultiDiscrete([int(task.action_space.n)] * task.num_players)
    return batch_space(task.action_space, task.num_players)


def pays_objectives(task: TensorEnv) -> bool:
    """Return whether the rewards of a task are vectors, one number for each objective (and not for each player)."""
    return task.num_players == 1 and bool(task.reward_shape)


def check_render_mode(task: TensorEnv, render_mode: str | None) -> str | None:
    """Return the render mode.

    Raises:
        UsageError: the task does not have it.
    """
    if render_mode is not None and render_mode not in task.metadata["render_modes"]:
        raise unknown_name(f"render mode of {type(task).__name__}", str(render_mode), task.metadata["render_modes"])
    return render_mode


def current_mask(task: TensorEnv, engine: Engine) -> Tensor:
    """Return a copy of the mask, [N, A] bool; all True where a task with countable actions has no masks.

    Raises:
        UsageError: the actions are numbers of a Box.
    """
    if engine.mask is not None:
        return engine.mask.clone()
    if engine.num_actions is None:
        raise UsageError(
            f"{type(task).__name__} has no action masks: its actions are the numbers of {task.action_space}"
        )
    players = (task.num_players,) if task.simultaneous else ()
    return torch.ones((engine.num_envs, *players, engine.num_actions), dtype=torch.bool, device=task.device)


class TensorVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """Many rows of a tensor task, stepped together.

    `info["action_mask"]` holds the allowed actions where a task has masks; what else a task tells is computed when it is
    read (`LazyInfo`). In games the reward is that of the player
    who moved, `info["rewards"]` (N, num_players) has everybody's and `info["player"]` tells who is to move. With
    SAME_STEP, `info["final_obs"]` and `info["final_info"]` hold what finished rows saw last, as in Gymnasium; with
    torch output they are full tensors of which the rows in `info["_final_obs"]` count. `info["acting"]` (N, num_players) tells
    who acts; with `view="all"` observations are those of all players, (N, num_players, ...), and rewards (N, num_players).

    Args:
        task: the dynamics.
        num_envs: number of environments.
        output: "numpy", or "torch" for tensors on the task's device.
        autoreset_mode: when finished rows start again.
        max_episode_steps: steps after which an episode is cut; None for the task's own limit.
        render_mode: a render mode of the task.
        compile: run the whole step as one graph of `torch.compile`: a pause of seconds at first, then faster.
        view: of a game, "mover": what the player to move sees (the first where all move at once) and is paid, or "all".

    Raises:
        UsageError: an argument is outside what is allowed.
    """

    def __init__(
        self,
        task: TensorEnv,
        num_envs: int,
        output: str = "numpy",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        compile: bool = False,
        view: str = "mover",
    ) -> None:
        if output not in _OUTPUTS:
            raise unknown_name("output", str(output), _OUTPUTS)
        if view not in _VIEWS:
            raise unknown_name("view", str(view), _VIEWS)
        self.view = view if task.num_players > 1 else "mover"
        self.task = task
        check_positive_int(num_envs=num_envs)
        self.num_envs = int(num_envs)
        self.output = output
        self.device = task.device
        self.render_mode = check_render_mode(task, render_mode)
        self.autoreset_mode = parse_autoreset(autoreset_mode)
        self.metadata = {**task.metadata, "autoreset_mode": self.autoreset_mode}
        self.max_episode_steps = task.max_episode_steps
        if max_episode_steps is not None:
            check_positive_int(max_episode_steps=max_episode_steps)
            self.max_episode_steps = int(max_episode_steps)
        self.single_observation_space = task.observation_space
        if self.view == "all":
            self.single_observation_space = batch_space(task.observation_space, task.num_players)
        self.single_action_space = player_space(task)
        if pays_objectives(task):
            self.single_reward_space = reward_space_of(task.reward_shape[0])
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        is_all = self.view == "all"
        self.engine = Engine(task, self.num_envs, self.max_episode_steps, self.autoreset_mode, compile, is_all)
        self._every_row = np.ones(self.num_envs, bool)
        self._every_row.setflags(write=False)
        self._lazy_names: tuple[str, ...] | None = None

    @property
    def state(self) -> Any:
        """Where the rows stand; None before the first reset."""
        return self.engine.state

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a new episode in every row.

        Args:
            seed: row i gets `seed + i`, or the i-th of a list; None: the next episode of each row's seed.
            options: the task's own; "reset_mask" (N,) bool restricts the reset to some rows.

        Raises:
            UsageError: the seed or an option is malformed.
        """
        options = dict(read_options(options))
        rows = self._rows_to_reset(options.pop("reset_mask", None))
        observation = self.engine.reset(seed, options, rows)
        info = collect_info(self.task, self.engine.state, self.engine.mask, None)
        return self._out(observation), self._info_out(info)

    def _rows_to_reset(self, reset_mask: Any) -> Tensor | None:
        if reset_mask is None:
            return None
        mask = torch.as_tensor(reset_mask, device=self.device)
        if mask.dtype is not torch.bool or tuple(mask.shape) != (self.num_envs,) or not mask.any():
            raise UsageError(
                f"'reset_mask' is a bool array of shape ({self.num_envs},) with at least one True, "
                f"got {mask.dtype} of shape {tuple(mask.shape)}"
            )
        return mask.nonzero()[:, 0]

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act in every row.

        Args:
            actions: (N, ...) array or tensor.

        Returns:
            Observations, rewards float32 (N,) or (N, k), terminated, truncated (N,) bool and info.

        Raises:
            TypeError: the actions are of another type.
            UsageError: they have another shape or are outside the space, or there was no reset.
        """
        action = read_action(self.task, self.num_envs, actions)
        player = None
        if self.task.num_players > 1 and not self.task.simultaneous and self.engine.state is not None:
            player = self.task.player(self.engine.state)
        outcome = self.engine.step(action)
        all_rewards = outcome.reward if self.task.num_players > 1 else None
        info = self._info(
            outcome.state, interface_info(self.task, outcome.state, outcome.mask, outcome.illegal, all_rewards)
        )
        if outcome.final is not None:
            info.update(self._finals(outcome))
        reward = outcome.reward if self.view == "all" else actor_reward(self.task, outcome.reward, player)
        return self._out(outcome.obs), *map(self._out, (reward, outcome.terminated, outcome.truncated)), info

    def _info(self, state: Any, facts: dict[str, Tensor]) -> dict[str, Any]:
        """Return the facts and, computed when they are read, those of the task."""
        ready = self._info_out(facts)
        if self._lazy_names is None:  # the first step tells them
            own = self._info_out(task_info(self.task, state))
            self._lazy_names = tuple(own)
            return {**own, **ready}
        if not self._lazy_names:
            return ready
        return LazyInfo(ready, self._lazy_names, lambda: self._info_out(task_info(self.task, state)))

    def _finals(self, outcome: RowsStep) -> dict[str, Any]:
        """Return what finished rows saw and knew last, in Gymnasium's form."""
        mask = None if outcome.mask is None else torch.ones_like(outcome.mask)
        info = collect_info(self.task, outcome.final, mask, outcome.illegal)
        if self.output == "torch":
            return {"final_obs": outcome.final_obs, "_final_obs": outcome.ended.clone(), "final_info": info}
        ended = to_numpy(outcome.ended)
        finals, observations = np.full(self.num_envs, None, object), to_numpy(outcome.final_obs)
        for row in np.flatnonzero(ended).tolist():
            finals[row] = row_of(observations, row)
        final_info: dict[str, Any] = {}
        for name, value in info.items():
            final_info[name], final_info[f"_{name}"] = to_numpy(value), ended.copy()
        return {"final_obs": finals, "_final_obs": ended, "final_info": final_info, "_final_info": ended.copy()}

    def _out(self, tree: Any) -> Any:
        return tree if self.output == "torch" else to_numpy(tree)

    def _info_out(self, info: dict[str, Tensor]) -> dict[str, Any]:
        if self.output == "torch":
            return dict(info)
        result: dict[str, Any] = {}
        for name, value in info.items():
            result[name], result[f"_{name}"] = to_numpy(value), self._every_row
        return result

    @property
    def compute_reward(self) -> Callable[[Any, Any, Any], Any]:
        """What goals pay, `compute_reward(achieved_goal, desired_goal, info)`; only goal tasks have it."""
        return goal_reward(self.task)

    def action_masks(self) -> Any:
        """Return the allowed actions, (N, A) bool.

        Raises:
            UsageError: the actions are numbers of a Box.
        """
        return self._out(current_mask(self.task, self.engine))

    def render(self) -> tuple[Any, ...] | None:
        """Draw every row, by `render_mode`; None without one."""
        if self.render_mode is None or self.engine.state is None:
            return None
        draw = self.task.render_text if self.render_mode == "ansi" else self.task.render
        return tuple(draw(self.engine.state, row) for row in range(self.num_envs))

    def get_state(self) -> dict[str, Any]:
        """Return a dict of tensors from which `set_state` continues bit for bit."""
        return self.engine.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned; see `Engine.set_state`."""
        self.engine.set_state(state)
