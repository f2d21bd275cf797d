"""Plain action distributions: diagonal Gaussians, and categorical ones with forbidden actions; actions as they have them."""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.agents.parts.observations import as_rows

LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)
FORBIDDEN_LOGIT = -1e9  # finite, so that 0 * log 0 is 0 in the entropy


def gaussian_log_prob(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """Log-density of a diagonal Gaussian.

    Args:
        mean: [..., A].
        log_std: [A] or [..., A].
        action: [..., A].

    Returns:
        [...], summed over the action's components.
    """
    scaled = (action - mean) * (-log_std).exp()
    return (-0.5 * scaled.square() - log_std - LOG_SQRT_2_PI).sum(-1)


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Entropy of a diagonal Gaussian with log standard deviations [..., A]; shape [...]."""
    return (log_std + 0.5 + LOG_SQRT_2_PI).sum(-1)


def masked_log_softmax(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Log-probabilities of a categorical distribution.

    Args:
        logits: [..., A].
        mask: [..., A] bool, the allowed actions; None allows all. At least one must be allowed in each row.

    Returns:
        [..., A]; forbidden actions have about -1e9.
    """
    return (logits if mask is None else logits.masked_fill(~mask, FORBIDDEN_LOGIT)).log_softmax(-1)


def categorical_log_prob(log_probs: Tensor, action: Tensor) -> Tensor:
    """Log-probability [...] of the actions [...] int64 under log-probabilities [..., A]."""
    return log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def categorical_entropy(log_probs: Tensor) -> Tensor:
    """Entropy [...] of a categorical distribution with log-probabilities [..., A]."""
    return -(log_probs.exp() * log_probs).sum(-1)


def sample_categorical(log_probs: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw one action from each row.

    Args:
        log_probs: [..., A].
        generator: source of randomness, on the device of `log_probs`.

    Returns:
        [...] int64; an action of probability zero is never drawn.
    """
    # the least of A exponential variables with rates p is component i with probability p_i
    waiting = torch.empty_like(log_probs).exponential_(generator=generator)
    return (log_probs - waiting.clamp_(min=1e-30).log_()).argmax(-1)


def choices_of(space: spaces.Space[Any]) -> list[int]:
    """Return how many actions each of several choices side by side has; [] of a Box and of Discrete."""
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.reshape(-1)]
    return [2] * int(torch.Size(space.shape or ()).numel()) if isinstance(space, spaces.MultiBinary) else []


def coded(actions: Tensor, space: spaces.Space[Any]) -> Tensor:
    """Return actions [B, ...] of a space as distributions have them.

    Returns:
        [B, A] of a Box; [B] int64 counted from 0 of Discrete; [B, D] int64 counted from 0 of MultiDiscrete and MultiBinary.
    """
    if isinstance(space, spaces.Discrete):
        return actions.reshape(-1).long() - int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return as_rows(actions).long() - torch.as_tensor(space.start, device=actions.device).reshape(-1)
    return as_rows(actions).long() if isinstance(space, spaces.MultiBinary) else as_rows(actions)
