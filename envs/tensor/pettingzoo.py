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
from .output import row_of, to_numpy
from .rules import confined, count_actions, invalid_action, read_action_of_one
from .turn_engine import TurnEngine
from .vector_env import check_render_mode


class _Table:
    """One game and its players, behind both PettingZoo interfaces."""

    def __init__(self, task: TensorEnv, render_mode: str | None, max_episode_steps: int | None) -> None:
        if task.num_players < 2:
            raise UsageError(f"PettingZoo is for games; {type(task).__name__} has one player: use make_scalar")
        self.task = task
        self.render_mode = check_render_mode(task, render_mode)
        limit = task.max_episode_steps if max_episode_steps is None else max_episode_steps
        self.engine = TurnEngine(task, 1, limit, AutoresetMode.DISABLED)
        self.names = list(task.player_names) or [f"player_{i}" for i in range(task.num_players)]
        probe = task.mask(task.reset(torch.zeros((1, 2), dtype=torch.int64, device=task.device)))
        self.has_masks = probe is not None
        self.num_actions = count_actions(task.action_space)
        self.seats = torch.arange(task.num_players, device=task.device)[:, None]
        self.legal = torch.zeros(1, dtype=torch.bool, device=task.device)
        self.acting: list[int] = []
        self.mask: np.ndarray | None = None
        self.illegal: Any = None
        self._facts: dict[str, Any] | None = None
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
        self._look_around(None)

    def _look_around(self, illegal: Any) -> None:
        """Note who acts, and what is allowed; observations and infos are made when they are asked for."""
        engine, task = self.engine, self.task
        self.illegal, self._facts = illegal, None
        self.mask = None if engine.mask is None else to_numpy(engine.mask)[0]
        if not task.simultaneous:
            self.acting = [int(task.player(engine.state)[0])]
        else:
            self.acting = task.acting(engine.state)[0].nonzero()[:, 0].tolist()

    def own_mask(self, player: int) -> np.ndarray | None:
        """Return what a player may do, [A] bool; None where the game has no masks, or the player does not act."""
        if self.mask is None or player not in self.acting:
            return None
        return self.mask[player] if self.mask.ndim == 2 else self.mask

    def observe(self, player: int, waits: np.ndarray) -> Any:
        """Return what a player sees; where the game has masks, with the int8 mask.

        Args:
            player: who looks.
            waits: [A] int8, the mask of who does not act.
        """
        state = self.engine.state
        seen = self.task.observe(state, self.seats[player])
        observation = row_of(to_numpy(seen), 0)
        if not self.has_masks:
            return observation
        own = self.own_mask(player)
        return {"observation": observation, "action_mask": waits.copy() if own is None else own.astype(np.int8)}

    def waiting_mask(self, is_sampled: bool) -> np.ndarray:
        """Return the mask of who does not act, [A] int8.

        It is 0 where nobody samples from it; else `pass_action` alone, or, where the game has none, everything, for it counts
        for nothing.
        """
        count = int(getattr(self.task.action_space, "n", 0))
        if not is_sampled:
            return np.zeros(count, np.int8)
        if self.task.pass_action is None:
            return np.ones(count, np.int8)
        return (np.arange(count) == self.task.pass_action).astype(np.int8)

    def info(self, player: int) -> dict[str, Any]:
        """Return the facts about the game; the mask, as bool, for who acts."""
        if self._facts is None:
            state, players = self.engine.state, self.task.num_players
            self._facts = {name: row_of(to_numpy(value), 0) for name, value in self.task.info(state).items()}
            self._facts["acting"] = np.array([player in self.acting for player in range(players)])
            if not self.task.simultaneous:
                self._facts["player"] = np.array(self.acting[0])
            if self.illegal is not None:
                self._facts["illegal_action"] = row_of(to_numpy(self.illegal), 0)
        facts = {name: np.array(value) for name, value in self._facts.items()}
        if facts.get("illegal_action") is not None and facts["illegal_action"].ndim:
            facts["illegal_action"] = facts["illegal_action"][player]
        own = self.own_mask(player)
        return facts if own is None else {**facts, "action_mask": own.copy()}

    def infos(self) -> dict[str, dict[str, Any]]:
        """Return the facts for each player by name, made when they are read."""
        return _Infos(self)

    def check(self, action: Any) -> int | Any:
        """Return one player's action as the task takes it.

        Raises:
            TypeError: the action is of another type.
            UsageError: it is outside the action space.
        """
        task, number = self.task, action
        if type(action) is not int:
            number = to_numpy(read_action_of_one(task, action))
        if self.num_actions is not None and not 0 <= int(number) < self.num_actions:
            raise invalid_action(task.action_space, torch.tensor([int(number)]))
        return number

    def play(self, actions: dict[int, Any]) -> tuple[list[float], bool, bool]:
        """Let the acting players act; return the rewards of all, terminated and truncated."""
        task = self.task
        if task.simultaneous:
            shape = task.action_space.shape or ()
            filling = np.zeros(shape) if task.pass_action is None else task.pass_action
            given: Any = [actions.get(player, filling) for player in range(task.num_players)]
        else:
            (given,) = actions.values()
        is_allowed = self.num_actions is not None and all(
            own is None or bool(own[number]) for own, number in ((self.own_mask(p), a) for p, a in actions.items())
        )
        dtype = torch.int64 if self.num_actions is not None else task.dtype
        tensor = torch.as_tensor(np.asarray(given), device=task.device).to(dtype)[None]
        if self.num_actions is None and not bool(confined(None, tensor)[1]):
            raise invalid_action(task.action_space, tensor)
        outcome = self.engine.move(tensor, is_allowed=is_allowed and not task.simultaneous)
        is_legal = outcome.illegal is None and self.has_masks
        self._look_around(self.legal if is_legal else outcome.illegal)
        rewards: list[float] = outcome.reward[0].tolist()
        return rewards, bool(outcome.terminated), bool(outcome.truncated)

    def render(self) -> Any:
        """Draw the game, by `render_mode`; None without one."""
        if self.render_mode is None:
            return None
        if self.engine.state is None:
            raise UsageError("render() was called before reset(); call reset() first")
        draw = self.task.render_text if self.render_mode == "ansi" else self.task.render
        return draw(self.engine.state, 0)


