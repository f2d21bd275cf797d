"""Which responses are worth learning from, and what their length costs."""

from __future__ import annotations

import torch
from torch import Tensor

from .option_types import Count, NonNegative


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


def overlong_penalty(length: Tensor, longest: int, buffer: int, factor: float = 1.0) -> Tensor:
    """Punish utterances that come close to the limit (soft overlong punishment; Yu et al. 2025, equation 13).

    factor * clip(-(length - (longest - buffer)) / buffer, -1, 0).

    Args:
        length: tokens of each utterance, in any shape.
        longest: the limit of one utterance.
        buffer: how far before the limit the punishment begins.
        factor: the punishment at the limit and beyond.
    """
    return factor * (-(length - (longest - buffer)).float() / buffer).clamp(-1, 0)


def episode_overlong_penalty(turn: Tensor, longest: int, buffer: int, factor: float = 1.0) -> Tensor:
    """Return the mean of `overlong_penalty` over the utterances of each episode, [N]; never below -factor.

    Args:
        turn: [N, T] int64 number of the utterance that each token belongs to, from 0; negative for what the policy did
            not write.
        longest: the limit of one utterance.
        buffer: how far before the limit the punishment begins.
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
