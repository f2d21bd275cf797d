"""Estimates of the divergence from a reference, token by token."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from polyathlon.envs.errors import unknown_name

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
