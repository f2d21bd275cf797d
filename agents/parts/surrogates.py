"""Surrogate objectives of the policy gradient, per token or per action."""

from __future__ import annotations

import torch
from torch import Tensor


def ppo_surrogate(
    logp: Tensor,
    old_logp: Tensor,
    adv: Tensor,
    lo: float,
    hi: float,
    dual: float | None = None,
    level: str = "token",
    mask: Tensor | None = None,
) -> Tensor:
    """Clipped surrogate loss of PPO (Schulman et al. 2017, equation 7), to be minimised.

    L = max(-A rho, -A clip(rho, 1 - lo, 1 + hi)) with rho = exp(logp - old_logp). The dual clip (Ye et al. 2020) bounds
    L by -A dual where A < 0.

    Args:
        logp: [N, T] log-probabilities under the current parameters.
        old_logp: [N, T] log-probabilities of the behaviour.
        adv: [N, T], or [N] for one advantage a row.
        lo: how far the ratio may fall below 1.
        hi: how far the ratio may rise above 1.
        dual: bound of the ratio where the advantage is negative; None sets none.
        level: "token", or "sequence" for one length-normalised ratio a row (GSPO, Zheng et al. 2025).
        mask: [N, T] 1 on what was acted, needed by "sequence".

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
    ratio = log_ratio.exp()
    if adv.dim() < logp.dim():
        adv = adv.unsqueeze(-1)
    loss = torch.maximum(-adv * ratio, -adv * ratio.clamp(1 - lo, 1 + hi))
    return loss if dual is None else torch.where(adv < 0, torch.minimum(loss, -adv * dual), loss)
