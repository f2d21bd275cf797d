"""The rows behind every face: seeds, legality, time limits and resets, in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import make_keys

from . import trees
from .base import TensorEnv
from .pool import Pool, ResetPool, gather

Tree = Any
_NO_LIMIT = 2**62
_CHECK_EVERY = 64


class Turn(NamedTuple):
    """What one step gives, before any reset."""

    state: Any
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    illegal: Tensor | None


class Outcome(NamedTuple):
    """What a face needs of one step of all rows.

    Attributes:
        state: where the rows stand now, after resets.
        obs: what they see now; shares no memory with the state.
        reward: float32 [N], [N, k] or [N, num_players].
        terminated: [N] bool.
        truncated: [N] bool.
        ended: [N] bool, terminated or truncated.
        mask: [N, A] bool allowed now, or None.
        illegal: [N] bool, the action was not allowed; None where everything is.
        final: the state at the end of finished rows (SAME_STEP), or None.
        final_obs: what finished rows saw last (SAME_STEP), or None.
        cursor: see `Pool`.
        is_valid: [] bool, all actions were inside the action space.
    """

    state: Any
    obs: Tree
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    ended: Tensor
    mask: Tensor | None
    illegal: Tensor | None
    final: Any
    final_obs: Tree
    cursor: Tensor | None
    is_valid: Tensor


def entropy_seed() -> int:
    """Draw a fresh seed from the operating system, in [0, 2^31)."""
    return int(np.random.SeedSequence().generate_state(1)[0]) >> 1


def is_valid_action(space: gym.Space[Any], action: Tensor) -> Tensor:
    """Tell, as a tensor, whether all actions lie in a Discrete space or are numbers of a Box."""
    if isinstance(space, gym.spaces.Discrete):
        return ((action >= 0) & (action < int(space.n))).all()
    return torch.isfinite(action).all() if action.dtype.is_floating_point else torch.ones((), dtype=torch.bool)


def advance(task: TensorEnv, limit: int, state: Any, action: Tensor, mask: Tensor | None, is_branching: bool) -> Turn:
    """Act in every row, in the one place that knows what happens to an action that is not allowed.

    Such an action ends the episode with `task.illegal_reward`; the row stays where it was, but the step counts.

    Args:
        task: the dynamics.
        limit: steps after which an episode is cut.
        state: the state before.
        action: [N, ...], inside the action space.
        mask: [N, A] bool allowed actions ([N, num_players, A] where players move at once), or None.
        is_branching: may ask the device whether any action is illegal; else compute both ways.
    """
    if mask is None:
        after, reward, terminated = task.step(state, action)
        return Turn(after, reward.to(torch.float32), terminated, after.t >= limit, None)
    illegal_each = ~mask.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    illegal = illegal_each if illegal_each.dim() == 1 else illegal_each.any(1)
    needs_care = not is_branching or bool(illegal.any())
    if needs_care:
        action = torch.where(illegal_each, mask.to(torch.int8).argmax(-1), action)
    after, reward, terminated = task.step(state, action)
    reward = reward.to(torch.float32)
    if needs_care:
        after = trees.where(illegal, state._replace(t=after.t), after)
        penalty = _penalty(task, state, illegal_each, reward)
        reward = torch.where(illegal.reshape(-1, *[1] * (reward.dim() - 1)), penalty, reward)
        terminated = terminated | illegal
    return Turn(after, reward, terminated, after.t >= limit, illegal)


def _penalty(task: TensorEnv, state: Any, illegal_each: Tensor, reward: Tensor) -> Tensor:
    """Give the penalty to the player who acted, 0 to the others; every objective of a vector reward gets it."""
    penalty = task.illegal_reward(state).to(torch.float32)
    if reward.dim() == penalty.dim():
        return penalty
    if task.num_players == 1:
        return penalty[:, None].expand_as(reward)
    if task.simultaneous:
        return penalty[:, None] * illegal_each
    players = torch.arange(task.num_players, device=penalty.device)
    return penalty[:, None] * (task.player(state)[:, None] == players)


def allowed(task: TensorEnv, state: Any, ended: Tensor) -> Tensor | None:
    """Return the mask of a state; finished rows allow everything, so that every row allows something."""
    mask = task.mask(state)
    return None if mask is None else mask | ended.reshape(-1, *[1] * (mask.dim() - 1))


class Engine:
    """A batch of episodes of one task.

    Attributes:
        task: the dynamics.
        num_envs: number of rows N.
        limit: steps after which an episode is cut.
        mode: what happens after the end of an episode.
        seeds: [N] int64, the seed of each row.
        episodes: [N] int64, the number of its episode.
        state: where the rows stand; None before the first reset.
        ended: [N] bool, rows whose episode is over and that were not reset yet.
        mask: [N, A] bool or None.
    """

    def __init__(self, task: TensorEnv, num_envs: int, limit: int | None, mode: AutoresetMode, compile: bool = False) -> None:
        self.task = task
        self.num_envs = num_envs
        self.limit = _NO_LIMIT if limit is None else int(limit)
        self.mode = mode
        self.is_compiled = compile
        # An accelerator would wait for every question put to it, so there both branches are computed instead.
        self.is_branching = task.device.type == "cpu" and not compile
        device = task.device
        self.seeds = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.episodes = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.ended = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self.has_ended = False
        self.state: Any = None
        self.mask: Tensor | None = None
        self.pool: ResetPool | None = None
        self._step: Callable[..., Outcome] | None = None
        self._invalid: Tensor | None = None
        self._unchecked = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave compiled code behind; it is made again at the next step."""
        return {**self.__dict__, "_step": None}

    # ------------------------------------------------------------------------------------------------ resets

    def reset(self, seed: int | Sequence[int | None] | None, options: dict[str, Any] | None, rows: Tensor | None = None) -> Tree:
        """Start a new episode in all rows, or in `rows`, [k] int64.

        Args:
            seed: row i gets `seed + i`, or the i-th of a list (None there: its next episode). None: the next episode
                of every row; at the very first reset, a fresh seed.
            options: the task's reset options.
            rows: the rows to reset.

        Returns:
            The observation of all rows.

        Raises:
            UsageError: the seed is malformed, or an option unknown.
        """
        if self.state is None and rows is not None:
            raise UsageError("a part of the rows can only be reset after a first reset() of all; call reset() without 'reset_mask'")
        seeds, episodes = self._next_episodes(seed, rows)
        chosen = slice(None) if rows is None else rows
        fresh = self.task.reset(make_keys(seeds[chosen], episodes[chosen]), options or None)
        self.state = fresh if rows is None else trees.put(self.state, rows, fresh)
        self.seeds, self.episodes, self.pool = seeds, episodes, None
        self.ended = torch.zeros_like(self.ended) if rows is None else self.ended.index_fill(0, rows, False)
        self.has_ended = rows is not None and bool(self.ended.any())
        self.mask = allowed(self.task, self.state, self.ended)
        return self.observe()

    def _next_episodes(self, seed: int | Sequence[int | None] | None, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the seeds and episode numbers of all rows after a reset."""
        is_chosen = torch.ones_like(self.ended) if rows is None else torch.zeros_like(self.ended).index_fill(0, rows, True)
        if seed is None and self.state is not None:
            return self.seeds, self.episodes + is_chosen
        if isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str):
            return self._listed_episodes(list(seed), is_chosen)
        first = entropy_seed() if seed is None else check_seed(seed)
        seeds = first + torch.arange(self.num_envs, device=self.ended.device)
        return torch.where(is_chosen, seeds, self.seeds), torch.where(is_chosen, 0, self.episodes)

    def _listed_episodes(self, listed: list[Any], is_chosen: Tensor) -> tuple[Tensor, Tensor]:
        if len(listed) != self.num_envs:
            raise UsageError(f"a list of seeds needs one entry for each of the {self.num_envs} environments, got {len(listed)}")
        device = self.ended.device
        fresh = entropy_seed() if any(item is None for item in listed) and self.state is None else None
        is_given = torch.tensor([item is not None or fresh is not None for item in listed], device=device) & is_chosen
        numbers = [(fresh or 0) + i if item is None else check_seed(item) for i, item in enumerate(listed)]
        seeds = torch.tensor(numbers, dtype=torch.int64, device=device)
        episodes = torch.where(is_given, 0, self.episodes + is_chosen)
        return torch.where(is_given, seeds, self.seeds), episodes

    def observe(self) -> Tree:
        """Return what all rows see now, sharing no memory with the state."""
        return trees.unaliased(self.task.observe(self.state), self.state)

    # ------------------------------------------------------------------------------------------------ steps

    def step(self, action: Tensor) -> Outcome:
        """Act in every row, and reset by `mode`; see `Outcome`.

        Args:
            action: [N, ...] of the right type and shape.

        Raises:
            UsageError: no reset yet, a finished row is not reset (DISABLED), or an action is outside the space. On an
                accelerator the last is noticed at most 64 steps late.
        """
        if self.state is None:
            raise UsageError("step() was called before reset(); call reset() first")
        if self.mode is AutoresetMode.DISABLED and self.has_ended:
            rows = self.ended.nonzero()[:, 0].tolist()
            raise UsageError(
                f"the episodes of rows {rows[:8]} are over; with autoreset disabled, call reset(options={{'reset_mask': done}}) first"
            )
        outcome = self._eager_step(action) if self.is_branching else self._fused_step(action)
        self._check(outcome.is_valid, action)
        self.state, self.mask = outcome.state, outcome.mask
        if self.mode is AutoresetMode.NEXT_STEP:
            self._count(self.ended)
        elif self.mode is AutoresetMode.SAME_STEP:
            self._count(outcome.ended)
        self.ended = outcome.ended
        if self.pool is not None and outcome.cursor is not None:
            self.pool.cursor = outcome.cursor
        if self.is_branching or self.mode is AutoresetMode.DISABLED:
            self.has_ended = bool(outcome.ended.any())
        return outcome

    def _count(self, ended: Tensor) -> None:
        if self.has_ended or not self.is_branching or self.mode is AutoresetMode.SAME_STEP:
            self.episodes = self.episodes + ended

    def _check(self, is_valid: Tensor, action: Tensor) -> None:
        if self.task.device.type != "cpu":
            self._invalid = ~is_valid if self._invalid is None else self._invalid | ~is_valid
            self._unchecked += 1
            if self._unchecked % _CHECK_EVERY:
                return
            is_valid = ~self._invalid
            self._invalid = None
        if not is_valid:
            raise invalid_action(self.task.action_space, action)
