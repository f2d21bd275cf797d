"""The weights of a model at one moment, as the reference that the divergence of a policy is measured from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn


class Reference:
    """A copy of what is trained in a model: all weights, or the adapters alone; what is frozen is shared with the model.

    Args:
        weights: values by name, as `nn.Module.named_parameters` names them.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = dict(weights)

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Copy what is trained in a model as it is now."""
        return cls({name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad})

    @torch.no_grad()
    def follow(self, model: nn.Module, tau: float) -> None:
        """Move towards the model: weights = (1 - tau) weights + tau model."""
        for name, p in model.named_parameters():
            if p.requires_grad:
                self.weights[name].lerp_(p.detach(), tau) if tau < 1 else self.weights[name].copy_(p.detach())

    @contextlib.contextmanager
    def put_into(self, model: nn.Module, with_gradient: bool = False) -> Iterator[None]:
        """Let the model have these weights for a while.

        Args:
            model: has weights of these names.
            with_gradient: what is read inside may need a gradient, which the model's parameters get.

        Raises:
            KeyError: the weights are those of another model.
        """
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if trained.keys() != self.weights.keys():
            different = sorted(trained.keys() ^ self.weights.keys())
            raise KeyError(f"the reference is of another model; {len(different)} weights differ, first {different[0]}")
        own = {name: p.data for name, p in trained.items()}
        try:
            for name, p in trained.items():
                p.data = self.weights[name]
            with contextlib.nullcontext() if with_gradient else torch.no_grad():
                yield
        finally:
            for name, p in trained.items():
                p.data = own[name]

    def state_dict(self) -> dict[str, Any]:
        """Return the weights by name."""
        return dict(self.weights)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take other weights."""
        self.weights = dict(state)
