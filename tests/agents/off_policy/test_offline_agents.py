"""Agents that learn from data: they learn, go on online, resume to the same numbers, and say what is wrong."""

from __future__ import annotations

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import CheckpointCallback

import polyathlon
from polyathlon.agents import AWAC, BC, IQL, TD3, TD3BC
from polyathlon.checkpoints import read_checkpoint
from polyathlon.datasets import record
from polyathlon.envs.data.datasets import DatasetWriter, Trajectory
from polyathlon.envs.errors import UsageError
from polyathlon.evaluation import agent_policy, evaluate

SMALL = {"learning_rate": 1e-3, "batch_size": 128, "gamma": 0.95, "policy_kwargs": {"net_arch": [64, 64]}, "seed": 0}
TINY = {"batch_size": 16, "policy_kwargs": {"net_arch": [16]}, "device": "cpu", "seed": 0}
NOISY, CLEAN = "tests/noisy-v0", "tests/clean-v0"
OFFLINE = [BC, TD3BC, IQL, AWAC]


def swing_up(observation, mask):
    """Pump energy into the pendulum until it nearly stands, then balance it."""
    x, y, speed = (float(v) for v in observation)
    if x > 0.9:
        torque = -10 * np.arctan2(y, x) - 2 * speed
    else:
        missing = 5 * (1 - x) - speed**2 / 6
        torque = 2 * np.sign(missing * speed) if speed else 2.0
    return np.array([np.clip(torque, -2, 2)], np.float32)


@pytest.fixture(autouse=True, scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        record(swing_up, "Pendulum-v1", episodes=40, dataset_id=NOISY, noise=0.6)
        record(swing_up, "Pendulum-v1", episodes=10, dataset_id=CLEAN)
        yield


def score(agent):
    return evaluate(gym.make("Pendulum-v1"), agent_policy(agent), 10, 1000).mean


def test_the_data_are_far_from_what_can_be_reached():
    returns = [e.rewards.sum() for e in minari.load_dataset(NOISY).iterate_episodes()]
    assert np.mean(returns) < -550
    assert evaluate(gym.make("Pendulum-v1"), swing_up, 10, 1000).mean > -100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent_class", "options", "steps", "least"),
    [
        (IQL, {"expectile": 0.8}, 3500, -200),
        (AWAC, {}, 3500, -200),
        (TD3BC, {"alpha": 40.0}, 4500, -350),
    ],
)
def test_learns_more_from_data_than_they_show(agent_class, options, steps, least):
    agent = agent_class("MlpPolicy", None, dataset=NOISY, **SMALL, **options).learn(steps)
    assert agent.num_timesteps == steps == agent._n_updates
    assert score(agent) > least


@pytest.mark.parametrize("loss", ["log_prob", "mse"])
def test_imitates_demonstrations(loss):
    words = {name: value for name, value in SMALL.items() if name not in BC.unread}
    assert score(BC("MlpPolicy", None, dataset=CLEAN, loss=loss, **words).learn(2000)) > -200


@pytest.mark.slow
def test_td3_learns_pendulum():
    settings = {**SMALL, "learning_rate": 2e-3, "batch_size": 64, "gamma": 0.97, "tau": 0.02}
    agent = TD3("MlpPolicy", "Pendulum-v1", **settings, learning_starts=200, gradient_steps=2).learn(5000)
    returns = [episode["r"] for episode in agent.ep_info_buffer]
    assert np.mean(returns[-5:]) > -500


@pytest.mark.slow
@pytest.mark.parametrize("agent_class", [IQL, AWAC])
def test_goes_on_online_from_the_same_memory(agent_class):
    agent = agent_class("MlpPolicy", "Pendulum-v1", dataset=NOISY, offline_steps=1000, **SMALL).learn(1000)
    before = score(agent)
    assert agent.replay.size == 8000 and agent._episode_num == 0
    agent.learn(2000, reset_num_timesteps=False)
    assert (agent.replay.size, agent.num_timesteps, agent._episode_num) == (10_000, 3000, 10)
    assert score(agent) > max(before + 300, -400)


