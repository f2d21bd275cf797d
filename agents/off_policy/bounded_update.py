"""Memory and derivatives of an actor whose mean is squashed by tanh, deterministic or with standard deviations of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from polyathlon.agents.parts.action_distributions import LOG_SQRT_2_PI
from polyathlon.agents.parts.flat_adam import FlatAdam, section
from polyathlon.agents.parts.products import hidden_memory
from polyathlon.agents.parts.squashed_gaussian import OFFLINE_LOG_STD_MAX, OFFLINE_LOG_STD_MIN

from .bounded_policy import BoundedPolicy
from .perceptrons import backward, forward, layers_of


class BoundedActor:
    """Forward and backward passes of the actor of a `BoundedPolicy`, in memory that is allocated once.

    Args:
        policy: its policy.
        rows: number of observations in a forward pass.
        with_target: take the target actor, which is not trained.
        outs: memory [rows, width] of the layers to share with others that are not in use at the same time.
        slopes: the same for the derivatives by the hidden layers.
    """

    def __init__(
        self,
        policy: BoundedPolicy,
        rows: int,
        with_target: bool = False,
        outs: list[Tensor] | None = None,
        slopes: list[Tensor] | None = None,
    ) -> None:
        obs_size, action_size = policy.sizes
        sizes = [obs_size, *policy.actor_widths, action_size]
        adam = policy.actor.optimizer
        assert isinstance(adam, FlatAdam)
        self.adam = adam
        if with_target:
            vector: Tensor = policy.actor_target_vector
            self.layers, end = layers_of(vector, None, sizes)
        else:
            vector = adam.vector.data
            self.layers, end = layers_of(vector, adam.gradient, sizes)
        if policy.is_gaussian and not with_target:
            self.log_std, _ = section(vector, end, (action_size,))
            self.log_std_gradient, end = section(adam.gradient, end, (action_size,))
        assert end == vector.numel()
        hidden = hidden_memory(vector, rows, policy.actor_widths, policy.product_dtype)
        self.outs = [*_memory(hidden, outs), vector.new_empty(rows, action_size)]
        self.slopes = _memory([torch.empty_like(x) for x in hidden], slopes)

    def mean(self, obs: Tensor) -> Tensor:
        """Return the mean [rows, A] at observations [rows, O]; it stays in memory for the backward pass."""
        return forward(self.layers, obs, self.outs).tanh_()

    def std(self) -> Tensor:
        """Return the standard deviations [A]."""
        return self.log_std.clamp(OFFLINE_LOG_STD_MIN, OFFLINE_LOG_STD_MAX).exp()

    def step(self, obs: Tensor, slope: Tensor, learning_rate: float) -> None:
        """Back-propagate the derivative by the mean of the first rows and take one step.

        Args:
            obs: [b, O] the first rows of what `mean` was given.
            slope: [b, A] derivative of the loss by their means; it is written over.
            learning_rate: step size.
        """
        number = obs.shape[0]
        outs = [out[:number] for out in self.outs]
        torch.ops.aten.tanh_backward.grad_input(slope, outs[-1], grad_input=slope)
        backward(self.layers, obs, outs, slope, [memory[:number] for memory in self.slopes])
        self.adam.clipped_step(learning_rate, None)

    def imitate(
        self, obs: Tensor, action: Tensor, weight: Tensor | None, learning_rate: float
    ) -> tuple[Tensor, Tensor]:
        """Take one step on -mean(weight log pi(action | obs)), after `mean` of observations that begin with `obs`.

        Args:
            obs: [b, O].
            action: [b, A] recorded actions.
            weight: [b]; None weighs all alike.
            learning_rate: step size.

        Returns:
            The loss [] and the mean log-density [].
        """
        number = obs.shape[0]
        inverse = (-self.log_std.clamp(OFFLINE_LOG_STD_MIN, OFFLINE_LOG_STD_MAX)).exp()
        scaled = (action - self.outs[-1][:number]).mul_(inverse)
        logp = self._log_density(scaled, inverse)
        share = scaled.new_full((number,), 1 / number) if weight is None else weight / number
        is_inside = (self.log_std > OFFLINE_LOG_STD_MIN) & (self.log_std < OFFLINE_LOG_STD_MAX)
        torch.mul(share @ (1 - scaled.square()), is_inside, out=self.log_std_gradient)
        self.step(obs, scaled.mul_(inverse).mul_(-share[:, None]), learning_rate)
        return -(share @ logp), logp.mean()

    @staticmethod
    def _log_density(scaled: Tensor, inverse: Tensor) -> Tensor:
        """Return [b] from (action - mean) / std [b, A] and 1 / std [A]."""
        return -0.5 * scaled.square().sum(1) + (inverse.log() - LOG_SQRT_2_PI).sum()


def _memory(own: list[Tensor], given: list[Tensor] | None) -> list[Tensor]:
    """Return tensors like `own`: those that are given where they fit."""
    kept = [] if given is None else given[: len(own)]
    fits = [(x.shape, x.dtype) for x in kept] == [(x.shape, x.dtype) for x in own]
    return kept if fits else own


def critic_arguments(
    policy: BoundedPolicy, batch_size: int
) -> tuple[FlatAdam, Tensor, int, int, list[int], int, int, torch.dtype]:
    """Return the arguments of `CriticsUpdate` for the critics of a policy."""
    adam = policy.critic.optimizer
    assert isinstance(adam, FlatAdam)
    return (
        adam,
        policy.target,
        *policy.sizes,
        policy.critic_widths,
        len(policy.critic.q_networks),
        batch_size,
        policy.product_dtype,
    )
