"""Learning rates, and SB3's words for optimisers in `policy_kwargs`: taken or refused, never ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from polyathlon.envs.errors import UsageError, check_non_negative, unknown_name


def check_learning_rate(rate: Any) -> None:
    """Refuse a learning rate that is no finite number of at least 0 and no schedule.

    Raises:
        UsageError: it is neither.
    """
    if callable(rate):
        return
    check_non_negative(learning_rate=rate)
    if not math.isfinite(rate):
        raise UsageError(f"learning_rate must be a finite number or a schedule, got {rate!r}")


def refuse_optimizer_words(owner: str, policy_kwargs: Mapping[str, Any] | None, taken: tuple[str, ...] = ()) -> None:
    """Refuse an optimiser other than Adam, and options of it that the owner's own step does not have.

    Args:
        owner: name of the agent or policy.
        policy_kwargs: may hold `optimizer_class` and `optimizer_kwargs`.
        taken: names in `optimizer_kwargs` that are honoured.

    Raises:
        UsageError: naming the word.
    """
    words = policy_kwargs or {}
    kind = words.get("optimizer_class")
    if kind is not None and kind is not torch.optim.Adam:
        raise UsageError(
            f"{owner} has a step of Adam of its own, so optimizer_class={getattr(kind, '__name__', kind)} is not taken; leave it out"
        )
    for name in words.get("optimizer_kwargs") or {}:
        if not taken:
            raise UsageError(
                f"{owner} has a step of Adam of its own, whose {name!r} cannot be set; leave optimizer_kwargs out"
            )
        if name not in taken:
            raise unknown_name("option of the optimiser", str(name), taken)