def test_resuming_anywhere_gives_the_numbers_of_an_unbroken_run(tmp_path):
    def make():
        return IQL("MlpPolicy", "Pendulum-v1", dataset=CLEAN, offline_steps=60, **TINY)

    unbroken = make().learn(120)
    for stop in (30, 90):
        path = make().learn(stop).checkpoint(tmp_path / "run.pt")
        state = read_checkpoint(path)["states"]["replay"]["replay"]
        assert state["rows"].shape[0] == max(0, stop - 60)  # the data stay in their dataset
        again = IQL.resume(path, "Pendulum-v1", device="cpu")
        again.learn(120 - stop, reset_num_timesteps=False)
        for name, wanted in unbroken.policy.state_dict().items():
            assert torch.equal(again.policy.state_dict()[name], wanted), (stop, name)
        assert torch.equal(again.replay.rows[: again.replay.size], unbroken.replay.rows[: unbroken.replay.size])


def test_a_memory_that_overwrote_its_data_is_saved_whole(tmp_path):
    def make():
        return AWAC("MlpPolicy", "Pendulum-v1", dataset=CLEAN, offline_steps=5, buffer_size=20, **TINY)

    unbroken = make().learn(60)
    assert unbroken.replay.added > unbroken.replay.capacity
    again = AWAC.resume(make().learn(40).checkpoint(tmp_path / "run.pt"), "Pendulum-v1", device="cpu")
    again.learn(20, reset_num_timesteps=False)
    assert torch.equal(again.replay.rows, unbroken.replay.rows)


def test_observations_are_standardised_by_the_data_and_the_networks_know_it():
    agent = TD3BC("MlpPolicy", None, dataset=CLEAN, **TINY).learn(1)
    rows = agent.replay.split(agent.replay.rows)
    raw = np.concatenate([e.observations[:-1] for e in minari.load_dataset(CLEAN).iterate_episodes()]).astype(
        np.float64
    )
    mean, std = raw.mean(0), raw.std(0) + 1e-3
    np.testing.assert_allclose(rows.obs.numpy(), (raw - mean) / std, atol=1e-4)
    seen = torch.as_tensor(raw[:5], dtype=torch.float32)
    torch.testing.assert_close(agent.policy.mode(seen), agent.actor(rows.obs[:5]).mode(), atol=1e-5, rtol=1e-4)
    plain = TD3BC("MlpPolicy", None, dataset=CLEAN, standardise=False, **TINY).learn(1)
    np.testing.assert_allclose(plain.replay.rows[:, :3].numpy(), raw, atol=1e-6)


def test_data_on_the_disk_give_the_same_numbers():
    agents = [IQL("MlpPolicy", None, dataset=CLEAN, on_disk=on_disk, **TINY).learn(20) for on_disk in (False, True)]
    one, two = (agent.policy.state_dict() for agent in agents)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("agent_class", OFFLINE)
def test_a_saved_agent_needs_neither_data_nor_environment_to_act(agent_class, tmp_path, monkeypatch):
    agent = agent_class("MlpPolicy", None, dataset=CLEAN, **TINY).learn(5)
    agent.save(tmp_path / "agent")
    loaded = agent_class.load(tmp_path / "agent", device="cpu")
    loaded.dataset_source["path"] = str(tmp_path / "gone")
    seen = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, -2.0]], np.float32)
    np.testing.assert_array_equal(*(a.predict(seen, deterministic=True)[0] for a in (agent, loaded)))
    with pytest.raises(UsageError, match=r"no longer in .*set_dataset"):
        loaded.learn(5)
    loaded.set_dataset(CLEAN)
    assert loaded.learn(5).num_timesteps == 5


