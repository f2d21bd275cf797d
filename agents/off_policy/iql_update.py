"""One gradient step of implicit Q-learning, with the derivatives written out."""

from __future__ import annotations

import torch

from polyathlon.agents.parts.flat_adam import FlatAdam
from polyathlon.agents.parts.offline_losses import advantage_weight, expectile_weight
from polyathlon.agents.parts.replay import Transitions
from polyathlon.agents.parts.targets import polyak_, td_target

from .bounded_policy import BoundedPolicy
from .bounded_update import BoundedActor, critic_arguments
from .critics_update import CriticsUpdate
from .perceptrons import backward, forward, layers_of


class IQLUpdate(CriticsUpdate):
    """Gradient steps on a value, critics and a Gaussian actor, none of which looks at an action outside the data.

    With u = min_i Q_i'(s, a) - V(s): the value descends mean |tau - 1[u < 0]| u^2, the critics are regressed on
    r + gamma (1 - done) V(s') (half the squared error), the actor imitates with weights min(exp(beta u), limit). All
    three read V before its step.

    Args:
        policy: networks with a value and a Gaussian actor.
        batch_size: B.
    """

    metric_names = ("critic_loss", "value_loss", "actor_loss", "value", "weight")

    def __init__(self, policy: BoundedPolicy, batch_size: int) -> None:
        super().__init__(*critic_arguments(policy, batch_size))
        self.actor = BoundedActor(policy, batch_size, outs=self.outs[0], slopes=self.slopes)
        adam = policy.value_net.optimizer
        assert isinstance(adam, FlatAdam)
        self.value = adam
        widths = policy.critic_widths
        self.value_layers, end = layers_of(adam.vector.data, adam.gradient, [self.obs_size, *widths, 1])
        assert end == adam.vector.numel()

    @torch.no_grad()
    def step(
        self,
        batch: Transitions,
        learning_rate: float,
        gamma: float,
        tau: float,
        expectile: float,
        beta: float,
        max_weight: float,
    ) -> None:
        """Take one gradient step.

        Args:
            batch: B transitions.
            learning_rate: step size.
            gamma: discount factor.
            tau: how far the target critics move.
            expectile: of the value.
            beta: inverse temperature of the actor's weights.
            max_weight: their bound.
        """
        rows, outs = self.batch_size, self.outs[0]
        y = td_target(batch.reward, batch.done, forward(self.value_layers, batch.next_obs, outs)[:, 0], gamma)
        q = self._values(self.targets, batch.obs_action, keep=False).amin(1)
        value = forward(self.value_layers, batch.obs, outs)[:, 0]
        gap = q - value
        pull = expectile_weight(gap, expectile).mul_(gap)
        value_loss, mean_value = (pull @ gap) / rows, value.mean()
        backward(self.value_layers, batch.obs, outs, pull.mul_(-2 / rows)[:, None], self.slopes)
        self.value.clipped_step(learning_rate, None)

        weight = advantage_weight(gap, beta, max_weight)
        self.actor.mean(batch.obs)
        actor_loss, _ = self.actor.imitate(batch.obs, batch.action, weight, learning_rate)

        critic_loss = self._critic_step(batch.obs_action, y, learning_rate)
        polyak_(self.target, self.critic.vector.data, tau)
        self._record(critic_loss, value_loss, actor_loss, mean_value, weight.mean())
