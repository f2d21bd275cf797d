"""Small games as whole trees: best responses and exploitability, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor import TensorEnv
from polyathlon.envs.tensor.rules import allowed
from polyathlon.envs.tensor.trees import take

Profile = list[Tensor]  # of each level the probabilities of the actions, [n, A] float64
MOST_NODES = 2_000_000


@dataclass
class Level:
    """The nodes that are reached by equally many moves and at which somebody is to move.

    Attributes:
        obs: what the mover sees, [n, ...] or a dict of it.
        mask: [n, A] bool.
        player: [n] int64, the mover.
        infoset: [n] int64, nodes that the mover cannot tell apart have one number.
        child: [n, A] int64, the node of the next level that an action leads to; -1 where it ends the game or is forbidden.
        reward: [n, A, P] float64, what an action pays at once.
    """

    obs: Any
    mask: Tensor
    player: Tensor
    infoset: Tensor
    child: Tensor
    reward: Tensor


class GameTree:
    """All histories of a game whose deals can be listed and whose players move in turn.

    Args:
        task: the game; `deals()` and `start(keys, cards)` list its starts, as `KuhnPoker` does; without them it has one.

    Attributes:
        levels: the nodes by the number of moves.
        chance: [D] float64, the probability of each start.

    Raises:
        UsageError: all move at once, or the tree is too large.
    """

    def __init__(self, task: TensorEnv) -> None:
        if task.simultaneous:
            raise UsageError("a game tree is for games in which the players move in turn")
        self.task = task
        state = self._starts()
        number = state.t.shape[0]
        self.chance = torch.full((number,), 1.0 / number, dtype=torch.float64)
        self.levels: list[Level] = []
        nodes = 0
        while state is not None:
            nodes += state.t.shape[0]
            if nodes > MOST_NODES:
                raise UsageError(f"the tree of {type(task).__name__} has more than {MOST_NODES} nodes")
            level, state = self._grow(state)
            self.levels.append(level)

    def _starts(self) -> Any:
        deals = getattr(self.task, "deals", None)
        number = 1 if deals is None else len(deals())
        zero = torch.zeros(number, dtype=torch.int64, device=self.task.device)
        keys = make_keys(zero, zero)
        return self.task.reset(keys) if deals is None else self.task.start(keys, deals())  # type: ignore[attr-defined]

    def _grow(self, state: Any) -> tuple[Level, Any]:
        task = self.task
        player = task.player(state)
        mask = allowed(task, state, None)
        number = state.t.shape[0]
        actions = int(task.action_space.n)  # type: ignore[attr-defined]
        if mask is None:
            mask = torch.ones((number, actions), dtype=torch.bool, device=player.device)
        obs = task.observe(state, player)
        nodes, chosen = mask.nonzero().unbind(1)
        after, paid, ended = task.step(take(state, nodes), chosen)
        reward = torch.zeros(number, actions, task.num_players, dtype=torch.float64)
        reward[nodes, chosen] = paid.double()
        child = torch.full((number, actions), -1)
        going_on = (~ended).nonzero()[:, 0]
        child[nodes[going_on], chosen[going_on]] = torch.arange(len(going_on))
        level = Level(obs, mask, player, _infosets(obs, player), child, reward)
        return level, take(after, going_on) if len(going_on) else None

    # ---- policies

    def profile(self, probabilities: Callable[[Any, Tensor], Tensor]) -> Profile:
        """Return the probabilities of a policy at every node.

        Args:
            probabilities: (obs [n, ...], mask [n, A]) -> [n, A].
        """
        return [probabilities(level.obs, level.mask).double() for level in self.levels]

    def uniform(self) -> Profile:
        """Return the policy that plays every allowed action equally often."""
        return self.profile(lambda obs, mask: mask.double() / mask.double().sum(1, keepdim=True))

    def mixture(self, profiles: Sequence[Profile], weights: Sequence[float] | None = None) -> Profile:
        """Return the behaviour of who draws one of several policies before each game and keeps it.

        sigma(a | I) = sum_k w_k r_k(I) sigma_k(a | I) / sum_k w_k r_k(I), with r_k the probability of the player's own moves to I: players
        remember their moves (Kuhn 1953).
        """
        chosen = weights or [1.0 / len(profiles)] * len(profiles)
        players = self.task.num_players
        reach = [torch.full((len(self.chance), players), w, dtype=torch.float64) for w in chosen]
        found: Profile = []
        for number, level in enumerate(self.levels):
            own = [r.gather(1, level.player[:, None]) for r in reach]
            total = torch.stack(own).sum(0)
            mixed = torch.stack([o * p[number] for o, p in zip(own, profiles)]).sum(0) / total.clamp(min=1e-300)
            even = level.mask.double() / level.mask.double().sum(1, keepdim=True)
            found.append(torch.where(total > 0, mixed, even))
            reach = [self._next_reach(level, r, p[number]) for r, p in zip(reach, profiles)]
        return found

    def _next_reach(self, level: Level, reach: Tensor, probability: Tensor) -> Tensor:
        """Return how likely each player's own moves lead to the nodes of the next level, [m, P]."""
        nodes, actions = (level.child >= 0).nonzero().unbind(1)
        order = level.child[nodes, actions].argsort()
        nodes, actions = nodes[order], actions[order]
        after = reach[nodes].clone()
        mover = level.player[nodes]
        after[torch.arange(len(nodes)), mover] *= probability[nodes, actions]
        return after

    # ---- values

    def value(self, profile: Profile) -> Tensor:
        """Return the expected reward of each player, [P] float64."""
        after: Tensor | None = None
        for level, probability in zip(reversed(self.levels), reversed(profile)):
            after = (self._action_values(level, after) * probability[:, :, None]).sum(1)
        assert after is not None
        return (self.chance[:, None] * after).sum(0)

    def _action_values(self, level: Level, after: Tensor | None) -> Tensor:
        """Return the value of each action for each player, [n, A, P]."""
        values = level.reward
        if after is not None:
            goes_on = level.child >= 0
            values = values + torch.where(goes_on[:, :, None], after[level.child.clamp(min=0)], 0.0)
        return values

    def best_response(self, profile: Profile, player: int) -> float:
        """Return what a player gains on average that knows the policies of the others and plays its best against them."""
        weights = self._others_reach(profile, player)
        after: Tensor | None = None
        for number in range(len(self.levels) - 1, -1, -1):
            level, probability = self.levels[number], profile[number]
            values = self._action_values(level, after)
            own = values[:, :, player] * weights[number][:, None]
            count = int(level.infoset.max()) + 1
            each = torch.zeros(count, own.shape[1], dtype=torch.float64).index_add(0, level.infoset, own)
            best = torch.where(level.mask, each[level.infoset], -torch.inf).argmax(1)
            is_own = level.player == player
            chosen = torch.nn.functional.one_hot(best, own.shape[1]).double()
            after = (values * torch.where(is_own[:, None], chosen, probability)[:, :, None]).sum(1)
        assert after is not None
        return float((self.chance * after[:, player]).sum())

    def _others_reach(self, profile: Profile, player: int) -> list[Tensor]:
        """Return how likely chance and the others' moves lead to the nodes of each level."""
        reach = self.chance
        found = []
        for level, probability in zip(self.levels, profile):
            found.append(reach)
            nodes, actions = (level.child >= 0).nonzero().unbind(1)
            order = level.child[nodes, actions].argsort()
            nodes, actions = nodes[order], actions[order]
            moved = torch.where(level.player[nodes] == player, 1.0, probability[nodes, actions])
            reach = reach[nodes] * moved
        return found

    def exploitability(self, profile: Profile) -> float:
        """Return the mean over the players of what each could gain by its best response, as OpenSpiel's `exploitability`.

        (1 / P) sum_p (max_{s'} u_p(s', s_-p) - u_p(s)); 0 in equilibrium.
        """
        value = self.value(profile)
        players = range(self.task.num_players)
        return sum(self.best_response(profile, p) - float(value[p]) for p in players) / self.task.num_players


def _infosets(obs: Any, player: Tensor) -> Tensor:
    """Number what movers see, [n] int64; equal observations of one player are one."""
    parts = list(obs.values()) if isinstance(obs, dict) else [obs]
    rows = torch.cat([player[:, None].double(), *(part.flatten(1).double() for part in parts)], 1)
    return torch.unique(rows, dim=0, return_inverse=True)[1]


def exploitability(task: TensorEnv, probabilities: Callable[[Any, Tensor], Tensor]) -> float:
    """Return the exploitability of a policy `(obs, mask) -> probabilities`; see `GameTree.exploitability`."""
    tree = GameTree(task)
    return tree.exploitability(tree.profile(probabilities))
