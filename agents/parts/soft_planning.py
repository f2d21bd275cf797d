"""Planning with a reward for staying near a reference policy, on finite tasks of a fixed horizon.

Source: Tiapkin et al. 2024, "Demonstration-Regularized RL" (ICLR). Shapes: S states, A actions, H steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, check_positive


def soft_value_kl(q: Tensor, log_ref: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """Return V = lam log sum_a ref(a) e^(q(a) / lam), and log pi = log ref + (q - V) / lam, which attains it.

    V is the maximum over policies of E_pi[q] - lam KL(pi, ref). lam -> 0 is the greedy policy, lam -> infinity the reference.

    Args:
        q: values [..., A].
        log_ref: logarithms of the reference's probabilities [..., A].
        lam: weight of the divergence, above 0.

    Returns:
        V [...] and log pi [..., A].
    """
    log_pi = (log_ref + q / lam).log_softmax(-1)
    return lam * torch.logsumexp(log_ref + q / lam, -1), log_pi


def bc_counts(counts: Tensor, kappa: float = 1.0) -> Tensor:
    """Return the cloned policy (N(s, a) + kappa / A) / (N(s) + kappa) of counts [..., A].

    Where nothing was shown it is uniform; kappa > 0 keeps every log-probability finite.

    Raises:
        UsageError: kappa is not positive: an action that was never shown would have an infinite divergence.
    """
    check_positive(kappa=kappa)
    actions = counts.shape[-1]
    return (counts + kappa / actions) / (counts.sum(-1, keepdim=True) + kappa)


def bonus(visits: Tensor, horizon: int, c: float) -> Tensor:
    """Return the optimism c H / sqrt(max(N(s, a), 1)) of visits [...]."""
    return c * horizon / visits.clamp_min(1).sqrt()


def plan(
    transitions: Tensor, rewards: Tensor, log_ref: Tensor, lam: float, optimism: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the regularised optimum by backward induction.

    Q_h = min(H - h, r + P V_{h+1} + b), capped before the softmax; V_h, pi_h = `soft_value_kl`(Q_h, ref_h). The cap holds for
    rewards in [0, 1].

    Args:
        transitions: P(s' | s, a) [S, A, S].
        rewards: r(s, a) [S, A], in [0, 1].
        log_ref: log-probabilities of the reference [H, S, A].
        lam: weight of the divergence.
        optimism: bonus [S, A], or a number.

    Returns:
        The values [H, S] and the policy [H, S, A].

    Raises:
        UsageError: a reward lies outside [0, 1].
    """
    if not bool(((rewards >= 0) & (rewards <= 1)).all()):
        raise UsageError("the cap Q_h <= H - h holds for rewards in [0, 1]: scale and shift them")
    check_positive(lam=lam)
    horizon = log_ref.shape[0]
    value = rewards.new_zeros(rewards.shape[0])
    values, policy = [], []
    for h in reversed(range(horizon)):
        q = (rewards + transitions @ value + optimism).clamp_max(float(horizon - h))
        value, log_pi = soft_value_kl(q, log_ref[h], lam)
        values.append(value)
        policy.append(log_pi.exp())
    return torch.stack(values[::-1]), torch.stack(policy[::-1])
