import copy
import io
import pickle

import pytest
import torch
from torch import nn

from polyathlon.agents.engine import Network, Scalar, compact_state_dict
from polyathlon.agents.engine.distributions import Gaussian
from polyathlon.envs.errors import UsageError


def mlp(inputs=3, outputs=2):
    return nn.Sequential(nn.Linear(inputs, 4), nn.Tanh(), nn.Linear(4, outputs))


def assert_tied(network):
    for i, module in enumerate(network.modules):
        row = network.vector[i] if network.members else network.vector
        assert torch.equal(torch.cat([p.detach().reshape(-1) for p in module.parameters()]), row)
        row.add_(1.0)
        assert torch.equal(torch.cat([p.detach().reshape(-1) for p in module.parameters()]), row)
    assert all(network.is_tied(turn) for turn in range(20))


def test_parameters_are_views_of_one_vector():
    module = mlp()
    before = copy.deepcopy(module.state_dict())
    network = Network(module)
    assert network.vector.shape == (26,) and network.members is None
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert_tied(network)
    members = Network(mlp(), mlp(), mlp())
    assert members.vector.shape == (3, 26) and members.members == 3
    assert_tied(members)


@pytest.mark.parametrize("members", [1, 2, 3])
def test_copies_are_tied_and_apart(members):
    network = Network(*(mlp() for _ in range(members)))
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other.vector, network.vector)
        assert_tied(other)
        assert not torch.equal(other.vector, network.vector)


def test_moving_and_casting_ties_again():
    network = Network(mlp())
    assert network.to(torch.float64) is network and network.vector.dtype == torch.float64
    assert_tied(network)


@pytest.mark.parametrize(
    "leave",
    [
        lambda m: m.double(),
        lambda m: m.load_state_dict({k: v.clone() for k, v in m.state_dict().items()}, assign=True),
        lambda m: setattr(m[2].bias, "data", torch.ones(2)),
    ],
)
def test_a_parameter_that_left_is_noticed_and_tied_again_with_its_value(leave):
    module = mlp()
    network = Network(module)
    leave(module)
    values = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    assert not all(network.is_tied(turn) for turn in range(4))
    network.tie()
    assert torch.equal(network.vector, values.to(network.vector.dtype))
    assert_tied(network)


def test_tying_again_keeps_the_address():
    module = mlp()
    network = Network(module)
    address = network.vector.data_ptr()
    module.load_state_dict({k: v.clone() for k, v in module.state_dict().items()}, assign=True)
    network.tie()
    assert network.vector.data_ptr() == address


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x).tanh())


def test_a_shared_parameter_is_held_once():
    module = Tied()
    network = Network(module)
    assert network.vector.shape == (9 + 3 + 3,)
    x, other = torch.randn(5, 3), network.vector + 0.5
    moved = network.at(other)(x)
    assert torch.equal(network(x), module(x))
    network.vector.copy_(other)
    torch.testing.assert_close(moved, module(x))
    twin = copy.deepcopy(network)
    assert twin.modules[0].first.weight is twin.modules[0].second.weight
    assert Network(Tied(), Tied(), Tied()).at(torch.zeros(3, 15))(x).shape == (3, 5, 3)


@pytest.mark.parametrize("members", [2, 4])
def test_members_looped_and_mapped_give_what_their_modules_give(members):
    network = Network(*(mlp() for _ in range(members)))
    x, own = torch.randn(5, 3), torch.randn(members, 5, 3)
    expected = torch.stack([m(x) for m in network.modules])
    torch.testing.assert_close(network.at(network.vector)(x), expected)
    torch.testing.assert_close(network(x), expected)
    torch.testing.assert_close(network.per_member(own), torch.stack([m(y) for m, y in zip(network.modules, own)]))
    index = torch.tensor([members - 1, 0])
    torch.testing.assert_close(network.select(index)(x), expected[index])
    torch.testing.assert_close(network.select(index[:1])(x), expected[index[:1]])


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.log_std = nn.Linear(3, 2), nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return Gaussian(self.mean(x), self.log_std.expand(x.shape[0], 2))


@pytest.mark.parametrize("members", [2, 3])
def test_named_tuples_are_stacked(members):
    network = Network(*(Head() for _ in range(members)))
    found = network.at(network.vector)(torch.randn(5, 3))
    assert isinstance(found, Gaussian) and found.mean.shape == found.log_std.shape == (members, 5, 2)


