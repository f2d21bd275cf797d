"""Which responses are worth learning from, and what their length costs."""

from __future__ import annotations

from torch import Tensor

from .advantages import group_stats


def keep_mixed(score: Tensor, group: Tensor) -> Tensor:
    """Mark the rows of groups whose scores differ, or that have one row (dynamic sampling; Yu et al. 2025, section 3.2).

    Args:
        score: [N] the unshaped score: a shaped one would keep groups in which all answers are wrong.
        group: [N] int64.

    Returns:
        [N] bool.
    """
    _, std, count = group_stats(score, group)
    return (count == 1) | (std > 0)


def overlong_penalty(length: Tensor, longest: int, buffer: int, factor: float = 1.0) -> Tensor:
    """Punish responses that come close to the limit (soft overlong punishment; Yu et al. 2025, equation 13).

    min(0, -(length - (longest - buffer)) / buffer * factor).

    Args:
        length: [N] tokens written.
        longest: the limit.
        buffer: how far before the limit the punishment begins.
        factor: the punishment at the limit.
    """
    return (-(length - (longest - buffer)).float() / buffer * factor).clamp(max=0)
