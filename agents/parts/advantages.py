"""Advantages of whole responses, compared within groups that answer one prompt."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, unknown_name

from .option_types import NonNegative
from .wiring import compares_groups

Center = Literal["group", "loo", "batch", "none"]
Scale = Literal["none", "group", "batch", "batch_centered"]
CENTRES, SCALES = get_args(Center), get_args(Scale)


def numbered(group: Tensor) -> tuple[Tensor, int, Tensor | int]:
    """Number groups so that sizes of results are known: without a wait for the device, where there is one.

    Args:
        group: [N] int64.

    Returns:
        The index of each row's group, more than the largest one, and how many different groups there are. On the processor
        indices stay as they are; on an accelerator they are counted from 0 without gaps, N of them at most.
    """
    if group.device.type == "cpu" or not group.numel():
        return group, int(group.max()) + 1 if group.numel() else 0, len(group.unique())
    ordered, places = group.sort(stable=True)
    begins = torch.cat([torch.zeros_like(ordered[:1]), (ordered[1:] != ordered[:-1]).long()]).cumsum(0)
    return torch.empty_like(group).scatter_(0, places, begins), len(group), begins[-1] + 1


def group_stats(x: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, unbiased standard deviation and size of each row's group; groups may have any sizes.

    Args:
        x: [N] numbers.
        group: [N] int64 index of each row's group.

    Returns:
        Mean, standard deviation and count, each [N]; a group of one has mean x and standard deviation 1.
    """
    group, number, _ = numbered(group)
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


def masked_whiten(x: Tensor, mask: Tensor, eps: float = 1e-8, weight: Tensor | None = None) -> Tensor:
    """Give the marked entries of x mean 0 and unbiased variance 1; the others, and all that are equal, become 0.

    Args:
        x: [N, T].
        mask: [N, T] 1 where it counts.
        eps: added to the variance.
        weight: [N, T] how often an entry counts in mean and variance; None counts each once.
    """
    counted = mask if weight is None else mask * weight
    count = counted.sum()
    x = x - x.flatten().gather(0, counted.flatten().argmax()[None])  # a counted entry: equal ones are then exactly 0
    mean = (x * counted).sum() / count.clamp(min=1)
    variance = ((x - mean).square() * counted).sum() / (count - 1).clamp(min=1)
    return (x - mean) * torch.rsqrt(variance + eps) * mask


def whitened_advantage(reward: Tensor, group: Tensor, mask: Tensor, *, center: Center = "none") -> Tensor:
    """REINFORCE++ (Hu et al. 2025, arXiv 2501.03262): advantages normalised over all tokens of the batch.

    A = whiten(r - b) over the tokens that the policy wrote, b being 0 or, in the variant with a baseline, the mean of the group. After
    whitening a group of equals has -mean / std, not 0: only a batch of equal rewards has advantages of exactly 0.

    Args:
        reward: [N].
        group: [N] int64.
        mask: [N, T] 1 on the policy's tokens.
        center: what is subtracted before; see `group_advantage`.

    Returns:
        [N, T].
    """
    centred = group_advantage(reward, group, center=center)
    return masked_whiten(centred[:, None].expand_as(mask), mask)


@compares_groups
def beta_norm_advantage(
    reward: Tensor, group: Tensor, *, r_min: float = 0.0, r_max: float = 1.0, w_max: NonNegative = 1e6
) -> Tensor:
    """BNPO: centred rewards divided by the density of a Beta distribution (Xiao et al. 2025, arXiv 2506.02864).

    With p_q the mean of s = (r - r_min) / (r_max - r_min) over group q, m and v mean and unbiased variance of p over the prompts of the
    batch: a = (m (1 - m) / v - 1) m, b = (m (1 - m) / v - 1) (1 - m), alpha = max(1, 1 + a / 3), beta = max(1, 1 + b / 3) and
    A = (s - p_q) min(1 / Beta(p_q; alpha, beta), w_max). A batch of one prompt, and one whose prompts are all equally hard, has no fit:
    alpha = beta = 1, the mean of the group as baseline.

    Args:
        reward: [N] in [r_min, r_max].
        group: [N] int64.
        r_min: smallest reward that there is.
        r_max: largest reward that there is.
        w_max: largest weight.

    Returns:
        [N]; exactly 0 in groups of equal rewards.

    Raises:
        UsageError: a reward outside [r_min, r_max].
    """
    if not r_min < r_max or bool(((reward < r_min) | (reward > r_max)).any()):
        raise UsageError(
            f"beta_norm_advantage takes rewards from r_min={r_min:g} to r_max={r_max:g}, got {float(reward.min()):g} to "
            f"{float(reward.max()):g}: give the bounds of the task's rewards (recipe_kwargs={{'r_max': 2.0}})"
        )
    s = (reward - r_min) / (r_max - r_min)
    p = group_stats(s, group)[0]
    one_each = torch.stack([(group == q).nonzero()[0, 0] for q in group.unique()])
    prompts = p[one_each]
    m = exact_mean(prompts)
    v = (prompts - m).square().sum() / max(len(prompts) - 1, 1)
    fit = torch.where(v > 0, m * (1 - m) / v - 1, torch.zeros_like(v))
    alpha, beta = (1 + fit * m / 3).clamp(min=1), (1 + fit * (1 - m) / 3).clamp(min=1)
    return (s - p) * (-beta_log_density(p, alpha, beta)).exp().clamp(max=w_max)


def beta_log_density(p: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Logarithm of p^(alpha - 1) (1 - p)^(beta - 1) Gamma(alpha + beta) / (Gamma(alpha) Gamma(beta)); 0 log 0 = 0."""
    norm = torch.lgamma(alpha + beta) - torch.lgamma(alpha) - torch.lgamma(beta)
    return norm + torch.xlogy(alpha - 1, p) + torch.xlogy(beta - 1, 1 - p)