def test_a_call_elsewhere_leaves_the_modules_alone():
    network = Network(mlp())
    module, kept = network.modules[0], network.vector.clone()
    network.at(torch.zeros_like(kept))(torch.ones(1, 3))
    assert torch.equal(network.vector, kept) and isinstance(module[0].weight, nn.Parameter)
    with pytest.raises(RuntimeError):
        network.at(torch.zeros_like(kept))(torch.ones(1, 7))
    assert isinstance(module[0].weight, nn.Parameter)


def test_what_needs_no_gradient_stays_outside():
    module = mlp()
    module[0].requires_grad_(False)
    network = Network(module)
    assert network.vector.shape == (10,)
    kept = module[0].weight.clone()
    network.vector.zero_()
    assert torch.equal(module[0].weight, kept) and not module[2].weight.any()


def test_a_part_written_alone_is_small():
    module = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 1))
    Network(module)

    def size(state):
        torch.save(state, buffer := io.BytesIO())
        return buffer.tell()

    assert size(module[1].state_dict()) > 40_000 > 4_000 > size(compact_state_dict(module[1]))


def with_constant(value):
    module = mlp()
    module.register_buffer("scale", torch.full((), value))
    return module


def frozen_differently():
    modules = [mlp(), mlp()]
    for module in modules:
        module[0].requires_grad_(False)
    return Network(*modules)


def shared():
    module = mlp()
    return Network(module, module)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network(), "at least one module"),
        (lambda: Network(torch.zeros(2)), "torch modules, got Tensor"),
        (lambda: Network(mlp(3), mlp(4)), "have one shape"),
        (shared, "share a parameter"),
        (lambda: Network(with_constant(1.0), with_constant(2.0)), "differ in the constant 'scale'; give all the same"),
        (frozen_differently, "differ in the constant '0.weight'"),
        (lambda: Network(nn.ReLU()), "ReLU has no parameter"),
        (
            lambda: Network(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))),
            r"'1' \(BatchNorm1d\) changes a buffer; use nn.LayerNorm",
        ),
        (
            lambda: Network(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))),
            r"'1' \(Dropout\) draws random numbers; .*noise field",
        ),
        (lambda: Network(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())), "one dtype"),
        (lambda: Network(mlp()).per_member(torch.ones(1, 3)), "several members"),
        (lambda: Network(mlp()).select(torch.tensor([0])), "among several members"),
    ],
)
def test_what_a_network_cannot_be(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_layers_without_effect_are_fine():
    Network(with_constant(1.0), with_constant(1.0))
    Network(
        nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0), nn.LayerNorm(2), nn.BatchNorm1d(2, track_running_stats=False))
    )


def test_a_scalar_is_read_as_a_number():
    scalar = Scalar(-1.5)
    assert scalar.at(scalar.vector).shape == () and float(scalar.at(scalar.vector)) == -1.5
    assert scalar.to(dtype=torch.float64).vector.dtype == torch.float64


class Twice(nn.Module):
    """One layer under two names, as SB3's policies hold a shared features extractor."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = self.first

    def forward(self, x):
        return self.second(self.first(x))


def test_a_layer_under_two_names_comes_back_after_a_traced_call(monkeypatch):
    net = Network(Twice())
    x, before = torch.ones(1, 2), net.modules[0].first.weight
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # the path of compiled steps
    moved = net.at(2 * net.vector)(x)
    assert net.modules[0].first.weight is before and net.is_tied()
    layer = net.modules[0].first
    wanted = x
    for _ in range(2):
        wanted = nn.functional.linear(wanted, 2 * layer.weight, 2 * layer.bias)
    torch.testing.assert_close(moved, wanted)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory = nn.GRU(2, 3, batch_first=True)

    def forward(self, x):
        return self.memory(x)[0][:, -1]


@pytest.mark.parametrize("members", [1, 3])
def test_recurrent_layers_are_called_member_by_member(members):
    """torch cannot map them."""
    network = Network(*(Recurrent() for _ in range(members)))
    x, vector = torch.randn(4, 5, 2), (1.5 * network.vector).requires_grad_()
    found = network.at(vector)(x)
    with torch.no_grad():
        network.vector.copy_(vector)
    torch.testing.assert_close(found, network(x))
    assert all(g.any() for g in torch.autograd.grad(found.sum(), vector)[0].split(network._sizes, -1))


def test_what_is_frozen_later_stays_in_the_vector_and_in_copies():
    network = Network(mlp())
    network.modules[0][0].requires_grad_(False)
    vector = network.vector.clone()
    network.tie()
    for one in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(one.vector, vector)
        assert [one.is_frozen(turn) for turn in range(4)] == [True, True, False, False]
        assert_tied(one)
