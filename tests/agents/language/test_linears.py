"""The weights of linear layers, plain ones and ones with a low-rank adapter."""

from __future__ import annotations

import copy

import pytest
import torch

from polyathlon.agents.language.linears import bias_of, is_linear, weight_of

peft = pytest.importorskip("peft")


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x)


def adapted(**words):
    model = peft.get_peft_model(Model(), peft.LoraConfig(r=2, lora_alpha=6, target_modules=["layer"], **words))
    layer = model.base_model.model.layer
    for adapter in layer.lora_B.values():
        torch.nn.init.normal_(adapter.weight)
    return model, layer


def test_a_plain_layer():
    layer = torch.nn.Linear(4, 3, bias=False)
    assert is_linear(layer) and weight_of(layer) is layer.weight and bias_of(layer) is None
    layer = torch.nn.Linear(4, 3)
    assert bias_of(layer) is layer.bias


def test_an_adapter_adds_its_product_in_its_scale():
    _, layer = adapted()
    assert is_linear(layer)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(weight_of(layer), layer.base_layer.weight + 3.0 * b @ a)
    assert bias_of(layer) is layer.base_layer.bias and bias_of(layer).shape == (3,)
    x = torch.randn(5, 4)
    torch.testing.assert_close(torch.nn.functional.linear(x, weight_of(layer), bias_of(layer)), layer(x))
    weight_of(layer).sum().backward()
    assert a.grad.abs().sum() > 0 and b.grad.abs().sum() > 0 and layer.base_layer.weight.grad is None
    half = copy.deepcopy(layer)
    half.base_layer.to(torch.bfloat16)
    assert weight_of(half).dtype is torch.bfloat16


def test_adapters_of_a_peft_that_knows_no_variants():
    _, layer = adapted()
    del layer.lora_variant
    assert is_linear(layer)


def test_what_is_no_plain_linear_layer():
    class Own(torch.nn.Linear):
        pass

    for other in (Own(4, 3), torch.nn.Embedding(3, 4), torch.nn.Identity(), None):
        assert not is_linear(other)


@pytest.mark.parametrize("words", [{"use_dora": True}, {"lora_bias": True}])
def test_other_adapters_are_not_plain(words):
    assert not is_linear(adapted(**words)[1])


def test_an_adapter_that_is_off_merged_or_one_of_two_is_not_plain():
    model, layer = adapted()
    with model.disable_adapter():
        assert not is_linear(layer)
    assert is_linear(layer)
    layer.merge()
    assert not is_linear(layer)
    layer.unmerge()
    model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["layer"]))
    model.base_model.set_adapter(["default", "other"])
    assert not is_linear(layer)
