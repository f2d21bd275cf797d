"""Products in the type of the memory that they go to."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents.parts import products
from polyathlon.agents.parts.products import addmm_, hidden_dtype, hidden_memory, mm_

LEFT, RIGHT, BIAS = (
    torch.randn(*s, generator=torch.Generator().manual_seed(i)) for i, s in enumerate([(96, 80), (80, 72), (72,)])
)
CPU, LOW = torch.device("cpu"), torch.bfloat16


def test_float32_memory_takes_torchs_own_product():
    out = torch.empty(96, 72)
    assert torch.equal(mm_(LEFT, RIGHT, out), LEFT @ RIGHT)
    assert torch.equal(addmm_(BIAS, LEFT, RIGHT, out), torch.addmm(BIAS, LEFT, RIGHT))


@pytest.mark.parametrize(("inner", "columns"), [(80, 1), (80, 7), (1, 72)])
def test_thin_products_in_float32(inner, columns):
    left, right = LEFT[:, :inner], RIGHT[:inner, :columns]
    torch.testing.assert_close(mm_(left, right, torch.empty(96, columns)), left @ right)


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("kinds", [(LOW, torch.float32), (torch.float32, LOW), (LOW, LOW)])
def test_bfloat16_at_one_end_rounds_the_operands(is_transposed, kinds):
    left = LEFT.t().contiguous().t() if is_transposed else LEFT
    wanted = LEFT.bfloat16().double() @ RIGHT.bfloat16().double()
    out = torch.empty(96, 72, dtype=kinds[1])
    assert mm_(left.to(kinds[0]), RIGHT, out) is out
    torch.testing.assert_close(out.double(), wanted, rtol=8e-3, atol=1e-2)  # the result is rounded too
    assert not torch.equal(out.float(), LEFT @ RIGHT)


def test_the_memory_tells_the_type_of_a_layer():
    wanted = LEFT.bfloat16().double() @ RIGHT.bfloat16().double() + BIAS
    low, exact = torch.empty(96, 72, dtype=LOW), torch.empty(96, 72)
    torch.testing.assert_close(addmm_(BIAS, LEFT, RIGHT, low).double(), wanted, rtol=8e-3, atol=2e-2)
    assert torch.equal(addmm_(BIAS, LEFT.bfloat16(), RIGHT, exact), torch.addmm(BIAS, LEFT.bfloat16().float(), RIGHT))


def test_only_large_layers_are_kept_in_bfloat16():
    assert [x.dtype for x in hidden_memory(LEFT, 96, [80, 64], LOW)] == [LOW, LOW]
    assert {x.dtype for x in hidden_memory(LEFT, 96, [80, 8], LOW) + hidden_memory(LEFT, 8, [80], LOW)} == {LEFT.dtype}


def test_medium_means_bfloat16_where_the_processor_has_it(monkeypatch):
    for is_there, wanted in ((True, LOW), (False, torch.float32)):
        monkeypatch.setattr(products, "_CPU_HAS_BFLOAT16", is_there)
        assert hidden_dtype("medium", CPU) is wanted
        assert hidden_dtype("highest", CPU) is torch.float32
    assert hidden_dtype("medium", torch.device("cuda")) is torch.float32
