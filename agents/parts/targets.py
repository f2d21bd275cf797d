"""Targets of value functions, the dual of an entropy constraint, and slowly moving copies."""

from __future__ import annotations

import torch
from torch import Tensor


def td_target(
    reward: Tensor,
    done: Tensor,
    q_next: Tensor,
    gamma: float,
    alpha: float | Tensor = 0.0,
    logp_next: Tensor | None = None,
) -> Tensor:
    """Return r + gamma (1 - done) (q_next - alpha logp_next) (Haarnoja et al. 2018, equation 3).

    Args:
        reward: [B].
        done: [B] 1 where the episode terminated; 0 where a limit cut it.
        q_next: [B] value of the next state and action, already the smallest of an ensemble.
        gamma: discount factor.
        alpha: temperature.
        logp_next: [B] log-density of the next action; None means no entropy.
    """
    value = q_next if logp_next is None else q_next - alpha * logp_next
    return torch.addcmul(reward, 1 - done, value, value=gamma)


def temperature_loss(log_alpha: Tensor, logp: Tensor, target_entropy: float) -> Tensor:
    """Return -mean(log_alpha (logp + target_entropy)), whose gradient raises the temperature where entropy is short.

    Haarnoja et al. 2018, equation 18, with log alpha in place of alpha as in the authors' code.

    Args:
        log_alpha: [] logarithm of the temperature.
        logp: [B] log-densities of sampled actions; no gradient flows to them.
        target_entropy: entropy that the policy should keep.
    """
    return -(log_alpha * (logp.detach() + target_entropy)).mean()


@torch.no_grad()
def polyak_(target: Tensor, source: Tensor, tau: float) -> None:
    """Move `target` towards `source` in place: target <- (1 - tau) target + tau source."""
    target.lerp_(source, tau)
