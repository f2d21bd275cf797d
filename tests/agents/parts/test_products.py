"""Products in the precision that torch is set to."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents.parts import products
from polyathlon.agents.parts.products import addmm_, casts, mm_

LEFT, RIGHT, BIAS = (
    torch.randn(*s, generator=torch.Generator().manual_seed(i)) for i, s in enumerate([(96, 80), (80, 72), (72,)])
)


@pytest.fixture
def medium(monkeypatch):
    """Products of "medium" precision, on a processor that multiplies bfloat16 or pretends to."""
    monkeypatch.setattr(products, "_CPU_HAS_BFLOAT16", True)
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def test_the_highest_precision_is_torchs_own_product():
    out = torch.empty(96, 72)
    assert not casts(LEFT, RIGHT)
    assert torch.equal(mm_(LEFT, RIGHT, out), LEFT @ RIGHT)
    assert torch.equal(addmm_(BIAS, LEFT, RIGHT, out), torch.addmm(BIAS, LEFT, RIGHT))


@pytest.mark.parametrize("is_transposed", [False, True])
def test_medium_rounds_the_operands_to_bfloat16(medium, is_transposed):
    left = LEFT.t().contiguous().t() if is_transposed else LEFT
    wanted = LEFT.bfloat16().double() @ RIGHT.bfloat16().double()
    out = torch.empty(96, 72)
    assert mm_(left, RIGHT, out) is out
    torch.testing.assert_close(out.double(), wanted, rtol=8e-3, atol=1e-2)  # the result is rounded too
    assert not torch.equal(out, LEFT @ RIGHT)
    torch.testing.assert_close(addmm_(BIAS, left, RIGHT, out).double(), wanted + BIAS, rtol=8e-3, atol=2e-2)


def test_small_products_and_other_types_stay_as_they_are(medium):
    assert casts(LEFT, RIGHT) and not casts(LEFT[:8], RIGHT) and not casts(LEFT, RIGHT[:, :8])
    assert not casts(LEFT.double(), RIGHT.double())
    small = LEFT[:8]
    assert torch.equal(mm_(small, RIGHT, torch.empty(8, 72)), small @ RIGHT)
