"""The rows behind every interface: seeds, time limits and resets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import make_keys

from . import trees
from .arguments import read_options
from .base import TensorEnv
from .compiled import CompiledFunction
from .pool import Pool, depth_for, gather
from .rules import (
    StepResult,
    advance,
    allowed,
    check_seed,
    column,
    confined,
    count_actions,
    entropy_seed,
    invalid_action,
    listed,
)

Tree = Any
_NO_LIMIT = 2**62
_CHECK_EVERY = 64
_FEW_ROWS = 4096
_DRAWN_AT_ONCE = 1024


class RowsStep(NamedTuple):
    """What an interface needs of one step of all rows.

    Attributes:
        state: where the rows stand now, after resets.
        obs: what they see now; shares no memory with the state.
        reward: float32 [N], [N, k] or [N, num_players].
        terminated: [N] bool.
        truncated: [N] bool.
        ended: [N] bool, terminated or truncated.
        mask: [N, A] bool allowed now, or None.
        illegal: [N] bool, the action was not allowed ([N, num_players] where players move at once); None where everything is.
        final: the state at the end of finished rows (SAME_STEP), or None.
        final_obs: what finished rows saw last (SAME_STEP), or None.
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


class Engine:
    """A batch of episodes of one task.

    Attributes:
        task: the dynamics.
        num_envs: number of environments N.
        limit: steps after which an episode is cut.
        mode: what happens after the end of an episode.
        seeds: [N] int64, the seed of each row.
        state: where the rows stand; None before the first reset.
        ended: [N] bool, rows whose episode is over and that were not reset yet.
        mask: [N, A] bool or None.
        is_compiled: the whole step runs as one compiled graph.
    """

    def __init__(
        self,
        task: TensorEnv,
        num_envs: int,
        limit: int | None,
        mode: AutoresetMode,
        is_compiled: bool = False,
        sees_all: bool = False,
    ) -> None:
        self.task = task
        self.look: Callable[[Any], Tree] = task.observe_all if sees_all else task.observe
        self.num_envs = num_envs
        self.num_actions = count_actions(task.action_space)
        self.limit = _NO_LIMIT if limit is None else int(limit)
        self.mode = mode
        self.is_compiled = is_compiled
        # an accelerator would wait for every question put to it, so there both branches are computed instead
        # (and a compiled step of few rows spends less on restarting all than on looking rows up)
        self.is_branching = task.device.type == "cpu" and (not is_compiled or num_envs > _FEW_ROWS)
        self.seeds = torch.zeros(num_envs, dtype=torch.int64, device=task.device)
        self.ended = torch.zeros(num_envs, dtype=torch.bool, device=task.device)
        self.has_ended = False
        self.state: Any = None
        self.mask: Tensor | None = None
        self._episodes = torch.zeros_like(self.seeds)
        self._pool: Pool | None = None
        self._depth = 1
        self._compiled: Callable[..., Any] | None = None
        self._compiled_draw: CompiledFunction | None = None
        self._invalid: Tensor | None = None
        self._unchecked = 0
        self._lasting: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave compiled code behind; it is made again at the next step."""
        return {**self.__dict__, "_compiled": None, "_compiled_draw": None}

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
        self.begin(seed, options, rows)
        return self.observe()

    def begin(self, seed: Any = None, options: dict[str, Any] | None = None, rows: Tensor | None = None) -> None:
        """Do what `reset` does, without looking."""
        if self.state is None and rows is not None:
            raise UsageError("a part of the rows cannot be reset before all were: call reset() without 'reset_mask'")
        seeds, episodes = self._next_episodes(seed, rows)
        chosen = slice(None) if rows is None else rows
        fresh = self.task.reset(make_keys(seeds[chosen], episodes[chosen]), read_options(options) or None)
        self.state = fresh if rows is None else trees.put(self.state, rows, fresh)
        self.seeds, self._episodes, self._pool = seeds, episodes, None
        self._depth = self._choose_depth()
        self._lasting = {}
        self.ended = torch.zeros_like(self.ended) if rows is None else self.ended.index_fill(0, rows, False)
        self.has_ended = bool(self.ended.any())
        self.mask = allowed(self.task, self.state, self.ended)

    def _choose_depth(self) -> int:
        """Return how many episodes to draw ahead; of many rows some end in each step, and those are drawn then."""
        if self.state is None or (self.is_branching and self.num_envs > _FEW_ROWS):
            return 1
        return depth_for(self.state, self.num_envs)

    def _next_episodes(self, seed: Any, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the seeds and episode numbers of all rows after a reset."""
        if rows is None and isinstance(seed, int):
            first = check_seed(seed)
            return torch.arange(first, first + self.num_envs, device=self.ended.device), torch.zeros_like(self.seeds)
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
        return self._kept(trees.unaliased(self.look(self.state), self.state))

    def _kept(self, obs: Tree) -> Tree:
        """Return the observation; what lasts in it is handed out again until an episode starts."""
        if self.task.lasting and isinstance(obs, dict) and self.is_branching and not self.is_compiled:
            self._lasting = {name: obs[name] for name in self.task.lasting}
        return obs

    # ---- steps

    def step(self, action: Tensor, active: Tensor | None = None) -> RowsStep:
        """Act in every row, and reset by `mode`; see `RowsStep`.

        Args:
            action: [N, ...] of the right type and shape.
            active: [N] bool; rows that are not active keep their state, get no reward and do not end. None: all act. One engine that
                is compiled is given it always or never.

        Raises:
            UsageError: no reset yet, a finished row is not reset (DISABLED), or an action is outside the space. On an
                accelerator the last is noticed at most 64 steps late.
        """
        if self.state is None:
            raise UsageError("step() was called before reset(); call reset() first")
        if self.mode is AutoresetMode.DISABLED:
            self._refuse_ended()
        outcome = self._branching_step(action, active) if self.is_branching else self._fused_step(action, active)
        self.state, self.mask = outcome.state, outcome.mask
        if self.mode is not AutoresetMode.SAME_STEP:
            self.ended = outcome.ended
        return outcome

    def _refuse_ended(self) -> None:
        if self.has_ended and bool(self.ended.any()):
            rows = self.ended.nonzero()[:8, 0].tolist()
            hint = "call reset()" if self.num_envs == 1 else "call reset(options={'reset_mask': done})"
            raise UsageError(f"the episodes of rows {rows} are over and autoreset is disabled; {hint} before step()")

    def _branching_step(self, action: Tensor, active: Tensor | None) -> RowsStep:
        """Step all rows, then restart those that need it, which are looked up."""
        turn, obs, mask, ended, facts = self._run(self._play)(self.state, action, self.mask, self.ended, active)
        is_valid, any_ended = facts
        self._check(is_valid, action)
        state, final, final_obs, is_next = turn.state, None, None, self.mode is AutoresetMode.NEXT_STEP
        restarts = self.has_ended if is_next else bool(any_ended)
        self.has_ended = bool(any_ended)
        if restarts and self.mode is not AutoresetMode.DISABLED:
            rows = (self.ended if is_next else ended).nonzero()[:, 0]
            if not is_next:
                final, final_obs = state, obs
            fresh = self._starts_of(rows)
            state = trees.put(state, rows, fresh)
            obs = self._kept(trees.put(obs, rows, self.look(fresh), in_place=self.is_compiled and is_next))
            if mask is not None:
                mask = mask.index_copy(0, rows, allowed(self.task, fresh, torch.zeros_like(ended[rows])))
        rewards = (turn.reward, turn.terminated, turn.truncated)
        return RowsStep(state, obs, *rewards, ended, mask, turn.illegal, final, final_obs)

    def _run(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, compiled if asked for."""
        if self._compiled is None:
            self._compiled = CompiledFunction(function) if self.is_compiled else function
        return self._compiled

    def _play(
        self, state: Any, action: Tensor, mask: Tensor | None, was_ended: Tensor, active: Tensor | None = None
    ) -> tuple[StepResult, Tree, Tensor | None, Tensor, tuple[Tensor, Tensor]]:
        """Act in every row and observe. Rows that wait for a restart count as stepping without reward."""
        action, is_valid = confined(self.num_actions, action)
        turn = advance(self.task, self.limit, state, action, mask, self.is_branching and not self.is_compiled)
        if self.mode is AutoresetMode.NEXT_STEP:
            turn = _restarted(turn, was_ended)
        if active is not None:
            turn = _restarted(turn._replace(state=trees.where(active, turn.state, state)), ~active)
        ended = turn.terminated | turn.truncated
        obs, new_mask = self._observed(turn.state, state), allowed(self.task, turn.state, ended)
        return turn, obs, new_mask, ended, (is_valid, ended.any())

    def _observed(self, state: Any, before: Any) -> Tree:
        """Return an observation that shares no memory with states; storage cannot be compared while compiling."""
        obs: Tree = self.look(state)
        if self._lasting and isinstance(obs, dict):
            obs = {**obs, **self._lasting}
        return trees.clone(obs) if self.is_compiled else trees.unaliased(obs, (state, before))

    def _starts_of(self, rows: Tensor) -> Any:
        """Return the first states of the next episodes of `rows`, [k] int64, and count these episodes."""
        if self._depth == 1:
            episodes = self._episodes.index_select(0, rows) + 1
            self._episodes = self._episodes.index_copy(0, rows, episodes)
            return self._draw(self.seeds.index_select(0, rows), episodes)
        pool = self._filled_pool()
        taken = pool.cursor.index_select(0, rows)
        pool.cursor = pool.cursor.index_copy(0, rows, taken + 1)
        return trees.take(pool.states, taken * self.num_envs + rows)

    def _draw(self, seeds: Tensor, episodes: Tensor) -> Any:
        """Return the first states of episodes, [k] int64; a compiled draw has a fixed size and is filled up."""
        count = seeds.shape[0]
        if not self.is_compiled or count > _DRAWN_AT_ONCE:
            return self.task.reset(make_keys(seeds, episodes))
        if self._compiled_draw is None:
            self._compiled_draw = CompiledFunction(lambda s, e: self.task.reset(make_keys(s, e)))
        filling = seeds.new_zeros(_DRAWN_AT_ONCE - count)
        drawn = self._compiled_draw(torch.cat((seeds, filling)), torch.cat((episodes, filling)))
        return trees.map_tree(lambda leaf: leaf[:count], drawn)

    def _filled_pool(self) -> Pool:
        if self._pool is None or not self._pool.lasts():
            self._episodes = self.episodes
            self._pool = Pool(self.task, self.seeds, self._episodes, self._depth)
            self._pool.lasts()
        return self._pool

    def _fused_step(self, action: Tensor, active: Tensor | None) -> RowsStep:
        """Compute everything in one function without questions."""
        pool = None if self.mode is AutoresetMode.DISABLED else self._filled_pool()
        starts, cursor = (pool.states, pool.cursor) if pool else (None, None)
        outcome, cursor, facts = self._run(self._pure_step)(
            self.state, action, self.mask, self.ended, starts, cursor, active
        )
        is_valid, any_ended = facts
        self._check(is_valid, action)
        if pool:
            pool.cursor = cursor
        self.has_ended = self.task.device.type != "cpu" or bool(any_ended)
        return outcome if self.has_ended else outcome._replace(final=None, final_obs=None)

    def _pure_step(
        self,
        state: Any,
        action: Tensor,
        mask: Tensor | None,
        was_ended: Tensor,
        starts: Any,
        cursor: Any,
        active: Tensor | None = None,
    ) -> tuple[RowsStep, Any, tuple[Tensor, Tensor]]:
        """Act, restart and observe; returns the outcome, the new cursor of the pool and two facts of the batch."""
        turn, obs, new_mask, ended, facts = self._play(state, action, mask, was_ended, active)
        after, final, final_obs = turn.state, None, None
        if self.mode is not AutoresetMode.DISABLED:
            is_next = self.mode is AutoresetMode.NEXT_STEP
            restarts = was_ended if is_next else ended
            if not is_next:
                final, final_obs = after, obs
            after = trees.where(restarts, gather(starts, cursor), after)
            cursor = cursor + restarts
            obs, new_mask = self._observed(after, turn.state), allowed(self.task, after, ended & ~restarts)
        rewards = (turn.reward, turn.terminated, turn.truncated)
        return RowsStep(after, obs, *rewards, ended, new_mask, turn.illegal, final, final_obs), cursor, facts

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
        self._lasting = {}
        self.has_ended = bool(ended.any())
        self._depth = self._choose_depth()
        self.mask = None if state is None else allowed(self.task, state, ended)


def _restarted(turn: StepResult, ended: Tensor) -> StepResult:
    """Return the turn in which the rows that had `ended` get no reward and do not end (NEXT_STEP)."""
    return StepResult(
        turn.state,
        turn.reward.masked_fill(column(ended, turn.reward), 0.0),
        turn.terminated & ~ended,
        turn.truncated & ~ended,
        None if turn.illegal is None else turn.illegal & ~column(ended, turn.illegal),
    )
