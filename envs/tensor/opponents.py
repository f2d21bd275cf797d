"""Players that answer for many seats of many games at once, by name, and the faults that they may commit.

An opponent is a callable `(obs, mask, player [k], env_index [k], key [k, 2]) -> action [k]`. Every draw of the built-in ones
comes from `key`, so a game does not depend on its neighbours.
"""

from __future__ import annotations

import importlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.random import choice, make_keys, uniform

from .base import TensorEnv
from .rules import count_actions

Opponent = Callable[[Any, Tensor | None, Tensor, Tensor, Tensor], Tensor]
DRAW = 1000  # stream of the draws of players, away from those of games
SAVED = "polyathlon.agents.games.saved:load_opponent"  # reads the folder of an agent; named by a string, as entry points are


def seat_keys(task: TensorEnv, state: Any, player: Tensor) -> Tensor:
    """Return a key of its own for each game, step and player, [k, 2] int64."""
    return make_keys(state.key[:, 0] ^ state.key[:, 1], state.t * task.num_players + player)


class RandomPlayer:
    """Draws uniformly from the allowed actions.

    Args:
        task: the game.
    """

    def __init__(self, task: TensorEnv) -> None:
        self.number = count_actions(task.action_space)
        self.space, self.dtype = task.action_space, task.dtype

    def __call__(self, obs: Any, mask: Tensor | None, player: Tensor, env_index: Tensor, key: Tensor) -> Tensor:
        """Answer for k seats; see the module."""
        if self.number is not None:
            every = (len(player), self.number)
            return choice(
                key, 0, torch.ones(every, dtype=torch.bool, device=key.device) if mask is None else mask, DRAW
            )
        assert isinstance(self.space, gym.spaces.Box)
        low, high = (torch.as_tensor(x, device=key.device, dtype=self.dtype) for x in (self.space.low, self.space.high))
        return low + (high - low) * uniform(key, 0, self.space.shape, self.dtype, DRAW)


def player_names(task: Any) -> list[str]:
    """Return the names of the built-in players of a game: "random", and those of its own `players`."""
    return ["random", *sorted(set(getattr(task, "players", {})) - {"random"})]


def make_opponent(task: TensorEnv, opponent: Any) -> Opponent:
    """Return a player by its name, by the folder of an agent or a league, or the callable that is given.

    Raises:
        UsageError: there is no such player and no such folder.
    """
    if callable(opponent):
        return opponent
    known, own = player_names(task), getattr(task, "players", {})
    if isinstance(opponent, str) and opponent in known:
        player: Opponent = RandomPlayer(task) if opponent == "random" else own[opponent](task)
        return player
    if isinstance(opponent, str | Path) and Path(opponent).exists():
        module, _, name = SAVED.partition(":")
        saved: Opponent = getattr(importlib.import_module(module), name)(task, Path(opponent))
        return saved
    if isinstance(opponent, str):
        raise unknown_name("opponent (a player's name, or the folder of an agent)", opponent, known)
    raise UsageError(f"an opponent is one of {known}, the folder of an agent or a callable, got {opponent!r}")


def check_seat(task: TensorEnv, seat: Any) -> str | int:
    """Return a seat.

    Raises:
        UsageError: it is neither "random" nor the number of one.
    """
    if seat == "random" and isinstance(seat, str):
        return "random"
    last = task.num_players - 1
    if isinstance(seat, bool) or not isinstance(seat, int | np.integer) or not 0 <= int(seat) <= last:
        raise UsageError(f"a seat of {type(task).__name__} is 'random' or a number from 0 to {last}, got {seat!r}")
    return int(seat)


@dataclass(frozen=True)
class PlayerFault:
    """Something that a player did wrong.

    Attributes:
        member: its name.
        kind: "raised", "time limit" or "invalid action".
        message: what happened, with the name.
    """

    member: str
    kind: str
    message: str


