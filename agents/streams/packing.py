"""Arrays of the host to a device in one transfer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 16  # bytes: a tensor of any type may begin there


class Packing:
    """Moves arrays to an accelerator side by side: one transfer in place of one each.

    On CUDA the host's memory is pinned, so that the transfer needs no copy before it.

    Args:
        device: an accelerator.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._host = torch.empty(0, dtype=torch.uint8)

    def move(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        """Return the arrays as tensors of the device; 64-bit floats become float32."""
        arrays = [np.ascontiguousarray(a, np.float32 if a.dtype == np.float64 else a.dtype) for a in arrays]
        starts = [0]
        for array in arrays:
            starts.append(starts[-1] + -(-array.nbytes // ALIGNMENT) * ALIGNMENT)
        if self._host.numel() < starts[-1]:
            self._host = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        host = self._host.numpy()
        for array, start in zip(arrays, starts):
            host[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
        moved = self._host[: starts[-1]].to(self.device)
        return [
            moved[start : start + array.nbytes].view(torch.from_numpy(array[:0].reshape(-1)).dtype).view(array.shape)
            for array, start in zip(arrays, starts)
        ]
