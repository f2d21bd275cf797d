"""Devices by name."""

from __future__ import annotations

import torch
from stable_baselines3.common import utils

from polyathlon.envs.errors import UsageError


def find_device(device: torch.device | str) -> torch.device:
    """Return the device of a name, as SB3's `get_device`, but refuse one that this machine lacks rather than take another.

    Args:
        device: "auto" (the GPU where there is one), "cpu", "cuda", "cuda:1", "mps", or a torch device.

    Raises:
        UsageError: there is no such device.
    """
    if device == "auto":
        return utils.get_device("auto")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"there is no device {str(device)!r} here ({str(error).splitlines()[0]}); allowed are 'auto', 'cpu' and, where PyTorch "
            "finds a GPU, 'cuda'"
        ) from error
    return found
