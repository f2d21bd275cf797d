"""Gaussians squashed into (-1, 1) by tanh, as soft actor-critic samples its actions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)
LOG_2 = math.log(2)
# bounds of the log-deviation: soft actor-critic's, and those of agents that imitate a dataset with a fixed deviation
SAC_LOG_STD_MIN, SAC_LOG_STD_MAX = -20.0, 2.0
OFFLINE_LOG_STD_MIN, OFFLINE_LOG_STD_MAX = -5.0, 2.0


def log_one_minus_tanh_squared(u: Tensor) -> Tensor:
    """Return log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), exact for large |u|."""
    return 2 * (LOG_2 - u - softplus(-2 * u))


def tanh_gaussian(mean: Tensor, log_std: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """Sample a = tanh(mean + exp(log_std) eps) with its log-density (Haarnoja et al. 2018, equation 21).

    Args:
        mean: [..., A].
        log_std: [..., A].
        eps: [..., A] standard normal noise.

    Returns:
        The action [..., A] and log pi(a) [...], summed over its components.
    """
    u = mean + log_std.exp() * eps
    density = -0.5 * eps.square() - log_std - LOG_SQRT_2_PI - log_one_minus_tanh_squared(u)
    return torch.tanh(u), density.sum(-1)
