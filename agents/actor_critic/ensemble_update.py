"""Gradient steps of a critic ensemble: targets from a few members, regression of all, and the mean's slope by the action."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from polyathlon.agents.parts.flat_adam import FlatAdam
from polyathlon.agents.parts.targets import polyak_

from .ensemble import CriticEnsemble, EnsembleLayers, EnsemblePass


class EnsembleUpdate:
    """What the updates of RLPD and EXPO have in common, in memory that is allocated once.

    Args:
        critic: the ensemble, its parameters in the optimiser's vector.
        optimizer: of all members at once.
        target: [P] flat parameters of the target critics.
        obs_size: O.
        action_size: A.
        batch_size: B.
        dtype: type of the matrix products.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("critic_loss",)

    def __init__(
        self,
        critic: CriticEnsemble,
        optimizer: FlatAdam,
        target: Tensor,
        obs_size: int,
        action_size: int,
        batch_size: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.critic, self.optimizer, self.target = critic, optimizer, target
        self.obs_size, self.action_size, self.batch_size, self.dtype = obs_size, action_size, batch_size, dtype
        vector, gradient = optimizer.vector.data, optimizer.gradient
        self._low = dtype != torch.float32
        self.device = vector.device
        self._working = vector.to(dtype) if self._low else vector
        self._slope = gradient.to(dtype) if self._low else gradient
        self.layers, self.gradients = EnsembleLayers(self._working, critic), EnsembleLayers(self._slope, critic)
        self.targets = EnsembleLayers(target, critic)
        if self._low:  # the last layer stays as it is: values are sums in float32
            exact = EnsembleLayers(vector, critic)
            self.layers.weight[-1], self.layers.bias[-1] = exact.weight[-1], exact.bias[-1]
        self.whole = EnsemblePass(critic, critic.num_critics, batch_size, self.device, dtype)
        self._passes: dict[tuple[int, int], EnsemblePass] = {}
        self.metrics = torch.zeros(len(self.metric_names), device=self.device)
        self.count = 0

    def refresh(self) -> None:
        """Take up parameters that were changed from outside."""
        if self._low:
            self._working.copy_(self.optimizer.vector.data)

    def target_values(self, obs: Tensor, action: Tensor, members: Tensor) -> Tensor:
        """Return values [M, R] of the chosen target critics at obs [R, O] and action [R, A]."""
        key = (members.numel(), obs.shape[0])
        if key not in self._passes:
            self._passes[key] = EnsemblePass(self.critic, *key, self.device, self.dtype)
        space = self._passes[key]
        space.inputs[:, : self.obs_size] = obs
        space.inputs[:, self.obs_size :] = action
        return space.forward(self.targets.members(members, self.dtype))

    def regress(self, obs_action: Tensor, y: Tensor, learning_rate: float, tau: float) -> Tensor:
        """Step all critics down the mean over members and rows of (Q_i - y)^2, move the targets, return the loss [].

        Args:
            obs_action: [B, O + A].
            y: [B] what the values should be.
            learning_rate: step size.
            tau: how far the target critics move.
        """
        self.whole.inputs.copy_(obs_action)
        error = self.whole.forward(self.layers) - y
        self.whole.backward(self.layers, error * (2 / error.numel()), self.gradients)
        if self._low:
            self.optimizer.gradient.copy_(self._slope)
        self.optimizer.clipped_step(learning_rate, None)
        self.refresh()
        if tau:
            polyak_(self.target, self.optimizer.vector.data, tau)
        return error.square().mean()

    def mean_slope(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean [] over members and rows of Q_i at obs [B, O] and action [B, A], and its slope by the action [B, A]."""
        self.whole.inputs[:, : self.obs_size] = obs
        self.whole.inputs[:, self.obs_size :] = action
        q = self.whole.forward(self.layers)
        first = self.whole.backward(self.layers, torch.full_like(q, 1 / q.numel()), None)
        by_action = torch.bmm(first, self.layers.weight[0][:, self.obs_size :].transpose(1, 2))
        return q.mean(), by_action.float().sum(0)

    def _record(self, *metrics: Tensor) -> None:
        """Add the metrics of an update, in the order of `metric_names`."""
        self.metrics += torch.stack([x.reshape(()) for x in metrics])
        self.count += 1

    def report(self) -> dict[str, float]:
        """Return the means of `metric_names` since the last call."""
        means = (self.metrics / max(self.count, 1)).tolist()
        self.metrics.zero_()
        self.count = 0
        return dict(zip(self.metric_names, means, strict=True))
