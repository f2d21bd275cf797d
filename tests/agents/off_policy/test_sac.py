"""Soft actor-critic: its gradient step against autograd, its numbers, its exact resume, its refusals."""

from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents import SAC
from polyathlon.agents.off_policy.sac import critic as sac_critic
from polyathlon.envs.errors import UsageError

SMALL = {"policy_kwargs": {"net_arch": [32, 24]}, "device": "cpu", "seed": 0}


def test_one_and_three_critics_are_taken_by_their_least():
    batch = torch.randn(16, 3), torch.rand(16, 1)
    for number in (1, 3):
        agent = SAC("MlpPolicy", "Pendulum-v1", **{**SMALL, "policy_kwargs": {"net_arch": [8], "n_critics": number}})
        values = torch.cat(agent.critic(*batch), 1) if number > 1 else agent.critic(*batch).T
        assert torch.equal(agent.networks["critic"](*batch), values.T) and values.shape == (16, number)
        agent.learning_starts = 20
        agent.learn(40)


def test_targets_move_by_tau_at_their_interval_and_not_at_all_without():
    def moved(**words):
        agent = SAC("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=8, **words, **SMALL).learn(20)
        before = agent.networks["critic_target"].vector.clone()
        agent.train(1)
        return before, agent.networks["critic_target"].vector, agent.networks["critic"].vector

    before, target, critic = moved(tau=0.25)
    torch.testing.assert_close(target, 0.75 * before + 0.25 * critic)
    for words in ({"tau": 0.0}, {"target_update_interval": 2}):
        before, target, critic = moved(**words)
        assert torch.equal(target, before) and not torch.equal(target, critic)


def test_the_target_of_the_lowest_critic_with_entropy():
    class Drawn:
        def __call__(self, obs):
            return self

        def sample(self, noise):
            return noise, -torch.ones(1)

    def target(obs, action):
        return torch.tensor([[2.0], [3.0]])

    def critic(obs, action):
        return torch.tensor([[3.178], [4.178]])

    one, log_alpha = torch.ones(1, 1), torch.tensor(0.2).log()
    for discount, wanted in ((0.99, 0.5), (0.0, 0.5 * (2.178**2 + 3.178**2))):  # y = 1 + .99 (2 + .2) = 3.178, or 1
        loss = sac_critic(critic, target, Drawn(), log_alpha, one, one, one[0], one, torch.tensor([discount]), one)
        assert float(loss) == pytest.approx(wanted, abs=1e-5)


def test_the_temperature_reads_the_log_probability_of_before_the_actors_step():
    agent = SAC("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=8, **SMALL).learn(20)
    fields = {**agent._fields(), "learning_rate": 0.1}
    with torch.no_grad():
        logp = agent.policy.distribution(fields["obs"]).sample(fields["noise"])[1].mean()
    gradients, published = agent.engine.gradients(fields)
    torch.testing.assert_close(gradients["ent_coef"][0], -(logp - 1))  # the goal is -A
    torch.testing.assert_close(published["logp"].mean(), logp)


def test_the_density_of_a_known_gaussian():
    agent = SAC("MlpPolicy", "Pendulum-v1", **SMALL)
    with torch.no_grad():
        for layer in (agent.actor.mu, agent.actor.log_std):  # mean 0, deviation 1
            layer.weight.zero_()
            layer.bias.zero_()
    action = 2 * np.tanh([[0.5]])  # Pendulum's bounds are -2 and 2
    logp = agent.log_prob(np.zeros((1, 3)), action)
    assert float(logp.detach()) == pytest.approx(-0.80371, abs=1e-4)
    logp.sum().backward()
    assert agent.actor.mu.bias.grad.abs().sum() > 0
    with pytest.raises(UsageError, match="leave action_masks out"):
        agent.policy.distribution(torch.zeros(1, 3), torch.ones(1, 1))


def test_the_policy_acts_and_is_saved_as_sb3s(tmp_path):
    agent = SAC("MlpPolicy", "Pendulum-v1", **SMALL)
    obs = torch.randn(4, 3)
    assert torch.equal(agent.policy(obs, deterministic=True), agent.policy.mode(obs))
    agent.policy.save(tmp_path / "policy.pt")
    again = type(agent.policy).load(tmp_path / "policy.pt", device="cpu")
    assert torch.equal(again.mode(obs), agent.policy.mode(obs))
    twin = copy.deepcopy(agent.policy)
    twin.networks["actor"].vector.zero_()
    assert not torch.equal(twin.mode(obs), agent.policy.mode(obs)) and float(twin.mode(obs).abs().max()) == 0


def test_networks_start_as_sb3s_do():
    from stable_baselines3 import SAC as SB3SAC

    ours = SAC("MlpPolicy", "Pendulum-v1", **SMALL)
    theirs = SB3SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [32, 24]}, device="cpu", seed=0)
    shapes = {name: tensor.shape for name, tensor in theirs.policy.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.policy.state_dict().items()} == shapes
    ours.policy.load_state_dict(theirs.policy.state_dict())
    obs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(
        ours.predict(obs, deterministic=True)[0], theirs.predict(obs, deterministic=True)[0], rtol=1e-6
    )


