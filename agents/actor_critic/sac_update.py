"""One gradient step of soft actor-critic with the derivatives written out, in memory that is allocated once."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from polyathlon.agents.parts.flat_adam import FlatAdam, section
from polyathlon.agents.parts.replay import Transitions
from polyathlon.agents.parts.squashed_gaussian import LOG_SQRT_2_PI, log_one_minus_tanh_squared
from polyathlon.agents.parts.targets import polyak_, td_target

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
METRICS = ("critic_loss", "actor_loss", "ent_coef", "ent_coef_loss")


class Layer(NamedTuple):
    """Weights [out, in] and biases [out] of a layer, and where their gradients go (None where none are wanted)."""

    weight: Tensor
    bias: Tensor
    weight_gradient: Tensor | None
    bias_gradient: Tensor | None


def layers_of(vector: Tensor, gradient: Tensor | None, sizes: list[int], start: int = 0) -> tuple[list[Layer], int]:
    """View a stretch of a flat vector as the layers of a perceptron.

    Args:
        vector: [P] parameters, each layer's weight followed by its bias.
        gradient: [P] gradients, or None.
        sizes: widths from the input to the output.
        start: where the first weight begins.

    Returns:
        The layers, and the index behind the last.
    """
    layers = []
    for before, after in pairwise(sizes):
        weight, middle = section(vector, start, (after, before))
        bias, end = section(vector, middle, (after,))
        slopes: tuple[Tensor | None, Tensor | None] = (None, None)
        if gradient is not None:
            slopes = (section(gradient, start, (after, before))[0], section(gradient, middle, (after,))[0])
        layers.append(Layer(weight, bias, *slopes))
        start = end
    return layers, start


def forward(layers: list[Layer], x: Tensor, outs: list[Tensor]) -> Tensor:
    """Run a perceptron with rectified hidden layers; `outs` receive what each layer gives."""
    last = len(layers) - 1
    for i, layer in enumerate(layers):
        torch.addmm(layer.bias, x, layer.weight.t(), out=outs[i])
        x = outs[i].relu_() if i < last else outs[i]
    return x


def backward(layers: list[Layer], x: Tensor, outs: list[Tensor], slope: Tensor, slopes: list[Tensor]) -> Tensor:
    """Back-propagate `slope` [B, out]; gradients of the weights go where the layers say.

    Args:
        layers: the perceptron.
        x: [B, in] its input.
        outs: what each layer gave in `forward`.
        slope: derivative by the output.
        slopes: memory for the derivatives by the hidden layers.

    Returns:
        The derivative by the output of the first layer, [B, width].
    """
    for i in range(len(layers) - 1, -1, -1):
        layer, below = layers[i], outs[i - 1] if i else x
        if layer.weight_gradient is not None and layer.bias_gradient is not None:
            torch.mm(slope.t(), below, out=layer.weight_gradient)
            torch.sum(slope, 0, out=layer.bias_gradient)
        if i:
            torch.mm(slope, layer.weight, out=slopes[i - 1])
            torch.ops.aten.threshold_backward.grad_input(slopes[i - 1], below, 0, grad_input=slopes[i - 1])
            slope = slopes[i - 1]
    return slope


class SACUpdate:
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
    """

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
    ) -> None:
        self.actor, self.critic, self.target = actor, critic, target
        self.obs_size, self.action_size, self.batch_size = obs_size, action_size, batch_size
        outputs = 2 * experts * action_size
        sizes = [obs_size, *actor_widths, outputs]
        self.actor_layers, self.actor_end = layers_of(actor.vector.data, actor.gradient, sizes)
        self.critics: list[list[Layer]] = []
        self.plain_critics: list[list[Layer]] = []
        self.targets: list[list[Layer]] = []
        start, sizes = 0, [obs_size + action_size, *critic_widths, 1]
        for _ in range(critics):
            self.plain_critics.append(layers_of(critic.vector.data, None, sizes, start)[0])
            self.targets.append(layers_of(target, None, sizes, start)[0])
            layers, start = layers_of(critic.vector.data, critic.gradient, sizes, start)
            self.critics.append(layers)
        empty = actor.vector.new_empty
        both, batch = 2 * batch_size, batch_size
        self.states = empty(both, obs_size)
        self.eps = empty((experts + 1) * batch, action_size)
        self.actor_outs = [empty(both, width) for width in [*actor_widths, outputs]]
        self.actor_slopes = [empty(batch, width) for width in actor_widths]
        self.head_slope = empty(batch, outputs)
        self.outs = [[empty(batch, width) for width in [*critic_widths, 1]] for _ in range(critics)]
        self.slopes = [empty(batch, width) for width in critic_widths]
        self.inputs = empty(batch, obs_size + action_size)
        self.q = empty(batch, critics)
        self.names = METRICS
        self.metrics = empty(len(self.names)).zero_()
        self.count = 0

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
            gamma: discount.
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
        log_std = raw.clamp(LOG_STD_MIN, LOG_STD_MAX)
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
        q_next = self._values(self.targets, self.inputs).amin(1)
        y = td_target(batch.reward, batch.done, q_next, gamma, alpha, logp[rows:])
        critic_loss = self._critic_step(batch.obs_action, y, learning_rate)

        self.inputs[:, :size], self.inputs[:, size:] = batch.obs, action[:rows]
        q = self._values(self.plain_critics, self.inputs)
        lowest, chosen = q.min(1)
        by_action = self._action_slope(chosen)
        own, std_noise = action[:rows], spread[:rows]
        slope_u = (2 * alpha * own - by_action * (1 - own.square())).div_(rows)
        self.head_slope[:, : self.action_size] = slope_u
        is_inside = (raw[:rows] > LOG_STD_MIN) & (raw[:rows] < LOG_STD_MAX)
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
        self.metrics += torch.stack([x.reshape(()) for x in (critic_loss, actor_loss, alpha, alpha_loss)])
        self.count += 1

    def _values(self, critics: list[list[Layer]], inputs: Tensor) -> Tensor:
        """Values [B, critics]."""
        for i, layers in enumerate(critics):
            self.q[:, i] = forward(layers, inputs, self.outs[i])[:, 0]
        return self.q

    def _critic_step(self, inputs: Tensor, y: Tensor, learning_rate: float) -> Tensor:
        error = self._values(self.critics, inputs) - y[:, None]
        slope = error / self.batch_size
        for i, layers in enumerate(self.critics):
            backward(layers, inputs, self.outs[i], slope[:, i : i + 1], self.slopes)
        self.critic.clipped_step(learning_rate, None)
        return 0.5 * error.square().mean(0).sum()

    def _action_slope(self, chosen: Tensor) -> Tensor:
        """Derivative [B, A] of each row's chosen critic by the action."""
        total: Tensor | None = None
        for i, layers in enumerate(self.plain_critics):
            slope = (chosen == i).to(self.q.dtype)[:, None]
            first = backward(layers, self.inputs, self.outs[i], slope, self.slopes)
            part = first @ layers[0].weight[:, self.obs_size :]
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def report(self) -> dict[str, float]:
        """Return the means of the metrics called `names` since the last call."""
        means = (self.metrics / max(self.count, 1)).tolist()
        self.metrics.zero_()
        self.count = 0
        return dict(zip(self.names, means, strict=True))
