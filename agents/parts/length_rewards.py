"""Rewards of the length of answers: within a group, and against the shortest right answer to a problem so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .option_types import NonNegative
from .wiring import compares_groups

LARGEST_COST = 0.7  # of a right answer that is too long: it stays above every wrong one


@compares_groups
def kimi_length(length: Tensor, correct: Tensor, group: Tensor, *, length_weight: float = 0.5) -> Tensor:
    """Pay for answers that are short within their group (Kimi Team 2025, Kimi k1.5, section 2.3.3, arXiv 2501.12599).

    lambda = 1/2 - (length - shortest) / (longest - shortest) of the group: w lambda for a right answer, w min(0, lambda) for a wrong one, 0
    where all are equally long.

    Args:
        length: [N] tokens that the policy wrote.
        correct: [N] 1 where the answer is right.
        group: [N] int64.
        length_weight: w.

    Returns:
        [N].
    """
    number, size = int(group.max()) + 1, length.to(correct.dtype)
    zeros = size.new_zeros(number)
    shortest = zeros.scatter_reduce(0, group, size, "amin", include_self=False)[group]
    longest = zeros.scatter_reduce(0, group, size, "amax", include_self=False)[group]
    spread = longest - shortest
    found = 0.5 - (size - shortest) / spread.clamp(min=1)
    found = torch.where(correct == 1, found, found.clamp(max=0))
    return length_weight * torch.where(spread > 0, found, torch.zeros_like(found))


def cosine_length(length: Tensor, best: Tensor, correct: Tensor) -> Tensor:
    """HAPO's length reward: c = cos(min(pi L / 2h, pi)), max(-.7, c) if right, min(0, c) if wrong, 0 without h (equation 3).

    Args:
        length: [N] L.
        best: [N] h; NaN where nothing is remembered.
        correct: [N] 1 where the answer is right.

    Returns:
        [N] (Huang et al. 2025, arXiv 2505.11225).
    """
    c = torch.cos((math.pi * length / (2 * best)).clamp(max=math.pi))
    return torch.where(correct == 1, c.clamp(min=-LARGEST_COST), c.clamp(max=0)).nan_to_num(0.0)


def linear_length(length: Tensor, best: Tensor, correct: Tensor) -> Tensor:
    """HAPO's linear variant: 1 - L/h below h if right, 0 to 1.1 h, then -(L - 1.1 h)/h, at least -.7 if right and -1 if wrong; [N]."""
    beyond = -((length - 1.1 * best) / best).clamp(min=0)
    right = torch.where(length < best, 1 - length / best, beyond.clamp(min=-LARGEST_COST))
    return torch.where(correct == 1, right, beyond.clamp(min=-1.0)).nan_to_num(0.0)


def repeated_share(tokens: Tensor, mask: Tensor, ngram: int = 3) -> Tensor:
    """Share of an answer's tokens that stand in a run of `ngram` tokens which the answer has had before, [N].

    Args:
        tokens: [N, T + 1].
        mask: [N, T] 1 on what the policy wrote, at the place before each token.
        ngram: length of a run.
    """
    shares = []
    for row, own in zip(tokens[:, 1:], mask > 0, strict=True):
        ids = row[own].tolist()
        seen: set[tuple[int, ...]] = set()
        repeated: set[int] = set()
        for i in range(len(ids) - ngram + 1):
            run = tuple(ids[i : i + ngram])
            if run in seen:
                repeated.update(range(i, i + ngram))
            seen.add(run)
        shares.append(len(repeated) / max(len(ids), 1))
    return torch.tensor(shares, dtype=mask.dtype, device=mask.device)


class HistoryLength:
    """HAPO: remember the shortest right answer to each problem, and pay right answers that beat it (arXiv 2505.11225).

    r = weight * length reward - repetition_weight * repeated share. All answers of a batch are compared with what was remembered before
    it; a problem that is met for the first time, or was never solved, has no length term. Lengths are numbers of tokens, the end token
    included.

    Args:
        history_weight: w of the length reward; 0 is the base method.
        keep: what is remembered of right answers: the "min" of their lengths, which never rises, or their running "mean".
        shape: "cosine" or "linear".
        repetition_weight: cost of an answer that consists of repetitions.
    """

    def __init__(
        self,
        *,
        history_weight: NonNegative = 1.0,
        keep: Literal["min", "mean"] = "min",
        shape: Literal["cosine", "linear"] = "cosine",
        repetition_weight: NonNegative = 0.0,
    ) -> None:
        self.history_weight, self.keep, self.shape = history_weight, keep, shape
        self.repetition_weight = repetition_weight
        self.history: dict[str, list[float]] = {}  # problem -> what is remembered, number of right answers

    def __call__(self, task: Sequence[Any], length: Tensor, correct: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return what is to be added to rewards [N]."""
        best = correct.new_tensor([self.history.get(str(name), [math.nan])[0] for name in task])
        found = (cosine_length if self.shape == "cosine" else linear_length)(length.to(correct.dtype), best, correct)
        found = self.history_weight * found
        return found - self.repetition_weight * repeated_share(tokens, mask) if self.repetition_weight else found

    def after(self, task: Sequence[Any], length: Tensor, correct: Tensor) -> None:
        """Remember the right answers of a batch."""
        for name, size, right in zip(task, length.tolist(), correct.tolist(), strict=True):
            if right == 1:
                best, count = self.history.get(str(name), [math.nan, 0])
                old = size if count == 0 else best
                new = min(old, size) if self.keep == "min" else old + (size - old) / (count + 1)
                self.history[str(name)] = [float(new), int(count) + 1]

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered of each problem."""
        return {"history": {name: list(kept) for name, kept in self.history.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from there."""
        self.history = {name: list(kept) for name, kept in state["history"].items()}
