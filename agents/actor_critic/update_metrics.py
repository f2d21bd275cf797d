"""Sums of what an update reports, kept on the device."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor


class UpdateMetrics:
    """Base of updates that report the means of their metrics since the last report.

    Args:
        device: where the sums lie.

    Attributes:
        metrics: sums of `metric_names` over `count` steps.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("critic_loss",)

    def __init__(self, device: torch.device) -> None:
        self.metrics = torch.zeros(len(self.metric_names), device=device)
        self.count = 0

    def _record(self, *metrics: Tensor) -> None:
        """Add the metrics of a step, in the order of `metric_names`."""
        self.metrics += torch.stack([x.reshape(()) for x in metrics])
        self.count += 1

    def report(self) -> dict[str, float]:
        """Return the means of `metric_names` since the last call."""
        means = (self.metrics / max(self.count, 1)).tolist()
        self.metrics.zero_()
        self.count = 0
        return dict(zip(self.metric_names, means, strict=True))