class _Infos(dict[str, dict[str, Any]]):
    """The info of each player by name, made when it is read."""

    def __init__(self, table: _Table) -> None:
        super().__init__(dict.fromkeys(table.names))  # type: ignore[arg-type]
        self.table = table

    def __getitem__(self, name: str) -> dict[str, Any]:
        found = super().__getitem__(name)
        if found is None:
            found = self[name] = self.table.info(self.table.names.index(name))
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """Return the info of a player."""
        return self[name] if name in self.keys() else default

    def items(self) -> Any:
        """Return the names and the infos."""
        return {name: self[name] for name in self}.items()

    def values(self) -> Any:
        """Return the infos."""
        return {name: self[name] for name in self}.values()


def _describe(task: TensorEnv) -> dict[str, Any]:
    return {"name": type(task).__name__.lower(), "is_parallelizable": task.simultaneous, **task.metadata}


class TensorAECEnv(AECEnv[str, Any, Any]):
    """A game in PettingZoo's turn-based form.

    Where several players move at once, each who acts gives its action in seat order and the game moves with the last one. An observation
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
        self.places = {name: i for i, name in enumerate(self.possible_agents)}
        self.waits = self.table.waiting_mask(is_sampled=False)
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
        self.infos = self.table.infos()
        self._given: dict[int, Any] = {}
        self._select()

    def _select(self) -> None:
        """Ask the first of those who act and have not given their action."""
        left = [player for player in self.table.acting if player not in self._given]
        self.agent_selection = self.possible_agents[left[0] if left else 0]

    def observe(self, agent: str) -> Any:
        """Return what an agent sees now; its mask is 0 where it does not act."""
        return self.table.observe(self.places[agent], self.waits)

    def step(self, action: Any) -> None:
        """Act for `agent_selection`; None once its game is over.

        Raises:
            TypeError: the action is of another type.
            UsageError: it is outside the action space.
        """
        if not self.agents:
            raise UsageError("step() was called on a finished game; call reset() first")
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        checked = self.table.check(action)
        self._cumulative_rewards[agent] = 0.0
        self._given[self.places[agent]] = checked
        if len(self._given) < len(self.table.acting):
            self._clear_rewards()
            self._select()
            return
        given, self._given = self._given, {}
        self._move(given)

    def _move(self, given: dict[int, Any]) -> None:
        rewards, terminated, truncated = self.table.play(given)
        self.rewards = dict(zip(self.agents, rewards))
        self.terminations = dict.fromkeys(self.agents, terminated)
        self.truncations = dict.fromkeys(self.agents, truncated)
        self.infos = self.table.infos()
        self._accumulate_rewards()
        self._select()

    def tensor_task(self) -> TensorEnv:
        """Return the game on tensors."""
        return self.table.task

    def render(self) -> Any:
        """Draw the game, by `render_mode`."""
        return self.table.render()

    def close(self) -> None:
        """Do nothing; there is nothing to release."""


class TensorParallelEnv(ParallelEnv[str, Any, Any]):
    """A game in PettingZoo's parallel form.

    Only the actions of those count who act (where players take turns, of the one whose turn it is); the others may leave theirs
    out. The mask of who does not act is the task's `pass_action` alone, or, where it has none, everything. The arguments are
    those of `TensorAECEnv`.
    """

    def __init__(self, task: TensorEnv, render_mode: str | None = None, max_episode_steps: int | None = None) -> None:
        self.table = _Table(task, render_mode, max_episode_steps)
        self.metadata = _describe(task)
        self.render_mode = render_mode
        self.possible_agents = list(self.table.names)
        self.observation_spaces = dict.fromkeys(self.possible_agents, self.table.observation_space)
        self.action_spaces = dict.fromkeys(self.possible_agents, task.action_space)
        self.waits = self.table.waiting_mask(is_sampled=True)
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
        return self._observations(), dict(self.table.infos().items())

    def _observations(self) -> dict[str, Any]:
        return {name: self.table.observe(i, self.waits) for i, name in enumerate(self.possible_agents)}

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
        acting = self.table.acting
        missing = [self.agents[player] for player in acting if self.agents[player] not in actions]
        if missing:
            raise UsageError(f"an action is missing for {missing}; given were {sorted(actions)}")
        given = {player: self.table.check(actions[self.agents[player]]) for player in acting}
        rewards, terminated, truncated = self.table.play(given)
        names = self.agents
        infos = dict(self.table.infos().items())
        if terminated or truncated:
            self.agents = []
        return (
            self._observations(),
            {name: float(rewards[i]) for i, name in enumerate(names)},
            dict.fromkeys(names, terminated),
            dict.fromkeys(names, truncated),
            infos,
        )

    def tensor_task(self) -> TensorEnv:
        """Return the game on tensors."""
        return self.table.task

    def render(self) -> Any:
        """Draw the game, by `render_mode`."""
        return self.table.render()

    def close(self) -> None:
        """Do nothing; there is nothing to release."""
