"""Whether rewards tell answers apart: what dynamic sampling keeps, what is logged, and what a run is warned of."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from polyathlon.agents.parts.response_filters import keep_mixed

from .episodes import Episode

PATIENCE = 5


def differing_groups(episodes: Sequence[Episode], group_size: int, by_verdict: bool = False) -> list[bool]:
    """Tell of each group whether its answers differ in what they earned; those that broke outside the policy are left out.

    Args:
        episodes: answers, group after group.
        group_size: answers in a group. Answers that are alone are compared with all others: one group.
        by_verdict: compare the verdicts instead, where there are any.
    """
    size = group_size if group_size > 1 else len(episodes)
    score = torch.tensor(
        [float(e.is_correct) if by_verdict and e.is_correct is not None else e.total for e in episodes],
        dtype=torch.float64,
    )
    group = torch.arange(len(episodes)) // size
    whole = torch.tensor([e.failure is None for e in episodes], dtype=torch.bool)
    left = torch.zeros(len(episodes) // size + 1, dtype=torch.int64).index_add(0, group, whole.long())
    found = torch.zeros_like(left, dtype=torch.bool)
    found[group[whole]] = keep_mixed(score[whole], group[whole])
    is_compared = left > (0 if size == 1 else 1)
    return (found & is_compared)[: -(-len(episodes) // size)].tolist()


def warn_without_signal(updates: int) -> None:
    """Warn a run in which no update of the last ones had any signal; once, when there have been `PATIENCE` of them."""
    if updates == PATIENCE:
        warnings.warn(
            f"in each of the last {PATIENCE} updates all answers to a problem earned the same, so nothing was learnt from "
            "rewards. Imitate the task's own answers first (agent.warm_start(n=256), or --warm-start N of polyathlon train), "
            "take easier problems, or give more answers to each (group_size) and more tokens (max_new_tokens)",
            UserWarning,
            stacklevel=2,
        )
