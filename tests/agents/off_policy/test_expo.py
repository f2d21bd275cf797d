"""EXPO: its sampler and losses against plain definitions, what its parts may not touch, datasets, resume, refusals."""

from __future__ import annotations

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents import EXPO, RLPD
from polyathlon.agents.engine import Average, Network
from polyathlon.agents.off_policy import expo as module
from polyathlon.agents.off_policy.action_generator import ActionGenerator, generate, imitation_loss
from polyathlon.agents.off_policy.expo_policy import candidates
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


def stepwise(network, obs, start, is_flow, steps):
    """Turn noise into actions with the formulas of the papers, one observation and one sample at a time."""
    alpha = [np.exp(-0.1 / steps - 0.5 * 9.9 * (2 * t - 1) / steps**2) for t in range(1, steps + 1)]
    x = start[0]
    for k in range(steps):
        i = k if is_flow else steps - 1 - k
        seen = network(obs[None], x[None], torch.tensor([float(i)]))[0]
        if is_flow:  # Euler's step of dx/dt = v
            x = x + seen / steps
            continue
        left = np.prod(alpha[: i + 1])  # Ho et al. 2020, algorithm 2
        x = (x - (1 - alpha[i]) / np.sqrt(1 - left) * seen) / np.sqrt(alpha[i])
        x = (x + (np.sqrt(1 - alpha[i]) * start[k + 1] if i else 0)).clamp(-1, 1)
    return x.clamp(-1, 1)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_the_sampler_equals_the_formulas(kind):
    torch.manual_seed(0)
    network = ActionGenerator(4, 2, [16, 16])
    with torch.no_grad():
        network.last.weight.mul_(5)
        obs, noise = torch.randn(5, 4), torch.randn(4, 5, 3, 2)
        found = generate(network, obs, noise, kind, 4)
        for b in range(5):
            for n in range(3):
                wanted = stepwise(network, obs[b], noise[:, b, n], kind == "flow", 4)
                torch.testing.assert_close(found[b, n], wanted, rtol=1e-4, atol=1e-5)
    assert found.abs().max() == 1 and found.abs().min() < 0.5


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_imitation_finds_both_modes(kind):
    """Actions of the data are +-0.5 at one observation and 0.2 at the other; the samples must be too."""
    torch.manual_seed(0)
    network = ActionGenerator(1, 1, [64, 64])
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(600):
        obs = torch.randint(2, (128, 1), generator=generator).float()
        sign = torch.randint(2, (128, 1), generator=generator).float() - 0.5
        noise, time = torch.randn(128, 1, generator=generator), torch.rand(128, generator=generator)
        adam.zero_grad()
        imitation_loss(network, obs, torch.where(obs > 0, sign, 0.2), noise, time, kind, 10).backward()
        adam.step()
    with torch.no_grad():
        noise = torch.randn(10, 2, 400, 1, generator=generator)
        drawn = generate(network, torch.tensor([[0.0], [1.0]]), noise, kind, 10)[..., 0]
    assert float((drawn[0] - 0.2).abs().mean()) < 0.1
    assert float((drawn[1].abs() - 0.5).abs().mean()) < 0.13
    assert 0.3 < float((drawn[1] > 0).float().mean()) < 0.7


def prepared(**words):
    """Return an agent and the fields of a step."""
    agent = EXPO("MlpPolicy", "Pendulum-v1", **{**SMALL, **words})
    agent._ready()
    generator = torch.Generator().manual_seed(7)
    rows = torch.randn(agent.batch_size, 2 * 3 + 1 + 2, generator=generator).clamp(-1, 1)
    rows[..., -1] = 0
    return agent, {**agent._fields(agent.replay.split(rows)), "learning_rate": 1e-2}


def test_only_imitation_moves_the_base_policy():
    agent, fields = prepared()
    before = {name: network.vector.clone() for name, network in agent.networks.items()}
    moved = []
    for losses in (["base"], ["base_average"], ["on_the_fly", "critic"], ["edit"], ["ent_coef"]):
        if losses == ["ent_coef"]:
            losses = ["edit", *losses]
        agent.engine.step(fields, losses)
        moved.append({n for n, network in agent.networks.items() if not torch.equal(network.vector, before[n])})
        before = {name: network.vector.clone() for name, network in agent.networks.items()}
    assert moved == [{"base"}, {"base_average"}, {"critic", "critic_target"}, {"edit"}, {"edit", "log_alpha"}]
    assert agent.engine.count == 0


