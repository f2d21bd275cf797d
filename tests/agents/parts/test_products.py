"""How products are taken: in bfloat16, or in float32 by the faster library."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents.parts import products
from polyathlon.agents.parts.products import ONEDNN_FROM, fast_products, hidden_dtype, onednn_is_faster

CPU, LOW = torch.device("cpu"), torch.bfloat16


def test_medium_means_bfloat16_where_the_processor_has_it(monkeypatch):
    for is_there, wanted in ((True, LOW), (False, torch.float32)):
        monkeypatch.setattr(products, "_CPU_HAS_BFLOAT16", is_there)
        assert hidden_dtype("medium", CPU) is wanted
        assert hidden_dtype("highest", CPU) is torch.float32
    assert hidden_dtype("medium", torch.device("cuda")) is torch.float32


@pytest.fixture
def settings(monkeypatch):
    """Whether oneDNN is asked for, where it is said to be faster."""
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    return torch.backends.mkldnn.matmul


def test_large_products_are_asked_of_onednn_and_small_ones_are_not(settings):
    before = settings.fp32_precision
    with fast_products(ONEDNN_FROM):
        assert settings.fp32_precision == "bf16"
    assert settings.fp32_precision == before
    with fast_products(ONEDNN_FROM - 1):
        assert settings.fp32_precision == before
    with pytest.raises(KeyError), fast_products(ONEDNN_FROM):
        raise KeyError
    assert settings.fp32_precision == before


@pytest.mark.parametrize(("chosen", "inside"), [("tf32", "tf32"), ("ieee", "bf16")])
def test_only_float32_is_multiplied_otherwise(settings, chosen, inside):
    before = settings.fp32_precision
    settings.fp32_precision = chosen
    try:
        with fast_products(ONEDNN_FROM):
            assert settings.fp32_precision == inside
        assert settings.fp32_precision == chosen
    finally:
        settings.fp32_precision = before


def rounding(x, y):
    return torch.matmul(x.bfloat16().float() if x.dtype == torch.float32 else x, y)


def exactly(x, y):
    return torch.matmul(x.double(), y.double()).to(x.dtype)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")
@pytest.mark.parametrize(
    ("name", "wide", "product", "faster"),
    [
        ("AMD EPYC", True, exactly, True),
        ("AMD EPYC", False, exactly, False),
        ("AMD EPYC", True, rounding, False),
        ("Intel(R) Xeon(R)", True, exactly, False),
    ],
)
def test_onednn_is_asked_on_wide_processors_of_amd_unless_it_rounds(monkeypatch, name, wide, product, faster):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name, "avx512_f": wide}, raising=False)
    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    onednn_is_faster.cache_clear()
    try:
        assert onednn_is_faster() is faster
    finally:
        onednn_is_faster.cache_clear()


@pytest.mark.skipif(not onednn_is_faster(), reason="this processor takes products by MKL")
def test_products_by_onednn_are_float32():
    generator = torch.Generator().manual_seed(0)
    for rows, depth, columns in ((256, 256, 256), (100, 23, 300), (256, 2048, 1)):
        x = torch.randn(rows, depth, generator=generator)
        y = torch.randn(columns, depth, generator=generator).t()
        with fast_products(ONEDNN_FROM):
            found = x @ y
        bound = 1e-6 * (x.abs() @ y.abs())
        assert ((found.double() - x.double() @ y.double()).abs() <= bound).all()
