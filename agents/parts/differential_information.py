"""What preferences tell about a target policy beyond a reference: the distribution of their ratio (DID), its entropy, its sampler."""

from __future__ import annotations

import torch
from torch import Tensor

from .sequences import log_ratio, seq_logps


def did_distribution(log_pi: Tensor, log_ref: Tensor) -> Tensor:
    """Return the logarithm of q(y) = (pi(y) / ref(y)) / sum of the ratios, over all answers that there are.

    Won et al. 2025, arXiv 2505.23761: labels with P(w over l) = q(w)^beta / (q(w)^beta + q(l)^beta) let DPO(beta) recover pi.

    Args:
        log_pi: [..., K] log-probabilities of the target policy.
        log_ref: [..., K] of the reference.
    """
    return (log_pi - log_ref).log_softmax(-1)


def rejected_sampler(log_pi: Tensor, log_ref: Tensor, beta: float, *, chosen: Tensor | None = None) -> Tensor:
    """Return the log-probabilities [..., K] that rejected answers must have so that DPO(beta) recovers the target from chosen ones.

    p_rejected ~ p_chosen (ref / pi)^beta: with chosen answers of the target and beta = 1 it is the reference.

    Args:
        log_pi: [..., K] log-probabilities of the target policy.
        log_ref: [..., K] of the reference.
        beta: DPO's.
        chosen: [..., K] log-probabilities of the chosen answers; None is the target's.
    """
    drawn = log_pi if chosen is None else chosen
    return (drawn + beta * (log_ref - log_pi)).log_softmax(-1)


def did_entropy(
    logp: Tensor, reference_logp: Tensor, mask: Tensor, group: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Estimate the entropy of the differential information of policy and reference, in nats, from answers of the policy.

    With weights 1 / ref(y), self-normalised: H = log mean(1 / ref) - E_w[log pi - log ref]. The tails are heavy: of long answers one has
    almost all the weight, and then the number says nothing; the effective sample size (sum w)^2 / sum w^2 tells.

    Args:
        logp: [N, T] under the policy.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        group: [N] int64, the prompt of each row, over which the estimates are averaged; None is one prompt.

    Returns:
        The entropy and the effective sample size, both means over prompts.
    """
    rho, ref = log_ratio(logp, reference_logp, mask), seq_logps(reference_logp, mask)
    index = torch.zeros_like(ref, dtype=torch.int64) if group is None else group.unique(return_inverse=True)[1]
    zeros = ref.new_zeros(int(index.max()) + 1)
    largest = zeros.scatter_reduce(0, index, -ref, "amax", include_self=False)
    w = (-ref - largest[index]).exp()
    total = zeros.index_add(0, index, w)
    count = zeros.index_add(0, index, torch.ones_like(w))
    log_z = largest + (total / count).log()
    entropy = log_z - zeros.index_add(0, index, w * rho) / total
    size = total.square() / zeros.index_add(0, index, w.square())
    return entropy.mean(), size.mean()
