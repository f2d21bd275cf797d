"""Parts of methods that learn from recorded actions: expectiles, weights of imitation, smoothed and scaled targets."""

from __future__ import annotations

import torch
from torch import Tensor


def expectile_weight(gap: Tensor, tau: float) -> Tensor:
    """Return |tau - 1[gap < 0]|: how much a squared gap [B] counts in the regression to the expectile `tau`."""
    return torch.where(gap < 0, 1 - tau, tau)


def expectile_loss(gap: Tensor, tau: float) -> Tensor:
    """Return mean(|tau - 1[gap < 0]| gap^2), least at the expectile (Kostrikov et al. 2021, arXiv 2110.06169, equation 5).

    Args:
        gap: [B] target minus prediction.
        tau: 0.5 is the mean; towards 1 it becomes the largest target.
    """
    return (expectile_weight(gap, tau) * gap.square()).mean()


def advantage_weight(advantage: Tensor, scale: float, largest: float = 100.0) -> Tensor:
    """Return min(exp(scale advantage), largest), the weight of an action in imitation (Peng et al. 2019, equation 8).

    Args:
        advantage: [B].
        scale: inverse temperature: 0 imitates every action alike, large values only the best.
        largest: bound of the weight.
    """
    return (scale * advantage).exp().clamp_(max=largest)


def weighted_imitation(logp: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return -mean(weight logp), the loss of (weighted) behaviour cloning; no gradient flows to the weights.

    Args:
        logp: [B] log-densities of recorded actions.
        weight: [B]; None weighs all alike.
    """
    return -(logp if weight is None else weight.detach() * logp).mean()


def smooth_target_action(action: Tensor, noise: Tensor, std: float, clip: float) -> Tensor:
    """Return clip(action + clip(std noise, -clip, clip), -1, 1) (Fujimoto et al. 2018, arXiv 1802.09477, equation 14).

    Args:
        action: [B, A] action of the target policy in [-1, 1].
        noise: [B, A] standard normal noise.
        std: its standard deviation.
        clip: bound of the disturbance.
    """
    return (action + (std * noise).clamp_(-clip, clip)).clamp_(-1, 1)


def q_scale(q: Tensor, alpha: float) -> Tensor:
    """Return alpha / mean |q|, which makes the value weigh alike in all tasks (Fujimoto and Gu 2021, equation 5).

    Args:
        q: [B] values; no gradient flows to them.
        alpha: how much the value counts against the imitation.
    """
    return alpha / q.detach().abs().mean()