@pytest.mark.parametrize(
    "spread", [1.0, 400.0]
)  # at 400 log deviations lie beyond both bounds, where nothing flows back
def test_the_edit_loss_values_the_clipped_action(spread):
    agent, fields = prepared(edit_scale=0.3, ent_coef=2.0, gradient_steps=1)
    with torch.no_grad():
        agent.policy.edit.log_std.weight.mul_(spread)
    fields["action"] = torch.tensor([1.0, 1.0, 1.0, 0.2, -0.4, -1.0, -1.0, -1.0])[:, None]
    policy, obs, action, eps = agent.policy, fields["obs"], fields["action"], fields["noise"]
    latent = policy.edit.latent_pi(torch.cat([obs, action], 1))
    mean, log_std = policy.edit.mu(latent), policy.edit.log_std(latent).clamp(-20, 2)
    assert (spread == 1) != bool((log_std.abs() == 20).any() or (log_std == 2).any())
    raw = mean + log_std.exp() * eps
    # log(1 - tanh(x)^2) = 2 (log 2 - x - log(1 + exp(-2 x))), which holds far out as well
    squash = 2 * (np.log(2) - raw - torch.nn.functional.softplus(-2 * raw))
    density = -0.5 * eps.square() - log_std - 0.5 * np.log(2 * np.pi)  # of the normal at mean + exp(log_std) eps
    logp = (density - squash - np.log(0.3)).sum(1)
    edited = action + 0.3 * torch.tanh(raw)
    assert 0 < int((edited.abs() > 1).sum()) < 8
    q = torch.cat(policy.critic(obs, edited.clamp(-1, 1)), 1).mean(1)
    wanted = torch.autograd.grad((2.0 * logp - q).mean(), list(policy.edit.parameters()))
    frozen = [loss for loss in agent.method.losses if loss.key == "edit"]
    networks = [agent.networks["edit"].at(agent.networks["edit"].vector.requires_grad_()), agent.networks["critic"]]
    found, told = frozen[0].function(*networks, torch.tensor(2.0).log(), obs, action, eps, edit_scale=0.3)
    gradient = torch.autograd.grad(found, networks[0].vector)[0]
    torch.testing.assert_close(gradient, torch.cat([w.reshape(-1) for w in wanted]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, (2.0 * logp - q).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(told["edit_entropy"], -logp.mean(), rtol=1e-4, atol=1e-5)


def test_the_entropy_is_that_of_the_scaled_edits():
    class Certain:
        def __call__(self, pair):
            return self

        def sample(self, noise):
            return noise, torch.zeros(noise.shape[0])

    zeros = torch.zeros(4, 3)
    for scale in (0.05, torch.tensor(0.05)):
        told = module.edit(
            Certain(), lambda obs, a: a.sum(1), torch.tensor(0.0), zeros, zeros, zeros, edit_scale=scale
        )[1]
        assert float(told["edit_entropy"]) == pytest.approx(-8.98720, abs=1e-5)  # 3 log 0.05


def test_temperature_rises_where_edits_are_too_certain():
    agent, fields = prepared(ent_coef="auto_0.5", target_entropy=9.0, gradient_steps=1)
    gradient = agent.engine.gradients(fields)[0]["ent_coef"]
    agent.engine.step(fields)
    entropy = agent.engine.metrics()["edit_entropy"]
    assert float(gradient) == pytest.approx(0.5 * (entropy - 9.0), rel=1e-4)
    assert float(agent.log_ent_coef.exp()) > 0.5


def test_the_default_entropy_can_be_reached():
    action = torch.zeros(4, 2)
    for scale in (0.05, 0.7):
        goal = 2 * (np.log(scale) - 0.5)
        assert goal < 2 * np.log(2 * scale)  # the entropy of even edits, which none exceeds
        for entropy in (goal - 1, goal + 1):
            loss = module.temperature(torch.tensor(0.0), torch.tensor(entropy), action, edit_scale=scale)
            assert float(loss) == pytest.approx(entropy - goal, rel=1e-4)


def test_targets_take_the_best_candidate():
    """With one critic the target is the best of all candidates."""
    one = {"policy_kwargs": {"net_arch": [16, 16], "n_critics": 1}, "num_min_critics": 1}
    agent, f = prepared(num_samples=3, num_edits=2, **one)
    with torch.no_grad():
        base, edit = agent.networks["base"], agent.networks["edit"]
        tried = candidates(base, edit, f["next_obs"], f["start"], f["edit_noise"], 0.1, "diffusion", 3)
        assert tried.shape == (8, 5, 1) and 0 < float((tried[:, 3:] - tried[:, :2]).abs().max()) <= 0.1
        q = agent.policy.critic_target(f["next_obs"].repeat_interleave(5, 0), tried.flatten(0, 1)).view(8, 5)
        wanted = (agent.critic(f["obs"], f["action"]) - f["reward"] - 0.99 * q.amax(1)).square().mean()
    agent.engine.step(f)
    assert agent.engine.metrics()["critic_loss"] == pytest.approx(float(wanted), rel=1e-4)


def test_the_edit_of_a_candidate_sees_it():
    policy = Network(ActionGenerator(1, 1, [4]))

    class Seen:
        def __call__(self, pair):
            self.pair = pair
            return self

        def sample(self, noise):
            return noise, noise[..., 0]

    edit, obs = Seen(), torch.tensor([[0.5], [0.7]])
    tried = candidates(policy, edit, obs, torch.randn(2, 2, 2, 1), torch.full((2, 1, 1), 5.0), 0.1, "flow", 2)
    assert torch.equal(edit.pair[..., 0], obs) and torch.equal(edit.pair[..., 1], tried[:, 0])
    torch.testing.assert_close(tried[:, 2], (tried[:, 0] + 0.5).clamp(-1, 1))


def test_one_sample_without_edits_acts_as_the_base_policy():
    agent = EXPO("MlpPolicy", "Pendulum-v1", num_samples=1, num_edits=0, **SMALL)
    obs, noise = torch.randn(6, 3), torch.randn(6, 3 + 3)  # three steps of one action, three critics
    found = agent.policy.distribution(obs).sample(noise)[0]
    wanted = generate(agent.policy.base_average, obs, noise[:, :3].t()[:, :, None, None], "diffusion", 3)[:, 0]
    assert torch.equal(found, wanted)
    agent.learn(24)
    assert not {"edit", "ent_coef"} & {loss.key for loss in agent.method.losses}


def test_the_policy_has_no_density():
    agent = EXPO("MlpPolicy", "Pendulum-v1", **SMALL)
    with pytest.raises(UsageError, match="no density"):
        agent.log_prob(np.zeros((1, 3)), np.zeros((1, 1)))
    with pytest.raises(UsageError, match="leave action_masks out"):
        agent.policy.distribution(torch.zeros(1, 3), torch.ones(1, 1))


def test_the_average_forgets_its_start_and_then_moves_slowly():
    def squared(vector):
        return 0.5 * vector.square().sum(), {}

    def share(taken):
        state = {"t": torch.tensor([float(taken)])}
        vector, state, _, _ = Average(0.001, 10).step(torch.ones(2), squared, state, torch.tensor(1.0))
        assert float(state["t"]) == taken + 1
        return 1 - float(vector[0])

    assert share(0) == pytest.approx(0.9)
    assert share(90) == pytest.approx(0.09, rel=1e-4)
    assert share(100_000) == pytest.approx(0.001, rel=1e-3)


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
    critic = agent.networks["critic"].vector.clone()
    agent.pretrain(3)
    assert agent._n_base_updates == 3 and torch.equal(agent.networks["critic"].vector, critic)
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
        ({"policy_kwargs": {"base_steps": 3}}, "word in policy_kwargs"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        EXPO("MlpPolicy", "Pendulum-v1", **{**SMALL, **arguments})


def test_pretraining_without_a_dataset_is_refused():
    with pytest.raises(UsageError, match="EXPO\\(..., dataset=id\\)"):
        EXPO("MlpPolicy", "Pendulum-v1", **SMALL).pretrain(3)
