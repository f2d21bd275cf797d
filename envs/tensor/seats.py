"""One seat of a game as a Gymnasium environment: the other seats act inside `step`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from polyathlon.envs.errors import UsageError, check_positive_int, unknown_name
from polyathlon.envs.random import integers

from . import trees
from .arguments import parse_autoreset, read_options
from .base import TensorEnv
from .opponents import Guarded, PlayerFault, check_seat, make_opponent, player_names, seat_keys
from .output import row_of, task_info, to_numpy
from .rules import confined, count_actions, invalid_action, read_action
from .turn_engine import TurnEngine
from .vector_env import check_render_mode

SEAT = 1001  # stream of the draw of a game's seat
NO_LIMIT = 2**62
_OUTPUTS = ("numpy", "torch")


class SeatVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """One seat in each of many games; opponents play the others.

    A step is a move of the seat, with all that follows until it moves again: its reward is the sum of what the seat is paid
    till then, in the others' turns too. The observation is what the seat sees when it is to move, or at the end of the game. A game
    that ends before the seat has ever moved is left out. Rows wait for each other: with two players a step costs three ticks of the
    game, with seven about 45.

    Args:
        task: the game.
        num_envs: games at once, N.
        opponents: who plays the other seats: a player's name, the folder of an agent, or a callable
            `(obs, mask, player [k], env_index [k], key [k, 2]) -> action [k]`; see `opponents.make_opponent`.
        seats: "random", drawn for each game from its key; or a number.
        output: "numpy", or "torch" for tensors on the task's device.
        autoreset_mode: when finished rows start again.
        max_episode_steps: the seat's own moves after which a game is cut; None for the task's own limit of ticks alone.
        render_mode: a render mode of the task.
        time_limit: seconds that an answer of an opponent may take; None for no limit.

    Attributes:
        seat: [N] int64, the seat of each row.
        num_players: 1.
        over: [N] bool, rows whose game is over and that wait for a restart.
        terminated: [N] bool, whether the rules ended the last game of each row.
        moves: [N] int64, how often the seat has moved in each game.
        skipped: games that ended before the seat had moved.

    Raises:
        UsageError: an argument is outside what is allowed.
    """

    num_players = 1
    own = ("seat", "over", "terminated", "moves")  # what is kept of each row beside the engine's

    def __init__(
        self,
        task: TensorEnv,
        num_envs: int,
        opponents: Any = "random",
        seats: str | int = "random",
        output: str = "numpy",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        time_limit: float | None = None,
    ) -> None:
        check_positive_int(num_envs=num_envs)
        if task.num_players < 2:
            raise UsageError(f"{type(task).__name__} has one player, so it has no opponent and no seat")
        if output not in _OUTPUTS:
            raise unknown_name("output", str(output), _OUTPUTS)
        self.task, self.num_envs, self.output, self.device = task, int(num_envs), output, task.device
        self.seats = check_seat(task, seats)
        name = opponents if isinstance(opponents, str) else getattr(opponents, "__name__", type(opponents).__name__)
        self.opponents = Guarded(task, make_opponent(task, opponents), str(name), time_limit)
        # such players keep nothing between two questions, so that one serves many games (`joined_seats`)
        self.has_named_players = (
            isinstance(opponents, str)
            and opponents in player_names(task)
            and time_limit is None
            and not hasattr(self.opponents.player, "start")
        )
        self.render_mode = check_render_mode(task, render_mode)
        self.autoreset_mode = parse_autoreset(autoreset_mode)
        self.metadata = {**task.metadata, "autoreset_mode": self.autoreset_mode}
        if max_episode_steps is not None:
            check_positive_int(max_episode_steps=max_episode_steps)
        self.max_episode_steps = NO_LIMIT if max_episode_steps is None else int(max_episode_steps)
        self.single_observation_space, self.single_action_space = task.observation_space, task.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.engine = TurnEngine(task, self.num_envs, task.max_episode_steps, AutoresetMode.DISABLED)
        self.num_actions = count_actions(task.action_space)
        self.seat = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        self.over = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self.terminated = torch.zeros_like(self.over)
        self.moves = torch.zeros_like(self.seat)
        self.skipped = 0

    @property
    def state(self) -> Any:
        """Where the games stand; None before the first reset."""
        return self.engine.state

    @property
    def faults(self) -> list[PlayerFault]:
        """What opponents did wrong, in order."""
        return self.opponents.faults

    # ---- starts

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a game in every row, and play until its seat is to move; see `TensorVectorEnv.reset`.

        Args:
            seed: row i gets `seed + i`, or the i-th of a list; None: the next game of each row's seed.
            options: the task's own; "reset_mask" (N,) bool restricts the reset to some rows.

        Raises:
            UsageError: the seed or an option is malformed, or games end before the seat ever moves.
        """
        options = dict(read_options(options))
        mask = options.pop("reset_mask", None)
        rows = None
        if mask is not None:
            rows = torch.as_tensor(mask, device=self.device)
            if rows.dtype is not torch.bool or tuple(rows.shape) != (self.num_envs,) or not rows.any():
                raise UsageError(f"'reset_mask' is a bool array of shape ({self.num_envs},) with at least one True")
            rows = rows.nonzero()[:, 0]
        self.engine.begin(seed, options, rows)
        started = torch.arange(self.num_envs, device=self.device) if rows is None else rows
        self._seat(started)
        self._play_to_seat(started)
        return self._out(self._seen()), self._info_out(self._info(None, None))

    def _seat(self, rows: Tensor) -> None:
        """Give the learner its seats in games that start."""
        keys = self.engine.state.key[rows]
        if self.seats == "random":
            self.seat[rows] = integers(keys, 0, 0, self.task.num_players, (), SEAT)
        else:
            self.seat[rows] = int(self.seats)
        self.over[rows] = False
        self.moves[rows] = 0
        start = getattr(self.opponents.player, "start", None)
        if start is not None:
            start(rows, keys)

    def _play_to_seat(self, rows: Tensor) -> None:
        """Let the others play in games that start; a game that ends before its seat has moved is followed by the next.

        Raises:
            UsageError: that happens again and again.
        """
        for _ in range(1000):
            _, ended = self._others(rows)
            rows = rows[ended]
            if not len(rows):
                return
            self.skipped += len(rows)
            self.engine.restart(rows)
            self._seat(rows)
        raise UsageError(f"1000 games of {type(self.task).__name__} in a row ended before seat {self.seats} had moved")

    # ---- ticks

    def _acts(self, rows: Tensor) -> Tensor:
        """Return whether the seat is asked in these games, [k] bool."""
        state = trees.take(self.engine.state, rows)
        return self.task.acting(state).gather(1, self.seat[rows][:, None])[:, 0]

    def _others(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Play games, `rows` [k], until their seats are asked or they end; return all rewards [k, P] and ended [k] bool."""
        paid = torch.zeros(len(rows), self.task.num_players, device=self.device)
        ended = self.engine.ended[rows].clone()
        place = torch.arange(len(rows), device=self.device)
        while True:
            waits = ~self._acts(rows[place]) & ~ended[place]
            place = place[waits]
            if not len(place):
                return paid, ended
            turn = self._tick(rows[place], None)
            paid[place] += turn.reward
            ended[place] = turn.terminated | turn.truncated
            self.terminated[rows[place]] = turn.terminated

    def _tick(self, rows: Tensor, own: Tensor | None) -> Any:
        """Move games on by one tick; `own` [k, ...] are the actions of their seats, which are asked, or None."""
        task, state = self.task, trees.take(self.engine.state, rows)
        mask = None if self.engine.mask is None else self.engine.mask.index_select(0, rows)
        seat = self.seat[rows]
        if not task.simultaneous:
            if own is None:
                player = task.player(state)
                own = self._asked(task.observe(state, player), mask, player, rows, seat_keys(task, state, player))
            return self.engine.move(own, rows)
        acts = task.acting(state)
        shape = (len(rows), task.num_players, *(task.action_space.shape or ()))
        dtype = torch.int64 if self.num_actions is not None else task.dtype
        action = torch.full(shape, task.pass_action or 0, dtype=dtype, device=self.device)
        seats = torch.arange(task.num_players, device=self.device)
        if own is not None:
            action[torch.arange(len(rows), device=self.device), seat] = own
            acts = acts & (seats != seat[:, None])
        games, player = acts.nonzero().unbind(1)
        if len(games):
            asked = trees.take(state, games)
            own_mask = None if mask is None else mask[games, player]
            keys = seat_keys(task, asked, player)
            action[games, player] = self._asked(task.observe(asked, player), own_mask, player, rows[games], keys)
        return self.engine.move(action, rows)

    def _asked(self, obs: Any, mask: Tensor | None, player: Tensor, rows: Tensor, key: Tensor) -> Tensor:
        return self.opponents(obs, mask, player, rows, key).to(
            torch.int64 if self.num_actions is not None else self.task.dtype
        )

    # ---- steps

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Move in every row, and let the others play until it is the seat's turn again.

        Args:
            actions: (N, ...) array or tensor.

        Returns:
            Observations, rewards float32 (N,), terminated, truncated (N,) bool and info.

        Raises:
            TypeError: the actions are of another type.
            UsageError: they have another shape or are outside the space, there was no reset, or a row is over (DISABLED).
        """
        if self.engine.state is None:
            raise UsageError("step() was called before reset(); call reset() first")
        action = self._read(actions)
        if self.autoreset_mode is AutoresetMode.DISABLED and bool(self.over.any()):
            over = self.over.nonzero()[:8, 0].tolist()
            raise UsageError(
                f"the games of rows {over} are over and autoreset is disabled; call reset(options={{'reset_mask': done}})"
            )
        moving = ~self.over
        rows, waiting = moving.nonzero()[:, 0], self.over.nonzero()[:, 0]
        rewards = torch.zeros(self.num_envs, self.task.num_players, device=self.device)
        illegal = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        if len(rows):
            turn = self._tick(rows, action[rows])
            rewards[rows] += turn.reward
            if turn.illegal is not None:
                own = (
                    turn.illegal if turn.illegal.dim() == 1 else turn.illegal.gather(1, self.seat[rows][:, None])[:, 0]
                )
                illegal[rows] = own
            self.terminated[rows] = turn.terminated
            left = rows[~(turn.terminated | turn.truncated)]
            if len(left):
                rewards[left] += self._others(left)[0]
        self.moves += moving
        is_late = (self.moves >= self.max_episode_steps) & moving
        ended = (self.engine.ended & moving) | is_late
        terminated = self.terminated & ended
        truncated = (ended & ~terminated) | is_late
        reward = rewards.gather(1, self.seat[:, None])[:, 0]
        info = self._restarts(ended, waiting, illegal, rewards)
        facts = self._info_out({**self._info(illegal, rewards)})
        return self._out(self._seen()), *map(self._out, (reward, terminated, truncated)), {**facts, **info}

    def _restarts(self, ended: Tensor, waiting: Tensor, illegal: Tensor, rewards: Tensor) -> dict[str, Any]:
        """Start games again by the autoreset mode; return what finished rows saw last (SAME_STEP)."""
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            if self.autoreset_mode is AutoresetMode.NEXT_STEP and len(waiting):
                self._restart(waiting)
            self.over = ended
            return {}
        if not bool(ended.any()):
            return {}
        info = self._finals(ended, illegal, rewards)
        self._restart(ended.nonzero()[:, 0])
        return info

    def _read(self, actions: Any) -> Tensor:
        """Check the actions of all rows, one for each."""
        shape = (self.num_envs, *(self.task.action_space.shape or ()))
        array = actions if isinstance(actions, Tensor) else np.asarray(actions)
        if tuple(array.shape) != shape:
            raise UsageError(
                f"actions must have the shape {shape}, one for each of {self.num_envs} games; got {tuple(array.shape)}"
            )
        if self.task.simultaneous:
            array = torch.as_tensor(array)[:, None].expand(-1, self.task.num_players, *shape[1:])
            action = read_action(self.task, self.num_envs, array)[:, 0]
        else:
            action = read_action(self.task, self.num_envs, array)
        inside, is_valid = confined(self.num_actions, action)
        if not bool(is_valid):
            raise invalid_action(self.task.action_space, action)
        return inside

    def _restart(self, rows: Tensor) -> None:
        """Start the next game in rows that are over."""
        self.engine.restart(rows)
        self._seat(rows)
        self._play_to_seat(rows)

    # ---- what is handed out

    def _seen(self) -> Any:
        return trees.unaliased(self.task.observe(self.engine.state, self.seat), self.engine.state)

    def _mask(self) -> Tensor | None:
        """Return what the seat may do, [N, A] bool."""
        mask = self.engine.mask
        if mask is None or mask.dim() == 2:
            return mask
        return mask[torch.arange(self.num_envs, device=self.device), self.seat]

    def _info(self, illegal: Tensor | None, rewards: Tensor | None) -> dict[str, Tensor]:
        info = {"seat": self.seat.clone(), **task_info(self.task, self.engine.state)}
        mask = self._mask()
        if mask is not None:
            info["action_mask"] = mask.clone()
            if illegal is not None:
                info["illegal_action"] = illegal
        if rewards is not None:
            info["rewards"] = rewards
        return info

    def _finals(self, ended: Tensor, illegal: Tensor, rewards: Tensor) -> dict[str, Any]:
        """Return what finished rows saw and knew last, in Gymnasium's form."""
        facts, observation = self._info(illegal, rewards), self._seen()
        if self.output == "torch":
            return {"final_obs": observation, "_final_obs": ended.clone(), "final_info": facts}
        is_ended, observations = to_numpy(ended), to_numpy(observation)
        finals = np.full(self.num_envs, None, object)
        for row in np.flatnonzero(is_ended).tolist():
            finals[row] = row_of(observations, row)
        final_info: dict[str, Any] = {}
        for name, value in facts.items():
            final_info[name], final_info[f"_{name}"] = to_numpy(value), is_ended.copy()
        own = {"final_obs": finals, "_final_obs": is_ended}
        return {**own, "final_info": final_info, "_final_info": is_ended.copy()}

    def _out(self, tree: Any) -> Any:
        return tree if self.output == "torch" else to_numpy(tree)

    def _info_out(self, info: dict[str, Tensor]) -> dict[str, Any]:
        if self.output == "torch":
            return dict(info)
        result: dict[str, Any] = {}
        for name, value in info.items():
            result[name], result[f"_{name}"] = to_numpy(value), np.ones(self.num_envs, bool)
        return result

    def action_masks(self) -> Any:
        """Return what the seat may do, (N, A) bool."""
        mask = self._mask()
        if mask is None:
            mask = torch.ones((self.num_envs, self.num_actions or 0), dtype=torch.bool, device=self.device)
        return self._out(mask.clone())

    def render(self) -> tuple[Any, ...] | None:
        """Draw every game, by `render_mode`; None without one."""
        if self.render_mode is None or self.engine.state is None:
            return None
        draw = self.task.render_text if self.render_mode == "ansi" else self.task.render
        return tuple(draw(self.engine.state, row) for row in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """End the thread of a time limit."""
        if hasattr(self, "opponents"):  # Gymnasium closes what was never made
            self.opponents.close()

    # ---- keeping and continuing

    def get_state(self) -> dict[str, Any]:
        """Return a dict of tensors from which `set_state` continues exactly."""
        own = {name: getattr(self, name).clone() for name in self.own}
        keep = getattr(self.opponents.player, "get_state", None)
        return {**self.engine.get_state(), **own, "opponents": None if keep is None else keep()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned.

        Raises:
            UsageError: it belongs to another number of environments, or to another task.
        """
        self.engine.set_state(state)
        try:
            for name in self.own:
                setattr(self, name, state[name].to(self.device, copy=True))
        except KeyError as error:
            raise UsageError(
                f"this is no saved state of one seat of {type(self.task).__name__}: {error} is missing"
            ) from error
        if state["opponents"] is not None:
            self.opponents.player.set_state(state["opponents"])  # type: ignore[attr-defined]

    def put_row(self, row: int, target: SeatVectorEnv) -> None:
        """Make a batch of one row go on as a row of this one does."""
        self.engine.put_row(row, target.engine)
        for name in self.own:
            setattr(target, name, getattr(self, name)[row : row + 1])