class Deadline:
    """Runs a callable's calls in a thread of its own, so that one that hangs can be left behind."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.is_busy = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            call = self.calls.get()
            if call is None:
                return
            try:
                self.replies.put((True, self.function(*call)))
            except (Exception, SystemExit) as error:
                self.replies.put((False, error))

    def ask(self, call: tuple[Any, ...], limit: float) -> Any:
        """Return the answer to a call.

        Raises:
            TimeoutError: none came in time, or an earlier one is still awaited.
        """
        if self.is_busy and self.replies.empty():
            raise TimeoutError("it is still busy with an earlier call")
        if self.is_busy:
            self.replies.get()
        self.is_busy = True
        self.calls.put(call)
        try:
            is_answer, value = self.replies.get(timeout=limit)
        except queue.Empty:
            raise TimeoutError(f"no answer within {limit:g} s") from None
        self.is_busy = False
        if is_answer:
            return value
        raise value


class Guarded:
    """A player whose faults are named instead of ending the program; the game then goes on as its `on_illegal` says.

    A fault (it raises, is too late, or answers with another shape, type, NaN or a number outside the space) is played as an
    action that the mask forbids, for the rows whose answer is wrong; where everything is allowed, one is drawn.

    Args:
        task: the game; of one that is not a `TensorEnv` its `action_space` and `dtype` are read.
        player: the player.
        name: of it, for messages.
        time_limit: seconds that an answer may take; None for no limit.

    Attributes:
        faults: what it did wrong, in order.

    Raises:
        UsageError: the time limit is not positive.
    """

    def __init__(self, task: Any, player: Opponent, name: str, time_limit: float | None = None) -> None:
        if time_limit is not None and not time_limit > 0:
            raise UsageError(f"time_limit is a positive number of seconds or None, got {time_limit!r}")
        self.task, self.player, self.name, self.time_limit = task, player, name, time_limit
        self.number = count_actions(task.action_space)
        self.faults: list[PlayerFault] = []
        self.thread = None if time_limit is None else Deadline(player)

    def __call__(self, obs: Any, mask: Tensor | None, player: Tensor, env_index: Tensor, key: Tensor) -> Tensor:
        """Answer for k seats; see the module."""
        call = (obs, mask, player, env_index, key)
        try:
            if self.thread is None or self.time_limit is None:
                found = self.player(*call)
            else:
                found = self.thread.ask(call, self.time_limit)
        except TimeoutError as error:
            return self._fault("time limit", str(error), call, None, None)
        except (Exception, SystemExit) as error:
            return self._fault("raised", f"{type(error).__name__}: {error}", call, None, None)
        return self._checked(found, call)

    def _checked(self, found: Any, call: tuple[Any, ...]) -> Tensor:
        shape = (len(call[2]), *(self.task.action_space.shape or ()))
        try:
            action = torch.as_tensor(found, device=call[4].device)
        except (TypeError, ValueError, RuntimeError) as error:
            return self._fault("invalid action", f"it answered no numbers ({error})", call, None, None)
        is_number = self.number is not None
        if tuple(action.shape) != shape:
            text = f"it answered with the shape {tuple(action.shape)} where {shape} is asked for"
            return self._fault("invalid action", text, call, None, None)
        if action.is_complex() or action.dtype is torch.bool or (is_number and action.is_floating_point()):
            kind = "integers are" if is_number else "real numbers are"
            return self._fault("invalid action", f"it answered {action.dtype} where {kind} asked for", call, None, None)
        if self.number is not None:
            action = action.long()
            wrong = (action < 0) | (action >= self.number)
        else:
            action = action.to(self.task.dtype)
            wrong = ~action.flatten(1).isfinite().all(1)
        if not bool(wrong.any()):
            return action
        first = action[wrong][0].tolist()
        return self._fault("invalid action", f"{first} is outside {self.task.action_space}", call, action, wrong)

    def _fault(
        self, kind: str, text: str, call: tuple[Any, ...], action: Tensor | None, wrong: Tensor | None
    ) -> Tensor:
        self.faults.append(PlayerFault(self.name, kind, f"{self.name}: {text}"))
        mask, player, key = call[1], call[2], call[4]
        drawn = RandomPlayer(self.task)(call[0], mask, player, call[3], key)
        if self.number is not None and mask is not None:
            drawn = torch.where(mask.all(1), drawn, (~mask).to(torch.int8).argmax(1))
        if action is None or wrong is None:
            return drawn
        return torch.where(wrong.reshape(-1, *[1] * (action.dim() - 1)), drawn, action)

    def close(self) -> None:
        """Let the thread of a time limit end."""
        if self.thread is not None:
            self.thread.calls.put(None)