def test_callbacks_and_logs_work_offline(tmp_path):
    from stable_baselines3.common.logger import CSVOutputFormat, Logger

    agent = BC("MlpPolicy", None, dataset=CLEAN, **TINY)
    agent.set_logger(Logger(None, [CSVOutputFormat(str(tmp_path / "log.csv"))]))
    agent.learn(2000, callback=CheckpointCallback(1500, str(tmp_path / "saved")))
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert len(lines) == 3 and "train/loss" in lines[0]
    assert [p.name for p in (tmp_path / "saved").iterdir()] == ["rl_model_1500_steps.zip"]


def test_a_callback_stops_between_gradient_steps():
    agent = BC("MlpPolicy", None, dataset=CLEAN, **TINY)
    agent.learn(100, callback=lambda locals_, globals_: agent.num_timesteps < 7)
    assert agent.num_timesteps == 7


def test_a_run_folder_trains_from_data_and_resumes(tmp_path):
    call = {"agent_kwargs": {"dataset": CLEAN, **{k: v for k, v in TINY.items() if k not in ("device", "seed")}}}
    whole = polyathlon.train("td3_bc", "Pendulum-v1", 40, tuned=False, out=tmp_path / "whole", **call)
    polyathlon.train("td3_bc", "Pendulum-v1", 25, tuned=False, out=tmp_path / "parts", **call)
    parts = polyathlon.train("td3_bc", "Pendulum-v1", 40, tuned=False, out=tmp_path / "parts", resume=True, **call)
    one, two = whole.policy.state_dict(), parts.policy.state_dict()
    assert parts.num_timesteps == 40 and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("agent_class", "options", "words"),
    [
        (IQL, {"dataset": CLEAN, "env": "MountainCarContinuous-v0"}, "shape"),
        (IQL, {"dataset": "tests/none-v0"}, "there is no dataset"),
        (IQL, {"dataset": 3}, "an id, a folder or a MinariDataset"),
        (IQL, {}, "give env= or dataset="),
        (IQL, {"env": "Pendulum-v1", "offline_steps": 10}, "give dataset= as well"),
        (IQL, {"dataset": CLEAN, "offline_steps": 0}, "positive integer"),
        (BC, {"dataset": CLEAN, "offline_steps": 10}, "leave offline_steps out"),
        (BC, {"env": "Pendulum-v1"}, "learns from recorded actions"),
        (BC, {"dataset": CLEAN, "loss": "msee"}, "Did you mean 'mse'"),
        (IQL, {"dataset": CLEAN, "expectile": 1.0}, "between 0 and 1"),
        (AWAC, {"dataset": CLEAN, "beta": -1}, "not be negative"),
        (TD3BC, {"dataset": CLEAN, "policy_delay": 0}, "positive integer"),
        (TD3, {"env": "Pendulum-v1", "exploration_noise": -0.1}, "not be negative"),
        (TD3, {"env": "Pendulum-v1", "policy_kwargs": {"net_arch": [8], "critics": 2}}, "Did you mean 'n_critics'"),
    ],
)
def test_bad_arguments_are_refused(agent_class, options, words):
    with pytest.raises(UsageError, match=words):
        agent_class("MlpPolicy", **{"env": None, **options})


def test_online_steps_without_an_environment_are_refused():
    agent = IQL("MlpPolicy", None, dataset=CLEAN, offline_steps=10, **TINY)
    assert agent.learn(10).num_timesteps == 10
    with pytest.raises(UsageError, match="set_env"):
        agent.learn(20)


def test_a_dataset_that_has_grown_since_is_noticed(tmp_path):
    space = spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Box(-1.0, 1.0, (1,), np.float32)
    zero = np.zeros(2, np.float32)

    def write(steps):
        with DatasetWriter("tests/grown-v0", *space, overwrite=True) as writer:
            flags = [False] * steps
            writer.write([Trajectory([zero] * (steps + 1), [zero[:1]] * steps, [0.0] * steps, flags, flags, {})])

    write(30)
    agent = BC("MlpPolicy", None, dataset="tests/grown-v0", **TINY).learn(2)
    write(31)
    agent.save(tmp_path / "agent")
    loaded = BC.load(tmp_path / "agent", device="cpu")
    with pytest.raises(UsageError, match="has changed since training began"):
        loaded.learn(2)
