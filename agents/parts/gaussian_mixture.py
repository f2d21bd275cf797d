"""Mixtures of diagonal Gaussians: their densities, one expert of each row."""

from __future__ import annotations

import torch
from torch import Tensor

from .action_distributions import gaussian_log_prob
from .squashed_gaussian import log_one_minus_tanh_squared


def of_expert(values: Tensor, expert: Tensor) -> Tensor:
    """Return what belongs to one expert of each row: [B] or [B, A] out of [B, K] or [B, K, A], for experts [B] int64."""
    assert values.shape[0] == expert.shape[0] and expert.dim() == 1
    return values[torch.arange(expert.shape[0], device=expert.device), expert]


def gmm_logp(log_w: Tensor, mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """Log-density of a mixture: log sum_k w_k N(a; mean_k, std_k^2).

    Args:
        log_w: [B, K] logarithms of the weights.
        mean: [B, K, A].
        log_std: [K, A] or [B, K, A].
        action: [B, A].

    Returns:
        [B].
    """
    assert mean.dim() == 3 and action.dim() == 2 and log_w.shape == mean.shape[:2]
    return torch.logsumexp(log_w + gaussian_log_prob(mean, log_std, action.unsqueeze(1)), -1)


def tanh_gmm_logp(log_w: Tensor, mean: Tensor, log_std: Tensor, u: Tensor) -> Tensor:
    """Log-density of a = tanh(u) where u follows a mixture; see `gmm_logp`.

    Args:
        log_w: [B, K] logarithms of the weights.
        mean: [B, K, A].
        log_std: [K, A] or [B, K, A].
        u: [B, A] the action before the squashing.

    Returns:
        [B].
    """
    return gmm_logp(log_w, mean, log_std, u) - log_one_minus_tanh_squared(u).sum(-1)
