"""A game on tensors as PettingZoo environments: in turns (AEC) and all at once (parallel)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from pettingzoo import AECEnv, ParallelEnv

from polyathlon.envs.errors import UsageError

from .arguments import read_options
from .base import TensorEnv
from .engine import Engine
from .output import collect_info, row_of, to_numpy
from .rules import read_action
from .vector_env import check_render_mode


class _Table:
    """One game and its players, behind both PettingZoo interfaces."""

    def __init__(self, task: TensorEnv, render_mode: str | None, max_episode_steps: int | None) -> None:
        if task.num_players < 2:
            raise UsageError(f"PettingZoo is for games; {type(task).__name__} has one player: use make_scalar")
        self.task = task
        self.render_mode = check_render_mode(task, render_mode)
        limit = task.max_episode_steps if max_episode_steps is None else max_episode_steps
        self.engine = Engine(task, 1, limit, AutoresetMode.DISABLED)
        self.names = list(task.player_names) or [f"player_{i}" for i in range(task.num_players)]
        probe = task.mask(task.reset(torch.zeros((1, 2), dtype=torch.int64, device=task.device)))
        self.has_masks = probe is not None
        self.observation_space = task.observation_space
        if self.has_masks:
            count = int(task.action_space.n)  # type: ignore[attr-defined]
            mask_space = gym.spaces.Box(0, 1, (count,), np.int8)
            self.observation_space = gym.spaces.Dict({"observation": task.observation_space, "action_mask": mask_space})

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> None:
        """Start a game."""
        # PettingZoo's api_test passes an entry of this name to every environment
        given = {name: value for name, value in read_options(options).items() if name != "options"}
        self.engine.reset(seed, given)

    def observe(self, player: int) -> Any:
        """Return what a player sees; where the game has masks, with the int8 mask, 0 for who is not to move."""
        state = self.engine.state
        who = torch.full_like(state.t, player)
        observation = row_of(to_numpy(self.task.observe(state, who)), 0)
        if not self.has_masks:
            return observation
        mask = row_of(to_numpy(self.engine.mask), 0)
        own = mask[player] if mask.ndim == 2 else mask
        if not self.task.simultaneous and player != self.to_move():
            own = np.zeros_like(own)
        return {"observation": observation, "action_mask": own.astype(np.int8)}

    def to_move(self) -> int:
        """Return the player whose turn it is."""
        return int(self.task.player(self.engine.state)[0])

    def info(self, player: int, illegal: Any = None) -> dict[str, Any]:
        """Return the facts about the game; the mask, as bool, for who is to move."""
        info = collect_info(self.task, self.engine.state, self.engine.mask, illegal)
        facts = {name: row_of(to_numpy(value), 0) for name, value in info.items()}
        mask = facts.pop("action_mask", None)
        if mask is not None and (self.task.simultaneous or player == self.to_move()):
            facts["action_mask"] = mask[player] if mask.ndim == 2 else mask
        return facts

    def play(self, actions: Any) -> tuple[np.ndarray, bool, bool, Any]:
        """Act; return the rewards (num_players,), terminated, truncated and whether the action was illegal."""
        outcome = self.engine.step(read_action(self.task, 1, np.asarray(actions)[None]))
        rewards = np.asarray(to_numpy(outcome.reward)[0], np.float64)
        return rewards, bool(outcome.terminated), bool(outcome.truncated), outcome.illegal

    def render(self) -> Any:
        """Draw the game, by `render_mode`; None without one."""
        if self.render_mode is None:
            return None
        if self.engine.state is None:
            raise UsageError("render() was called before reset(); call reset() first")
        draw = self.task.render_text if self.render_mode == "ansi" else self.task.render
        return draw(self.engine.state, 0)


def _describe(task: TensorEnv) -> dict[str, Any]:
    return {"name": type(task).__name__.lower(), "is_parallelizable": task.simultaneous, **task.metadata}


class TensorAECEnv(AECEnv[str, Any, Any]):
    """A game in PettingZoo's turn-based form.

    Where all players move at once, each gives its action in turn and the game moves with the last one. An observation
    of a game with masks is `{"observation": ..., "action_mask": int8}`.

    Args:
        task: a task with at least two players.
        render_mode: a render mode of the task.
        max_episode_steps: steps after which a game is cut; None for the task's own limit.

    Raises:
        UsageError: the task has one player, or no such render mode.
    """

    def __init__(self, task: TensorEnv, render_mode: str | None = None, max_episode_steps: int | None = None) -> None:
        super().__init__()
        self.table = _Table(task, render_mode, max_episode_steps)
        self.metadata = _describe(task)
        self.render_mode = render_mode
        self.possible_agents = list(self.table.names)
        self.observation_spaces = dict.fromkeys(self.possible_agents, self.table.observation_space)
        self.action_spaces = dict.fromkeys(self.possible_agents, task.action_space)
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gym.Space[Any]:
        """Return what an agent sees."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space[Any]:
        """Return what an agent may do."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start the first game of `seed`, or without one the next game."""
        self.table.reset(seed, options)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {name: self.table.info(i) for i, name in enumerate(self.agents)}
        self._pending: list[Any] = []
        self.agent_selection = self.agents[0 if self.table.task.simultaneous else self.table.to_move()]

    def observe(self, agent: str) -> Any:
        """Return what an agent sees now."""
        return self.table.observe(self.possible_agents.index(agent))

    def step(self, action: Any) -> None:
        """Act for `agent_selection`; None once its game is over.

        Raises:
            TypeError: the action is of another type.
            UsageError: it is outside the action space.
        """
        if not self.agents:
            raise UsageError("step() was called on a finished game; call reset() first")
        if self.terminations[self.agent_selection] or self.truncations[self.agent_selection]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[self.agent_selection] = 0.0
        self._clear_rewards()
        task = self.table.task
        if task.simultaneous:
            read_action(task, 1, np.asarray([[action] * task.num_players]))
            self._pending.append(action)
            if len(self._pending) < task.num_players:
                self.agent_selection = self.possible_agents[len(self._pending)]
                return
            action, self._pending = np.asarray(self._pending), []
        self._move(action)

    def _move(self, action: Any) -> None:
        rewards, terminated, truncated, illegal = self.table.play(action)
        for i, name in enumerate(self.agents):
            self.rewards[name] = float(rewards[i])
            self.terminations[name], self.truncations[name] = terminated, truncated
            self.infos[name] = self.table.info(i, illegal)
        self._accumulate_rewards()
        self.agent_selection = self.agents[0 if self.table.task.simultaneous else self.table.to_move()]

    def render(self) -> Any:
        """Draw the game, by `render_mode`."""
        return self.table.render()

    def close(self) -> None:
        """Do nothing; there is nothing to release."""


