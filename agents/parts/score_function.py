"""The divergence from the reference as a loss on answers of the policy itself, by the score function; HyPO."""

from __future__ import annotations

from torch import Tensor

from .advantages import group_advantage
from .option_types import NonNegative
from .preferences import Smoothing, dpo
from .sequences import log_ratio, seq_logps


def score_function_kl(
    logp: Tensor, reference_logp: Tensor, mask: Tensor, group: Tensor, *, rtg: bool = False
) -> Tensor:
    """KL(policy, reference) on answers that the policy wrote: the value is its estimate, the gradient that of the divergence on average.

    With a = detach(rho), rho = sum_t (log p - log p_reference): sum of (a_i - mean of the others of the group) log p(y_i), a leave-one-out baseline;
    an answer that is alone in its group has none. `rtg` weighs each token by the log-ratios of itself and of those after it alone, which
    has the same mean and less variance.

    Args:
        logp: [N, T] under the current parameters, which wrote the answers at temperature 1.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        group: [N] int64, the prompt of each row.
        rtg: reward to go.

    Returns:
        A scalar, the mean over answers.
    """
    rho = log_ratio(logp, reference_logp, mask)
    a = rho.detach()
    if rtg:
        each = ((logp - reference_logp).detach() * mask).flip(1).cumsum(1).flip(1)
        surrogate = (logp * mask * each).sum(1).mean()
    else:
        centred = group_advantage(a, group, center="loo", scale="none")
        surrogate = (centred * seq_logps(logp, mask)).mean()
    return a.mean() + surrogate - surrogate.detach()


def hypo(
    logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    side: Tensor,
    group: Tensor,
    label: Tensor | None = None,
    *,
    beta: NonNegative = 0.1,
    lam: NonNegative = 0.05,
    label_smoothing: Smoothing = 0.0,
) -> Tensor:
    """Hybrid Preference Optimization (Song et al. 2024, arXiv 2406.01462): DPO on pairs and lam KL(policy, reference) on fresh answers.

    Answers of side 0 are fresh ones of the policy: they need no labels. DPO alone may put probability on answers that no pair covers; the
    divergence on the policy's own answers sees these.

    Args:
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        side: [N] 1 chosen, -1 rejected, 0 an answer of the policy.
        group: [N] int64.
        label: see `dpo`.
        beta: of DPO.
        lam: weight of the divergence; 0 is DPO.
        label_smoothing: of DPO.

    Returns:
        A scalar. A batch without answers of the policy has the first term alone, one without pairs the second.
    """
    fresh = (side == 0).nonzero()[:, 0]
    loss = logp.new_zeros(())
    if len(fresh) < len(side):
        loss = dpo(logp, reference_logp, mask, side, group, label, beta=beta, label_smoothing=label_smoothing)
    if not lam or not len(fresh):
        return loss
    return loss + lam * score_function_kl(logp[fresh], reference_logp[fresh], mask[fresh], group[fresh])
