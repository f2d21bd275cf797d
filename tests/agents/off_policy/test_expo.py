"""EXPO: its sampler and update against plain definitions, what its parts may not touch, datasets, resume, refusals."""

from __future__ import annotations

import copy

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents import EXPO, RLPD
from polyathlon.agents.off_policy.action_generator import ActionGenerator, ActionSampler
from polyathlon.agents.off_policy.expo_update import average_rate
from polyathlon.agents.parts.diffusion import ddpm_step, variance_preserving_schedule
from polyathlon.agents.parts.flow_matching import euler_step
from polyathlon.datasets import record
from polyathlon.envs.errors import UsageError

SMALL = {
    "policy_kwargs": {"net_arch": [16, 16], "n_critics": 3},
    "batch_size": 8,
    "base_steps": 3,
    "learning_starts": 8,
    "device": "cpu",
    "seed": 0,
}


@pytest.fixture(scope="module")
def dataset_id(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
    yield record("random", "Pendulum-v1", episodes=2, dataset_id="polyathlon/pendulum/random-v0", max_steps=50)
    patch.undo()


def plain_samples(network, obs, noise):
    """Sample one step at a time, one row for each action, by the network's own forward."""
    samples = noise.shape[2]
    rows = obs.repeat_interleave(samples, 0)
    x = noise[0].reshape(len(rows), -1)
    schedule = variance_preserving_schedule(network.num_steps)
    times = list(range(network.num_steps))
    for k, i in enumerate(times if network.kind == "flow" else reversed(times)):
        found = network(rows, x, torch.full((len(rows),), float(i)))
        if network.kind == "flow":
            x = euler_step(x, found, network.num_steps)
        else:
            x = ddpm_step(x, found, schedule, i, noise[k + 1].reshape(len(rows), -1) if i else None)
    return x.clamp(-1, 1).view(len(obs), samples, -1)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
@pytest.mark.parametrize("rows", [5, 5000])
def test_the_sampler_equals_the_network_step_by_step(kind, rows):
    torch.manual_seed(0)
    network = ActionGenerator(4, 2, [16, 16], kind, 4)
    with torch.no_grad():
        for block in network.blocks:
            block.norm.weight.normal_(), block.norm.bias.normal_()
        sampler, obs = ActionSampler(network), torch.randn(rows, 4)
        noise = sampler.draw_noise(rows, 3, torch.Generator().manual_seed(1))
        torch.testing.assert_close(sampler.sample(obs, noise), plain_samples(network, obs, noise), rtol=1e-4, atol=1e-5)
        shared = noise[:, :1]
        wanted = plain_samples(network, obs, shared.expand(-1, rows, -1, -1))
        torch.testing.assert_close(sampler.sample(obs, shared), wanted, rtol=1e-4, atol=1e-5)
        low = ActionSampler(network, torch.bfloat16).sample(obs, noise)
        assert 0 < float((low - sampler.sample(obs, noise)).abs().mean()) < 0.02


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_imitation_finds_both_modes(kind):
    """Actions of the data are +-0.5 at one observation and 0.2 at the other; the samples must be too."""
    torch.manual_seed(0)
    network = ActionGenerator(1, 1, [64, 64], kind, 10)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(600):
        obs = torch.randint(2, (128, 1), generator=generator).float()
        sign = torch.randint(2, (128, 1), generator=generator).float() - 0.5
        adam.zero_grad()
        network.loss(obs, torch.where(obs > 0, sign, 0.2), generator).backward()
        adam.step()
    sampler = ActionSampler(network)
    drawn = sampler.sample(torch.tensor([[0.0], [1.0]]), sampler.draw_noise(2, 400, generator))[..., 0]
    assert float((drawn[0] - 0.2).abs().mean()) < 0.1
    assert float((drawn[1].abs() - 0.5).abs().mean()) < 0.13
    assert 0.3 < float((drawn[1] > 0).float().mean()) < 0.7


def rows_for(agent, slices):
    generator = torch.Generator().manual_seed(7)
    rows = torch.randn(slices, agent.batch_size, 2 * 3 + 1 + 2, generator=generator).clamp(-1, 1)
    rows[..., -1] = 0
    return rows


def test_only_imitation_moves_the_base_policy(monkeypatch):
    agent = EXPO("MlpPolicy", "Pendulum-v1", **SMALL)
    update = agent._ready()
    monkeypatch.setattr(update, "imitate", lambda *args: torch.zeros(()))
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    agent._update_step(rows_for(agent, 2), 1e-2)
    moved = {n.partition(".")[0] for n, v in agent.policy.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {"edit", "critic", "critic_target"}


@pytest.mark.parametrize(
    "spread", [1.0, 400.0]
)  # at 400 log deviations lie beyond both bounds, where nothing flows back
def test_the_edit_step_equals_autograd_and_values_the_clipped_action(spread):
    agent = EXPO("MlpPolicy", "Pendulum-v1", edit_scale=0.3, **SMALL)
    with torch.no_grad():
        agent.policy.edit.log_std.weight.mul_(spread)
    update, policy = agent._ready(), copy.deepcopy(agent.policy)
    rows = rows_for(agent, 1)[0]
    rows[:, 3] = torch.tensor([1.0, 1.0, 1.0, 0.2, -0.4, -1.0, -1.0, -1.0])
    batch = agent._new_replay().split(rows)
    eps = torch.randn(8, 1, generator=torch.Generator().manual_seed(3))
    latent = policy.edit.latent_pi(batch.obs_action)
    mean, log_std = policy.edit.mu(latent), policy.edit.log_std(latent).clamp(-20, 2)
    assert (spread == 1) != bool((log_std.abs() == 20).any() or (log_std == 2).any())
    raw = mean + log_std.exp() * eps
    edit = 0.3 * torch.tanh(raw)
    # log(1 - tanh(x)^2) = 2 (log 2 - x - log(1 + exp(-2 x))), which holds far out as well
    squash = 2 * (np.log(2) - raw - torch.nn.functional.softplus(-2 * raw))
    density = -0.5 * eps.square() - log_std - 0.5 * np.log(2 * np.pi)  # of the normal at mean + exp(log_std) eps
    logp = (density - squash - np.log(0.3)).sum(1)
    edited = batch.action + edit
    assert 0 < int((edited.abs() > 1).sum()) < 8
    q = policy.critic.values(torch.cat([batch.obs, edited.clamp(-1, 1)], 1)).mean(0)
    (2.0 * logp - q).mean().backward()
    with torch.no_grad():
        found = update._edit_step(batch, torch.tensor(2.0), 1e-3, torch.Generator().manual_seed(3))
    for mine, wanted in zip(agent.policy.edit.parameters(), policy.edit.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0], (2.0 * logp - q).mean().detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], -logp.mean().detach(), rtol=1e-4, atol=1e-5)