def test_gradient_steps_are_those_of_sb3():
    """The same first weights, minibatches and noise: what differs is rounding, which Adam turns into steps of its size here and there."""
    from stable_baselines3 import SAC as SB3SAC
    from stable_baselines3.common.logger import configure
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    words = {**SMALL, "learning_rate": 2e-3, "batch_size": 32, "tau": 0.02}
    ours, theirs = SAC("MlpPolicy", "Pendulum-v1", **words), SB3SAC("MlpPolicy", "Pendulum-v1", **copy.deepcopy(words))
    ours.policy.load_state_dict(theirs.policy.state_dict())
    theirs.set_logger(configure(format_strings=[]))
    ours._ready()
    generator = torch.Generator().manual_seed(0)
    for k in range(30):
        rows = torch.randn(32, 9, generator=generator)
        rows[:, 3], rows[:, -1] = rows[:, 3].tanh(), (rows[:, -1] > 1).float()
        b = ours.replay.split(rows)
        sample = ReplayBufferSamples(b.obs, b.action, b.next_obs, b.done[:, None], b.reward[:, None])
        theirs.replay_buffer.sample = lambda *args, sample=sample, **words: sample
        with torch.random.fork_rng():
            torch.manual_seed(k)
            noise, next_noise = (torch.normal(torch.zeros(32, 1), torch.ones(32, 1)) for _ in range(2))
            torch.manual_seed(k)
            theirs.train(1, 32)
        ours.engine.step({**ours._fields(b), **ours._numbers(), "noise": noise, "next_noise": next_noise})
    assert float(ours.log_ent_coef) == pytest.approx(float(theirs.log_ent_coef.detach()), abs=1e-5)
    assert abs(float(ours.log_ent_coef)) > 0.05
    found = ours.policy.state_dict()
    for name, wanted in theirs.policy.state_dict().items():
        assert float((found[name] - wanted).abs().median()) < 1e-4, name


@pytest.mark.slow
def test_learns_pendulum():
    agent = SAC(
        "MlpPolicy", "Pendulum-v1", learning_rate=2e-3, batch_size=64, policy_kwargs={"net_arch": [64, 64]}, seed=0
    )
    agent.learn(5_000)
    returns = [episode["r"] for episode in agent.ep_info_buffer]
    assert np.mean(returns[-5:]) > np.mean(returns[:5]) + 500
    assert np.mean(returns[-5:]) > -500


