"""How the weights of a mixture of experts learn which expert to trust: frequencies, score ratio, relaxed choices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, check_positive_int


def frequency_loss(w: Tensor, q: Tensor) -> Tensor:
    """Squared distance of the weights from "expert k has the best sample", mean over rows and experts.

    Ren et al. 2021 (PMOE, arXiv 2104.09122): mean (w_k - v_k)^2 with v_k = 1 where k = argmax q, else 0. In expectation
    it is least where w_k is the probability that the sample of expert k is the best. No gradient flows to `q`.

    Args:
        w: [B, K] weights, positive and summing to one in each row.
        q: [B, K] values of one sample of every expert.
    """
    assert w.shape == q.shape and w.dim() == 2
    return (w - picks(q.argmax(-1), w.shape[-1], w.dtype)).square().mean()


def picks(expert: Tensor, num_experts: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return [B, K] 1 at the expert [B] int64 of each row, else 0."""
    return (expert[:, None] == torch.arange(num_experts, device=expert.device)).to(dtype)


def score_ratio_loss(log_w: Tensor, expert: Tensor, gain: Tensor) -> Tensor:
    """Score-ratio (REINFORCE) estimator of the weights' gradient: -mean gain log w_i of the experts that were drawn.

    Args:
        log_w: [B, K] logarithms of the weights.
        expert: [B] int64, the expert drawn.
        gain: [B] what the draw earned, Q - alpha log pi; no gradient flows to it.
    """
    return -(gain.detach() * log_w.gather(1, expert[:, None])[:, 0]).mean()


def relaxed_choice(log_w: Tensor, gumbel: Tensor, temperature: float) -> Tensor:
    """Return almost one-hot vectors [B, K] (Jang et al. 2017, Gumbel-softmax): softmax((log w + gumbel) / temperature).

    Args:
        log_w: [B, K] logarithms of the weights.
        gumbel: [B, K] standard Gumbel noise.
        temperature: towards 0 the vectors become one-hot, drawn with the weights as probabilities.
    """
    return torch.softmax((log_w + gumbel) / temperature, -1)


def gumbel_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw standard Gumbel noise in the shape of `like`."""
    return -torch.empty_like(like).exponential_(generator=generator).clamp_(min=1e-30).log_()


def refuse_experts(num_experts: Any, policy_kwargs: dict[str, Any] | None) -> None:
    """Refuse an impossible number of experts, and one that is given in two places.

    Raises:
        UsageError: in both cases.
    """
    check_positive_int(num_experts=num_experts)
    other = (policy_kwargs or {}).get("num_experts", num_experts)
    if other != num_experts:
        raise UsageError(f"num_experts is {num_experts}, but policy_kwargs says {other!r}: leave it out there")
