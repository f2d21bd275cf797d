"""Gradient steps of a critic ensemble: targets from a few members, regression of all, and the mean's slope by the action."""

from __future__ import annotations

import torch
from torch import Tensor

from polyathlon.agents.parts.flat_adam import FlatAdam
from polyathlon.agents.parts.targets import polyak_

from .critics_update import GradientStep
from .ensemble import CriticEnsemble, EnsembleLayers, EnsemblePass


class EnsembleUpdate(GradientStep):
    """What the updates of RLPD and EXPO have in common, in memory that is allocated once.

    Args:
        critic: the ensemble, with an optimiser over all its parameters (see `flatten_ensemble`).
        target: [P] flat parameters of the target critics.
        obs_size: O.
        action_size: A.
        batch_size: B.
        dtype: type of the matrix products.
    """

    def __init__(
        self,
        critic: CriticEnsemble,
        target: Tensor,
        obs_size: int,
        action_size: int,
        batch_size: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(batch_size, target)
        optimizer = critic.optimizer
        assert isinstance(optimizer, FlatAdam)
        self.critic, self.optimizer, self.target = critic, optimizer, target
        self.obs_size, self.action_size, self.dtype = obs_size, action_size, dtype
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

    def refresh(self) -> None:
        """Take up parameters that were changed from outside."""
        if self._low:
            self._working.copy_(self.optimizer.vector.data)

    def target_values(self, obs: Tensor, action: Tensor, members: Tensor) -> Tensor:
        """Return values [M, R] of the chosen target critics at obs [R, O] and action [R, A]; [M, R, K] for [R, K, A]."""
        shape = action.shape[:-1]
        key = (members.numel(), shape.numel())
        if key not in self._passes:
            self._passes[key] = EnsemblePass(self.critic, *key, self.device, self.dtype)
        space = self._passes[key]
        inputs = space.inputs.view(*shape, -1)
        inputs[..., : self.obs_size] = obs if action.dim() == 2 else obs.unsqueeze(1)
        inputs[..., self.obs_size :] = action
        return space.forward(self.targets.members(members, self.dtype)).view(-1, *shape)

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