def test_resumed_run_equals_the_unbroken_one(tmp_path):
    settings = {**SMALL, "learning_starts": 50, "batch_size": 32}
    unbroken = SAC("MlpPolicy", "Pendulum-v1", **settings).learn(300)
    first = SAC("MlpPolicy", "Pendulum-v1", **settings)
    first.learn(170)
    again = SAC.resume(first.checkpoint(tmp_path / "run.pt"), "Pendulum-v1")
    again.learn(130, reset_num_timesteps=False)
    for name, wanted in unbroken.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], wanted), name
    assert torch.equal(again.log_ent_coef, unbroken.log_ent_coef)
    assert again.replay.size == unbroken.replay.size == 300


def test_fixed_temperature_stays_and_survives_saving(tmp_path):
    agent = SAC("MlpPolicy", "Pendulum-v1", ent_coef=0.3, learning_starts=20, batch_size=16, **SMALL).learn(60)
    agent.save(tmp_path / "agent")
    again = SAC.load(tmp_path / "agent")
    assert float(again.log_ent_coef.exp()) == pytest.approx(0.3)


def test_actions_reach_the_bounds_of_the_environment():
    class Wide(gym.Env):
        observation_space = spaces.Box(-1, 1, (2,), np.float32)
        action_space = spaces.Box(np.array([0.0, -10.0], np.float32), np.array([4.0, 10.0], np.float32))

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.float32), {}

        def step(self, action):
            assert self.action_space.contains(action), action
            seen.append(action)
            return np.zeros(2, np.float32), 0.0, False, len(seen) % 10 == 0, {}

    seen: list[np.ndarray] = []
    SAC("MlpPolicy", Wide(), learning_starts=150, batch_size=8, **SMALL).learn(200)
    actions = np.stack(seen)
    assert actions.min(0)[0] < 0.4 and actions.max(0)[0] > 3.6
    assert actions.min(0)[1] < -9 and actions.max(0)[1] > 9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ent_coef": "fixed"}, "'auto_0.1'"),
        ({"ent_coef": 0}, "positive number"),
        ({"target_entropy": "low"}, "a finite number or 'auto', got 'low'"),
        ({"target_entropy": float("nan")}, "target_entropy must be a finite number, got nan"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"gradient_steps": 0}, "-1 for one each transition"),
        ({"tau": 2}, "tau must lie between 0 and 1"),
        ({"matmul_precision": "low"}, "'highest' or 'medium'"),
        ({"policy_kwargs": {"activation_fn": torch.tanh}}, "a class of torch modules"),
        ({"policy_kwargs": {"netarch": [8]}}, "Did you mean 'net_arch'"),
        ({"policy_kwargs": {"n_critics": 0}}, "n_critics must be a positive integer"),
        ({"compile": "yes"}, "True, False or 'auto'"),
        ({"method": "sac"}, "takes a Method"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        SAC("MlpPolicy", "Pendulum-v1", **{**SMALL, **arguments})


def test_a_dictionary_of_observations_names_the_wrapper():
    class Pair(gym.Env):
        observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,))})
        action_space = spaces.Box(-1, 1, (1,))

    with pytest.raises(UsageError, match="VectorObservation"):
        SAC("MlpPolicy", Pair())


@pytest.mark.parametrize(
    "words", [{"activation_fn": torch.nn.Tanh}, {"net_arch": []}, {"net_arch": {"pi": [8], "qf": [4, 4]}}]
)
def test_other_perceptrons_learn_too(words):
    kwargs = {**SMALL, "policy_kwargs": words}
    agent = SAC("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=8, **kwargs).learn(30)
    assert agent.engine.count == 10


def test_targets_move_at_every_interval_of_gradient_steps():
    agent = SAC("MlpPolicy", "Pendulum-v1", target_update_interval=3, learning_starts=20, batch_size=8, **SMALL)
    agent.learn(20)
    moved = []
    for _ in range(7):
        before = agent.engine.state["targets"]["critic"].clone()
        agent.train(1)
        moved.append(not torch.equal(agent.engine.state["targets"]["critic"], before))
    assert moved == [False, False, True, False, False, True, False]
