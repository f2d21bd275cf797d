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


OPTIMISER_WORDS = ("optimizer_class", "optimizer_kwargs")
ADAM_WORDS = ("betas", "eps", "weight_decay")


def refuse_optimizer_words(owner: str, policy_kwargs: Mapping[str, Any] | None) -> None:
    """Refuse an optimiser other than Adam and AdamW, and options that the engine's Adam does not have.

    Args:
        owner: name of the agent or policy.
        policy_kwargs: may hold `optimizer_class` and `optimizer_kwargs` (`betas`, `eps`, `weight_decay`).

    Raises:
        UsageError: naming the word.
    """
    words = policy_kwargs or {}
    kind = words.get("optimizer_class")
    if kind is not None and kind not in (torch.optim.Adam, torch.optim.AdamW):
        raise UsageError(
            f"optimizer_class={getattr(kind, '__name__', kind)} is not taken by {owner}: its optimisers are functions of the loss and "
            "of one vector of parameters, so torch's classes do not fit; torch.optim.Adam and AdamW are known by name, others go "
            "into the method: Loss(..., optimiser=...) (polyathlon.agents.engine)"
        )
    for name in words.get("optimizer_kwargs") or {}:
        if name not in ADAM_WORDS:
            raise unknown_name("option of the optimiser", str(name), ADAM_WORDS)


def adam_words(policy_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return SB3's words for Adam or AdamW as those of the engine's Adam.

    Adam adds `weight_decay` times the parameters to the gradient (`l2`), AdamW takes it off the parameters (0.01 where it is
    left out, as in torch).
    """
    is_decoupled = policy_kwargs.get("optimizer_class") is torch.optim.AdamW
    given = dict(policy_kwargs.get("optimizer_kwargs") or {})
    if is_decoupled:
        given.setdefault("weight_decay", 0.01)
    decay = "weight_decay" if is_decoupled else "l2"
    return {decay if name == "weight_decay" else str(name): value for name, value in given.items()}
