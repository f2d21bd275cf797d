"""Where matrix products in bfloat16 are fast."""

from __future__ import annotations

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Return whether products in bfloat16 are fast on a device."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # torch has no public name for it
    return device.type == "cpu" and bool(ask())


_CPU_HAS_BFLOAT16 = has_bfloat16(torch.device("cpu"))


def hidden_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type in which layers keep what they give, and in which their products are therefore taken.

    That is bfloat16 where "medium" precision is asked of a CPU that multiplies bfloat16. Elsewhere it is float32, and
    torch's own setting decides about the products.
    """
    is_low = precision == "medium" and device.type == "cpu" and _CPU_HAS_BFLOAT16
    return torch.bfloat16 if is_low else torch.float32
