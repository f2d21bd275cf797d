"""Devices by name, and what lies on them for good."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common import utils
from torch import Tensor

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


def refuse_torch_modes(device: torch.device) -> None:
    """Refuse settings of torch under which an agent fails in the middle, or learns nothing without a word.

    Raises:
        UsageError: the default type of numbers is not float32, the default device is neither the CPU nor the agent's, or inference
            mode or autocast is on; the message says what to do.
    """
    refuse_default_device(device)
    if torch.get_default_dtype() != torch.float32:
        raise UsageError(
            f"torch's default type is {torch.get_default_dtype()}, but agents compute in float32: call "
            "torch.set_default_dtype(torch.float32) before they are made and learn"
        )
    if torch.is_inference_mode_enabled():
        raise UsageError(
            "nothing can be learnt in torch.inference_mode(): make agents and let them learn outside it (predict works inside)"
        )
    if torch.is_autocast_enabled(device.type):
        raise UsageError(
            "agents set the precision of their losses themselves: make them and let them learn outside torch.autocast, with "
            "matmul_precision='medium' or, of language models, dtype='bfloat16'"
        )


def refuse_default_device(device: torch.device) -> None:
    """Refuse a default device of torch on which an agent's networks and counts would come to lie apart from its data.

    Raises:
        UsageError: it is neither the CPU nor the agent's device.
    """
    default = torch.get_default_device()
    if default.type not in ("cpu", device.type):
        raise UsageError(
            f"torch's default device is {str(default)!r}, but this agent is on {str(device)!r}: call torch.set_default_device(None) and "
            "say device= to the agent"
        )


def refuse_no_bfloat16(device: torch.device) -> None:
    """Refuse bfloat16 on a device that has none.

    Raises:
        UsageError: it has none.
    """
    module: Any = None if device.type == "cpu" else torch.get_device_module(device)
    if module is not None and not getattr(module, "is_bf16_supported", lambda: True)():
        raise UsageError(f"the device {str(device)!r} has no bfloat16: use dtype='float32'")


def bounds_of(space: spaces.Space[Any], device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Return the least and the largest actions of a Box on a device; None for other spaces."""
    if not isinstance(space, spaces.Box):
        return None
    return torch.as_tensor(space.low, device=device), torch.as_tensor(space.high, device=device)
