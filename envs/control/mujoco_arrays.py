"""The few array functions in which the MuJoCo tasks are written, for numpy (CPU physics) and torch (warp).

After MuJoCo's own code has filled the caches, a torch operation on a few rows costs three to five times one of numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

Array = Any  # np.ndarray or torch.Tensor: formulas use what both understand


class Arrays(Protocol):
    """What differs between the two libraries; N is the number of environments."""

    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Join [N, ...] parts along axis 1, into new memory."""

    def clip(self, values: Array, low: float, high: float) -> Array:
        """Keep values between two bounds."""

    def total(self, values: Array) -> Array:
        """Sum [N, K, ...] over axis 1; numpy's sums are Gymnasium's to the last bit."""

    def length(self, values: Array) -> Array:
        """Return Euclid's length of [N, 2]."""

    def copy(self, values: Array) -> Array:
        """Copy into new memory."""

    def finite(self, values: Array) -> Array:
        """Tell which numbers are finite."""

    def pay(self, flags: Array, amount: float, like: Array) -> Array:
        """Return the amount where a flag is set, else zero, in the type of `like`."""

    def convert(self, values: Array, like: Array) -> Array:
        """Bring an array (numpy or of this library) to the type and device of `like`."""

    def single(self, values: Array) -> Array:
        """Round to float32."""

    def numpy(self, values: Array) -> np.ndarray:
        """Return as numpy."""


class NumpyArrays:
    """`Arrays` on numpy."""

    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Join [N, ...] parts along axis 1, into new memory."""
        return np.concatenate(parts, axis=1)

    def clip(self, values: Array, low: float, high: float) -> Array:
        """Keep values between two bounds."""
        return np.minimum(np.maximum(values, low), high)

    def total(self, values: Array) -> Array:
        """Sum [N, K, ...] over axis 1."""
        return np.add.reduce(values, axis=1)

    def length(self, values: Array) -> Array:
        """Return Euclid's length of [N, 2]; through `dot`, as `np.linalg.norm` of one row."""
        return np.sqrt(np.linalg.vecdot(values, values))

    def copy(self, values: Array) -> Array:
        """Copy into new memory."""
        return values.copy()

    def finite(self, values: Array) -> Array:
        """Tell which numbers are finite."""
        return np.isfinite(values)

    def pay(self, flags: Array, amount: float, like: Array) -> Array:
        """Return the amount where a flag is set, else zero."""
        return flags * amount

    def convert(self, values: Array, like: Array) -> Array:
        """Bring an array to the type of `like`."""
        return values.astype(like.dtype, copy=False)

    def single(self, values: Array) -> Array:
        """Round to float32."""
        return values.astype(np.float32)

    def numpy(self, values: Array) -> np.ndarray:
        """Return it as it is."""
        array: np.ndarray = values
        return array


class TorchArrays:
    """`Arrays` on torch."""

    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Join [N, ...] parts along axis 1, into new memory."""
        return torch.cat(tuple(parts), 1)

    def clip(self, values: Array, low: float, high: float) -> Array:
        """Keep values between two bounds."""
        return values.clamp(low, high)

    def total(self, values: Array) -> Array:
        """Sum [N, K, ...] over axis 1."""
        return values.sum(1)

    def length(self, values: Array) -> Array:
        """Return Euclid's length of [N, 2]."""
        return torch.linalg.vector_norm(values, dim=1)

    def copy(self, values: Array) -> Array:
        """Copy into new memory."""
        return values.clone()

    def finite(self, values: Array) -> Array:
        """Tell which numbers are finite."""
        return torch.isfinite(values)

    def pay(self, flags: Array, amount: float, like: Array) -> Array:
        """Return the amount where a flag is set, else zero, in the type of `like`."""
        return flags.to(like.dtype) * amount

    def convert(self, values: Array, like: Array) -> Array:
        """Bring a numpy array or a tensor to the type and device of `like`."""
        return torch.as_tensor(values).to(like)

    def single(self, values: Array) -> Array:
        """Round to float32."""
        return values.float()

    def numpy(self, values: Array) -> np.ndarray:
        """Bring a tensor to numpy."""
        array: np.ndarray = values.cpu().numpy()
        return array
