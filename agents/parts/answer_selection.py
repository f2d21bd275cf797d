"""Which of several answers are kept: the best of n, pairs of a best and a worst, and rejection sampling."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .option_types import Bounds, NonNegative
from .wiring import compares_groups

PairMode = Literal["best_worst", "all", "margin"]


def select_best(reward: Tensor, group: Tensor) -> Tensor:
    """Return the row of the best answer of each group, [G] int64, the first of equals; groups in the order of their numbers.

    Args:
        reward: [N].
        group: [N] int64.
    """
    order = torch.argsort(reward, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    own = group[order]
    is_first = torch.ones_like(own, dtype=torch.bool)
    is_first[1:] = own[1:] != own[:-1]
    return order[is_first]


@compares_groups
def best_of_n(reward: Tensor, group: Tensor) -> Tensor:
    """Weigh the best answer of each group by 1 and the others by 0, [N]; imitating it is the distillation of best-of-n.

    With n answers of the reference, KL(best-of-n, reference) is at most ln n - (n - 1) / n (Stiennon et al. 2020, arXiv 2009.01325,
    appendix G).

    Args:
        reward: [N].
        group: [N] int64.
    """
    return torch.zeros_like(reward).index_fill(0, select_best(reward, group), 1.0)


def best_of_n_kl(n: int) -> float:
    """Return the bound ln n - (n - 1) / n of the divergence of best-of-n from what the answers were drawn from, in nats.

    Raises:
        UsageError: n is below 1.
    """
    if n < 1:
        raise UsageError(f"best-of-n needs n of at least 1, got {n!r}")
    return math.log(n) - (n - 1) / n


def select_pair(
    reward: Tensor, group: Tensor, *, mode: PairMode = "best_worst", min_gap: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return rows of better and of worse answers, [P] and [P] int64, of each group's answers.

    Args:
        reward: [N].
        group: [N] int64.
        mode: "best_worst", one pair a group; "all", every pair of unequal rewards; "margin", the pair of neighbours in rank that are
            furthest apart.
        min_gap: pairs whose rewards differ by less are left out; equal rewards always are.
    """
    better = (group[:, None] == group[None]) & (reward[:, None] > reward[None])
    gap = reward[:, None] - reward[None]
    if mode == "all":
        won, lost = (better & (gap >= min_gap)).nonzero(as_tuple=True)
        return won, lost
    found: list[tuple[int, int]] = []
    for q in group.unique():
        rows = (group == q).nonzero()[:, 0]
        order = rows[reward[rows].argsort(descending=True, stable=True)]
        first, last = 0, len(order) - 1
        if mode == "margin" and len(order) > 1:
            first = int((reward[order][:-1] - reward[order][1:]).argmax())
            last = first + 1
        top, low = int(order[first]), int(order[last])
        if bool(better[top, low]) and float(gap[top, low]) >= min_gap:
            found.append((top, low))
    table = torch.tensor(found, dtype=torch.int64, device=reward.device).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def gibbs_accept(
    reward: Tensor, uniform: Tensor, *, beta: Annotated[float, Bounds(1e-9)] = 0.5, r_max: float | None = None
) -> Tensor:
    """Statistical rejection sampling (Liu et al. 2023, RSO, arXiv 2309.06657): keep y with the probability exp((r(y) - r_max) / beta), [N] 0 or 1.

    Of answers of the reference those that are kept have the distribution reference exp(r / beta) / Z, exactly where r_max is the largest reward
    that there is. Taken from the batch (None), the best answer is always kept and the rest are biased towards it.

    Args:
        reward: [N].
        uniform: [N] random numbers in [0, 1).
        beta: temperature; the larger, the more is kept.
        r_max: largest reward that there is; None takes the batch's.

    Raises:
        UsageError: a reward is above r_max.
    """
    top = float(reward.max()) if r_max is None else r_max
    if bool((reward > top).any()):
        raise UsageError(
            f"gibbs_accept has r_max={top:g}, but a reward is {float(reward.max()):g}: give the largest that there is"
        )
    return (uniform < ((reward - top) / beta).exp()).to(reward.dtype)


def clamped_reward(reward: Tensor, *, limit: NonNegative = 10.0) -> Tensor:
    """Return what must be added to rewards so that they lie in [-limit, limit], [N].

    Args:
        reward: [N].
        limit: largest absolute reward.
    """
    return reward.clamp(-limit, limit) - reward