class TensorParallelEnv(ParallelEnv[str, Any, Any]):
    """A game in PettingZoo's parallel form.

    Where players take turns, all give an action in each step and only that of the player whose turn it is counts; the
    masks of the others are 0. The arguments are those of `TensorAECEnv`.
    """

    def __init__(self, task: TensorEnv, render_mode: str | None = None, max_episode_steps: int | None = None) -> None:
        self.table = _Table(task, render_mode, max_episode_steps)
        self.metadata = _describe(task)
        self.render_mode = render_mode
        self.possible_agents = list(self.table.names)
        self.observation_spaces = dict.fromkeys(self.possible_agents, self.table.observation_space)
        self.action_spaces = dict.fromkeys(self.possible_agents, task.action_space)
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gym.Space[Any]:
        """Return what an agent sees."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space[Any]:
        """Return what an agent may do."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Start the first game of `seed`, or without one the next game; return observations and infos by name."""
        self.table.reset(seed, options)
        self.agents = list(self.possible_agents)
        return self._observations(), {name: self.table.info(i) for i, name in enumerate(self.agents)}

    def _observations(self) -> dict[str, Any]:
        return {name: self.table.observe(i) for i, name in enumerate(self.possible_agents)}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Act for everybody.

        Returns:
            Observations, rewards, terminations, truncations and infos, each by name.

        Raises:
            TypeError: an action is of another type.
            UsageError: an action is missing or outside the action space, or the game is over.
        """
        if not self.agents:
            raise UsageError("step() was called on a finished game; call reset() first")
        needed = self.agents if self.table.task.simultaneous else [self.agents[self.table.to_move()]]
        missing = [name for name in needed if name not in actions]
        if missing:
            raise UsageError(f"an action is missing for {missing}; given were {sorted(actions)}")
        given = [actions[name] for name in needed]
        rewards, terminated, truncated, illegal = self.table.play(given if self.table.task.simultaneous else given[0])
        names = self.agents
        infos = {name: self.table.info(i, illegal) for i, name in enumerate(names)}
        if terminated or truncated:
            self.agents = []
        return (
            self._observations(),
            {name: float(rewards[i]) for i, name in enumerate(names)},
            dict.fromkeys(names, terminated),
            dict.fromkeys(names, truncated),
            infos,
        )

    def render(self) -> Any:
        """Draw the game, by `render_mode`."""
        return self.table.render()

    def close(self) -> None:
        """Do nothing; there is nothing to release."""
