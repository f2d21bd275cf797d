"""Networks that read through another one: gradients by hand, targets, copies, refusals."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from polyathlon.agents.engine import Engine, Loss, Method, Network, with_features
from polyathlon.agents.parts.wiring import Target
from polyathlon.envs.errors import UsageError


def critic(critic, critic_target, obs, reward):
    return (critic(obs) - reward - 0.5 * critic_target(obs)).square().mean()


def actor(actor, critic, obs):
    return (actor(obs) * critic(obs).mean(0)).mean()


METHOD = Method(
    networks=lambda *_: {},
    losses=(Loss("critic", critic), Loss("actor", actor)),
    targets={"critic": Target("ema", tau=0.25)},
)


class Column(nn.Linear):
    def forward(self, x):
        return super().forward(x)[..., 0]


def made(is_shared):
    torch.manual_seed(0)
    eyes, one = [nn.Linear(3, 2) for _ in range(2)], Network(*(Column(2, 1) for _ in range(2)))
    networks = {"eye": Network(eyes[0]), "actor": Network(Column(2, 1)).read_through("eye")}
    if not is_shared:
        networks["other"] = Network(eyes[1])
    networks["critic"] = one.read_through("eye" if is_shared else "other", not is_shared)
    method = with_features(METHOD, networks)
    return networks, Engine(method, networks, "cpu", compile=False), method


@pytest.mark.parametrize("is_shared", [True, False])
def test_gradients_reach_the_features_that_a_loss_trains(is_shared):
    networks, engine, method = made(is_shared)
    moved = {loss.key: loss.moved for loss in method.losses}
    assert moved == {"critic": ("critic",) if is_shared else ("other", "critic"), "actor": ("eye", "actor")}
    assert set(method.targets) == {"critic", "eye" if is_shared else "other"}
    assert with_features(method, networks).losses == method.losses  # once more changes nothing
    obs, reward = torch.randn(5, 3), torch.randn(5)
    found, _ = engine.gradients({"obs": obs, "reward": reward, "learning_rate": 0.0})
    modules = {n: net.modules for n, net in networks.items()}
    behind = modules["eye" if is_shared else "other"][0]
    seen = behind(obs).detach() if is_shared else behind(obs)
    q = torch.stack([head(seen) for head in modules["critic"]])
    loss = (q - reward - 0.5 * q.detach()).square().mean()
    own = [p for n in moved["critic"] for m in modules[n] for p in m.parameters()]
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(loss, own)])
    torch.testing.assert_close(found["critic"].flatten(), wanted)
    loss = (modules["actor"][0](modules["eye"][0](obs)) * q.detach().mean(0)).mean()
    own = [p for n in ("eye", "actor") for p in modules[n][0].parameters()]
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(loss, own)])
    torch.testing.assert_close(found["actor"], wanted)


def test_the_target_of_the_features_follows_and_functions_read_through_them():
    networks, engine, _ = made(False)
    before = engine.state["targets"]["other"].clone()
    obs = torch.randn(4, 3)
    engine.step({"obs": obs, "reward": torch.randn(4), "learning_rate": 0.1})
    torch.testing.assert_close(engine.state["targets"]["other"], torch.lerp(before, networks["other"].vector, 0.25))
    value = engine.function(_value)
    seen = networks["other"](obs)
    torch.testing.assert_close(value(obs=obs), networks["critic"](seen))


def _value(critic, obs):
    return critic(obs)


def test_a_module_without_parameters_stands_before_a_network_and_copies_keep_it():
    network = Network(Column(4, 1)).read_through(nn.Flatten(), False)
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert isinstance(again.features, nn.Flatten) and again.trains_features is False
    method = Method(networks=lambda *_: {}, losses=(Loss("actor", _square),))
    engine = Engine(method, {"actor": network}, "cpu", compile=False)
    obs = torch.randn(5, 2, 2)
    wanted = float(network(obs.flatten(1)).detach().square().mean())
    engine.step({"obs": obs, "learning_rate": 0.0})
    assert engine.metrics()["actor_loss"] == pytest.approx(wanted, rel=1e-5)


def _square(actor, obs):
    return actor(obs).square().mean()


def test_features_that_are_no_network_are_refused():
    method = Method(networks=lambda *_: {}, losses=(Loss("actor", _square),))
    with pytest.raises(UsageError, match="'actor' reads through 'eye', which is no network"):
        Engine(method, {"actor": Network(Column(2, 1)).read_through("eye")}, "cpu")
    networks = {"eye": Network(nn.Linear(3, 2)), "actor": Network(Column(2, 1))}
    with pytest.raises(UsageError, match="moves 'eye' but does not read it"):
        Engine(Method(networks=lambda *_: {}, losses=(Loss(("eye", "actor"), _square),)), networks, "cpu")
