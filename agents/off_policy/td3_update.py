"""One gradient step of TD3, with or without the imitation of TD3+BC, with the derivatives written out."""

from __future__ import annotations

import torch
from torch import Tensor

from polyathlon.agents.parts.offline_losses import q_scale, smooth_target_action
from polyathlon.agents.parts.replay import Transitions
from polyathlon.agents.parts.targets import polyak_, td_target

from .bounded_policy import BoundedPolicy
from .bounded_update import BoundedActor, critic_arguments
from .critics_update import CriticsUpdate
from .perceptrons import forward, input_slope


class TD3Update(CriticsUpdate):
    """Gradient steps on a deterministic actor and its critics.

    Critics are regressed on r + gamma (1 - done) min_i Q_i'(s', a'), a' the target actor's action with clipped noise
    (half the squared error). The actor ascends Q_1, or with `imitation` descends -lam mean Q_1(s, pi(s)) +
    mean (pi(s) - a)^2 with lam = imitation / mean |Q_1|.

    Args:
        policy: networks with a target actor.
        batch_size: B.
    """

    metric_names = ("critic_loss", "q")

    def __init__(self, policy: BoundedPolicy, batch_size: int) -> None:
        super().__init__(*critic_arguments(policy, batch_size))
        self.actor = BoundedActor(policy, batch_size, slopes=self.slopes)
        self.actor_target = BoundedActor(policy, batch_size, True, self.outs[0], self.slopes)
        self.actor_target_vector = policy.actor_target_vector
        self.noise = self.inputs.new_empty(batch_size, self.action_size)

    @torch.no_grad()
    def step(
        self,
        batch: Transitions,
        learning_rate: float,
        gamma: float,
        noise_std: float,
        noise_clip: float,
        generator: torch.Generator | None,
        eps: Tensor | None = None,
    ) -> None:
        """Take one gradient step on the critics.

        Args:
            batch: B transitions.
            learning_rate: step size.
            gamma: discount factor.
            noise_std: standard deviation of the noise on the target action.
            noise_clip: bound of that noise.
            generator: source of the noise.
            eps: [B, A] standard normal noise instead.
        """
        size = self.obs_size
        noise = self.noise.normal_(generator=generator) if eps is None else self.noise.copy_(eps)
        action = self.actor_target.mean(batch.next_obs)
        self.inputs[:, :size] = batch.next_obs
        self.inputs[:, size:] = smooth_target_action(action, noise, noise_std, noise_clip)
        q_next = self._values(self.targets, self.inputs, keep=False).amin(1)
        y = td_target(batch.reward, batch.done, q_next, gamma)
        self._record(self._critic_step(batch.obs_action, y, learning_rate), y.mean())

    @torch.no_grad()
    def actor_step(self, batch: Transitions, learning_rate: float, tau: float, imitation: float | None = None) -> None:
        """Take one gradient step on the actor, and move the targets.

        Args:
            batch: B transitions.
            learning_rate: step size.
            tau: how far the targets move.
            imitation: TD3+BC's alpha; None is TD3.
        """
        rows, size = self.batch_size, self.obs_size
        own = self.actor.mean(batch.obs)
        self.inputs[:, :size], self.inputs[:, size:] = batch.obs, own
        layers = self.plain_critics[0]
        q = forward(layers, self.inputs, self.outs[0])
        slope = input_slope(layers, self.outs[0], self.ones, self.slopes, size).neg_()
        if imitation is None:
            slope.div_(rows)
        else:
            slope.mul_(q_scale(q, imitation) / rows).add_(own - batch.action, alpha=2 / own.numel())
        self.actor.step(batch.obs, slope, learning_rate)
        polyak_(self.target, self.critic.vector.data, tau)
        polyak_(self.actor_target_vector, self.actor.adam.vector.data, tau)
