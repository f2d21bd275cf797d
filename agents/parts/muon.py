"""Muon for matrices and AdamW for everything else, as one optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class MuonAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for the matrices inside a network, AdamW for embeddings, heads, gains and biases.

    Muon makes the momentum of a matrix orthogonal before each step; small transformers need about a third fewer steps
    with it than with AdamW alone. Both are torch's own; this class lets them be stepped, saved and loaded as one.

    Args:
        matrices: parameters of two dimensions for Muon.
        others: parameters for AdamW.
        lr: learning rate of AdamW; Muon's is `muon_scale` times as large.
        muon_scale: ratio of the two step sizes.
        weight_decay: of the matrices.
        betas: of AdamW.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        lr: float,
        *,
        muon_scale: float = 10.0,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.98),
    ) -> None:
        muon = torch.optim.Muon(list(matrices), lr=lr * muon_scale, weight_decay=weight_decay)
        adam = torch.optim.AdamW(list(others), lr=lr, weight_decay=0.0, betas=betas)
        self._parts = (muon, adam)
        super().__init__([*muon.param_groups, *adam.param_groups], {})
        self.muon_scale = muon_scale
        self._link()

    def _link(self) -> None:
        """Let both parts work on this optimiser's own groups and state."""
        for part, group in zip(self._parts, self.param_groups):
            part.param_groups, part.state = [group], self.state

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of AdamW, and Muon's in proportion."""
        for group, scale in zip(self.param_groups, (self.muon_scale, 1.0)):
            group["lr"] = lr * scale

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take one step with both."""
        result = None if closure is None else closure()
        for part in self._parts:
            part.step()
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self._link()
