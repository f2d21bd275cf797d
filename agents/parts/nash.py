"""Equilibria of preferences: Nash-MD's loss, the mixture that its opponent writes from, win rates, and both as tables of exact numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .option_types import NonNegative
from .score_function import score_function_kl
from .sequences import seq_logps


def nash_md(
    logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    group: Tensor,
    win: Tensor,
    *,
    tau: NonNegative = 0.008,
) -> Tensor:
    """Policy gradient of P(y > y') - tau KL(policy, reference) against an opponent (Munos et al. 2023, Nash-MD-PG, arXiv 2312.00886).

    The gradient is that of -mean_y sum_t log p_t (P(y > y') - 1/2 - tau K_t), K_t the log-ratios log p - log p_reference summed over the
    tokens from t on: on average it is that of the divergence of whole answers. The opponent is the collector's (`Opponents`).

    Args:
        logp: [N, T] under the current parameters, which wrote the answers at temperature 1.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        group: [N] int64, the prompt of each row.
        win: [N] how likely each answer is better than its opponent's, in [0, 1].
        tau: price of the divergence.

    Returns:
        A scalar, the mean over answers.
    """
    gain = ((win - 0.5).detach() * seq_logps(logp, mask)).mean()
    return tau * score_function_kl(logp, reference_logp, mask, group, rtg=True) - gain


def mixture_logits(policy: Tensor, other: Tensor, *, mixture: float) -> Tensor:
    """Logits of the geometric mixture policy^(1 - b) other^b of the next token, (1 - b) log p + b log p_other up to a constant.

    Mixing token by token is not the mixture of whole answers. At b = 0 it is the policy, at b = 1 the other.

    Args:
        policy: [n, V] logits.
        other: [n, V] logits of the other model.
        mixture: b.

    Raises:
        UsageError: b lies outside [0, 1].
    """
    check_mixture(mixture)
    if mixture in (0, 1):
        return other if mixture else policy
    return (1 - mixture) * policy + mixture * other


def check_mixture(mixture: float) -> None:
    """Refuse a share outside [0, 1].

    Raises:
        UsageError: with what 0 and 1 mean.
    """
    if not 0 <= mixture <= 1:
        raise UsageError(
            f"mixture is the other model's share of the opponent's logits, from 0 (the policy itself) to 1 (the other model), got {mixture!r}"
        )


def win_rate_vs_group(wins: Tensor, group: Tensor) -> Tensor:
    """Return how likely each answer is better than another one to its prompt, [N]: the mean of P(i > j) over the others j of its group.

    An answer that is alone in its group gets 1/2.

    Args:
        wins: [N, N] P(i > j); entries across groups are not read.
        group: [N] int64.
    """
    others = (group[:, None] == group[None]) & ~torch.eye(len(group), dtype=torch.bool, device=group.device)
    count = others.sum(1)
    total = torch.where(others, wins, torch.zeros_like(wins)).sum(1)
    return torch.where(count > 0, total / count.clamp(min=1), torch.full_like(total, 0.5))


def nash_md_step(pi: Tensor, mu: Tensor, preference: Tensor, *, tau: float, eta: float) -> Tensor:
    """One exact step of Nash-MD on a table (algorithm 1): pi' ~ mix exp(eta P(. > mix)), mix ~ pi^(1 - eta tau) mu^(eta tau).

    With eta_t = 2 / (tau (t + 2)) the divergence of the equilibrium from the T-th policy is at most 8 / (tau^2 (T + 1)).

    Args:
        pi: [K] probabilities.
        mu: [K] the reference's.
        preference: [K, K] P(i > j).
        tau: price of the divergence.
        eta: step size, eta tau at most 1.
    """
    share = eta * tau
    log_mix = ((1 - share) * pi.log() + share * mu.log()).log_softmax(0)
    return (log_mix + eta * (preference @ log_mix.exp())).softmax(0)


def regularised_equilibrium(preference: Tensor, mu: Tensor, *, tau: float, steps: int = 400) -> Tensor:
    """Return the one policy [K] that is its own best answer under P(pi > pi') - tau KL(pi, mu) + tau KL(pi', mu): pi ~ mu exp(P(. > pi) / tau).

    Args:
        preference: [K, K] P(i > j), with P(i > j) + P(j > i) = 1.
        mu: [K] probabilities of the reference.
        tau: price of the divergence, above 0.
        steps: of Nash-MD, whose last policy Newton's method starts from.

    Raises:
        UsageError: it was not found to 1e-12.
    """
    pi = mu
    for t in range(steps):
        pi = nash_md_step(pi, mu, preference, tau=tau, eta=2 / (tau * (t + 2)))
    z, eye = pi.log(), torch.eye(len(mu), dtype=mu.dtype)
    for _ in range(100):
        p = z.softmax(0)
        residual = z.log_softmax(0) - (mu.log() + preference @ p / tau).log_softmax(0)
        if float(residual.abs().max()) < 1e-12:
            return p
        if not residual.isfinite().all():
            break  # Newton's method left the simplex
        slope = p.diag() - p[:, None] * p[None]  # dp / dz
        centred = eye - p[None]  # of log_softmax
        target = (mu.log() + preference @ p / tau).softmax(0)
        jacobian = centred - (eye - target[None]) @ preference @ slope / tau
        z = z - torch.linalg.lstsq(jacobian, residual[:, None]).solution[:, 0]
    raise UsageError(f"no equilibrium was found for tau={tau} in {steps} steps: raise tau")
