"""On-policy learning in all seats of a game at once: a tick of every game is a step, and no row ever waits."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from polyathlon.agents.parts.seat_returns import gae_seats
from polyathlon.agents.streams.rollout import tree_map
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.trees import take

from .game_rows import GameRows, Groups
from .pool import Pool
from .seat_rollout import LEARNER, SeatRollout

CHUNK = 16_384


class SeatPlay:
    """What an on-policy agent collects and learns from in self-play; `PPO.seats` holds it.

    At its start each game is given, with probability `latest_share`, to the learner alone; else the learner has the seats of one
    group, drawn uniformly, and a member of the pool those of each other group, until the game ends.

    Args:
        rows: the games.
        pool: the past selves.
        groups: which seats are played by one policy, see `find_groups`.
        latest_share: share of the games in which the learner has all seats.
        generator: source of the draws of seats and of members' actions.

    Attributes:
        owner: [N, P] int64, who plays each seat: `LEARNER` or the number of a member.
        results: points of the learner in finished games against members since `pop_results`.
    """

    def __init__(
        self, rows: GameRows, pool: Pool, groups: Groups, latest_share: float, generator: torch.Generator
    ) -> None:
        self.rows, self.pool, self.groups = rows, pool, groups
        self.latest_share, self.generator = latest_share, generator
        shape = (rows.num_envs, rows.task.num_players)
        self.owner = torch.full(shape, LEARNER, dtype=torch.int64, device=rows.device)
        self.totals = torch.zeros(shape, device=rows.device)
        self.length = torch.zeros(rows.num_envs, dtype=torch.int64, device=rows.device)
        self._numbers: list[int] = []  # of the members that sit in some game
        self.results: list[float] = []

    # ---- who plays

    def seat(self, rows: Tensor) -> None:
        """Give the seats of games that start, `rows` [k] int64."""
        if not self.pool.active or not len(rows):
            self.owner[rows] = LEARNER
            return
        group = self.groups(self.rows.state).index_select(0, rows)
        number, device = int(group.max()) + 1, group.device
        uniform = torch.rand(len(rows), generator=self.generator, device=device)
        own = torch.randint(number, (len(rows),), generator=self.generator, device=device)
        members = self.pool.choose(len(rows) * number).to(device).view(len(rows), number)
        is_own = (uniform < self.latest_share)[:, None] | (group == own[:, None])
        self.owner[rows] = torch.where(is_own, LEARNER, members.gather(1, group))
        self._numbers = self._members()

    def _members(self) -> list[int]:
        """Return the numbers of the members that sit in some game; counting them is faster than `unique`, which sorts."""
        return (self.owner.flatten() - LEARNER).bincount()[1:].nonzero()[:, 0].tolist()

    def start(self) -> None:
        """Give the seats of all games anew."""
        self.totals.zero_()
        self.length.zero_()
        self.seat(torch.arange(self.rows.num_envs, device=self.rows.device))

    # ---- collecting

    def collect(self, agent: Any, callback: BaseCallback) -> bool:
        """Play until the rollout is full; see `Agent.collect`."""
        source = agent.source
        agent.policy.set_training_mode(False)
        agent._note_masks()
        if agent.rollout is not None:
            agent.rollout.begin()
        with torch.no_grad():
            while agent.rollout is None or not agent.rollout.is_full:
                self._tick(agent, source)
                agent.num_timesteps += self.rows.num_envs
                callback.update_locals({"self": agent, "seats": self})
                if not callback.on_step():
                    return False
        self.pool.forget(self._numbers)
        return True

    def _tick(self, agent: Any, source: Any) -> None:
        task, engine = self.rows.task, self.rows.engine
        state = engine.state
        player, acts = self._asked(state)
        seats = player.shape[1]
        obs, mask = source.obs, source.mask
        if seats > 1:
            obs = tree_map(obs, lambda x: x.flatten(0, 1))
            mask = None if mask is None else mask.flatten(0, 1)
        action = self._actions(agent, obs, mask, player, acts)
        if agent.rollout is None:
            players = task.num_players
            agent.rollout = SeatRollout(agent.n_steps, len(player), seats, players, obs, action, mask)
        agent.rollout.add_action(obs, action, mask)
        agent.rollout.add_seats(player, acts, self.owner)
        played = agent._to_environment(action)
        outcome = engine.step(played.view(len(player), seats, *played.shape[1:]) if seats > 1 else played)
        reward = outcome.reward
        if bool(outcome.truncated.any()):
            reward = self._with_last_values(agent, outcome)
        agent.rollout.add_outcome(reward, outcome.terminated, outcome.truncated)
        self._count(outcome, source)
        source.obs, source.mask = outcome.obs, outcome.mask
        source.check("reward", outcome.reward)

    def _asked(self, state: Any) -> tuple[Tensor, Tensor]:
        """Return who is asked, [N, S] int64, and who of them moves, [N, S] bool."""
        task = self.rows.task
        if not task.simultaneous:
            player = task.player(state)[:, None]
            return player, torch.ones_like(player, dtype=torch.bool)
        acts = task.acting(state)
        return torch.arange(task.num_players, device=acts.device).expand(acts.shape), acts

    def _actions(self, agent: Any, obs: Any, mask: Tensor | None, player: Tensor, acts: Tensor) -> Tensor:
        """Let the learner and the members act for their seats; return [N S, ...]."""
        who = torch.where(acts, self.owner.gather(1, player), LEARNER - 1).flatten()
        policy = agent._actor
        if not self._numbers and bool(acts.all()):
            return policy.act(obs, mask, agent.generator)
        action: Tensor | None = None
        for number in (LEARNER, *self._numbers):
            index = (who == number).nonzero()[:, 0]
            if not len(index):
                continue
            own = tree_map(obs, lambda x, i=index: x.index_select(0, i))
            own_mask = None if mask is None else mask.index_select(0, index)
            is_learner = number == LEARNER
            actor = policy if is_learner else self.pool.actors[number]
            found = actor.act(own, own_mask, agent.generator if is_learner else self.generator)
            if action is None:
                filling = self.rows.task.pass_action or 0
                action = torch.full((len(who), *found.shape[1:]), filling, dtype=found.dtype, device=found.device)
            action.index_copy_(0, index, found)
        assert action is not None  # in a running game somebody acts
        return action

    def _with_last_values(self, agent: Any, outcome: Any) -> Tensor:
        """Return the rewards with the value, in each player's eyes, of the last states of games that a limit cut."""
        rows = (outcome.truncated & ~outcome.terminated).nonzero()[:, 0]
        if not len(rows):
            return outcome.reward
        values = self._values(agent, take(outcome.final, rows))
        return outcome.reward.index_add(0, rows, agent.gamma * values)

    def _values(self, agent: Any, state: Any) -> Tensor:
        """Return the value of states in each player's eyes, [k, P]."""
        seen = tree_map(self.rows.task.observe_all(state), lambda x: x.flatten(0, 1))
        values: Tensor = agent._actor.values(seen)
        return values.view(state.t.shape[0], -1)

    def _count(self, outcome: Any, source: Any) -> None:
        """Note what finished games brought, and seat those that start in their place."""
        self.totals += outcome.reward
        self.length += 1
        rows = outcome.ended.nonzero()[:, 0]
        if not len(rows):
            return
        owner, totals = self.owner[rows], self.totals[rows]
        own = owner == LEARNER
        mean = (totals * own).sum(1) / own.sum(1).clamp(min=1)
        others = torch.where(own, 0.0, totals).sum(1) / (~own).sum(1).clamp(min=1)
        mixed = ~own.all(1)
        source.ring.finished += list(zip(mean.tolist(), self.length[rows].tolist()))
        if bool(mixed.any()):
            points = ((mean > others).float() + 0.5 * (mean == others).float())[mixed]
            self.pool.note(owner[mixed], points)
            self.results += points.tolist()
        self.totals[rows], self.length[rows] = 0.0, 0
        self.seat(rows)

    def pop_results(self) -> list[float]:
        """Return the learner's points in games against members since the last call, and forget them."""
        found, self.results = self.results, []
        return found

    # ---- learning

    def fields(self, agent: Any, rollout: SeatRollout) -> dict[str, Any]:
        """Return what PPO learns from: the learner's moves alone, a whole number of minibatches of them where possible.

        Moves are left out whose player is not to move at the end and has not been paid in full yet: only states in which their
        player is to move teach the values, so the value of the last state in its eyes would be a guess.

        Raises:
            UsageError: the learner made no move.
        """
        is_single = rollout.acts.shape[2] == 1
        moved: Tensor = rollout.player[..., 0] if is_single else rollout.acts
        player, acts = self._asked(self.rows.state)
        waits = torch.ones_like(self.totals).scatter(1, player, (~acts).to(self.totals.dtype))
        nothing, still = torch.zeros_like(rollout.reward), torch.zeros_like(moved, dtype=self.totals.dtype)
        # with no rewards, no values and lam = 0 the return of a move is 1 where it waits for the value of the last state
        is_open = gae_seats(nothing, still, moved, rollout.done, waits, 1.0, 0.0)[1] > 0
        index = (rollout.own() & ~is_open.view(rollout.acts.shape)).flatten().nonzero()[:, 0]
        if not len(index):
            raise UsageError("the learner made no move in this rollout: raise n_steps or num_envs")
        obs, action, mask = rollout.flat()
        obs = tree_map(obs, lambda x: x.index_select(0, index))
        action = action.index_select(0, index)
        mask = None if mask is None else mask.index_select(0, index)
        value, log_prob = self._evaluated(agent, obs, action, mask)
        everywhere = torch.zeros(rollout.acts.numel(), device=value.device).index_copy(0, index, value)
        shaped = everywhere.view(rollout.acts.shape)
        last = self._values(agent, self.rows.state)
        adv, returns = gae_seats(
            rollout.reward,
            shaped[..., 0] if is_single else shaped,
            moved,
            rollout.done,
            last,
            agent.gamma,
            agent.gae_lambda,
        )
        kept = self._whole_minibatches(agent, len(index))
        adv, returns = (x.flatten().index_select(0, index)[kept] for x in (adv, returns))
        obs = tree_map(obs, lambda x: x[kept])
        mask = None if mask is None else mask[kept]
        values = {"old_value": value[kept], "old_logp": log_prob[kept], "adv": adv, "returns": returns}
        return {"obs": obs, "action": agent._actor.coded(action[kept]), "action_mask": mask, **values}

    def _whole_minibatches(self, agent: Any, number: int) -> Tensor:
        """Draw a multiple of the batch size: updates with buffers of a fixed size are then seldom made anew."""
        order = torch.randperm(number, generator=agent.generator, device=agent.device)
        return order[: max(number // agent.batch_size * agent.batch_size, min(number, agent.batch_size))]

    def _evaluated(self, agent: Any, obs: Any, action: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        values, log_probs = [], []
        for start in range(0, action.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            own = None if mask is None else mask[part]
            value, log_prob, _ = agent._actor.evaluate(tree_map(obs, lambda x, p=part: x[p]), action[part], own)
            values.append(value)
            log_probs.append(log_prob)
        return torch.cat(values), torch.cat(log_probs)

    # ---- files

    def state_dict(self) -> dict[str, Any]:
        """Return who sits where, and what the running games have brought so far."""
        return {
            "owner": self.owner.clone(),
            "totals": self.totals.clone(),
            "length": self.length.clone(),
            "generator": self.generator.get_state(),
            "results": list(self.results),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        device = self.owner.device
        self.owner, self.totals, self.length = (state[name].to(device) for name in ("owner", "totals", "length"))
        self.generator.set_state(state["generator"].cpu())
        self.results = list(state["results"])
        self._numbers = self._members()
