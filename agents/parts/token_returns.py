"""Returns and advantages of single tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from .advantages import masked_whiten
from .option_types import Fraction


def gae(
    reward: Tensor,
    value: Tensor,
    mask: Tensor,
    gamma: float = 1.0,
    lam: float | Tensor = 1.0,
    tail_value: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over the tokens of responses (Schulman et al. 2016, equation 16).

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}, where t + 1 is the next marked token:
    what lies between, padding or text of the environment, is skipped.

    Args:
        reward: [N, T].
        value: [N, T] value of the prefix before each token.
        mask: [N, T] 1 on the policy's tokens.
        gamma: discount a token.
        lam: 0 gives one-step errors, 1 returns; a number, or [N] one a row.
        tail_value: [N] value after the last token, for responses that were cut; None is 0.

    Returns:
        Advantages and returns (advantage + value), each [N, T] and 0 where not marked.
    """
    following = torch.zeros_like(reward[:, 0]) if tail_value is None else tail_value
    running = torch.zeros_like(following)
    advantage = torch.zeros_like(reward)
    for t in range(reward.shape[1] - 1, -1, -1):
        is_marked = mask[:, t] > 0
        delta = reward[:, t] + gamma * following - value[:, t]
        running = torch.where(is_marked, delta + gamma * lam * running, running)
        following = torch.where(is_marked, value[:, t], following)
        advantage[:, t] = torch.where(is_marked, running, advantage[:, t])
    return advantage, (advantage + value) * (mask > 0)


def token_gae(
    token_reward: Tensor,
    old_value: Tensor,
    mask: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: Fraction = 1.0,
    gae_lambda: Fraction = 0.95,
    whiten: bool = True,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of tokens by `gae`; returns are taken before advantages are whitened over the batch.

    Args:
        token_reward: [N, T].
        old_value: [N, T] value of the prefix before each token.
        mask: [N, T] 1 on the policy's tokens.
        weight: [N, T] how much each token counts, in the mean and variance of whitening too.
        gamma: discount a token.
        gae_lambda: 0 gives one-step errors, 1 returns.
        whiten: give the advantages of all tokens mean 0 and variance 1.

    Returns:
        Two tensors [N, T].
    """
    advantage, returns = gae(token_reward, old_value, mask, gamma, gae_lambda)
    return (masked_whiten(advantage, mask, weight=weight) if whiten else advantage), returns
