"""Self-play of agents that act in one seat, the pool in the others; also through points in a box."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from polyathlon.agents.parts.actors import Actor
from polyathlon.agents.streams.rollout import tree_map
from polyathlon.envs.random import normal
from polyathlon.envs.tensor import TensorEnv
from polyathlon.envs.tensor.seats import SeatVectorEnv
from polyathlon.wrappers.continuous_action import choice_codes

from .foreign import ForeignGame
from .game_rows import Groups
from .members import DRAW, ActorMember, Opponents
from .pool import Pool
from .seat_rollout import LEARNER

Member = Callable[[Actor, bool], Opponents]


class Points:
    """Choices as points in a box, in the manner of `ContinuousAction`: the allowed choice whose point is nearest is meant.

    Args:
        number: of choices.
        device: where the points lie.
    """

    def __init__(self, number: int, device: torch.device) -> None:
        self.codes = torch.as_tensor(choice_codes(number), device=device)
        self.half_squares = 0.5 * self.codes.square().sum(1)
        self.space = spaces.Box(-1.0, 1.0, (self.codes.shape[1],), np.float32)

    def choices(self, point: Tensor, mask: Tensor | None) -> Tensor:
        """Return the choices [k] that points [k, d] mean where `mask` [k, A] allows."""
        score = point.to(self.codes.dtype) @ self.codes.T - self.half_squares
        return (score if mask is None else score.masked_fill(~mask, -torch.inf)).argmax(1)


class PointMember:
    """An actor of points in a box as an opponent among choices; see `ActorMember`."""

    def __init__(self, actor: Actor, points: Points, deterministic: bool = False) -> None:
        self.actor, self.points, self.deterministic = actor, points, deterministic

    def __call__(self, obs: Any, mask: Tensor | None, player: Tensor, env_index: Tensor, key: Tensor) -> Tensor:
        """Choose an action for each of k seats."""
        if self.deterministic:
            point = self.actor.act(obs, None, None, True)
        else:
            point = self.actor.act_with(obs, lambda shape: normal(key, 0, shape, stream=DRAW))
        return self.points.choices(point.flatten(1), mask)


class PoolOpponents:
    """The pool at the other seats: each row keeps its members until its game ends.

    Args:
        task: the game.
        num_envs: rows.
        pool: the past selves, at least one.
        groups: which seats are played by one member.
        latest_share: share of the games against the newest member alone.
        member: makes a player of an actor.

    Attributes:
        owner: [N, P] int64 number of the member at each seat.
        results: points of the learner in finished games since `pop_results`.
    """

    def __init__(
        self,
        task: TensorEnv | ForeignGame,
        num_envs: int,
        pool: Pool,
        groups: Groups,
        latest_share: float,
        member: Member,
    ) -> None:
        self.task, self.pool, self.groups, self.latest_share, self.member = task, pool, groups, latest_share, member
        self.owner = torch.zeros(num_envs, task.num_players, dtype=torch.int64, device=task.device)
        self.results: list[float] = []

    def start(self, rows: Tensor, keys: Tensor) -> None:
        """Draw the members of games that start, `rows` [k] with their keys [k, 2]."""
        group = self.groups(self.task.reset(keys))
        number = int(group.max()) + 1
        drawn = self.pool.choose(len(rows) * number).to(group.device).view(len(rows), number)
        uniform = torch.rand(len(rows), generator=self.pool.generator, device=self.pool.generator.device)
        is_latest = (uniform.to(group.device) < self.latest_share)[:, None]
        self.owner[rows] = torch.where(is_latest, self.pool.active[-1], drawn.gather(1, group))

    def __call__(self, obs: Any, mask: Tensor | None, player: Tensor, env_index: Tensor, key: Tensor) -> Tensor:
        """Let the members answer for their seats."""
        who = self.owner[env_index, player]
        action: Tensor | None = None
        for number in who.unique().tolist():
            index = (who == number).nonzero()[:, 0]
            own = tree_map(obs, lambda x, i=index: x.index_select(0, i))
            own_mask = None if mask is None else mask.index_select(0, index)
            asked = (player[index], env_index[index], key[index])
            found = self.member(self.pool.actors[number], False)(own, own_mask, *asked)
            if action is None:
                action = torch.zeros((len(who), *found.shape[1:]), dtype=found.dtype, device=found.device)
            action.index_copy_(0, index, found)
        assert action is not None
        return action

    def note(self, rows: Tensor, totals: Tensor, seat: Tensor) -> None:
        """Count finished games for the members that the learner met.

        Args:
            rows: [k] int64 numbers of the games.
            totals: [k, P] what each seat was paid in them.
            seat: [k] int64, the learner's.
        """
        mine = totals.gather(1, seat[:, None])[:, 0]
        others = (totals.sum(1) - mine) / (totals.shape[1] - 1)
        points = (mine > others).float() + 0.5 * (mine == others).float()
        self.pool.note(self.owner[rows].scatter(1, seat[:, None], LEARNER), points)
        self.results += points.tolist()

    def pop_results(self) -> list[float]:
        """Return the learner's points in finished games since the last call, and forget them."""
        found, self.results = self.results, []
        return found

    def get_state(self) -> dict[str, Any]:
        """Return who sits where."""
        return {"owner": self.owner.clone()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        self.owner = state["owner"].to(self.owner.device)


class LeagueSeats(SeatVectorEnv):
    """One seat in each of many games against the pool; of choices, as points in a box where an agent needs one.

    Args:
        task: the game.
        num_envs: rows.
        opponents: the pool.
        points: of an agent that acts in a box; None acts in the game's own space.
        max_episode_steps: the seat's own moves after which a game is cut.
    """

    def __init__(
        self,
        task: TensorEnv,
        num_envs: int,
        opponents: PoolOpponents,
        points: Points | None,
        max_episode_steps: int | None = None,
    ) -> None:
        mode = AutoresetMode.SAME_STEP
        super().__init__(task, num_envs, opponents, "random", "torch", mode, max_episode_steps)
        self.points, self.pool_opponents = points, opponents
        self.totals = torch.zeros(self.num_envs, task.num_players, device=self.device)
        if points is not None:
            self.single_action_space = points.space
            self.action_space = batch_space(points.space, self.num_envs)

    def _read(self, actions: Any) -> Tensor:
        if self.points is None:
            return super()._read(actions)
        point = torch.as_tensor(actions, device=self.device)
        return super()._read(self.points.choices(point, self._mask()))

    def _restarts(self, ended: Tensor, waiting: Tensor, illegal: Tensor, rewards: Tensor) -> dict[str, Any]:
        self.totals += rewards
        over = ended.nonzero()[:, 0]
        if len(over):
            self.pool_opponents.note(over, self.totals[over], self.seat[over])
            self.totals[over] = 0.0
        return super()._restarts(ended, waiting, illegal, rewards)

    def get_state(self) -> dict[str, Any]:
        """Return where the games stand, who sits where, and what the seats were paid so far."""
        return {**super().get_state(), "totals": self.totals.clone()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `get_state` was called."""
        super().set_state(state)
        self.totals = state["totals"].to(self.device, copy=True)

    def _info_out(self, info: dict[str, Tensor]) -> dict[str, Any]:
        kept = {name: value for name, value in info.items() if name != "action_mask" or self.points is None}
        return super()._info_out(kept)


def member_of(points: Points | None) -> Member:
    """Return what makes a player of an actor."""
    if points is None:
        return ActorMember
    own: Points = points

    def make(actor: Actor, deterministic: bool = False) -> Opponents:
        return PointMember(actor, own, deterministic)

    return make
