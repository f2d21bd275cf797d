"""How matrix products are taken: where those in bfloat16 are fast, and which library is the faster one in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

# products below this many multiplications are done before oneDNN has begun
ONEDNN_FROM = 2**22


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


@lru_cache(maxsize=1)
def onednn_is_faster() -> bool:
    """Return whether this processor takes large float32 products by oneDNN, and as exactly.

    So where it has AVX-512 and no AMX: MKL, which torch takes by itself, keeps to AVX2 on processors that are not Intel's and is
    half as fast there. With AMX oneDNN would round to bfloat16, hence the product that is looked at.
    """
    has = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.9 has none
    if not has.get("avx512_f") or has.get("amx_tile") or not torch.backends.mkldnn.is_available():
        return False
    x = 1 + torch.arange(2**16).remainder(509).reshape(256, 256) / 2**12  # not one of them is a bfloat16
    with _onednn():
        rounded = x @ x
    exact = x.double() @ x.double()
    return bool(((rounded - exact).abs() < 1e-5 * exact).all())


@contextmanager
def _onednn() -> Iterator[None]:
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    # allows bfloat16, which is how torch asks oneDNN at all
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


@contextmanager
def fast_products(multiplications: int) -> Iterator[None]:
    """Take float32 products on the processor by the faster library while this is open; results are the same to rounding.

    Args:
        multiplications: about how many the largest of them has; small ones stay as they are.
    """
    if multiplications >= ONEDNN_FROM and torch.backends.mkldnn.matmul.fp32_precision == "none" and onednn_is_faster():
        with _onednn():
            yield
    else:
        yield
