"""What users of Stable-Baselines3 reach for: locals of callbacks, replay buffers in files, VecNormalize, optimisers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import polyathlon
from polyathlon.agents import PMOEPPO, PPO, SAC
from polyathlon.agents.streams.env_stream import NonFiniteError
from polyathlon.envs.errors import UsageError

SMALL: dict[str, Any] = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [16]}}


def ppo(env: Any = "Pendulum-v1", **words: Any) -> Any:
    return PPO("MlpPolicy", env, **{**SMALL, "n_steps": 40, "batch_size": 40, "n_epochs": 1, **words})


def sac(env: Any = "Pendulum-v1", **words: Any) -> Any:
    return SAC("MlpPolicy", env, **{**SMALL, "learning_starts": 20, "batch_size": 16, **words})


class Reads(BaseCallback):
    """Keeps what it reads of each step."""

    def _on_training_start(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        names = ("actions", "rewards", "dones", "new_obs", "infos")
        self.seen.append({name: self.locals[name] for name in names})
        return True


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("make", [ppo, sac])
@pytest.mark.parametrize("form", ["twin", "scalar", "numpy"])
def test_locals_are_sb3_s_in_every_form(make, n_envs, form):
    env: Any = {
        "twin": "polyathlon/Pendulum-v1",
        "scalar": DummyVecEnv([lambda: gym.make("Pendulum-v1")] * n_envs),
        "numpy": gym.make_vec("polyathlon/Pendulum-v1", num_envs=n_envs, autoreset_mode="same_step"),
    }[form]
    agent = make(env, **({"n_envs": n_envs} if form == "twin" else {}))
    reads = Reads()
    agent.learn(220 * n_envs, callback=[reads])
    for step in reads.seen:
        assert all(isinstance(step[name], np.ndarray) for name in ("actions", "rewards", "dones", "new_obs"))
        assert (step["actions"].shape, step["rewards"].shape, step["dones"].dtype) == ((n_envs, 1), (n_envs,), bool)
        assert step["new_obs"].shape == (n_envs, 3) and np.abs(step["actions"]).max() > 0
        assert isinstance(step["infos"], list) and len(step["infos"]) == n_envs
    ended = reads.seen[199]
    assert ended["dones"].all() and not reads.seen[198]["dones"].any()
    total = np.sum([step["rewards"] for step in reads.seen[:200]], 0)
    for row, info in enumerate(ended["infos"]):
        assert info["terminal_observation"].shape == (3,) and info["TimeLimit.truncated"]
        assert info["episode"]["l"] == 200 and info["episode"]["r"] == pytest.approx(total[row], rel=1e-4)
        assert "episode" not in reads.seen[198]["infos"][row]
    assert len(agent.ep_info_buffer) == n_envs  # counted without Monitor too


def test_callbacks_that_count_episodes_stop():
    agent = sac(learning_starts=500)
    agent.learn(900, callback=StopTrainingOnMaxEpisodes(2))
    assert agent.num_timesteps == 400
    rows = ppo("polyathlon/Pendulum-v1", n_envs=4)
    rows.learn(4000, callback=StopTrainingOnMaxEpisodes(1))  # one for each row, as SB3 counts
    assert rows.num_timesteps == 800


def test_monitored_and_unmonitored_rows_count_the_same():
    found = []
    for wrap in (lambda rows: rows, VecMonitor):
        agent = ppo(wrap(DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 2)))
        agent.learn(480)
        found.append([(round(e["r"], 3), e["l"]) for e in agent.ep_info_buffer])
    assert found[0] == found[1] and len(found[0]) == 2


def test_the_replay_buffer_in_a_file(tmp_path):
    agent = sac()
    with pytest.raises(UsageError, match="not there before learning starts"):
        agent.save_replay_buffer(tmp_path / "memory")
    agent.learn(60, callback=CheckpointCallback(50, str(tmp_path), save_replay_buffer=True))
    assert (tmp_path / "rl_model_replay_buffer_50_steps.pkl").exists()
    agent.save_replay_buffer(str(tmp_path / "memory"))
    fresh = sac()
    fresh.load_replay_buffer(str(tmp_path / "memory"))
    assert fresh.replay_buffer.size == 60
    assert torch.equal(fresh.replay.rows[:60], agent.replay.rows[:60])
    with pytest.raises(UsageError, match="cannot take"):
        sac(buffer_size=30).load_replay_buffer(tmp_path / "memory")
    with pytest.raises(UsageError, match=r"no replay buffer .*none.pkl"):
        fresh.load_replay_buffer(tmp_path / "none")
    agent.save(tmp_path / "agent.zip")
    with pytest.raises(UsageError, match="no replay buffer written by polyathlon"):
        fresh.load_replay_buffer(tmp_path / "agent.zip")


class Drift(gym.Env):
    """Its observations and rewards grow, so that statistics of different times differ much."""

    observation_space, action_space = gym.spaces.Box(-np.inf, np.inf, (2,)), gym.spaces.Box(-1, 1, (1,))

    def __init__(self) -> None:
        self.count = 0

    def _seen(self) -> np.ndarray:
        self.count += 1
        return np.array([100.0 + self.count, np.sin(self.count)], np.float32)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self._seen(), 50.0 * self.count, False, self.t >= 20, {}


def test_rows_are_kept_raw_and_normalised_when_they_are_sampled():
    rows = VecNormalize(DummyVecEnv([Drift]), clip_obs=1e6, clip_reward=1e6)
    agent = sac(rows, learning_starts=200)
    agent.learn(100)
    memory = agent.replay.split(agent.replay.rows[:100])
    steps = torch.arange(100)
    first = steps + steps // 20 + 1  # of the count, which resets raise too
    assert torch.equal(memory.obs[:, 0], 100.0 + first) and torch.equal(memory.reward, 50.0 * (first + 1))
    torch.testing.assert_close(memory.next_obs[:, 0], 101.0 + first)
    batch = agent.replay.sample(64, torch.Generator().manual_seed(0))
    index = torch.randint(100, (64,), generator=torch.Generator().manual_seed(0))
    expected = rows.normalize_obs(memory.obs[index].numpy())
    np.testing.assert_allclose(batch.obs.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(batch.obs_action[:, :2].numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(batch.reward.numpy(), rows.normalize_reward(memory.reward[index].numpy()), rtol=1e-5)
    with pytest.raises(UsageError, match="VecNormalize must be the outermost wrapper"):
        sac(VecMonitor(VecNormalize(DummyVecEnv([Drift])))).learn(30)


def test_optimiser_words_are_taken_or_refused():
    for make in (ppo, sac):
        with pytest.raises(UsageError, match=r"optimizer_class=SGD is not taken .*Loss\(..., optimiser="):
            make(policy_kwargs={"optimizer_class": torch.optim.SGD})
        with pytest.raises(UsageError, match="unknown option of the optimiser 'amsgrad'"):
            make(policy_kwargs={"optimizer_kwargs": {"amsgrad": True}})
    decay = {"optimizer_kwargs": {"weight_decay": 0.5}}
    found = [
        ppo(policy_kwargs=words).learn(40) for words in ({}, decay, {**decay, "optimizer_class": torch.optim.AdamW})
    ]
    plain, coupled, decoupled = (agent.networks["model"].vector for agent in found)
    assert not torch.equal(plain, coupled) and not torch.equal(coupled, decoupled)


class Mine(gym.Env):
    """Pays NaN."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (1,))

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(3, np.float32), float("nan"), False, False, {}


