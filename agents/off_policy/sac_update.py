"""One gradient step of soft actor-critic with the derivatives written out, in memory that is allocated once."""

from __future__ import annotations

import torch
from torch import Tensor

from polyathlon.agents.parts.flat_adam import FlatAdam
from polyathlon.agents.parts.products import hidden_memory
from polyathlon.agents.parts.replay import Transitions
from polyathlon.agents.parts.squashed_gaussian import (
    LOG_SQRT_2_PI,
    SAC_LOG_STD_MAX,
    SAC_LOG_STD_MIN,
    log_one_minus_tanh_squared,
)
from polyathlon.agents.parts.targets import polyak_, td_target

from .critics_update import CriticsUpdate
from .perceptrons import backward, forward, layers_of


class SACUpdate(CriticsUpdate):
    """Gradient steps on an actor and a pair of critics.

    The order of a step is: temperature, critics, actor, target copies; the actor samples once for the states and their
    successors, as in Stable-Baselines3. Losses are those of Haarnoja et al. 2018 with half the squared error.

    Args:
        actor: optimiser over the actor's flat parameters: layers, then weights and biases of both heads side by side.
        critic: optimiser over the flat parameters of both critics, one after the other.
        target: [P] flat parameters of the target critics.
        obs_size: O.
        action_size: A.
        actor_widths: hidden widths of the actor.
        critic_widths: hidden widths of a critic.
        critics: number of critics.
        batch_size: B.
        experts: number of Gaussians K in the actor's head; a single one for soft actor-critic. What follows the head in the
            actor's parameters is left to a subclass.
        dtype: in which hidden layers are kept and multiplied; see `hidden_dtype`.
    """

    metric_names: tuple[str, ...] = ("critic_loss", "actor_loss", "ent_coef", "ent_coef_loss")

    def __init__(
        self,
        actor: FlatAdam,
        critic: FlatAdam,
        target: Tensor,
        obs_size: int,
        action_size: int,
        actor_widths: list[int],
        critic_widths: list[int],
        critics: int,
        batch_size: int,
        experts: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(critic, target, obs_size, action_size, critic_widths, critics, batch_size, dtype)
        self.actor = actor
        outputs = 2 * experts * action_size
        sizes = [obs_size, *actor_widths, outputs]
        self.actor_layers, self.actor_end = layers_of(actor.vector.data, actor.gradient, sizes)
        empty = actor.vector.new_empty
        both, batch = 2 * batch_size, batch_size
        self.states = empty(both, obs_size)
        self.eps = empty((experts + 1) * batch, action_size)
        self.actor_outs = [*hidden_memory(target, both, actor_widths, dtype), empty(both, outputs)]
        self.actor_slopes = [x.new_empty(batch, x.shape[1]) for x in self.actor_outs[:-1]]
        self.head_slope = empty(batch, outputs)

    @torch.no_grad()
    def step(
        self,
        batch: Transitions,
        log_alpha: Tensor,
        alpha_optimizer: torch.optim.Optimizer | None,
        learning_rate: float,
        gamma: float,
        tau: float,
        target_entropy: float,
        generator: torch.Generator | None,
        eps: Tensor | None = None,
    ) -> None:
        """Take one gradient step.

        Args:
            batch: B transitions.
            log_alpha: [] logarithm of the temperature, with `.grad` set here.
            alpha_optimizer: steps the temperature; None keeps it.
            learning_rate: step size of actor and critics.
            gamma: discount factor.
            tau: how far the target critics move; 0 leaves them.
            target_entropy: entropy that the temperature aims at.
            generator: source of the noise.
            eps: [2 B, A] noise instead, for states and successors.
        """
        rows, size = self.batch_size, self.obs_size
        self.states[:rows], self.states[rows:] = batch.obs, batch.next_obs
        noise = self.eps.normal_(generator=generator) if eps is None else self.eps.copy_(eps)
        head = forward(self.actor_layers, self.states, self.actor_outs)
        mean, raw = head[:, : self.action_size], head[:, self.action_size :]
        log_std = raw.clamp(SAC_LOG_STD_MIN, SAC_LOG_STD_MAX)
        spread = log_std.exp().mul_(noise)
        u = mean + spread
        action = torch.tanh(u)
        logp = (-0.5 * noise.square() - log_std - LOG_SQRT_2_PI - log_one_minus_tanh_squared(u)).sum(1)

        alpha = log_alpha.exp()
        gap = logp[:rows].mean() + target_entropy
        alpha_loss = -log_alpha * gap
        if alpha_optimizer is not None:
            log_alpha.grad = -gap.reshape(log_alpha.shape)
            alpha_optimizer.step()

        self.inputs[:, :size], self.inputs[:, size:] = batch.next_obs, action[rows:]
        q_next = self._values(self.targets, self.inputs, keep=False).amin(1)
        y = td_target(batch.reward, batch.done, q_next, gamma, alpha, logp[rows:])
        critic_loss = self._critic_step(batch.obs_action, y, learning_rate)

        self.inputs[:, :size], self.inputs[:, size:] = batch.obs, action[:rows]
        q = self._values(self.plain_critics, self.inputs)
        lowest, chosen = q.min(1)
        by_action = self._action_slope(chosen)
        own, std_noise = action[:rows], spread[:rows]
        slope_u = (2 * alpha * own - by_action * (1 - own.square())).div_(rows)
        self.head_slope[:, : self.action_size] = slope_u
        is_inside = (raw[:rows] > SAC_LOG_STD_MIN) & (raw[:rows] < SAC_LOG_STD_MAX)
        self.head_slope[:, self.action_size :] = (slope_u * std_noise - alpha / rows) * is_inside
        backward(
            self.actor_layers,
            self.states[:rows],
            [x[:rows] for x in self.actor_outs],
            self.head_slope,
            self.actor_slopes,
        )
        self.actor.clipped_step(learning_rate, None)
        if tau:
            polyak_(self.target, self.critic.vector.data, tau)
        actor_loss = alpha * logp[:rows].mean() - lowest.mean()
        self._record(critic_loss, actor_loss, alpha, alpha_loss)