def test_temperature_rises_where_edits_are_too_certain():
    agent = EXPO("MlpPolicy", "Pendulum-v1", ent_coef="auto_0.5", target_entropy=9.0, **SMALL)
    agent._ready()
    agent._update_step(rows_for(agent, 1), 1e-2)
    entropy = agent._update.report()["edit_entropy"]
    assert float(agent.log_ent_coef.grad) == pytest.approx(0.5 * (entropy - 9.0), rel=1e-4)
    assert float(agent.log_ent_coef.exp()) > 0.5


def test_the_default_entropy_can_be_reached():
    for scale in (0.05, 0.7):
        agent = EXPO("MlpPolicy", "Pendulum-v1", edit_scale=scale, **SMALL)
        assert agent._entropy_goal == pytest.approx(np.log(scale) - 0.5)
        assert agent._entropy_goal < np.log(2 * scale)  # the entropy of even edits, which none exceeds


def test_targets_take_the_best_candidate():
    """With one critic, no discounting of the end and a known noise, the target is the best of all candidates."""
    kwargs = {**SMALL, "policy_kwargs": {"net_arch": [16, 16], "n_critics": 1}}
    agent = EXPO("MlpPolicy", "Pendulum-v1", num_min_critics=1, num_samples=3, num_edits=2, **kwargs)
    update, rows = agent._ready(), rows_for(agent, 1)
    batch = agent._new_replay().split(rows[0])
    generator = torch.Generator().manual_seed(0)
    tried = update._candidates(batch.next_obs, torch.Generator().manual_seed(0))
    q = agent.critic_target.values(torch.cat([batch.next_obs[:, None].expand(-1, 5, -1), tried], 2).flatten(0, 1))
    y = batch.reward + 0.99 * q.view(8, 5).amax(1)
    wanted = (agent.critic.values(batch.obs_action) - y).square().mean()
    update.step(rows, agent.log_ent_coef, None, 0.0, 0.99, 0.0, -1.0, 0.0, generator)
    assert update.report()["critic_loss"] == pytest.approx(float(wanted), rel=1e-4)


def test_one_sample_without_edits_acts_as_the_base_policy():
    agent = EXPO("MlpPolicy", "Pendulum-v1", num_samples=1, num_edits=0, **SMALL)
    policy, obs = agent.policy, torch.randn(6, 3)
    action = policy.sample(obs, torch.Generator().manual_seed(2))
    sampler = ActionSampler(policy.base_average)
    wanted = sampler.sample(obs, sampler.draw_noise(6, 1, torch.Generator().manual_seed(2)))[:, 0]
    assert torch.equal(action, wanted)
    agent.learn(24)


