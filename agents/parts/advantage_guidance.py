"""The action that a policy is drawn to: a dataset's, or a generated one where that has the larger advantage."""

from __future__ import annotations

import torch
from torch import Tensor


def advantage_guidance(
    q_data: Tensor, q_made: Tensor, value: Tensor, action: Tensor, made: Tensor, mask: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Choose target and weight of each row (Liu et al. 2024, A2PR).

    The target is the generated action where Q(made) - V >= Q(data) - V, else the dataset's; the weight is `mask` where
    either advantage is positive (at least 0 for the generated action), else 0.

    Args:
        q_data: [B] values of the dataset's actions.
        q_made: [B] values of the generated actions.
        value: [B] values of the states.
        action: [B, A] the dataset's actions.
        made: [B, A] generated actions.
        mask: weight of a row that counts.

    Returns:
        Target [B, A] and weight [B]; no gradient flows through either.
    """
    q_data, q_made, value = q_data.detach(), q_made.detach(), value.detach()
    target = torch.where((q_made >= q_data).unsqueeze(-1), made.detach(), action)
    counts = (q_made >= value) | (q_data > value)
    return target, counts.to(value.dtype) * mask


def guided_imitation(action: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return mean(weight (action - target)^2) over rows and components.

    Args:
        action: [B, A] the policy's.
        target: [B, A].
        weight: [B].
    """
    return (weight.unsqueeze(-1) * (action - target).square()).mean()
