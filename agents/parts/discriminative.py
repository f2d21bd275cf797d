"""Losses that score right answers above wrong ones, prompt by prompt, without advantages (DisCO)."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from .advantages import numbered
from .option_types import Bounds, NonNegative
from .wiring import compares_groups

Score = Literal["logL", "L-ratio"]
Temperature = Annotated[float, Bounds(1e-6)]


def length_norm_score(logp: Tensor, old_logp: Tensor, mask: Tensor, kind: Score = "logL") -> Tensor:
    """Score answers: mean_t log p_t ("logL"), or mean_t exp(log p_t - log p_old_t) ("L-ratio"), [N].

    Args:
        logp: [N, T] under the current parameters.
        old_logp: [N, T] of the behaviour.
        mask: [N, T] 1 on the policy's tokens.
        kind: the score.
    """
    each = logp if kind == "logL" else (logp - old_logp).exp()
    return (each * mask).sum(1) / mask.sum(1).clamp(min=1)


def discriminative_loss(score: Tensor, label: Tensor, group: Tensor, tau: float | None = None) -> Tensor:
    """-J, J = mean over prompts of mean_{right} s_i - tau log mean_{wrong} exp(s_j / tau) (Li et al. 2025, arXiv 2505.12366, eq. 8).

    Args:
        score: [N].
        label: [N] whether an answer is right.
        group: [N] int64. A prompt without both right and wrong answers adds 0 and is counted.
        tau: None takes the mean over the wrong ones (DisCO-b), which is the limit of large tau.

    Returns:
        A scalar; 0 with a graph where no prompt has both.
    """
    if group.device.type == "cpu":
        group = group.unique(return_inverse=True)[1]
    index, size, number = numbered(group)
    zeros = score.new_zeros(size)
    right, wrong = label.to(score.dtype), (~label).to(score.dtype)
    count = torch.stack([zeros.index_add(0, index, right), zeros.index_add(0, index, wrong)])
    has_both = (count > 0).all(0)
    positive = zeros.index_add(0, index, right * score) / count[0].clamp(min=1)
    if tau is None:
        negative = zeros.index_add(0, index, wrong * score) / count[1].clamp(min=1)
    else:
        # the largest of each prompt is taken out before the exponential
        masked = score.detach().masked_fill(label, -math.inf)
        highest = zeros.scatter_reduce(0, index, masked, "amax", include_self=False)
        highest = torch.where(highest.isfinite(), highest, zeros)
        terms = (((score - highest[index]) / tau).masked_fill(label, -math.inf)).exp()
        total = zeros.index_add(0, index, terms) / count[1].clamp(min=1)
        negative = highest + tau * torch.where(has_both, total, torch.ones_like(total)).log()
    return -torch.where(has_both, positive - negative, zeros).sum() / number + 0 * score.sum()


def kl_hinge(kl: Tensor, delta: float, beta: float) -> Tensor:
    """Detach(beta max(0, kl - delta)) kl: the gradient of beta / 2 (kl - delta)_+^2 (Li et al. 2025, arXiv 2505.12366, eq. 11)."""
    return (beta * (kl - delta).clamp(min=0)).detach() * kl


@compares_groups
def disco(
    logp: Tensor,
    old_logp: Tensor,
    mask: Tensor,
    reward: Tensor,
    group: Tensor,
    *,
    kind: Score = "logL",
    tau: Temperature | None = None,
    beta: NonNegative = 1e3,
    delta: NonNegative = 1e-4,
    threshold: float = 0.5,
) -> Tensor:
    """DisCO: right answers above wrong ones within a trust region (Li et al. 2025, arXiv 2505.12366).

    `discriminative_loss` + `kl_hinge` of kl = mean over tokens of log p_old - log p.

    Args:
        logp: [N, T] under the current parameters.
        old_logp: [N, T] of the behaviour.
        mask: [N, T] 1 on the policy's tokens.
        reward: [N].
        group: [N] int64; all answers to a prompt stand in one minibatch.
        kind: "logL" (the paper's tau is 10) or "L-ratio" (1).
        tau: temperature of the wrong answers; None is DisCO-b.
        beta: how hard the trust region is.
        delta: how large it is.
        threshold: rewards above it are right answers.

    Returns:
        A scalar.
    """
    score = length_norm_score(logp, old_logp, mask, kind)
    kl = ((old_logp - logp) * mask).sum() / mask.sum().clamp(min=1)
    return discriminative_loss(score, reward > threshold, group, tau) + kl_hinge(kl, delta, beta)