def test_nan_names_the_environment_of_one_s_own():
    for env in (Mine(), DummyVecEnv([Mine])):
        with pytest.raises(NonFiniteError, match="the environment Mine returned a value of reward"):
            sac(env).learn(10)


def test_evaluation_beside_training_warns_of_nothing(recwarn):
    callback = EvalCallback(Monitor(gym.make("Pendulum-v1")), eval_freq=40, n_eval_episodes=1, verbose=0)
    ppo().learn(40, callback=callback)
    assert not [each for each in recwarn if "not of the same type" in str(each.message)]


def test_a_tuple_of_observations_is_adapted():
    env = polyathlon.adapt(gym.make("Blackjack-v1"), PPO)
    polyathlon.make_agent(PPO, env, n_steps=32, batch_size=32, device="cpu").learn(32)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"net_arch": [0]}, r"net_arch holds positive numbers of units, got 0"),
        ({"net_arch": {"pi": ["a"], "vf": [8]}}, r"net_arch\['pi'\] holds positive numbers of units, got 'a'"),
        ({"net_arch": "8"}, "a list of hidden widths such as .* by 'pi' and 'vf'"),
        ({"net_arch": {"pi": [8], "qf": [8]}}, "unknown network of net_arch 'qf'"),
        ({"net_arch": [{"vf": [-8]}]}, r"net_arch\['vf'\] holds positive"),
        ({"activation_fn": "relu"}, "activation_fn is a class of torch modules"),
        ({"n_critics": 2}, "unknown word in policy_kwargs 'n_critics'"),
        ({"use_sde": True}, "unknown word in policy_kwargs 'use_sde'"),
    ],
)
@pytest.mark.parametrize("agent_class", [PPO, PMOEPPO])
def test_words_of_actor_and_critic_are_taken_or_refused(agent_class, words, message):
    with pytest.raises(UsageError, match=message):
        agent_class("MlpPolicy", "Pendulum-v1", policy_kwargs=words, device="cpu")
