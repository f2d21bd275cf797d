"""The critic ensemble and RLPD: written derivatives against autograd, one member against a plain perceptron, learning, refusals."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from polyathlon.agents import RLPD
from polyathlon.agents.off_policy.ensemble import LAYER_NORM_EPS, CriticEnsemble
from polyathlon.agents.off_policy.ensemble_update import EnsembleUpdate
from polyathlon.agents.off_policy.rlpd_policy import flatten_ensemble
from polyathlon.agents.parts.replay import Replay
from polyathlon.agents.parts.squashed_gaussian import tanh_gaussian
from polyathlon.agents.parts.symmetric_sampling import symmetric_sample
from polyathlon.envs.errors import UsageError

OBS, ACTION, ROWS = 4, 2, 12
SMALL = {"policy_kwargs": {"net_arch": [16, 12], "n_critics": 3}, "device": "cpu", "seed": 0}


def ensemble(members=3, layer_norm=True):
    torch.manual_seed(0)
    critic = CriticEnsemble(OBS + ACTION, [16, 12], members, layer_norm)
    with torch.no_grad():
        for name, parameter in critic.named_parameters():
            if name.startswith(("bias", "scale", "shift")):
                parameter.normal_()
    return critic


def update_of(critic, dtype=torch.float32):
    target = copy.deepcopy(critic)
    vector = flatten_ensemble(critic, target, 1e-3)
    return EnsembleUpdate(critic, vector, OBS, ACTION, ROWS, dtype), target


def test_a_member_is_a_perceptron_with_layer_norm():
    critic = ensemble()
    layers = []
    for i, (before, after) in enumerate(((6, 16), (16, 12), (12, 1))):
        linear = nn.Linear(before, after)
        linear.weight.data, linear.bias.data = getattr(critic, f"weight_{i}")[1].t(), getattr(critic, f"bias_{i}")[1, 0]
        layers.append(linear)
        if i < 2:
            norm = nn.LayerNorm(after, LAYER_NORM_EPS)
            norm.weight.data, norm.bias.data = getattr(critic, f"scale_{i}")[1, 0], getattr(critic, f"shift_{i}")[1, 0]
            layers += [norm, nn.ReLU()]
    pair = torch.randn(5, OBS + ACTION)
    torch.testing.assert_close(critic.values(pair)[1], nn.Sequential(*layers)(pair)[:, 0])
    assert torch.equal(critic(pair[:, :OBS], pair[:, OBS:])[1][:, 0], critic.values(pair)[1])


@pytest.mark.parametrize("layer_norm", [True, False])
def test_regression_step_equals_autograd(layer_norm):
    critic = ensemble(layer_norm=layer_norm)
    reference = copy.deepcopy(critic)
    update, target = update_of(critic)
    before = update.target.clone()
    pair, y = torch.randn(ROWS, OBS + ACTION), torch.randn(ROWS)
    adam = torch.optim.Adam(reference.parameters(), lr=1e-3)
    wanted = (reference.values(pair) - y).square().mean()
    wanted.backward()
    adam.step()
    with torch.no_grad():
        loss = update.regress(pair, y, 1e-3, 0.25)
    torch.testing.assert_close(loss, wanted.detach())
    for (name, mine), other in zip(critic.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(update.target, 0.75 * before + 0.25 * update.optimizer.vector.data)
    assert torch.equal(next(target.parameters()), update.targets.weight[0])


@pytest.mark.parametrize("layer_norm", [True, False])
def test_slope_of_the_mean_by_the_action_equals_autograd(layer_norm):
    critic = ensemble(layer_norm=layer_norm)
    update, _ = update_of(critic)
    obs, action = torch.randn(ROWS, OBS), torch.randn(ROWS, ACTION, requires_grad=True)
    wanted = critic.values(torch.cat([obs, action], 1)).mean()
    wanted.backward()
    gradient = update.optimizer.gradient.clone()
    with torch.no_grad():
        q, slope = update.mean_slope(obs, action.detach())
    torch.testing.assert_close(q, wanted.detach())
    torch.testing.assert_close(slope, action.grad)
    assert torch.equal(update.optimizer.gradient, gradient)  # the critics are not to learn from it


def test_values_of_chosen_targets():
    critic = ensemble()
    update, target = update_of(critic)
    obs, action = torch.randn(7, OBS), torch.randn(7, 5, ACTION)
    pairs = torch.cat([obs[:, None].expand(-1, 5, -1), action], 2)
    with torch.no_grad():
        wanted = target.values(pairs.flatten(0, 1)).view(3, 7, 5)
        torch.testing.assert_close(update.target_values(obs, action, torch.tensor([2, 0])), wanted[[2, 0]])
        one = update.target_values(obs, action[:, 3], torch.tensor([1]))
    torch.testing.assert_close(one, wanted[1:2, :, 3])


def test_bfloat16_products_stay_close():
    critic = ensemble()
    exact, _ = update_of(copy.deepcopy(critic))
    low, _ = update_of(critic, torch.bfloat16)
    pair, y = torch.randn(ROWS, OBS + ACTION), torch.randn(ROWS)
    with torch.no_grad():
        for update in (exact, low):
            update.regress(pair, y, 0.0, 0.0)
    a, b = exact.optimizer.gradient, low.optimizer.gradient
    assert 1e-5 < float((a - b).norm() / a.norm()) < 0.05


def test_half_of_a_minibatch_is_recorded():
    online, offline = (Replay(50, 1, 1, torch.device("cpu")) for _ in range(2))
    for memory, value in ((online, 1.0), (offline, 2.0)):
        x = torch.full((30, 1), value)
        memory.add(x, x, x, x[:, 0], torch.zeros(30))
    generator = torch.Generator().manual_seed(0)
    rows = symmetric_sample(online, offline, 4, 10, 0.5, generator)
    assert rows.shape == (4, 10, 5)
    assert ((rows[..., 0] == 2).sum(1) == 5).all() and ((rows[..., 0] == 1).sum(1) == 5).all()
    assert (symmetric_sample(online, offline, 2, 10, 0.2, generator)[..., 0] == 2).sum() == 4
    assert (symmetric_sample(online, None, 1, 10, 0.5, generator)[..., 0] == 1).all()
    assert (symmetric_sample(Replay(5, 1, 1, torch.device("cpu")), offline, 1, 10, 0.5, generator)[..., 0] == 2).all()


def test_rlpd_update_equals_autograd():
    agent = RLPD("MlpPolicy", "Pendulum-v1", batch_size=16, num_min_critics=3, learning_rate=1e-3, **SMALL)
    reference = copy.deepcopy(agent.policy)
    update = agent._ready()
    rows = torch.randn(1, 16, 2 * 3 + 1 + 2)
    rows[..., -1] = (rows[..., -1] > 0.5).float()
    draw = torch.Generator().manual_seed(5)
    first = torch.randn(16, 1, generator=draw)
    torch.randperm(3, generator=draw)
    second = torch.randn(16, 1, generator=draw)
    batch = agent._new_replay().split(rows[0])
    with torch.no_grad():
        action, logp = tanh_gaussian(*reference.head(batch.next_obs), first)
        q = reference.critic_target.values(torch.cat([batch.next_obs, action], 1)).amin(0)
        y = batch.reward + 0.99 * (1 - batch.done) * (q - logp)
    critic_adam = torch.optim.Adam(reference.critic.parameters(), lr=1e-3)
    (reference.critic.values(batch.obs_action) - y).square().mean().backward()
    critic_adam.step()
    action, logp = tanh_gaussian(*reference.head(batch.obs), second)
    actor_adam = torch.optim.Adam(reference.actor.parameters(), lr=1e-3)
    actor_adam.zero_grad()
    (logp - reference.critic.values(torch.cat([batch.obs, action], 1)).mean(0)).mean().backward()
    generator = torch.Generator().manual_seed(5)
    update.step(rows, agent.log_ent_coef, agent.ent_coef_optimizer, 1e-3, 0.99, 0.005, -0.5, True, generator)
    for mine, wanted in zip(agent.policy.critic.parameters(), reference.critic.parameters(), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=2e-5)
    for mine, wanted in zip(agent.policy.actor.parameters(), reference.actor.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=1e-4, atol=1e-6)
    assert float(agent.log_ent_coef.grad) == pytest.approx(0.5 - float(logp.detach().mean()), abs=1e-4)


def test_targets_without_entropy_where_it_is_left_out():
    agent = RLPD("MlpPolicy", "Pendulum-v1", batch_size=8, ent_coef=5.0, **SMALL)
    update, rows = agent._ready(), torch.zeros(1, 8, 2 * 3 + 1 + 2)
    losses = []
    for backup in (True, False):
        generator = torch.Generator().manual_seed(0)
        update.step(rows, agent.log_ent_coef, None, 0.0, 0.99, 0.0, -0.5, backup, generator)
        losses.append(update.report()["critic_loss"])
    assert abs(losses[0] - losses[1]) > 0.1


def test_rlpd_learns_pendulum():
    settings = {"learning_rate": 2e-3, "batch_size": 64, "policy_kwargs": {"net_arch": [64, 64], "n_critics": 5}}
    agent = RLPD("MlpPolicy", "Pendulum-v1", gradient_steps=2, seed=0, device="cpu", **settings).learn(2_600)
    returns = [episode["r"] for episode in agent.ep_info_buffer]
    assert np.mean(returns[-4:]) > -400
    assert np.mean(returns[:3]) < -800


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_min_critics": 4}, "num_min_critics is 4, but there are 3 critics"),
        ({"num_min_critics": 0}, "num_min_critics must be a positive integer"),
        ({"offline_ratio": 1.5}, "offline_ratio must lie between 0 and 1"),
        ({"policy_kwargs": {"net_arch": []}}, "at least one hidden layer"),
        ({"dataset": "polyathlon/none-such-v0"}, "there is no dataset"),
    ],
)
def test_bad_arguments_are_refused(arguments, words, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(UsageError, match=words):
        RLPD("MlpPolicy", "Pendulum-v1", **{**SMALL, **arguments})
