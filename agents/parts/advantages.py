"""Advantages of whole responses, compared within groups that answer one prompt."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from polyathlon.envs.errors import unknown_name

from .option_types import NonNegative

Center = Literal["group", "loo", "batch", "none"]
Scale = Literal["none", "group", "batch", "batch_centered"]
CENTRES, SCALES = get_args(Center), get_args(Scale)


def group_stats(x: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, unbiased standard deviation and size of each row's group; groups may have any sizes.

    Args:
        x: [N] numbers.
        group: [N] int64 index of each row's group.

    Returns:
        Mean, standard deviation and count, each [N]; a group of one has mean x and standard deviation 1.
    """
    number = int(group.max()) + 1 if group.numel() else 0
    zeros = x.new_zeros(number)
    count = zeros.index_add(0, group, torch.ones_like(x))
    # mean = first + mean(x - first): exactly x where all are equal, which a rounded sum of equal numbers is not
    places = torch.arange(len(x), device=x.device)
    first = x[places.new_zeros(number).scatter_reduce(0, group, places, "amin", include_self=False)[group]]
    mean = first + (zeros.index_add(0, group, x - first) / count.clamp(min=1))[group]
    square = zeros.index_add(0, group, (x - mean).square())
    std = (square / (count - 1).clamp(min=1)).sqrt()
    std = torch.where(count > 1, std, torch.ones_like(std))
    return mean, std[group], count[group]


def exact_mean(x: Tensor) -> Tensor:
    """Mean of x [N], taken as first + mean(x - first), so that it is exactly x where all are equal."""
    return x[0] + (x - x[0]).mean()


def group_advantage(
    reward: Tensor, group: Tensor, *, center: Center = "group", scale: Scale = "none", eps: NonNegative = 1e-6
) -> Tensor:
    """Turn rewards of responses into advantages.

    | center, scale | method |
    |---|---|
    | "none" or "batch", "none" | REINFORCE |
    | "loo", "none" | RLOO (Ahmadian et al. 2024, arXiv 2402.14740) |
    | "group", "group" | GRPO (Shao et al. 2024, arXiv 2402.03300) |
    | "group", "none" | Dr. GRPO (Liu et al. 2025, arXiv 2503.20783) |

    Args:
        reward: [N].
        group: [N] int64.
        center: what is subtracted: the mean of the group, of the others in it ("loo"), of the batch, or nothing.
        scale: what divides: the standard deviation of the group, of the batch, of the centred rewards of the batch
            ("batch_centered"), or nothing.
        eps: added to the divisor.

    Returns:
        [N]. A group of one keeps its reward under "group" and "loo". Where all rewards that are compared are equal it is
        exactly 0, whatever their value.

    Raises:
        UsageError: `center` or `scale` is unknown.
    """
    if center not in CENTRES:
        raise unknown_name("center", center, CENTRES)
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    mean, std, count = group_stats(reward, group)
    alone = count == 1
    if center == "group":
        advantage = torch.where(alone, reward, reward - mean)
    elif center == "loo":
        advantage = torch.where(alone, reward, (reward - mean) * count / (count - 1).clamp(min=1))
    else:
        advantage = reward - exact_mean(reward) if center == "batch" else reward.clone()
    if scale == "group":
        return advantage / (std + eps)
    if scale in ("batch", "batch_centered") and reward.numel() > 1:
        spread = reward if scale == "batch" else advantage
        return advantage / ((spread - spread[0]).std() + eps)
    return advantage


def masked_whiten(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Give the marked entries of x mean 0 and unbiased variance 1; the others, and all that are equal, become 0.

    Args:
        x: [N, T].
        mask: [N, T] 1 where it counts.
        eps: added to the variance.
    """
    count = mask.sum()
    x = x - x.flatten()[mask.flatten().argmax()]  # the first marked entry: equal ones are then exactly 0
    mean = (x * mask).sum() / count.clamp(min=1)
    variance = ((x - mean).square() * mask).sum() / (count - 1).clamp(min=1)
    return (x - mean) * torch.rsqrt(variance + eps) * mask
