"""Running normalisation of the scores of a reward model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class ScoreNorm:
    """Mean and deviation of the scores of late, which change while the model learns.

    Exponential means of scores and of their squares, each divided by 1 - decay^n so that the first ones are not drawn to 0 (Kingma and Ba 2015).

    Args:
        decay: share of a mean that stays at each update.
        clamp: largest absolute normalised score.
    """

    def __init__(self, decay: float = 0.99, clamp: float = 10.0) -> None:
        self.decay, self.clamp = decay, clamp
        self.first = self.second = 0.0
        self.updates = 0

    def update(self, scores: Tensor) -> None:
        """Take in scores [n]."""
        scores = scores.detach().double()
        self.first += (1 - self.decay) * (float(scores.mean()) - self.first)
        self.second += (1 - self.decay) * (float(scores.square().mean()) - self.second)
        self.updates += 1

    @property
    def mean(self) -> float:
        """Mean of the scores; 0 before the first."""
        return self.first / (1 - self.decay**self.updates) if self.updates else 0.0

    @property
    def std(self) -> float:
        """Deviation of the scores; 1 before the first, and where all are equal."""
        if not self.updates:
            return 1.0
        variance = self.second / (1 - self.decay**self.updates) - self.mean**2
        return math.sqrt(variance) if variance > 1e-12 else 1.0

    def __call__(self, scores: Tensor) -> Tensor:
        """Return scores centred, scaled and clamped."""
        return torch.clamp((scores - self.mean) / self.std, -self.clamp, self.clamp)

    def state_dict(self) -> dict[str, Any]:
        """Return the means and how many updates they are of."""
        return {"first": self.first, "second": self.second, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.first, self.second, self.updates = float(state["first"]), float(state["second"]), int(state["updates"])
