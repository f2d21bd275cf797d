"""Barriers that keep returns above their thresholds while another one is maximised."""

from __future__ import annotations

import torch
from torch import Tensor


def return_threshold(returns: Tensor, beta: float) -> Tensor:
    """Return what is left of returns J when the share beta must be kept: J - (1 - beta) |J|, beta J where J is positive.

    Args:
        returns: [...] J.
        beta: share, from 0 to 1.
    """
    return returns - (1 - beta) * returns.abs()


def log_barrier(returns: Tensor, threshold: Tensor, t: float, floor: Tensor | float = 0.0) -> Tensor:
    """Log barrier -(1 / t) log(J - threshold), to be minimised (Liu et al. 2025, arXiv 2410.02236, C-MORL-IPO).

    The paper leaves the barrier undefined where J falls to the threshold. Below the slack `floor` it goes on as its own
    tangent, so that a violated constraint pulls back with the slope 1 / (t floor) (Kervadec et al. 2019).

    Args:
        returns: [...] estimated returns J.
        threshold: like `returns`.
        t: sharpness; without bound the barrier vanishes inside.
        floor: like `returns`, slack at which the tangent takes over; 0 keeps the plain logarithm.

    Returns:
        [...].
    """
    slack = returns - threshold
    edge = torch.as_tensor(floor, dtype=slack.dtype, device=slack.device).clamp(min=torch.finfo(slack.dtype).tiny)
    inside = -torch.maximum(slack, edge).log()
    outside = -edge.log() - (slack - edge) / edge
    return torch.where(slack > edge, inside, outside) / t


def batch_barrier(ratio: Tensor, returns: Tensor, beta: float, t: float, clip: float) -> Tensor:
    """Barrier of the authors' published code, which differs from the paper: every objective is held, against its own batch.

    rbar = mean(R); slack = beta rbar - clip(ratio, 1 - c, 1 + c) rbar, at most -1e-3; -mean(log(-slack)) / t.

    Args:
        ratio: [..., B] probability ratios.
        returns: [..., B, m] returns of the samples.
        beta: share of the batch's mean return to keep.
        t: sharpness.
        clip: clip ratio eps, the probability ratio is clipped to [1 - eps, 1 + eps].

    Returns:
        [...]. Where rbar is negative the slack is cut off and no gradient is left.
    """
    mean = returns.mean(-2, keepdim=True)
    slack = (beta * mean - ratio.clamp(1 - clip, 1 + clip).unsqueeze(-1) * mean).clamp(max=-1e-3)
    return -(-slack).log().mean((-2, -1)) / t
