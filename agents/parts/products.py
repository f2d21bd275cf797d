"""How matrix products are taken: where those in bfloat16 are fast, and which library is the faster one in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

# the parameters of the largest network times the rows of a minibatch: from here on oneDNN gains more than its calls cost (SAC's step: .8 of
# MKL's speed at 5 million, .95 at 9, 1.3 at 18, 1.5 at 37)
ONEDNN_FROM = 2**24


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

    So on AMD's processors with AVX-512: MKL, which torch takes by itself, keeps to AVX2 there and is half as fast. oneDNN may round to
    bfloat16 where a processor has units for it (AMX), hence the product that is looked at.
    """
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.9 has none
    is_amd = "AMD" in has.get("cpu_name", "")
    if not (is_amd and has.get("avx512_f") and torch.backends.mkldnn.is_available()):
        return False
    x = 1 + torch.arange(2**16).remainder(509).reshape(256, 256) / 2**12  # all but the ones are no bfloat16's
    with _onednn():
        rounded = x @ x
    exact = x.double() @ x.double()
    return bool(((rounded - exact).abs() < 1e-5 * exact).all())


def _settings() -> Any:
    """Return how torch takes products by oneDNN; its annotations do not know it."""
    backend: Any = torch.backends.mkldnn
    return backend.matmul


@contextmanager
def _onednn() -> Iterator[None]:
    products = _settings()
    before = products.fp32_precision
    # allows bfloat16, which is how torch asks oneDNN at all
    products.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before


@contextmanager
def fast_products(multiplications: int) -> Iterator[None]:
    """Take float32 products on the processor by the faster library while this is open; results are the same to rounding.

    Args:
        multiplications: about how many the largest of them has; small ones stay as they are.
    """
    # "ieee" is float32, too; any other precision is the user's choice
    if multiplications >= ONEDNN_FROM and onednn_is_faster() and _settings().fp32_precision in ("none", "ieee"):
        with _onednn():
            yield
    else:
        yield
