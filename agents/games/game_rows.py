"""All seats of many games, as rows that one agent plays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor import TensorEnv, TensorVectorEnv

from .foreign import ForeignGame

Groups = Callable[[Any], Tensor]


class GameRows(TensorVectorEnv):
    """Games whose every seat is played from outside; an agent sees the spaces of one player.

    Observations are those of the mover, [N, ...], or of all players, [N, P, ...], where they move at once.

    Args:
        task: the game.
        num_envs: games played at once, N.
        max_episode_steps: steps after which a game is cut; None for the task's own limit.

    Raises:
        UsageError: the task has one player.
    """

    num_players = 1  # to an agent each seat is a player of its own

    def __init__(self, task: TensorEnv, num_envs: int, max_episode_steps: int | None = None) -> None:
        if task.num_players < 2:
            raise UsageError(f"{type(task).__name__} has one player: train the agent on it directly")
        view = "all" if task.simultaneous else "mover"
        super().__init__(task, num_envs, "torch", AutoresetMode.SAME_STEP, max_episode_steps, view=view)
        self.single_observation_space = task.observation_space
        self.single_action_space = task.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)


def find_groups(task: TensorEnv | ForeignGame, per_role: bool | Groups | None) -> Groups:
    """Return which seats are played by one policy: state -> [N, P] int64 number of each seat's group, from 0.

    Args:
        task: the game.
        per_role: None: what the task says (`sides`), else each seat alone; False: each seat alone; or such a function.

    Raises:
        UsageError: `per_role=True`, and the task has no sides; a function that returns no groups; or it is something else.
    """
    if isinstance(task, ForeignGame):
        if per_role not in (None, False):
            raise UsageError(f"in a game of PettingZoo each seat is played by itself: leave per_role={per_role!r} out")
        return task.groups
    sides = getattr(task, "sides", None)
    if callable(per_role):
        return _checked(task, per_role)
    if per_role is not None and not isinstance(per_role, bool):
        raise UsageError(f"per_role is None, True, False or a function of the state, got {per_role!r}")
    if per_role and sides is None:
        raise UsageError(f"{type(task).__name__} has no sides(state), so per_role=True has no meaning here")
    if sides is not None and per_role is not False:
        return sides
    seats = torch.arange(task.num_players, device=task.device)
    return lambda state: seats.expand(state.t.shape[0], -1)


def _checked(task: TensorEnv, per_role: Groups) -> Groups:
    """Try a function of the user's on the starts of two games.

    Raises:
        UsageError: it returns no group for each seat.
    """
    seeds = torch.arange(2, device=task.device)
    found: Any = per_role(task.reset(make_keys(seeds, torch.zeros_like(seeds))))
    wanted = (2, task.num_players)
    shape = getattr(found, "shape", None)
    if not isinstance(found, Tensor) or found.dtype != torch.int64 or found.shape != wanted or int(found.min()) < 0:
        got = type(found).__name__ if shape is None else f"{tuple(shape)} of {found.dtype}"
        raise UsageError(
            f"per_role returns for N games the number of each seat's group, from 0: int64 [N, {task.num_players}]; for two games it returned {got}"
        )
    return per_role
