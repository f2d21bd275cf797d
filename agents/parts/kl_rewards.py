"""The divergence from the reference as a reward of tokens, with a coefficient that is given or adapts (RLHF-PPO)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .divergences import Kind, kl_token
from .option_types import NonNegative, PositiveCount


def kl_token_reward(
    old_logp: Tensor, reference_logp: Tensor, mask: Tensor, *, beta: NonNegative = 0.05, kind: Kind = "k1"
) -> Tensor:
    """Reward -beta KL_t of each token, [N, T], KL_t estimated at the token by the policy that wrote it, without gradient.

    Args:
        old_logp: [N, T] of the policy that wrote.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        beta: coefficient.
        kind: the estimate, see `kl_token`; "k1" is log p - log p_reference.
    """
    return -beta * kl_token(old_logp, reference_logp, kind=kind).detach() * mask


class KLReward:
    """`kl_token_reward` whose coefficient follows a target (Ziegler et al. 2019, arXiv 1909.08593, section 2.2).

    After an iteration with n answers of a mean divergence KL (sum over tokens): error = clip(KL / target - 1, -0.2, 0.2) and
    beta = beta (1 + error n / horizon).

    Args:
        beta: coefficient at first.
        target: divergence of an answer, in nats, that is aimed at; None keeps the coefficient.
        horizon: answers in which the coefficient may change by a factor of e.
        kind: the estimate of the reward; what the coefficient follows is "k1".
    """

    def __init__(
        self,
        *,
        beta: NonNegative = 0.05,
        target: NonNegative | None = None,
        horizon: PositiveCount = 10_000,
        kind: Kind = "k1",
    ) -> None:
        self.beta, self.target, self.horizon, self.kind = float(beta), target, horizon, kind

    def __call__(self, old_logp: Tensor, reference_logp: Tensor, mask: Tensor) -> Tensor:
        """Return the reward of each token, [N, T]."""
        return kl_token_reward(old_logp, reference_logp, mask, beta=self.beta, kind=self.kind)

    def after(self, old_logp: Tensor, reference_logp: Tensor, mask: Tensor) -> None:
        """Let the coefficient follow."""
        self._follow((old_logp - reference_logp) * mask)

    def _follow(self, kl: Tensor) -> None:
        """Change the coefficient by the divergence of each token [N, T]."""
        if self.target:
            found = float(kl.sum(1).mean())
            error = min(max(found / self.target - 1, -0.2), 0.2)
            self.beta *= 1 + error * len(kl) / self.horizon

    def state_dict(self) -> dict[str, Any]:
        """Return the coefficient."""
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a coefficient."""
        self.beta = float(state["beta"])


def full_kl(logp: Tensor, other_logp: Tensor, mask: Tensor) -> Tensor:
    """KL(p, q) = sum over the vocabulary of p (log p - log q) at each place, [N, T], 0 where `mask` is.

    Args:
        logp: [N, T, V] log p.
        other_logp: [N, T, V] log q.
        mask: [N, T].
    """
    found = (logp.exp() * (logp - other_logp).masked_fill(logp == -torch.inf, 0.0)).sum(-1)
    return torch.where(mask > 0, found, torch.zeros_like(found))


class FullKLReward(KLReward):
    """`KLReward` whose divergence is that of whole distributions and no estimate: sum_v p(v) (log p(v) - log p_reference(v)) at each place.

    It keeps the log-probabilities of the whole vocabulary of a batch, twice.

    Args:
        beta: coefficient at first.
        target: divergence of an answer, in nats, that is aimed at; None keeps the coefficient.
        horizon: answers in which the coefficient may change by a factor of e.
    """

    def __init__(
        self, *, beta: NonNegative = 0.05, target: NonNegative | None = None, horizon: PositiveCount = 10_000
    ) -> None:
        super().__init__(beta=beta, target=target, horizon=horizon)

    def __call__(self, old_full_logp: Tensor, reference_full_logp: Tensor, mask: Tensor) -> Tensor:
        """Return the reward of each token, [N, T]."""
        return -self.beta * full_kl(old_full_logp, reference_full_logp, mask)

    def after(self, old_full_logp: Tensor, reference_full_logp: Tensor, mask: Tensor) -> None:
        """Let the coefficient follow."""
        self._follow(full_kl(old_full_logp, reference_full_logp, mask))


def extra_token_reward(
    dpo_logp: Tensor, reference_logp: Tensor, mask: Tensor, *, b1: NonNegative = 0.05, clip: NonNegative = 0.05
) -> Tensor:
    """Reward b1 (log p_dpo - log p_reference) of each token, [N, T]: what a model that DPO trained thinks of it (Zhong et al. 2024, RTO).

    Without clipping and with b1 the beta of that training, an answer's sum is its implicit reward.

    Args:
        dpo_logp: [N, T] under the model that DPO trained.
        reference_logp: [N, T] under the reference, the model that its training began with.
        mask: [N, T] 1 on the policy's tokens.
        b1: coefficient; it must not outweigh the reward of the whole answer.
        clip: largest reward of a token; 0 clips nothing.
    """
    found = b1 * (dpo_logp - reference_logp).detach()
    return (found.clamp(-clip, clip) if clip else found) * mask