def test_the_average_forgets_its_start_and_then_moves_slowly():
    assert average_rate(0.001, 0) == pytest.approx(0.9)
    assert average_rate(0.001, 90) == pytest.approx(0.09)
    assert average_rate(0.001, 100_000) == 0.001


@pytest.mark.parametrize("agent_class", [EXPO, RLPD])
def test_a_dataset_by_id_path_or_object_gives_equal_agents(agent_class, dataset_id):
    whole = minari.load_dataset(dataset_id)
    settings = {k: v for k, v in SMALL.items() if agent_class is EXPO or k != "base_steps"}
    found = []
    for given in (dataset_id, str(whole.storage.data_path), whole):
        agent = agent_class("MlpPolicy", "Pendulum-v1", dataset=given, **settings).learn(20)
        assert agent.offline.size == 100
        found.append(torch.cat([p.reshape(-1) for p in agent.policy.parameters()]))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_pretraining_imitates_and_a_resumed_run_is_unbroken(dataset_id, tmp_path):
    part = minari.load_dataset(dataset_id).filter_episodes(lambda episode: episode.id == 1)
    agent = EXPO("MlpPolicy", "Pendulum-v1", dataset=part, pretraining_steps=5, **SMALL)
    critic = agent.critic.optimizer.vector.detach().clone()
    agent.pretrain(3)
    assert agent._n_base_updates == 3 and torch.equal(agent.critic.optimizer.vector, critic)
    agent.learn(16)
    assert agent._n_base_updates == 5 + 8 and agent.offline.size == 50
    agent.checkpoint(tmp_path / "run.pt")
    agent.learn(12, reset_num_timesteps=False)
    again = EXPO.resume(tmp_path / "run.pt", "Pendulum-v1", device="cpu")
    again.learn(12, reset_num_timesteps=False)
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(value, again.policy.state_dict()[name]), name
    again.pretrain(2, values=True)
    assert again._n_updates == agent._n_updates + 2


def test_a_dataset_of_another_task_is_refused(dataset_id):
    class Other(gym.Env):
        observation_space = spaces.Box(-1, 1, (5,), np.float32)
        action_space = spaces.Box(-1, 1, (1,), np.float32)

    with pytest.raises(UsageError, match="shape"):
        EXPO("MlpPolicy", Other(), dataset=dataset_id, **SMALL)


def test_deterministic_predictions_do_not_depend_on_the_other_rows():
    agent = EXPO("MlpPolicy", "Pendulum-v1", **SMALL)
    obs = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    together = agent.predict(obs, deterministic=True)[0]
    alone = np.stack([agent.predict(row, deterministic=True)[0] for row in obs])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_deterministic_actions_are_spread_over_observations_as_sampled_ones_are(kind):
    """Observations that no network can tell apart, but no two of them equal: two samples each, one of them edited."""
    candidates = {"num_samples": 2, "num_edits": 1, "edit_scale": 0.5, "num_min_critics": 3}
    agent = EXPO("MlpPolicy", "Pendulum-v1", base_policy=kind, **candidates, **SMALL)
    obs = 0.3 + 1e-4 * np.random.default_rng(0).normal(size=(4000, 3)).astype(np.float32)
    told, drawn = (np.sort(agent.predict(obs, deterministic=is_told)[0][:, 0]) for is_told in (True, False))
    assert drawn.std() > 0.3 and np.abs(told - drawn).mean() < 0.15  # four standard errors
    assert np.array_equal(told, np.sort(agent.predict(obs, deterministic=True)[0][:, 0]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_samples": 0}, "num_samples must be a positive integer"),
        ({"num_samples": 2, "num_edits": 3}, "got 3 of 2"),
        ({"edit_scale": 0.0}, "edit_scale must lie in"),
        ({"base_policy": "difusion"}, "diffusion"),
        ({"base_steps": 0}, "base_steps must be a positive integer"),
        ({"base_tau": 2}, "base_tau must lie between 0 and 1"),
        ({"pretraining_steps": 5}, "pretraining_steps needs a dataset"),
        ({"policy_kwargs": {"net_arch": {"critic": [8]}}}, "network of net_arch"),
        ({"policy_kwargs": {"net_arch": {"base": [8, 16]}}}, "equal width"),
        ({"policy_kwargs": {"base_steps": 3}}, "EXPO's own arguments"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        EXPO("MlpPolicy", "Pendulum-v1", **{**SMALL, **arguments})


def test_pretraining_without_a_dataset_is_refused():
    with pytest.raises(UsageError, match="EXPO\\(..., dataset=id\\)"):
        EXPO("MlpPolicy", "Pendulum-v1", **SMALL).pretrain(3)
