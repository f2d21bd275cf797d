"""One game and its players, behind both PettingZoo interfaces."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from polyathlon.envs.errors import UsageError

from .arguments import read_options
from .base import TensorEnv
from .lazy_info import LazyInfo
from .output import row_of, to_numpy
from .rules import confined, count_actions, invalid_action, read_action_of_one
from .turn_engine import TurnEngine
from .vector_env import check_render_mode


class Moment:
    """Where a game stands between two moves; what nobody asks for is not computed.

    Args:
        task: the game.
        state: of one row.
        mask: what is allowed, [1, A] bool ([1, num_players, A] where players move at once), or None.
        illegal: whether the last action was forbidden, [1] or [1, num_players] bool; None where that cannot be.
    """

    def __init__(self, task: TensorEnv, state: Any, mask: torch.Tensor | None, illegal: torch.Tensor | None) -> None:
        self.task, self.state, self.illegal = task, state, illegal
        self.mask: np.ndarray | None = None if mask is None else to_numpy(mask)[0]
        acts = task.acting(state)[0].nonzero()[:, 0] if task.simultaneous else task.player(state)
        self.acting: list[int] = acts.tolist()
        self._facts: dict[str, Any] | None = None

    def own_mask(self, player: int) -> np.ndarray | None:
        """Return what a player may do, [A] bool; None where the game has no masks, or the player does not act."""
        if self.mask is None or player not in self.acting:
            return None
        return self.mask[player] if self.mask.ndim == 2 else self.mask

    def facts(self) -> dict[str, Any]:
        """Return what anybody may know beside the observations."""
        if self._facts is None:
            found = {name: row_of(to_numpy(value), 0) for name, value in self.task.info(self.state).items()}
            found["acting"] = np.zeros(self.task.num_players, bool)
            found["acting"][self.acting] = True
            if not self.task.simultaneous:
                found["player"] = np.array(self.acting[0])
            if self.illegal is not None:
                found["illegal_action"] = row_of(to_numpy(self.illegal), 0)
            self._facts = found
        return self._facts

    def info(self, player: int) -> dict[str, Any]:
        """Return the facts as copies for one player; the mask, as bool, for who acts."""
        facts = {name: np.array(value) for name, value in self.facts().items()}
        if facts.get("illegal_action") is not None and facts["illegal_action"].ndim:
            facts["illegal_action"] = facts["illegal_action"][player]
        own = self.own_mask(player)
        return facts if own is None else {**facts, "action_mask": own.copy()}


class Infos(dict[str, dict[str, Any]]):
    """The info of each player by name, made when something in it is read.

    Args:
        names: the players.
        moment: what the infos tell of.
        fact_names: names of the facts, but for the mask.
    """

    def __init__(self, names: list[str], moment: Moment, fact_names: tuple[str, ...]) -> None:
        super().__init__(dict.fromkeys(names))  # type: ignore[arg-type]
        self.names, self.moment, self.fact_names = names, moment, fact_names

    def __getitem__(self, name: str) -> dict[str, Any]:
        found = super().__getitem__(name)
        if found is None:
            moment, player = self.moment, self.names.index(name)
            known = self.fact_names if moment.own_mask(player) is None else (*self.fact_names, "action_mask")
            found = self[name] = LazyInfo({}, known, lambda: moment.info(player))
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


class GameTable:
    """One game and its players.

    Args:
        task: a task with at least two players.
        render_mode: a render mode of the task.
        max_episode_steps: steps after which a game is cut; None for the task's own limit.

    Raises:
        UsageError: the task has one player, or no such render mode.
    """

    now: Moment

    def __init__(self, task: TensorEnv, render_mode: str | None, max_episode_steps: int | None) -> None:
        if task.num_players < 2:
            raise UsageError(f"PettingZoo is for games; {type(task).__name__} has one player: use make_scalar")
        self.task = task
        self.render_mode = check_render_mode(task, render_mode)
        limit = task.max_episode_steps if max_episode_steps is None else max_episode_steps
        self.engine = TurnEngine(task, 1, limit, AutoresetMode.DISABLED)
        self.names = list(task.player_names) or [f"player_{i}" for i in range(task.num_players)]
        start = task.reset(torch.zeros((1, 2), dtype=torch.int64, device=task.device))
        self.has_masks = task.mask(start) is not None
        self.num_actions = count_actions(task.action_space)
        self.seats = torch.arange(task.num_players, device=task.device).split(1)
        self.moves: dict[int, torch.Tensor] = {}  # the actions that were played, as tensors
        self.legal = torch.zeros(1, dtype=torch.bool, device=task.device)
        self.fact_names = (*task.info(start), "acting", *(() if task.simultaneous else ("player",)))
        self.observation_space = task.observation_space
        if self.has_masks:
            count = int(task.action_space.n)  # type: ignore[attr-defined]
            mask_space = gym.spaces.Box(0, 1, (count,), np.int8)
            self.observation_space = gym.spaces.Dict({"observation": task.observation_space, "action_mask": mask_space})

    @property
    def acting(self) -> list[int]:
        """Who acts now."""
        return self.now.acting

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> None:
        """Start a game."""
        # PettingZoo's api_test passes an entry of this name to every environment
        given = {name: value for name, value in read_options(options).items() if name != "options"}
        self.engine.begin(seed, given)
        self.now = Moment(self.task, self.engine.state, self.engine.mask, None)

    def observe(self, player: int, waits: np.ndarray) -> Any:
        """Return what a player sees; where the game has masks, with the int8 mask.

        Args:
            player: who looks.
            waits: [A] int8, the mask of who does not act.
        """
        seen = self.task.observe(self.now.state, self.seats[player])
        observation = row_of(to_numpy(seen), 0)
        if not self.has_masks:
            return observation
        own = self.now.own_mask(player)
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

    def infos(self) -> dict[str, dict[str, Any]]:
        """Return the facts for each player by name, made when they are read."""
        names = self.fact_names if self.now.illegal is None else (*self.fact_names, "illegal_action")
        return Infos(self.names, self.now, names)

    def check(self, action: Any) -> int | Any:
        """Return one player's action as the task takes it.

        Raises:
            TypeError: the action is of another type.
            UsageError: it is outside the action space.
        """
        task, number = self.task, action
        if type(action) is not int:
            number = to_numpy(read_action_of_one(task, action))
            number = number if self.num_actions is None else int(number)
        if self.num_actions is not None and not 0 <= number < self.num_actions:
            raise invalid_action(task.action_space, torch.tensor([number]))
        return number

    def play(self, actions: dict[int, Any]) -> tuple[list[float], bool, bool]:
        """Let the acting players act; return the rewards of all, terminated and truncated."""
        task = self.task
        if task.simultaneous:
            shape = task.action_space.shape or ()
            filling: Any = np.zeros(shape) if self.num_actions is None else task.pass_action or 0
            given: Any = [actions.get(player, filling) for player in range(task.num_players)]
        else:
            (given,) = actions.values()
        if self.num_actions is None:
            tensor = torch.as_tensor(np.asarray(given), device=task.device).to(task.dtype)[None]
            if not bool(confined(None, tensor)[1]):
                raise invalid_action(task.action_space, tensor)
        elif task.simultaneous:
            tensor = torch.tensor([given], dtype=torch.int64, device=task.device)
        else:
            if given not in self.moves:
                self.moves[given] = torch.tensor([given], device=task.device)
            tensor = self.moves[given]
        # where players take turns the mask is asked here, so that no tensor need be
        own = None if task.simultaneous or self.num_actions is None else self.now.own_mask(self.acting[0])
        outcome = self.engine.move(tensor, is_allowed=own is not None and bool(own[given]))
        is_legal = outcome.illegal is None and self.has_masks
        self.now = Moment(task, self.engine.state, self.engine.mask, self.legal if is_legal else outcome.illegal)
        rewards: list[float] = outcome.reward.tolist()[0]
        return rewards, bool(outcome.terminated), bool(outcome.truncated)

    def render(self) -> Any:
        """Draw the game, by `render_mode`; None without one."""
        if self.render_mode is None:
            return None
        if self.engine.state is None:
            raise UsageError("render() was called before reset(); call reset() first")
        draw = self.task.render_text if self.render_mode == "ansi" else self.task.render
        return draw(self.engine.state, 0)
