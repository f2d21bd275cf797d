"""One gradient step of advantage-weighted actor-critic, with the derivatives written out."""

from __future__ import annotations

import torch
from torch import Tensor

from polyathlon.agents.parts.offline_losses import advantage_weight
from polyathlon.agents.parts.replay import Transitions
from polyathlon.agents.parts.targets import polyak_, td_target

from .bounded_policy import BoundedPolicy
from .bounded_update import BoundedActor, critic_arguments
from .critics_update import CriticsUpdate


class AWACUpdate(CriticsUpdate):
    """Gradient steps on critics and a Gaussian actor that imitates what is better than itself.

    Critics are regressed on r + gamma (1 - done) min_i Q_i'(s', a'), a' drawn from the actor (half the squared error).
    The actor descends -mean(w log pi(a | s)) with w = min(exp(A / lambda), limit) and A = min Q(s, a) - min Q(s, b), b drawn
    from the actor. Both values are those before the critics' step.

    Args:
        policy: networks with a Gaussian actor.
        batch_size: B.
    """

    metric_names = ("critic_loss", "actor_loss", "advantage", "weight")

    def __init__(self, policy: BoundedPolicy, batch_size: int) -> None:
        super().__init__(*critic_arguments(policy, batch_size))
        both = 2 * batch_size
        self.actor = BoundedActor(policy, both)
        self.states = self.inputs.new_empty(both, self.obs_size)
        self.noise = self.inputs.new_empty(both, self.action_size)

    @torch.no_grad()
    def step(
        self,
        batch: Transitions,
        learning_rate: float,
        gamma: float,
        tau: float,
        beta: float,
        max_weight: float,
        generator: torch.Generator | None,
        eps: Tensor | None = None,
    ) -> None:
        """Take one gradient step.

        Args:
            batch: B transitions.
            learning_rate: step size.
            gamma: discount factor.
            tau: how far the target critics move.
            beta: 1 / lambda of the actor's weights.
            max_weight: their bound.
            generator: source of the noise.
            eps: [2 B, A] standard normal noise instead, for states and successors.
        """
        rows, size = self.batch_size, self.obs_size
        self.states[:rows], self.states[rows:] = batch.obs, batch.next_obs
        noise = self.noise.normal_(generator=generator) if eps is None else self.noise.copy_(eps)
        drawn = torch.addcmul(self.actor.mean(self.states), noise, self.actor.std()).clamp_(-1, 1)

        self.inputs[:, :size], self.inputs[:, size:] = batch.next_obs, drawn[rows:]
        y = td_target(batch.reward, batch.done, self._values(self.targets, self.inputs, keep=False).amin(1), gamma)
        self.inputs[:, :size], self.inputs[:, size:] = batch.obs, drawn[:rows]
        baseline = self._values(self.plain_critics, self.inputs, keep=False).amin(1)
        critic_loss = self._critic_step(batch.obs_action, y, learning_rate)
        advantage = self.q.amin(1) - baseline  # `q` holds the values of the data before the step

        weight = advantage_weight(advantage, beta, max_weight)
        actor_loss, _ = self.actor.imitate(batch.obs, batch.action, weight, learning_rate)
        polyak_(self.target, self.critic.vector.data, tau)
        self._record(critic_loss, actor_loss, advantage.mean(), weight.mean())
