"""Matrix products into memory that is there, in the precision that torch is set to."""

from __future__ import annotations

import torch
from torch import Tensor

# below this many numbers along a side, casting costs more than the faster product saves
_WORTH_CASTING = 64


# a float32 product with fewer columns than this is about half as fast as its transpose, which has few rows
_FEW_COLUMNS = 32


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether products in bfloat16 are fast on a device."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # torch has no public name for it
    return device.type == "cpu" and bool(ask())


_CPU_HAS_BFLOAT16 = has_bfloat16(torch.device("cpu"))


def casts(left: Tensor, right: Tensor) -> bool:
    """Tell whether the product of two float32 matrices is taken in bfloat16 here.

    That is so where torch's precision of products is "medium", which on a CPU torch itself honours by re-packing the
    operands in each call: slower than casting them where the processor multiplies bfloat16.
    """
    return (
        torch.get_float32_matmul_precision() == "medium"
        and _CPU_HAS_BFLOAT16
        and left.device.type == "cpu"
        and left.dtype is torch.float32
        and min(*left.shape, right.shape[1]) >= _WORTH_CASTING
    )


def _cast(matrix: Tensor) -> Tensor:
    """Cast to bfloat16, in the order in which the memory lies."""
    if matrix.stride(0) == 1 and matrix.stride(1) != 1:
        return matrix.t().bfloat16().t()
    return matrix.bfloat16()


def mm_(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Write the product of [M, K] and [K, N] into `out` [M, N], and return it; sums run in float32 in any case."""
    if casts(left, right):
        return out.copy_(torch.mm(_cast(left), _cast(right)))
    if 1 < right.shape[1] < _FEW_COLUMNS and left.device.type == "cpu":
        return out.copy_(torch.mm(right.t(), left.t()).t())
    return torch.mm(left, right, out=out)


def addmm_(bias: Tensor, left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Write the product of [M, K] and [K, N] plus `bias` [N] into `out` [M, N], and return it."""
    if casts(left, right):
        return torch.add(torch.mm(_cast(left), _cast(right)), bias, out=out)
    return torch.addmm(bias, left, right, out=out)
