"""The dual of an entropy constraint."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def temperature_loss(log_alpha: Tensor, logp: Tensor, target_entropy: Any) -> Tensor:
    """Return -mean(log_alpha (logp + target_entropy)), whose gradient raises the temperature where entropy is short.

    Haarnoja et al. 2018, equation 18, with log alpha in place of alpha as in the authors' code.

    Args:
        log_alpha: [] logarithm of the temperature.
        logp: [B] log-densities of sampled actions; no gradient flows to them.
        target_entropy: entropy that the policy should keep.
    """
    return -(log_alpha * (logp.detach() + target_entropy)).mean()
