"""Imitation that keeps its divergence from the reference: the implicit reward of a policy, seen through an f-divergence."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .f_divergences import PhiKind, best_offset, phi_link
from .option_types import Bounds
from .sequences import log_ratio

Beta = Annotated[float, Bounds(1e-9)]


def implicit_sft(
    logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    side: Tensor,
    group: Tensor,
    *,
    beta: Beta = 0.3,
    link: PhiKind = "chi2",
    offset: Literal["zero", "group", "batch"] = "zero",
) -> Tensor:
    """SFT as a case of DPO (Wang et al. 2025, arXiv 2507.00018): -(phi(beta rho + c) - c) / beta of demonstrations.

    Dual of min D_f(pi, experts) + beta KL(pi, reference), rho = sum_t (log p - log p_reference). Each demonstration's gradient is SFT's times
    phi'(beta rho + c): what has been learnt already pulls less. "tv" is SFT itself.

    Args:
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        side: [N] 1 chosen, -1 rejected (left out), 0 neither.
        group: [N] int64, the prompt of each row.
        beta: weight of the divergence from the reference.
        link: f, see `phi_link`.
        offset: c = beta log Z of a prompt: 0 ("zero"), or its best value over the demonstrations of a prompt ("group", which needs several:
            with one it is SFT) or over the batch ("batch").

    Returns:
        A scalar, the mean over demonstrations.

    Raises:
        UsageError: all answers are rejected ones, or offset="group" with one demonstration to each prompt.
    """
    rows = _demonstrations(side)
    r, own = beta * log_ratio(logp[rows], reference_logp[rows], mask[rows]), group[rows]
    if offset == "zero":
        return -phi_link(r, link).mean() / beta
    if offset == "group" and len(own.unique()) == len(own) and link != "tv":
        raise UsageError(
            "implicit_sft(offset='group') takes the offset over several demonstrations of a prompt, and here each prompt has one, "
            "where it would be plain SFT: take offset='zero' or 'batch'"
        )
    c = best_offset(r.detach(), own if offset == "group" else torch.zeros_like(own), link)
    return -(phi_link(r + c, link) - c).mean() / beta


def implicit_sft_value(
    logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    side: Tensor,
    value: Tensor,
    *,
    beta: Beta = 0.3,
    link: PhiKind = "chi2",
) -> Tensor:
    """`implicit_sft` with a learned offset: c(x) is what the critic says before the first token of the answer.

    Args:
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        side: [N] 1 chosen, -1 rejected (left out), 0 neither.
        value: [N, T] of the critic.
        beta: weight of the divergence from the reference.
        link: f, see `phi_link`.

    Returns:
        A scalar, the mean over demonstrations.
    """
    rows = _demonstrations(side)
    r = beta * log_ratio(logp[rows], reference_logp[rows], mask[rows])
    c = value[rows].gather(1, mask[rows].argmax(1)[:, None])[:, 0]
    return -(phi_link(r + c, link) - c).mean() / beta


def _demonstrations(side: Tensor) -> Tensor:
    rows = (side >= 0).nonzero()[:, 0]
    if not len(rows):
        raise UsageError("there is no answer to imitate: all are rejected ones; give chosen answers, or demonstrations")
    return rows


def implicit_q(logits: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Read logits as values: Q(s, a) = beta logit, V(s) = beta log sum_a exp(logit); Q - V = beta log p(a | s).

    The implicit reward of a token is r_t = Q(s_t, a_t) - V(s_{t+1}). V is the model's own estimate of what comes, up to a number a prompt.

    Args:
        logits: [..., V].
        beta: temperature.

    Returns:
        Q [..., V] and V [...].
    """
    return beta * logits, beta * logits.logsumexp(-1)
