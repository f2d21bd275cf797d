"""Quality mixes: trained once, kept, mended, made of the right episodes."""

from __future__ import annotations

import gymnasium as gym
import minari
import numpy as np
import pytest

from polyathlon import dataset_mixes
from polyathlon.agents import PPO, SAC
from polyathlon.dataset_mixes import dataset_name, make_mixes, replay_episodes
from polyathlon.datasets import dataset_path
from polyathlon.envs.errors import UsageError

SETTINGS = {
    "transitions": 400,
    "train_steps": 800,
    "agent_kwargs": {"learning_starts": 50, "batch_size": 16, "policy_kwargs": {"net_arch": [16]}},
}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setenv("POLYATHLON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dataset_mixes, "EPISODES", 1)
    monkeypatch.setattr(dataset_mixes, "STAGES", 4)


def test_mixes_are_made_kept_and_mended():
    lines: list[str] = []
    kinds = ("random", "replay", "mixed", "noisy", "medium-expert")
    ids = make_mixes("Pendulum-v1", kinds, tell=lines.append, **SETTINGS)
    assert ids["mixed"] == "polyathlon/pendulum/mixed-v0" and lines[0].startswith("training sac on Pendulum-v1")
    for kind in kinds:
        dataset = minari.load_dataset(ids[kind])
        metadata = dataset.storage.metadata
        assert metadata["ref_min_score"] != metadata["ref_max_score"]
        assert np.isfinite(minari.get_normalized_score(dataset, np.array([-500.0]))).all()
        assert dataset.total_steps >= 400 or kind == "replay"
    random_share = [e.actions for e in minari.load_dataset(ids["mixed"]).iterate_episodes()]
    assert len(random_share) == 3  # two random episodes and one of the expert

    made = lines.copy()
    make_mixes("Pendulum-v1", kinds, tell=lines.append, **SETTINGS)
    assert lines == made  # everything stood already
    file = dataset_path(ids["noisy"]) / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:1000])
    make_mixes("Pendulum-v1", kinds, tell=lines.append, **SETTINGS)
    assert lines[-1] == f"{ids['noisy']}: 400 steps" and len(lines) == len(made) + 2

    with pytest.raises(UsageError, match="other settings"):
        make_mixes("Pendulum-v1", ("random",), **{**SETTINGS, "transitions": 200})


def test_the_episodes_of_a_replay_memory_are_those_that_were_played():
    env = gym.make("Pendulum-v1", max_episode_steps=30)
    agent = SAC("MlpPolicy", env, learning_starts=1000, seed=0).learn(100)
    episodes = list(replay_episodes(agent, env, 75))
    assert [len(e.rewards) for e in episodes] == [30, 30, 15] and all(e.truncated[-1] for e in episodes)
    assert not any(any(e.terminated) for e in episodes)
    state = gym.make("Pendulum-v1").unwrapped
    for episode in episodes:
        x, y, speed = episode.observations[0]
        state.reset()
        state.state = np.array([np.arctan2(y, x), speed])
        for action, reward, after in zip(episode.actions, episode.rewards, episode.observations[1:]):
            seen, paid, *_ = state.step(action)
            np.testing.assert_allclose(seen, after, atol=1e-3)
            assert paid == pytest.approx(reward, abs=1e-2)


def test_what_cannot_be_cut_into_episodes_is_refused():
    env = gym.make("Pendulum-v1")
    agent = SAC("MlpPolicy", env, learning_starts=1000, buffer_size=50, seed=0).learn(60)
    with pytest.raises(UsageError, match="raise buffer_size"):
        list(replay_episodes(agent, env, 40))
    with pytest.raises(UsageError, match="keeps no replay buffer"):
        list(replay_episodes(PPO("MlpPolicy", env, n_steps=8, batch_size=8), env, 40))


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match="Did you mean 'medium'"):
        make_mixes("Pendulum-v1", ("mediun",))
    with pytest.raises(UsageError, match="must be positive"):
        make_mixes("Pendulum-v1", transitions=0)


def test_names_of_datasets():
    assert [dataset_name(x) for x in ("Pendulum-v1", "polyathlon/HalfCheetah-v5", "pkg:Own-task")] == [
        "pendulum",
        "halfcheetah",
        "own-task",
    ]
