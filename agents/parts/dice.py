"""The convex function of distribution-correction estimation, and the weights that follow from it."""

from __future__ import annotations

from torch import Tensor


def pearson_weight(residual: Tensor) -> Tensor:
    """Return w = max(x / 2 + 1, 0), the derivative of `pearson_conjugate`: the weight of an action in imitation.

    Args:
        residual: [B] r + gamma V(s') - V(s).
    """
    return (residual / 2 + 1).clamp(min=0)


def pearson_conjugate(residual: Tensor) -> Tensor:
    """Return f*(x) = x w - (w - 1)^2 with w = max(x / 2 + 1, 0), for f = Pearson's chi^2 (Mao et al. 2024, O-DICE).

    That is x^2 / 4 + x for x >= -2, and -1 below.

    Args:
        residual: [B] r + gamma V(s') - V(s).
    """
    w = pearson_weight(residual)
    return residual * w - (w - 1).square()
