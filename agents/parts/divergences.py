"""Estimates of the divergence from a reference, token by token."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import torch
from torch import Tensor

from polyathlon.envs.errors import unknown_name

from .option_types import Bounds

Kind = Literal["k1", "k2", "k3", "abs"]
KINDS = get_args(Kind)


def kl_token(logp: Tensor, ref_logp: Tensor, *, kind: Kind = "k3") -> Tensor:
    """Estimate the divergence of the policy from a reference at sampled tokens (Schulman 2020, "Approximating KL").

    With d = logp - ref_logp: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d, abs = |d|. As a loss under samples of the
    policy, k2's gradient is that of KL(policy, reference), k3's that of KL(reference, policy), k1's is zero on average.

    Args:
        logp: [N, T] under the current parameters.
        ref_logp: [N, T] under the reference.
        kind: the estimate.

    Raises:
        UsageError: an unknown kind.
    """
    if kind not in KINDS:
        raise unknown_name("kind of divergence", kind, KINDS)
    gap = logp - ref_logp
    if kind == "k1":
        return gap
    if kind == "k2":
        return 0.5 * gap.square()
    if kind == "k3":
        return (-gap).exp() - 1 + gap
    return gap.abs()


Applies = Literal["all", "wrong", "failed_groups"]


def teacher_kl(
    logp: Tensor,
    ref_logp: Tensor,
    reward: Tensor,
    group: Tensor,
    *,
    kind: Kind = "k2",
    applies: Applies = "all",
    threshold: float = 0.5,
    largest: Annotated[float, Bounds(0)] | None = None,
) -> Tensor:
    """Estimate the divergence from a teacher at the student's own tokens (Xu et al. 2025, KDRL, arXiv 2506.02208, section 3).

    k2's gradient is that of the reverse divergence KL(student, teacher) as long as the student itself wrote the tokens: take one update
    a batch.

    Args:
        logp: [N, T] under the current parameters.
        ref_logp: [N, T] under the teacher.
        reward: [N].
        group: [N] int64.
        kind: see `kl_token`.
        applies: "all" answers, "wrong" ones alone, or those of "failed_groups", which have no right answer.
        threshold: rewards above it are right answers.
        largest: bound of a token's term, for teachers that give almost 0; None sets none.

    Returns:
        [N, T].
    """
    each = kl_token(logp, ref_logp, kind=kind)
    if largest is not None:
        each = each.clamp(max=largest)
    if applies == "all":
        return each
    right = (reward > threshold).to(each.dtype)
    if applies == "failed_groups":
        right = right.new_zeros(int(group.max()) + 1).index_add(0, group, right)[group]
    return each * torch.where(right > 0, 0.0, 1.0).to(each.dtype)[:, None]
