"""Surrogate objectives of the policy gradient, per token or per action."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .option_types import NonNegative


def ppo_surrogate(
    logp: Tensor,
    old_logp: Tensor,
    adv: Tensor,
    mask: Tensor | None = None,
    *,
    clip_low: NonNegative = 0.2,
    clip_high: NonNegative = 0.2,
    dual_clip: NonNegative | None = None,
    largest_log_ratio: NonNegative | None = None,
    level: Literal["token", "sequence"] = "token",
) -> Tensor:
    """Clipped surrogate loss of PPO (Schulman et al. 2017, equation 7), to be minimised.

    L = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)) with rho = exp(logp - old_logp). The dual clip (Ye et al.
    2020) bounds L by -A dual_clip where A < 0.

    Args:
        logp: [N, T] log-probabilities under the current parameters.
        old_logp: [N, T] log-probabilities of the behaviour.
        adv: [N, T], or [N] for one advantage a row.
        mask: [N, T] 1 on what was acted, needed by "sequence".
        clip_low: clip ratio below: the probability ratio is clipped at 1 - clip_low.
        clip_high: clip ratio above: the probability ratio is clipped at 1 + clip_high.
        dual_clip: bound of the ratio where the advantage is negative; None sets none.
        largest_log_ratio: bound of |logp - old_logp|, beyond which there is no gradient; None sets none.
        level: "token", or "sequence" for one length-normalised ratio a row (GSPO, Zheng et al. 2025).

    Returns:
        [N, T] loss of each token.
    """
    assert level in ("token", "sequence") and (level == "token" or mask is not None)
    log_ratio = logp - old_logp
    if level == "sequence":
        assert mask is not None
        mean = (log_ratio * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        # the gradient flows through each token's own log-probability, the value is the sequence's
        log_ratio = logp - logp.detach() + mean.detach()
    if largest_log_ratio is not None:
        log_ratio = log_ratio.clamp(-largest_log_ratio, largest_log_ratio)
    ratio = log_ratio.exp()
    if adv.dim() < logp.dim():
        adv = adv.unsqueeze(-1)
    loss = torch.maximum(-adv * ratio, -adv * ratio.clamp(1 - clip_low, 1 + clip_high))
    return loss if dual_clip is None else torch.where(adv < 0, torch.minimum(loss, -adv * dual_clip), loss)


def negative_logp(logp: Tensor) -> Tensor:
    """Maximum likelihood: the loss of each token is -log p, [N, T].

    Args:
        logp: [N, T] log-probabilities under the current parameters.
    """
    return -logp


def clipped_value_loss(
    value: Tensor, old_value: Tensor, returns: Tensor, *, clip_range_vf: NonNegative | None = 0.5
) -> Tensor:
    """Loss of a critic that may move only so far in an update (Schulman et al. 2017, as in its authors' code).

    max((v - R)^2, (clip(v, v_old - c, v_old + c) - R)^2) / 2 with c = clip_range_vf.

    Args:
        value: [N, T] under the current parameters.
        old_value: [N, T] when the data was gathered.
        returns: [N, T], or [N] for one number a row.
        clip_range_vf: value clipping: values are clipped to old value +- clip_range_vf; None clips nothing.

    Returns:
        [N, T].
    """
    if returns.dim() < value.dim():
        returns = returns.unsqueeze(-1)
    error = (value - returns).square()
    if clip_range_vf is None:
        return 0.5 * error
    near = old_value + (value - old_value).clamp(-clip_range_vf, clip_range_vf)
    return 0.5 * torch.maximum(error, (near - returns).square())
