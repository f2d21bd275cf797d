"""Losses of reward models: the chosen answer above the rejected one, by numbers that a model gives whole answers."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .option_types import Bounds, NonNegative
from .sequences import pairs


def bradley_terry(
    score_w: Tensor,
    score_l: Tensor,
    *,
    margin: Tensor | float = 0.0,
    label: Tensor | None = None,
    centring: float = 0.0,
    barrier: float = 0.0,
    focal: float = 0.0,
) -> Tensor:
    """Loss of each pair, [P], by the scores of its answers (Bradley and Terry 1952; Stiennon et al. 2020, arXiv 2009.01325).

    -log sigmoid(d), d = r_w - r_l - margin; with a label p in [0, 1] that the chosen answer is the better one, -p log sigmoid(d) - (1 - p) log sigmoid(-d).
    Beyond the focal term the loss does not change when a number is added to both scores; centring and the barrier hold that number.

    Args:
        score_w: [P] of the chosen answers.
        score_l: [P] of the rejected answers.
        margin: by how much the chosen ones must be better (Touvron et al. 2023, Llama 2).
        label: [P]; None is 1.
        centring: c (r_w + r_l)^2 (Eisenstein et al. 2023, arXiv 2312.09244, as in TRL).
        barrier: weight of the log-barrier -log(1 - (r / 5)^2) of each score (InternLM2's reward model, arXiv 2403.17297), which goes on as
            its tangent beyond 4.5.
        focal: gamma of (1 - 2 max(0, sigmoid(d) - 1/2))^gamma, which takes weight off pairs that are right already (the same).
    """
    d = score_w - score_l - margin
    loss = -logsigmoid(d) if label is None else -label * logsigmoid(d) - (1 - label) * logsigmoid(-d)
    if focal:
        loss = loss * (1 - 2 * (d.sigmoid() - 0.5).relu()).pow(focal)
    if centring:
        loss = loss + centring * (score_w + score_l).square()
    if barrier:
        loss = loss + barrier * (score_barrier(score_w) + score_barrier(score_l)) / 2
    return loss


def score_barrier(score: Tensor, bound: float = 5.0, edge: float = 4.5) -> Tensor:
    """Return -log(1 - (r / bound)^2), 0 at r = 0; beyond +-edge its tangent.

    Args:
        score: any shape.
        bound: where the logarithm would end.
        edge: where the tangent takes over.
    """
    size = score.abs()
    inner = size.clamp(max=edge)
    value = -(1 - (inner / bound).square()).log()
    slope = 1 / (bound - edge) - 1 / (bound + edge)
    return value + slope * (size - inner)


def reward_loss(
    policy_score: Tensor,
    side: Tensor,
    group: Tensor,
    margin: Tensor | None = None,
    label: Tensor | None = None,
    *,
    centring: NonNegative = 0.0,
    barrier: NonNegative = 0.0,
    focal: NonNegative = 0.0,
    smoothing: Annotated[float, Bounds(0, 0.5)] = 0.0,
) -> Tensor:
    """Mean of `bradley_terry` over the pairs of a batch, a scalar.

    Args:
        policy_score: [N] what the head says of each answer.
        side: [N] 1 chosen, -1 rejected, 0 neither.
        group: [N] int64, the pair that a row belongs to.
        margin: [N] of the pair, on both of its rows; NaN is 0.
        label: [N] of the pair likewise, how likely the chosen answer is the better one; None and NaN are 1.
        centring: see `bradley_terry`.
        barrier: see `bradley_terry`.
        focal: see `bradley_terry`.
        smoothing: share e of wrong labels: a label p counts as p (1 - e) + (1 - p) e.
    """
    won, lost = pairs(side, group)
    asked: Tensor | float = 0.0 if margin is None else torch.nan_to_num(margin[won], nan=0.0)
    share = None if label is None else torch.nan_to_num(label[won], nan=1.0)
    if smoothing:
        share = torch.ones_like(policy_score[won]) if share is None else share
        share = share * (1 - smoothing) + (1 - share) * smoothing
    return bradley_terry(
        policy_score[won],
        policy_score[lost],
        margin=asked,
        label=share,
        centring=centring,
        barrier=barrier,
        focal=focal,
    ).mean()
