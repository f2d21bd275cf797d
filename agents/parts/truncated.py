"""T-PPO: learn from windows of answers that go on (Fan et al. 2025, arXiv 2506.15050)."""

from __future__ import annotations

import torch
from torch import Tensor

from .advantages import masked_whiten
from .option_types import Count, Fraction, NonNegative
from .token_returns import gae

SHARE_IGNORED = 8  # at most an eighth of a window is ignored, so that short windows teach something


def length_lambda(reach: Tensor, least: float = 0.95) -> Tensor:
    """max(least, 1 - 1 / (0.05 n)) for answers of n tokens, [N]: 0.95 to 400 tokens, 0.9975 at 8,000.

    Args:
        reach: [N] n.
        least: at short lengths.
    """
    return (1 - 1 / (0.05 * reach).clamp(min=1e-6)).clamp(min=least)


def egae(
    token_reward: Tensor,
    old_value: Tensor,
    mask: Tensor,
    window: Tensor,
    over: Tensor,
    reach: Tensor,
    *,
    gamma: Fraction = 1.0,
    least_lambda: Fraction = 0.95,
    ignore: Count = 8,
    largest: NonNegative = 10.0,
    whiten: bool = True,
) -> tuple[Tensor, Tensor]:
    """Extended GAE: advantages within the newest window, returns of whole answers that are over (equations 6 to 9).

    As GAE with lambda = `length_lambda(reach)`; after the last token of an answer that goes on the value is that at the token itself, so
    that delta there is (gamma - 1) V. Advantages of the last `ignore` tokens of such a window (at most an eighth of it) are 0. Whitened
    over the windows of the batch, then cut at +-`largest`. Returns are sums of rewards (lambda = 1).

    Args:
        token_reward: [N, T].
        old_value: [N, T] value of the prefix before each token.
        mask: [N, T] 1 on the policy's tokens, of all windows.
        window: [N, T] 1 on those of the newest.
        over: [N] 1 where the answer is over.
        reach: [N] tokens so far, and half a window for an answer that goes on.
        gamma: discount a token.
        least_lambda: lambda of short answers.
        ignore: tokens at the edge of a window that teach nothing.
        largest: bound of the advantages.
        whiten: give the advantages mean 0 and variance 1.

    Returns:
        Advantages and returns, [N, T] each.
    """
    window = window * mask
    last = window.shape[1] - 1 - window.flip(1).argmax(1)
    at_last = old_value.gather(1, last[:, None])[:, 0]
    tail = torch.where(over > 0, torch.zeros_like(at_last), at_last)
    lam = length_lambda(reach.to(old_value.dtype), least_lambda)
    advantage, _ = gae(token_reward, old_value, window, gamma, lam, tail)
    returns, _ = gae(token_reward, torch.zeros_like(old_value), mask, gamma, 1.0)
    behind = window.flip(1).cumsum(1).flip(1)  # tokens of the window from here on
    ignored = (window.sum(1) / SHARE_IGNORED).floor().clamp(max=ignore) * (over <= 0)
    advantage = torch.where(behind <= ignored[:, None], torch.zeros_like(advantage), advantage) * window
    if whiten:
        advantage = masked_whiten(advantage, window).clamp(-largest, largest)
    return advantage, returns


def window_weight(window: Tensor) -> Tensor:
    """Let the tokens of the newest window alone count in the policy's loss, [N, T].

    Args:
        window: [N, T] 1 on the tokens of the newest window.
    """
    return window


def over_value_loss(
    value: Tensor,
    old_value: Tensor,
    returns: Tensor,
    mask: Tensor,
    over: Tensor,
    *,
    value_low: NonNegative = 0.5,
    value_high: NonNegative = 0.6,
) -> Tensor:
    """The critic's loss on answers that are over, all windows of them: a mean over each, then over them.

    max((v - R)^2, (clip(v, v_old - low, v_old + high) - R)^2) / 2.

    Args:
        value: [N, T] under the current parameters.
        old_value: [N, T] when the window was gathered.
        returns: [N, T].
        mask: [N, T] 1 on the policy's tokens.
        over: [N] 1 where the answer is over.
        value_low: value clipping below: values are clipped at old value - value_low.
        value_high: value clipping above: values are clipped at old value + value_high.

    Returns:
        A scalar; 0 where no answer is over.
    """
    near = old_value + (value - old_value).clamp(-value_low, value_high)
    error = 0.5 * torch.maximum((value - returns).square(), (near - returns).square())
    each = (error * mask).sum(1) / mask.sum(1).clamp(min=1)
    return (each * over).sum() / over.sum().clamp(min=1)


def right_nll(logp: Tensor, mask: Tensor, reward: Tensor, over: Tensor, *, threshold: float = 0.5) -> Tensor:
    """-log p of the tokens of right answers that are over, a mean over them; a scalar.

    Args:
        logp: [N, T] under the current parameters.
        mask: [N, T] 1 on the policy's tokens.
        reward: [N].
        over: [N] 1 where the answer is over.
        threshold: rewards above it are right answers.
    """
    counted = mask * ((over > 0) & (reward > threshold)).to(mask.dtype)[:, None]
    return -(logp * counted).sum() / counted.sum().clamp(min=1)
