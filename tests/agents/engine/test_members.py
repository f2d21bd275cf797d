"""Critics of an ensemble at once: those of a map over the members, and those of each alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polyathlon.agents.engine import Network
from polyathlon.agents.engine.members import is_perceptron, perceptrons
from polyathlon.agents.off_policy.networks import NormalisedQValue, QValue, Sizes

OBS, ACTION, MEMBERS = 5, 2, 4


def sizes(activation=nn.ReLU):
    return Sizes(OBS, ACTION, [8], [12, 9], activation, MEMBERS, [8])


class Doubled(QValue):
    def forward(self, obs, action):
        return 2 * super().forward(obs, action)


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def critics(kind=QValue, activation=nn.ReLU):
    torch.manual_seed(0)
    network = Network(*(kind(sizes(activation)).double() for _ in range(MEMBERS)))
    network.vector.add_(0.1 * torch.randn(network.vector.shape, dtype=torch.float64))  # biases and scales too
    return network


def value_and_gradients(network, obs, action, own=False):
    vector, acted = network.vector.clone().requires_grad_(), action.clone().requires_grad_()
    at = network.at(vector)
    value = (at.per_member if own else at)(obs, acted)
    weights = torch.linspace(0.5, 1.5, value.numel(), dtype=torch.float64).view(value.shape)
    return value, *torch.autograd.grad((weights * value.square()).sum(), (vector, acted))


@pytest.mark.parametrize("kind", [QValue, NormalisedQValue])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize(("shape", "own"), [((64,), False), ((16, 3), False), ((MEMBERS, 16), True)])
def test_they_give_the_values_and_gradients_of_a_map_over_the_members(kind, activation, shape, own, monkeypatch):
    network, obs, action = critics(kind, activation), draw(*shape, OBS), draw(*shape, ACTION)
    found = value_and_gradients(network, obs, action, own)
    monkeypatch.setattr(kind, "of_members", lambda *given: None)
    for one, wanted in zip(found, value_and_gradients(network, obs, action, own)):
        torch.testing.assert_close(one, wanted, rtol=1e-10, atol=1e-10)
    alone = [m(obs[i] if own else obs, action[i] if own else action) for i, m in enumerate(network.modules)]
    torch.testing.assert_close(found[0], torch.stack(alone))


def test_a_subclass_with_a_forward_pass_of_its_own_and_unknown_layers_are_mapped():
    network, obs, action = critics(Doubled), draw(6, OBS), draw(6, ACTION)
    assert network.modules[0].of_members([], (obs, action), False) is None
    torch.testing.assert_close(
        network.at(network.vector)(obs, action), torch.stack([m(obs, action) for m in network.modules])
    )
    assert not is_perceptron([nn.Linear(2, 2), nn.Softmax(dim=1)])
    assert not is_perceptron([nn.LayerNorm((2, 2))]) and not is_perceptron([nn.LayerNorm(2, elementwise_affine=False)])
    assert not is_perceptron([nn.Linear(2, 2).requires_grad_(False)])
    assert is_perceptron([nn.Linear(2, 2, bias=False), nn.LayerNorm(2), nn.GELU()])


def test_layers_without_a_bias():
    layers = [nn.Linear(3, 2, bias=False)]
    weight, x = torch.randn(2, 2, 3), torch.randn(2, 5, 3)
    torch.testing.assert_close(perceptrons(layers, [weight], x), torch.einsum("eoi,ebi->ebo", weight, x))
