"""The weights of linear layers as one matrix each, with the adapters on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def is_linear(module: Any) -> bool:
    """Return whether a layer is a plain linear one, or one with a plain low-rank adapter (peft's, one at a time, not merged in)."""
    if type(module) is torch.nn.Linear:
        return True
    if not (type(module).__module__.startswith("peft.tuners.lora") and type(module).__name__ == "Linear"):
        return False
    adapters = list(module.active_adapters)
    if module.merged or module.disable_adapters or len(adapters) != 1 or adapters[0] not in module.lora_A:
        return False
    (name,) = adapters
    is_plain = not (module.fan_in_fan_out or getattr(module, "lora_variant", {}).get(name))
    has_no_bias = module.lora_B[name].bias is None
    return is_plain and has_no_bias and type(module.get_base_layer()) is torch.nn.Linear


def weight_of(module: Any) -> Tensor:
    """Return the weight [out, in] of a layer that `is_linear`: with an adapter W + scale B A, with gradient to A and B."""
    if type(module) is torch.nn.Linear:
        return module.weight
    (name,) = module.active_adapters
    weight: Tensor = module.get_base_layer().weight
    low_rank = module.lora_B[name].weight @ module.lora_A[name].weight
    return weight + module.scaling[name] * low_rank.to(weight.dtype)


def bias_of(module: Any) -> Tensor | None:
    """Return the bias [out] of a layer that `is_linear`, or None."""
    layer = module if type(module) is torch.nn.Linear else module.get_base_layer()
    bias: Tensor | None = layer.bias
    return bias
