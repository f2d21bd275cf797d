"""f-divergences: one table of their derivatives and conjugates, for preference losses, imitation and distribution matching.

D_f(p, q) = E_q[f(p / q)] with a convex f, f(1) = 0.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from polyathlon.envs.errors import unknown_name

FKind = Literal["reverse_kl", "forward_kl", "js", "alpha", "tv", "chi2", "reverse_chi2"]
PhiKind = Literal["tv", "chi2", "hellinger", "kl"]
LARGEST_EXPONENT = 80.0  # exp of it is a float32 number
HELLINGER_LEAST = -0.9  # the pole of r / (1 + r) is at -1


def f_prime(log_t: Tensor, kind: FKind = "reverse_kl", alpha: float = 0.5) -> Tensor:
    """f'(t) at t = exp(log_t), t = pi / p, of the divergence between the policy pi and p.

    | kind | f'(t) |
    |---|---|
    | "reverse_kl", KL(pi, p) | log t + 1 |
    | "forward_kl", KL(p, pi) | -1 / t |
    | "js" | log(2 t / (1 + t)) |
    | "alpha" | (t^(alpha - 1) - 1) / (alpha - 1); alpha = 1 is log t |
    | "tv" | sign(log t) / 2 |
    | "chi2", of p from pi | 1 - t^-2 |
    | "reverse_chi2", of pi from p | 2 (t - 1) |

    Args:
        log_t: any shape.
        kind: the divergence.
        alpha: of "alpha".

    Raises:
        UsageError: an unknown kind.
    """

    def power(exponent: float) -> Tensor:
        return (exponent * log_t).clamp(max=LARGEST_EXPONENT).exp()

    if kind == "reverse_kl":
        return log_t + 1
    if kind == "forward_kl":
        return -power(-1)
    if kind == "js":
        return math.log(2) + logsigmoid(log_t)
    if kind == "alpha":
        return log_t if alpha == 1 else (power(alpha - 1) - 1) / (alpha - 1)
    if kind == "tv":
        return log_t.sign() / 2
    if kind == "chi2":
        return 1 - power(-2)
    if kind == "reverse_chi2":
        return 2 * (power(1) - 1)
    raise unknown_name("kind of divergence", kind, get_args(FKind))


Divergence = Literal["reverse_kl", "forward_kl", "js", "alpha"]


def divergence_link(rho: Tensor, kind: Divergence = "reverse_kl", alpha: float = 0.5) -> Tensor:
    """Implicit reward of the optimum of a reward with an f-divergence from the reference: f'(pi / reference), up to a constant.

    Wang et al. 2023, arXiv 2309.16240, table 1: E[r] - beta D_f(pi, reference) is largest where r = beta f'(pi / reference) + const, and
    the constant cancels in a pair.

    Args:
        rho: [N] log pi - log reference.
        kind: the divergence; "reverse_kl" is DPO.
        alpha: of "alpha".
    """
    return rho if kind == "reverse_kl" else f_prime(rho, kind, alpha)


def phi_link(r: Tensor, kind: PhiKind = "chi2") -> Tensor:
    """phi(r) = -f*(-r), concave with phi(0) = 0 and phi'(0) = 1, f* the conjugate of f.

    | kind | f(t) | phi(r) |
    |---|---|---|
    | "tv" | abs(t - 1) / 2, where r is small | r |
    | "chi2" (Pearson) | (t - 1)^2 | r - r^2 / 4 |
    | "hellinger" (squared) | (sqrt(t) - 1)^2 | r / (1 + r), r at least -0.9 |
    | "kl" | t log t - t + 1 | 1 - exp(-r) |

    Args:
        r: any shape.
        kind: the divergence.

    Raises:
        UsageError: an unknown kind.
    """
    if kind == "tv":
        return r
    if kind == "chi2":
        return r - r.square() / 4
    if kind == "hellinger":
        r = r.clamp(min=HELLINGER_LEAST)
        return r / (1 + r)
    if kind == "kl":
        return 1 - (-r).clamp(max=LARGEST_EXPONENT).exp()
    raise unknown_name("link", kind, get_args(PhiKind))


@torch.no_grad()
def best_offset(r: Tensor, group: Tensor, kind: PhiKind) -> Tensor:
    """Return the c of each row's group, [N], at which the mean over the group of phi(r + c) - c is largest.

    There the mean of phi'(r + c) is 1: c = -mean(r) for "chi2", log mean(exp(-r)) for "kl"; of "hellinger" it is found by bisection, and
    "tv" does not depend on c, which is 0.

    Args:
        r: [N].
        group: [N] int64.
        kind: see `phi_link`.
    """
    if kind == "tv":
        return torch.zeros_like(r)
    index = group.unique(return_inverse=True)[1]
    zeros = r.new_zeros(int(index.max()) + 1)
    count = zeros.index_add(0, index, torch.ones_like(r))

    def mean(x: Tensor) -> Tensor:
        return zeros.index_add(0, index, x) / count

    if kind == "chi2":
        return -mean(r)[index]
    low, high = (zeros.scatter_reduce(0, index, r, way, include_self=False) for way in ("amin", "amax"))
    if kind == "kl":
        return (mean((low[index] - r).exp()).log() - low)[index]
    left, right = (
        torch.maximum(-high, -1 - low),
        -low,
    )  # phi' is at least 1 at the left end and at most 1 at the right one
    for _ in range(60):
        middle = (left + right) / 2
        is_left = mean((1 + r + middle[index]).square().reciprocal()) > 1
        left, right = torch.where(is_left, middle, left), torch.where(is_left, right, middle)
    return ((left + right) / 2)[index]
