"""The rows behind every face: seeds, time limits and resets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import make_keys

from . import trees
from .base import TensorEnv
from .pool import Pool, depth_for, gather
from .rules import (
    Turn,
    advance,
    allowed,
    check_seed,
    column,
    count_actions,
    entropy_seed,
    invalid_action,
    is_valid_action,
    listed,
)

Tree = Any
_NO_LIMIT = 2**62
_CHECK_EVERY = 64


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
        is_valid: [] bool, all actions were inside the action space.
        any_ended: [] bool.
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
    is_valid: Tensor
    any_ended: Tensor


class Engine:
    """A batch of episodes of one task.

    Attributes:
        task: the dynamics.
        num_envs: number of rows N.
        limit: steps after which an episode is cut.
        mode: what happens after the end of an episode.
        seeds: [N] int64, the seed of each row.
        state: where the rows stand; None before the first reset.
        ended: [N] bool, rows whose episode is over and that were not reset yet.
        mask: [N, A] bool or None.
        is_compiled: the whole step runs as one compiled graph.
    """

    def __init__(
        self, task: TensorEnv, num_envs: int, limit: int | None, mode: AutoresetMode, is_compiled: bool = False
    ) -> None:
        self.task = task
        self.num_envs = num_envs
        self.num_actions = count_actions(task.action_space)
        self.limit = _NO_LIMIT if limit is None else int(limit)
        self.mode = mode
        self.is_compiled = is_compiled
        # an accelerator would wait for every question put to it, so there both branches are computed instead
        self.is_branching = task.device.type == "cpu" and not is_compiled
        self.seeds = torch.zeros(num_envs, dtype=torch.int64, device=task.device)
        self.ended = torch.zeros(num_envs, dtype=torch.bool, device=task.device)
        self.has_ended = False
        self.state: Any = None
        self.mask: Tensor | None = None
        self._episodes = torch.zeros_like(self.seeds)
        self._pool: Pool | None = None
        self._compiled: Callable[..., tuple[Outcome, Any]] | None = None
        self._invalid: Tensor | None = None
        self._unchecked = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave compiled code behind; it is made again at the next step."""
        return {**self.__dict__, "_compiled": None}

    @property
    def episodes(self) -> Tensor:
        """[N] int64, the number of each row's episode."""
        return self._episodes if self._pool is None else self._pool.base + self._pool.cursor

    # ---- resets

    def reset(self, seed: Any = None, options: dict[str, Any] | None = None, rows: Tensor | None = None) -> Tree:
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
            raise UsageError("a part of the rows cannot be reset before all were: call reset() without 'reset_mask'")
        seeds, episodes = self._next_episodes(seed, rows)
        chosen = slice(None) if rows is None else rows
        fresh = self.task.reset(make_keys(seeds[chosen], episodes[chosen]), options or None)
        self.state = fresh if rows is None else trees.put(self.state, rows, fresh)
        self.seeds, self._episodes, self._pool = seeds, episodes, None
        self.ended = torch.zeros_like(self.ended) if rows is None else self.ended.index_fill(0, rows, False)
        self.has_ended = bool(self.ended.any())
        self.mask = allowed(self.task, self.state, self.ended)
        return self.observe()

    def _next_episodes(self, seed: Any, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the seeds and episode numbers of all rows after a reset."""
        is_chosen = torch.ones_like(self.ended)
        if rows is not None:
            is_chosen = torch.zeros_like(self.ended).index_fill(0, rows, True)
        if seed is None and self.state is not None:
            return self.seeds, self.episodes + is_chosen
        given = listed(seed)
        if given is None:
            first = entropy_seed() if seed is None else check_seed(seed)
            given = list(range(first, first + self.num_envs))
        if len(given) != self.num_envs:
            raise UsageError(f"a list of seeds needs one for each of {self.num_envs} environments, got {len(given)}")
        if self.state is None:
            fresh = entropy_seed()
            given = [fresh + i if item is None else item for i, item in enumerate(given)]
        device = self.ended.device
        is_given = torch.tensor([item is not None for item in given], device=device) & is_chosen
        numbers = torch.tensor([0 if item is None else check_seed(item) for item in given], device=device)
        return torch.where(is_given, numbers, self.seeds), torch.where(is_given, 0, self.episodes + is_chosen)

    def observe(self) -> Tree:
        """Return what all rows see now, sharing no memory with the state."""
        return trees.unaliased(self.task.observe(self.state), self.state)

    # ---- steps

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
        if self.mode is AutoresetMode.DISABLED:
            self._refuse_ended()
        outcome = self._eager_step(action) if self.is_branching else self._fused_step(action)
        self.state, self.mask = outcome.state, outcome.mask
        if self.mode is not AutoresetMode.SAME_STEP:
            self.ended = outcome.ended
        return outcome

    def _refuse_ended(self) -> None:
        if self.has_ended and bool(self.ended.any()):
            rows = self.ended.nonzero()[:8, 0].tolist()
            hint = "call reset()" if self.num_envs == 1 else "call reset(options={'reset_mask': done})"
            raise UsageError(f"the episodes of rows {rows} are over and autoreset is disabled; {hint} before step()")

    def _eager_step(self, action: Tensor) -> Outcome:
        """Compute only what is needed, asking the processor as it goes."""
        is_valid = is_valid_action(self.num_actions, action)
        if not is_valid:
            raise invalid_action(self.task.action_space, action)
        turn = advance(self.task, self.limit, self.state, action, self.mask, True)
        if self.has_ended and self.mode is AutoresetMode.NEXT_STEP:
            turn = _restarted(turn, self.ended, self._start(turn.state, self.ended))
        state, ended, final, final_obs = turn.state, turn.terminated | turn.truncated, None, None
        any_ended = ended.any()
        self.has_ended = bool(any_ended)
        if self.has_ended and self.mode is AutoresetMode.SAME_STEP:
            final, final_obs = state, trees.unaliased(self.task.observe(state), state)
            state = self._start(state, ended)
        obs = trees.unaliased(self.task.observe(state), state)
        open_rows = torch.zeros_like(ended) if self.mode is AutoresetMode.SAME_STEP else ended
        mask = allowed(self.task, state, open_rows)
        return Outcome(state, obs, *turn[1:4], ended, mask, turn.illegal, final, final_obs, is_valid, any_ended)

    def _start(self, state: Any, ended: Tensor) -> Any:
        """Start the next episode of the rows that `ended`, at least one."""
        rows = ended.nonzero()[:, 0]
        depth = depth_for(state, self.num_envs)
        if depth == 1:
            self._episodes = self._episodes + ended
            return trees.put(state, rows, self.task.reset(make_keys(self.seeds[rows], self._episodes[rows])))
        pool = self._filled_pool(depth)
        fresh = trees.take(pool.states, pool.cursor[rows] * self.num_envs + rows)
        pool.cursor = pool.cursor + ended
        return trees.put(state, rows, fresh)

    def _filled_pool(self, depth: int) -> Pool:
        if self._pool is None or not self._pool.lasts():
            self._episodes = self.episodes
            self._pool = Pool(self.task, self.seeds, self._episodes, depth)
            self._pool.lasts()
        return self._pool

    def _fused_step(self, action: Tensor) -> Outcome:
        """Compute everything in one function without questions, compiled if asked for."""
        if self._compiled is None:
            self._compiled = (
                torch.compile(self._pure_step, dynamic=False, fullgraph=True) if self.is_compiled else self._pure_step
            )
        needs_starts = self.mode is not AutoresetMode.DISABLED
        pool = self._filled_pool(depth_for(self.state, self.num_envs)) if needs_starts else None
        starts, cursor = (pool.states, pool.cursor) if pool else (None, None)
        outcome, cursor = self._compiled(self.state, action, self.mask, self.ended, starts, cursor)
        self._check(outcome.is_valid, action)
        if pool:
            pool.cursor = cursor
        self.has_ended = self.task.device.type != "cpu" or bool(outcome.any_ended)
        obs = trees.unaliased(outcome.obs, outcome.state)
        if outcome.final is None or not self.has_ended:
            return outcome._replace(obs=obs, final=None, final_obs=None)
        return outcome._replace(obs=obs, final_obs=trees.unaliased(outcome.final_obs, (outcome.final, outcome.state)))

    def _pure_step(
        self, state: Any, action: Tensor, mask: Tensor | None, was_ended: Tensor, starts: Any, cursor: Any
    ) -> tuple[Outcome, Any]:
        """Act, restart and observe; returns the outcome and the new cursor of the pool."""
        is_valid = is_valid_action(self.num_actions, action)
        if self.num_actions is not None:
            action = action.clamp(0, self.num_actions - 1)
        turn = advance(self.task, self.limit, state, action, mask, False)
        if self.mode is AutoresetMode.NEXT_STEP:
            turn = _restarted(turn, was_ended, trees.where(was_ended, gather(starts, cursor), turn.state))
            cursor = cursor + was_ended
        state, ended, final, final_obs = turn.state, turn.terminated | turn.truncated, None, None
        open_rows = ended
        if self.mode is AutoresetMode.SAME_STEP:
            final, final_obs, open_rows = state, self.task.observe(state), torch.zeros_like(ended)
            state = trees.where(ended, gather(starts, cursor), state)
            cursor = cursor + ended
        new_mask, obs = allowed(self.task, state, open_rows), self.task.observe(state)
        facts = (turn.reward, turn.terminated, turn.truncated, ended, new_mask, turn.illegal)
        return Outcome(state, obs, *facts, final, final_obs, is_valid, ended.any()), cursor

    def _check(self, is_valid: Tensor, action: Tensor) -> None:
        """Refuse actions outside the space: at once on a processor, every 64 steps on an accelerator."""
        if self.task.device.type != "cpu":
            self._invalid = ~is_valid if self._invalid is None else self._invalid | ~is_valid
            self._unchecked += 1
            if self._unchecked % _CHECK_EVERY:
                return
            is_valid, self._invalid = ~self._invalid, None
        if not is_valid:
            raise invalid_action(self.task.action_space, action)

    # ---- keeping and continuing

    def get_state(self) -> dict[str, Any]:
        """Return a dict of copied tensors from which `set_state` continues exactly."""
        return {
            "num_envs": self.num_envs,
            "seeds": self.seeds.clone(),
            "episodes": self.episodes.clone(),
            "ended": self.ended.clone(),
            "state": None if self.state is None else trees.to_plain(self.state),
        }

    def set_state(self, saved: dict[str, Any]) -> None:
        """Continue from what `get_state` returned.

        Raises:
            UsageError: it belongs to another number of environments, or to another task.
        """
        try:
            if saved["num_envs"] != self.num_envs:
                raise UsageError(f"the saved state has {saved['num_envs']} environments, this one {self.num_envs}")
            state, device = None, self.task.device
            seeds, episodes, ended = (saved[name].to(device, copy=True) for name in ("seeds", "episodes", "ended"))
            if saved["state"] is not None:
                like = self.task.reset(make_keys(seeds, episodes))
                state = trees.from_plain(like, saved["state"], device)
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"this is no saved state of {type(self.task).__name__}: {error!r} is missing") from error
        self.seeds, self._episodes, self.ended, self._pool, self.state = seeds, episodes, ended, None, state
        self.has_ended = bool(ended.any())
        self.mask = None if state is None else allowed(self.task, state, ended)


def _restarted(turn: Turn, ended: Tensor, state: Any) -> Turn:
    """Return the turn with the rows that had `ended` standing at the start of an episode, `state` (NEXT_STEP)."""
    return Turn(
        state,
        turn.reward.masked_fill(column(ended, turn.reward), 0.0),
        turn.terminated & ~ended,
        turn.truncated & ~ended,
        None if turn.illegal is None else turn.illegal & ~ended,
    )
