"""Which responses are worth learning from, and what their length costs."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from .option_types import Count, NonNegative

Ranks = Literal["all", "best", "best_random", "best_worst"]


def keep_mixed(score: Tensor, group: Tensor) -> Tensor:
    """Mark the rows of groups whose scores differ, or that have one row (dynamic sampling; Yu et al. 2025, section 3.2).

    Args:
        score: [N] the unshaped score: a shaped one would keep groups in which all answers are wrong.
        group: [N] int64.

    Returns:
        [N] bool.
    """
    number = int(group.max()) + 1 if group.numel() else 0
    zeros = score.new_zeros(number)
    # the deviation of equal scores may be rounded to more than 0; their difference is not
    highest = zeros.scatter_reduce(0, group, score, "amax", include_self=False)
    lowest = zeros.scatter_reduce(0, group, score, "amin", include_self=False)
    alone = zeros.index_add(0, group, torch.ones_like(score)) == 1
    return (alone | (highest > lowest))[group]


def rank_probabilities(reward: Tensor, group: Tensor, ranks: Ranks) -> Tensor:
    """How often each answer of a group of n is taken, [N]; they sum to 1 in each group.

    | kind | |
    |---|---|
    | "all" | 1/n each |
    | "best" | the best alone (BoN) |
    | "best_random" | 1/2 the best, 1/2 spread evenly over the others (BR) |
    | "best_worst" | 1/2 the best, 1/2 the worst (BW) |

    Of equal rewards the first is the best and the last the worst. A group of one is taken.

    Args:
        reward: [N].
        group: [N] int64.
        ranks: which answers.
    """
    found = torch.zeros_like(reward)
    for q in group.unique():
        rows = (group == q).nonzero()[:, 0]
        order = rows[reward[rows].argsort(descending=True, stable=True)]
        n = len(rows)
        if ranks == "all" or n == 1:
            found[rows] = 1 / n
        elif ranks == "best":
            found[order[0]] = 1.0
        elif ranks == "best_random":
            found[order[1:]] = 0.5 / (n - 1)
            found[order[0]] = 0.5
        else:
            found[order[0]], found[order[-1]] = 0.5, 0.5
    return found


def rank_filter(reward: Tensor, group: Tensor, *, ranks: Ranks = "best_worst") -> Tensor:
    """Weigh answers by rank within their group (Shen and Zhang 2024, PF-PPO, arXiv 2409.06957, section 4): n `rank_probabilities`, [N].

    The mean weight of a group is 1, so that "all" is PPO.

    Args:
        reward: [N].
        group: [N] int64.
        ranks: see `rank_probabilities`.
    """
    count = torch.zeros(int(group.max()) + 1, dtype=reward.dtype, device=reward.device)
    count = count.index_add(0, group, torch.ones_like(reward))
    return count[group] * rank_probabilities(reward, group, ranks)


def second_pass(accuracy: float, n: int, n_max: int, schedule: str = "ET", with_std: bool = False) -> int:
    """How many further answers DARS draws to a prompt of which n answers have this accuracy (Yang et al. 2025, arXiv 2508.13755, section 3.2).

    S(u) = 2 u (1 - u), or with the group's deviation 2 sqrt(u (1 - u)), is the sum of |advantages| an answer, its peak n / 2 (or n) a
    prompt at u = 1/2. "ET" (equal treatment) lifts every hard prompt to the peak, "HW" (hardness weighted) to 2 (1 - u) times it:
    ceil((goal - n S) / S), at most n_max - n; 0 where u >= 1/2. u = 0 counts as 1 / (2 n).

    Args:
        accuracy: share of right answers.
        n: answers of the first pass.
        n_max: most answers to a prompt.
        schedule: "ET" or "HW".
        with_std: whether advantages are divided by the group's deviation.
    """
    if accuracy >= 0.5:
        return 0
    u = accuracy if accuracy > 0 else 0.5 / n
    each = 2 * (u * (1 - u)) ** (0.5 if with_std else 1.0)
    goal = (n if with_std else n / 2) * (2 * (1 - u) if schedule == "HW" else 1.0)
    return max(min(math.ceil(round(goal / each - n, 9)), n_max - n), 0)


def overlong_penalty(length: Tensor, longest: int, buffer: int, factor: float = 1.0) -> Tensor:
    """Punish utterances that come close to the limit (soft overlong punishment; Yu et al. 2025, equation 13).

    factor * clip(-(length - (longest - buffer)) / buffer, -1, 0).

    Args:
        length: tokens of each utterance, in any shape.
        longest: the limit of one utterance.
        buffer: tokens before the limit at which the length penalty begins.
        factor: the punishment at the limit and beyond.
    """
    return factor * (-(length - (longest - buffer)).float() / buffer).clamp(-1, 0)


def episode_overlong_penalty(turn: Tensor, longest: int, buffer: int, factor: float = 1.0) -> Tensor:
    """Return the mean of `overlong_penalty` over the utterances of each episode, [N]; never below -factor.

    Args:
        turn: [N, T] int64 number of the utterance that each token belongs to, from 0; negative for what the policy did
            not write.
        longest: the limit of one utterance.
        buffer: tokens before the limit at which the length penalty begins.
        factor: the punishment at the limit and beyond.
    """
    most = max(int(turn.max()) + 1, 1) if turn.numel() else 1
    # column 0 collects what the policy did not write
    length = torch.zeros(len(turn), most + 1, device=turn.device)
    length = length.scatter_add(1, turn.clamp(min=-1) + 1, torch.ones_like(turn, dtype=torch.float32))[:, 1:]
    is_said = length > 0
    each = overlong_penalty(length, longest, buffer, factor) * is_said
    return each.sum(1) / is_said.sum(1).clamp(min=1)


def overlong(turn: Tensor, max_length: int, *, overlong_buffer: Count, overlong_factor: NonNegative = 1.0) -> Tensor:
    """Return what the lengths of each episode's utterances cost on average, [N] (see `episode_overlong_penalty`).

    Args:
        turn: [N, T] int64 number of the utterance that each token belongs to; negative for what the policy did not write.
        max_length: most tokens of one utterance.
        overlong_buffer: tokens before that limit where the cost begins; 0 never costs.
        overlong_factor: the cost at the limit.
    """
    if not overlong_buffer:
        return torch.zeros(len(turn), device=turn.device)
    return episode_overlong_penalty(turn, max_length, min(overlong_buffer, max_length), overlong_factor)


def mask_truncated(finished: Tensor) -> Tensor:
    """Weigh episodes that a limit cut by 0 and all others by 1, [N] (overlong filtering; Yu et al. 2025, section 3.4).

    Args:
        finished: [N] 1 unless a limit cut the episode.
    """
    return finished
