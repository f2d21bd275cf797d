"""Running mean and variance, for normalising observations and rewards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Mean and variance of everything seen so far, by the parallel algorithm of Chan et al. (1979).

    They are buffers in float64, so they are saved with the module that holds them. Before the first update values pass
    through unchanged.

    Args:
        shape: shape of one sample.
        epsilon: added to the variance before the square root is taken.
        clip: normalised values are clipped to [-clip, clip].
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...], epsilon: float = 1e-8, clip: float = 10.0) -> None:
        super().__init__()
        self.epsilon, self.clip = epsilon, clip
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self._cached: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def update(self, samples: Tensor) -> None:
        """Take in samples [M, *shape]."""
        number = samples.shape[0]
        if not number:
            return  # the mean of nothing is NaN
        samples = samples.double()
        mean = samples.mean(0)
        var = (samples - mean).square().mean(0)
        total = self.count + number
        delta = mean - self.mean
        spread = self.var * self.count + var * number + delta.square() * (self.count * number / total)
        self.mean += delta * (number / total)
        self.var.copy_(spread / total)
        self.count.copy_(total)
        self._cached = None

    def constants(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the inverse standard deviation as float32, each of the sample's shape."""
        if self._cached is None or self._cached[0].device != self.mean.device:
            self._cached = (self.mean.float(), (self.var + self.epsilon).rsqrt().float())
        return self._cached

    def forward(self, value: Tensor) -> Tensor:
        """Return `value` [..., *shape] centred, scaled and clipped."""
        mean, scale = self.constants()
        return ((value - mean) * scale).clamp_(-self.clip, self.clip)

    def scale_only(self, value: Tensor) -> Tensor:
        """Return `value` divided by the standard deviation and clipped, its mean left alone: for rewards."""
        return (value * self.constants()[1]).clamp_(-self.clip, self.clip)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._cached = None
