"""Exploration that stays near what was demonstrated, on finite tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from polyathlon.agents.parts.soft_planning import bc_counts, bonus, plan
from polyathlon.envs.errors import UsageError, check_non_negative, check_positive
from polyathlon.envs.probes.finite import FiniteTask

Demonstration = Sequence[tuple[int, int]]  # (state, action) of every step of an episode


class DemonstrationPlanner:
    """Maximise the return minus lam KL(pi, clone of the demonstrations), with optimism about what was seldom tried.

    Tiapkin et al. 2024, "Demonstration-Regularized RL". Each episode plans on the counted transitions with a bonus
    c H / sqrt(N(s, a)) and plays what it planned; `policy` is the plan on the same counts without a bonus. Without demonstrations the
    clone is uniform, and the divergence an entropy bonus. lam should shrink with the number of demonstrations: few of them are a bad
    clone, and staying near it costs.

    Args:
        task: the finite task. Its rewards are known to the planner, its transitions are not.
        demonstrations: episodes of the task's horizon; states that none of them visits are cloned as uniform.
        lam: weight of the divergence.
        c: optimism; 0 plans greedily on what was counted.
        kappa: smoothing of the clone.
        seed: of the episodes.

    Attributes:
        clone: the cloned policy [H, S, A].
        visits: N(s, a, s') [S, A, S] so far.
        unseen: share of the (step, state) pairs that no demonstration visits.

    Raises:
        UsageError: a demonstration has another length or leaves the task's spaces, or a number means nothing.
    """

    def __init__(
        self,
        task: FiniteTask,
        demonstrations: Sequence[Demonstration] = (),
        lam: float = 0.05,
        c: float = 0.1,
        kappa: float = 1.0,
        seed: int = 0,
    ) -> None:
        check_positive(lam=lam)
        check_non_negative(c=c)
        self.task, self.lam, self.c = task, float(lam), float(c)
        states, actions = task.rewards.shape
        counts = torch.zeros((task.horizon, states, actions), dtype=torch.float64)
        for number, episode in enumerate(demonstrations):
            if len(episode) != task.horizon:
                raise UsageError(
                    f"demonstration {number} has {len(episode)} steps; an episode of the task has {task.horizon}"
                )
            for h, (s, a) in enumerate(episode):
                if not (0 <= s < states and 0 <= a < actions):
                    raise UsageError(
                        f"demonstration {number} has ({s}, {a}) at step {h}; the task has {states} states and {actions} actions"
                    )
                counts[h, s, a] += 1
        self.clone = bc_counts(counts, kappa)
        self.unseen = float((counts.sum(-1) == 0).double().mean())
        self.rewards = torch.as_tensor(task.rewards)
        self.visits = torch.zeros((states, actions, states), dtype=torch.float64)
        self.seed, self.episodes = seed, 0

    def plan(self, c: float) -> tuple[Tensor, Tensor]:
        """Return values [H, S] and the policy [H, S, A] on the counted transitions, with bonus c; see `soft_planning.plan`."""
        number = self.visits.sum(-1)
        states = self.visits.shape[0]
        counted = torch.where(number[..., None] > 0, self.visits / number[..., None].clamp_min(1), 1.0 / states)
        optimism = bonus(number, self.task.horizon, c) if c else 0.0
        return plan(counted, self.rewards, self.clone.log(), self.lam, optimism)

    @property
    def policy(self) -> Tensor:
        """The policy [H, S, A] that was learned."""
        return self.plan(0.0)[1]

    def learn(self, episodes: int) -> DemonstrationPlanner:
        """Explore for some episodes."""
        for _ in range(episodes):
            policy = self.plan(self.c)[1].numpy()
            self._count(play(self.task, policy, self.seed, self.episodes))
            self.episodes += 1
        return self

    def _count(self, episode: list[tuple[int, int, int]]) -> None:
        for s, a, following in episode:
            self.visits[s, a, following] += 1


def play(task: FiniteTask, policy: np.ndarray, seed: int, number: int) -> list[tuple[int, int, int]]:
    """Play one episode, which depends on the policy, the seed and its number alone; return (state, action, next state) of each step.

    Args:
        task: the task.
        policy: probabilities [H, S, A].
        seed: of all episodes.
        number: of this one.
    """
    draws = np.random.default_rng((seed, number))
    state, _ = task.reset(seed=int(draws.integers(1 << 31)))
    steps = []
    for h in range(task.horizon):
        action = int(draws.choice(policy.shape[-1], p=policy[h, state]))
        following = task.step(action)[0]
        steps.append((state, action, following))
        state = following
    return steps


def demonstrate(task: FiniteTask, policy: np.ndarray, number: int, seed: int) -> list[list[tuple[int, int]]]:
    """Return that many demonstrations of a policy [H, S, A]."""
    return [[(s, a) for s, a, _ in play(task, policy, seed, k)] for k in range(number)]
