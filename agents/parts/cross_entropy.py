"""Cross-entropy with targets that are distributions, among allowed actions."""

from __future__ import annotations

from torch import Tensor

from .action_distributions import masked_log_softmax


def soft_cross_entropy(logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Cross-entropy of a (masked) categorical distribution with a target distribution: log sum exp(s) - sum_i p_i s_i.

    Args:
        logits: [..., A].
        target: [..., A] probabilities; a row of zeros gives 0.
        mask: [..., A] bool, the allowed actions; None allows all. Forbidden actions must have the target 0.

    Returns:
        [...].
    """
    return -(target * masked_log_softmax(logits, mask)).sum(-1)
