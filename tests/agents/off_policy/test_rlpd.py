"""RLPD and data beside experience: critics by hand, the order of an update, minibatches of two memories, learning, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from polyathlon.agents import BC, IQL, RLPD, SAC
from polyathlon.agents.engine.noise import make_noise
from polyathlon.agents.off_policy import rlpd as module
from polyathlon.agents.off_policy.networks import LAYER_NORM_EPS, believed
from polyathlon.agents.parts.replay import Replay
from polyathlon.agents.parts.symmetric_sampling import symmetric_sample
from polyathlon.agents.parts.wiring import Noise
from polyathlon.datasets import record
from polyathlon.envs.errors import UsageError

SMALL = {"policy_kwargs": {"net_arch": [16, 12], "n_critics": 3}, "device": "cpu", "seed": 0}
TINY = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0, "batch_size": 8, "learning_starts": 10}
DATA = "tests/half-v0"


@pytest.fixture(autouse=True, scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        record("random", "Pendulum-v1", episodes=2, dataset_id=DATA, max_steps=50)
        yield


def test_a_critic_is_a_perceptron_with_normalised_layers():
    agent = RLPD("MlpPolicy", "Pendulum-v1", **SMALL)
    network, rows = agent.networks["critic"], torch.randn(5, 4)
    with torch.no_grad():
        for parameter in network.modules[1].parameters():
            parameter.normal_()
        p, x = list(network.modules[1].parameters()), rows
        for weight, bias, scale, shift in (p[:4], p[4:8]):
            x = x @ weight.T + bias
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + LAYER_NORM_EPS).sqrt()
            x = (x * scale + shift).relu()
        wanted = (x @ p[8].T + p[9])[:, 0]
        found = network(rows[:, :3], rows[:, 3:])
    torch.testing.assert_close(found[1], wanted, rtol=1e-4, atol=1e-4)
    assert found.shape == (3, 5) and not torch.equal(found[0], found[2])
    plain = RLPD("MlpPolicy", "Pendulum-v1", **{**SMALL, "policy_kwargs": {"net_arch": [8], "layer_norm": False}})
    assert len(plain.networks["critic"].modules) == 10
    assert not any(isinstance(m, torch.nn.LayerNorm) for m in plain.policy.modules())


def constant(*values):
    """Return critics that give these values everywhere."""

    class Always:
        members = len(values)

        def __call__(self, obs, action):
            return torch.tensor(values)[:, None].expand(-1, obs.shape[0])

        def select(self, index):
            return constant(*torch.tensor(values)[index].tolist())

    return Always()


class Drawn:
    """An actor whose actions have the log-density -1."""

    def __call__(self, obs):
        return self

    def sample(self, noise):
        return noise, -torch.ones(noise.shape[0])


@pytest.mark.parametrize(("backup", "wanted"), [(True, 1.99 + 0.99 * 0.2), (False, 1.99)])
def test_the_target_by_hand(backup, wanted):
    # of critics 3, 1, 2 the last two are believed: y = 1 + .99 (1 + .2), or without the entropy 1 + .99
    zeros, ones = torch.zeros(4, 1), torch.ones(4)
    arguments = (torch.tensor(0.2).log(), zeros, zeros, ones, zeros, 0.99 * ones, zeros, torch.tensor([1, 2]))
    loss = module.critic(constant(5.0, 6.0), constant(3.0, 1.0, 2.0), Drawn(), *arguments, backup_entropy=backup)
    assert float(loss) == pytest.approx(((5 - wanted) ** 2 + (6 - wanted) ** 2) / 2, rel=1e-5)


def test_the_least_of_two_random_critics():
    subset, generator = Noise("subset", ("critic",), count=2), torch.Generator().manual_seed(0)
    drawn = [make_noise(subset, {"critic": 3}, generator) for _ in range(300)]
    pairs = [tuple(sorted(members.tolist())) for members in drawn]
    assert {pair: pairs.count(pair) > 70 for pair in set(pairs)} == {(0, 1): True, (0, 2): True, (1, 2): True}
    least = [believed(constant(1.0, 2.0, 3.0), torch.tensor(p))(torch.zeros(1, 1), None).amin(0) for p in set(pairs)]
    assert float(torch.cat(least).mean()) == pytest.approx(4 / 3)


def test_the_actor_learns_from_the_mean_of_all():
    zeros = torch.zeros(4, 1)
    loss, told = module.actor(Drawn(), constant(3.0, 1.0, 2.0), torch.tensor(0.5).log(), zeros, zeros)
    assert float(loss) == pytest.approx(-0.5 - 2) and float(told["q"]) == 2


def test_actor_and_temperature_take_the_last_step_of_an_update():
    agent = RLPD("MlpPolicy", "Pendulum-v1", gradient_steps=3, learning_starts=10, batch_size=8, **SMALL).learn(10)
    moved = []
    for _ in range(6):
        before = {name: agent.networks[name].vector.clone() for name in ("critic", "actor", "log_alpha")}
        agent.train(1)
        moved.append([not torch.equal(agent.networks[name].vector, v) for name, v in before.items()])
    assert moved == 2 * [[True, False, False], [True, False, False], [True, True, True]]
    every = RLPD("MlpPolicy", "Pendulum-v1", gradient_steps=-1, train_freq=2, n_envs=2, **SMALL).method
    assert [loss.every for loss in every.losses] == [1, 4, 4]
    assert agent.method.noise["members"].count == 2
    assert agent.method.losses[2].options == {"entropy_per_action": -0.5, "target_entropy": None}


def memory(value, rows, capacity=50):
    made = Replay(capacity, 1, 1, torch.device("cpu"))
    if rows:
        x = torch.full((rows, 1), value)
        made.add(x, x, x, x[:, 0], torch.zeros(rows))
    return made


def test_half_of_a_minibatch_is_recorded():
    online, offline, generator = memory(1.0, 30), memory(2.0, 30), torch.Generator().manual_seed(0)
    for ratio, count in ((0.5, 5), (0.2, 2), (0.0, 0), (1.0, 10)):
        batch = symmetric_sample(online, offline, 10, ratio, generator)
        assert [int((x == 2).sum()) for x in batch[:6]] == [count, count, 2 * count, count, count, 0]
    assert (symmetric_sample(memory(1.0, 0), offline, 10, 0.5, generator).obs == 2).all()
    assert (symmetric_sample(online, memory(2.0, 0), 10, 0.5, generator).obs == 1).all()


@pytest.mark.parametrize("agent_class", [SAC, RLPD, IQL])
def test_a_share_of_every_minibatch_is_the_datasets(agent_class):
    agent = agent_class("MlpPolicy", "Pendulum-v1", dataset=DATA, offline_ratio=0.25, **TINY).learn(40)
    assert agent.num_timesteps == 40 and agent.replay.size == 40 and agent.offline.size == 100
    recorded, own = (m.rows[: m.size, :3] for m in (agent.offline, agent.replay))
    obs = agent._minibatch().obs
    for part, rows in ((obs[:2], recorded), (obs[2:], own)):
        assert (part[:, None] == rows).all(2).any(1).all()


def test_data_alone_come_first_where_that_is_asked_for():
    agent = SAC("MlpPolicy", "Pendulum-v1", dataset=DATA, offline_ratio=0.5, offline_steps=20, **TINY).learn(20)
    assert agent.engine.count == 20 and agent.replay.size == 0 and agent.offline.size == 100
    agent.learn(15, reset_num_timesteps=False)
    assert agent.replay.size == 15 and agent.engine.count == 35


def test_a_mixed_run_resumes_to_the_same_numbers(tmp_path):
    def make():
        return SAC("MlpPolicy", "Pendulum-v1", dataset=DATA, offline_ratio=0.5, **TINY)

    unbroken = make().learn(60)
    again = SAC.resume(make().learn(35).checkpoint(tmp_path / "run.pt"), "Pendulum-v1", device="cpu")
    again.learn(25, reset_num_timesteps=False)
    for name, wanted in unbroken.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], wanted), name
    assert again.offline.size == 100 and again.replay.size == 60


def test_another_dataset_leaves_experience_alone():
    agent = RLPD("MlpPolicy", "Pendulum-v1", **TINY).learn(20)
    assert agent.offline is None
    agent.set_dataset(DATA)
    agent.learn(10, reset_num_timesteps=False)
    assert agent.replay.size == 30 and agent.offline.size == 100


def test_recorded_observations_are_normalised_as_own_ones():
    import gymnasium as gym

    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), norm_reward=False)
    agent = RLPD("MlpPolicy", env, dataset=DATA, **TINY).learn(30)
    assert agent.offline.normalize is agent.replay.normalize is env
    raw = agent.offline.rows[:, :3].numpy()
    wanted = torch.as_tensor(env.normalize_obs(raw))
    assert (torch.cdist(agent._minibatch().obs[:4], wanted).amin(1) < 1e-5).all()


@pytest.mark.slow
def test_rlpd_learns_pendulum():
    settings = {"learning_rate": 2e-3, "batch_size": 64, "policy_kwargs": {"net_arch": [64, 64], "n_critics": 5}}
    agent = RLPD("MlpPolicy", "Pendulum-v1", gradient_steps=2, seed=0, device="cpu", **settings).learn(3_600)
    returns = [episode["r"] for episode in agent.ep_info_buffer]
    assert np.mean(returns[-4:]) > -400
    assert np.mean(returns[:3]) < -800


@pytest.mark.parametrize(
    ("agent_class", "arguments", "words"),
    [
        (RLPD, {"num_min_critics": 4}, "num_min_critics is 4, but there are 3 critics"),
        (RLPD, {"num_min_critics": 0}, "num_min_critics must be a positive integer"),
        (RLPD, {"offline_ratio": 1.5}, "offline_ratio must lie between 0 and 1"),
        (RLPD, {"policy_kwargs": {"net_arch": []}}, "at least one hidden layer"),
        (RLPD, {"dataset": "polyathlon/none-such-v0"}, "there is no dataset"),
        (SAC, {"offline_ratio": 0.5}, "offline_ratio is the share of a dataset in a minibatch: give dataset="),
        (BC, {"offline_ratio": 0.5, "dataset": DATA}, "leave offline_ratio out"),
    ],
)
def test_bad_arguments_are_refused(agent_class, arguments, words):
    with pytest.raises(UsageError, match=words):
        agent_class("MlpPolicy", "Pendulum-v1", **{**SMALL, **arguments})
