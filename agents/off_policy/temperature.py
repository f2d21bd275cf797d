"""The temperature of maximum-entropy agents: what weighs the entropy, fixed or learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from polyathlon.agents.parts.flat_adam import ScalarAdam
from polyathlon.agents.parts.states import NumbersState
from polyathlon.envs.errors import UsageError

if TYPE_CHECKING:
    from stable_baselines3.common.type_aliases import Schedule


class HasTemperature:
    """Part of an agent: SB3's `ent_coef` and `target_entropy`, and what learning the temperature needs.

    Attributes:
        log_ent_coef: [1] logarithm of the temperature.
        ent_coef_optimizer: steps it; None for a fixed one.
    """

    ent_coef: str | float
    target_entropy: str | float
    lr_schedule: Schedule
    device: torch.device
    log_ent_coef: Tensor
    ent_coef_optimizer: torch.optim.Adam | None
    register_state: Callable[..., None]

    def _setup_temperature(self, default_goal: float) -> None:
        """Start the temperature; `default_goal` is the entropy that `target_entropy="auto"` stands for.

        Raises:
            UsageError: `ent_coef` or `target_entropy` is impossible.
        """
        self._entropy_goal = default_goal if self.target_entropy == "auto" else float(self.target_entropy)
        initial, is_learned = parse_temperature(self.ent_coef)
        self.log_ent_coef = torch.full((1,), math.log(initial), device=self.device, requires_grad=is_learned)
        self.ent_coef_optimizer = (
            ScalarAdam([self.log_ent_coef], lr=self.lr_schedule(1), fused=True) if is_learned else None
        )
        self.register_state("log_ent_coef", NumbersState(self.log_ent_coef))
        if self.ent_coef_optimizer is not None:
            self.register_state("ent_coef_optimizer", self.ent_coef_optimizer)

    def _set_temperature_rate(self, learning_rate: float) -> None:
        if self.ent_coef_optimizer is not None:
            self.ent_coef_optimizer.param_groups[0]["lr"] = learning_rate


def parse_temperature(ent_coef: Any) -> tuple[float, bool]:
    """Return the first temperature and whether it is learned.

    Raises:
        UsageError: it is neither a positive number nor "auto" nor "auto_NUMBER".
    """
    try:
        if isinstance(ent_coef, str):
            head, _, tail = ent_coef.partition("_")
            initial = float(tail or 1.0) if head == "auto" else float("nan")
        else:
            initial = float(ent_coef)
    except (TypeError, ValueError):
        initial = float("nan")
    if not initial > 0:
        raise UsageError(f"ent_coef must be a positive number, 'auto' or 'auto_0.1', got {ent_coef!r}")
    return initial, isinstance(ent_coef, str)
