"""Matrix products into memory that is there, in the type of that memory."""

from __future__ import annotations

import torch
from torch import Tensor

# below this many numbers along a side, casting costs more than the faster product saves
_WORTH_CASTING = 64


# a float32 product with fewer columns than this is about half as fast as its transpose, which has few rows
_FEW_COLUMNS = 32


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


def hidden_memory(like: Tensor, rows: int, widths: list[int], dtype: torch.dtype) -> list[Tensor]:
    """Allocate [rows, width] for layers, in `dtype` where the products are large enough to gain from it."""
    smallest = min([rows, *widths])
    kind = dtype if smallest >= _WORTH_CASTING else torch.float32
    return [like.new_empty(rows, width, dtype=kind) for width in widths]


def _cast(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast in the order in which the memory lies."""
    if matrix.dtype == dtype:
        return matrix
    if matrix.stride(0) == 1 and matrix.stride(1) != 1:
        return matrix.t().to(dtype).t()
    return matrix.to(dtype)


def mm_(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Write the product of [M, K] and [K, N] into `out` [M, N], and return it.

    It is taken in bfloat16 if `left` or `out` is of that type; sums run in float32 in any case.
    """
    if left.dtype is torch.bfloat16 and out.dtype is torch.float32:
        return out.copy_(torch.mm(left, _cast(right, left.dtype)))
    left, right = _cast(left, out.dtype), _cast(right, out.dtype)
    if left.shape[1] == 1:
        return torch.mul(left, right, out=out)
    if 1 < right.shape[1] < _FEW_COLUMNS and left.device.type == "cpu":
        return out.copy_(torch.mm(right.t(), left.t()).t())
    return torch.mm(left, right, out=out)


def addmm_(bias: Tensor, left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Write the product of [M, K] and [K, N] plus `bias` [N] or [M, N] into `out` [M, N], in its type, and return it."""
    kind = out.dtype
    return torch.addmm(bias.to(kind), _cast(left, kind), _cast(right, kind), out=out)
