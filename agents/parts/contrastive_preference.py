"""Contrastive preference learning: which of two segments is preferred, from log-probabilities alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def biased_pair_loss(adv_preferred: Tensor, adv_other: Tensor, bias: float | Tensor = 1.0) -> Tensor:
    """Return -log(e^a / (e^a + e^(bias b))) of each pair = softplus(bias b - a) (Hejna et al. 2024, CPL, equation 6).

    Args:
        adv_preferred: [P] a, alpha times the summed log-probabilities of the preferred segment.
        adv_other: [P] b, of the other.
        bias: lambda in (0, 1]; below 1 the loss favours preferred segments that are likely.
    """
    return softplus(bias * adv_other - adv_preferred)


def segment_advantage(logp: Tensor, alpha: float | Tensor, gamma: float = 1.0) -> Tensor:
    """Return sum_t gamma^t alpha logp_t of segments [P, T], shape [P]."""
    powers = gamma ** torch.arange(logp.shape[-1], dtype=logp.dtype, device=logp.device)
    return alpha * (powers * logp).sum(-1)
