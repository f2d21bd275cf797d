"""Recording: what is written is what was played, in Minari's format, whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium import spaces

import polyathlon
from polyathlon.agents import PPO, SAC
from polyathlon.datasets import DamagedDataset, dataset_path, open_dataset, record
from polyathlon.envs.data.datasets import DatasetWriter, storable
from polyathlon.envs.errors import UsageError

NAME = "tests/pendulum/random-v0"


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


def episodes_of(name):
    return list(minari.load_dataset(name).iterate_episodes())


def test_what_is_written_is_what_was_played():
    assert record("random", "Pendulum-v1", episodes=2, dataset_id=NAME, seed=7) == NAME
    assert "jax" not in sys.modules
    dataset = minari.load_dataset(NAME)
    env = dataset.recover_environment()
    for i, episode in enumerate(dataset.iterate_episodes()):
        obs, _ = env.reset(seed=7 + i)
        np.testing.assert_array_equal(episode.observations[0], obs)
        for t, action in enumerate(episode.actions):
            obs, reward, terminated, truncated, _ = env.step(action)
            np.testing.assert_array_equal(episode.observations[t + 1], obs)
            assert episode.rewards[t] == reward
            assert (episode.terminations[t], episode.truncations[t]) == (terminated, truncated)
    assert dataset.total_steps == 400 and [m["seed"] for m in dataset.storage.get_episode_metadata(range(2))] == [7, 8]


def test_equal_seeds_record_equal_episodes():
    for name in ("tests/one-v0", "tests/two-v0"):
        record("random", "Pendulum-v1", episodes=1, dataset_id=name, seed=3)
    first, second = (episodes_of(name)[0] for name in ("tests/one-v0", "tests/two-v0"))
    np.testing.assert_array_equal(first.actions, second.actions)


def test_an_agent_is_recorded_in_the_form_it_acts_in_and_is_left_as_it_was():
    agent = SAC("MlpPolicy", polyathlon.adapt("CartPole-v1", SAC), learning_starts=10, batch_size=8, seed=0)
    before = agent._prediction_generator.get_state()
    for name in ("tests/one-v0", "tests/two-v0"):
        record(agent, "CartPole-v1", episodes=2, dataset_id=name, seed=1)
        agent.predict(np.zeros(4, np.float32))
        before = agent._prediction_generator.get_state()
    assert (agent._prediction_generator.get_state() == before).all()
    dataset = minari.load_dataset("tests/one-v0")
    assert dataset.action_space == agent.action_space and dataset.storage.metadata["algorithm_name"] == "SAC"
    for one, two in zip(episodes_of("tests/one-v0"), episodes_of("tests/two-v0"), strict=True):
        np.testing.assert_array_equal(one.actions, two.actions)


def test_masks_of_a_combinatorial_task_hold_and_are_kept():
    record("random", "polyathlon/TSP-v0", episodes=3, dataset_id="tests/tsp-v0", env_kwargs={"num_nodes": 5})
    for episode in episodes_of("tests/tsp-v0"):
        masks = episode.infos["action_mask"]
        assert masks.shape[0] == len(episode.actions) + 1 and masks.dtype == bool
        assert masks[np.arange(len(episode.actions)), episode.actions].all()
        assert episode.terminations[-1] and not episode.terminations[:-1].any()


def test_a_language_task_is_recorded_in_words():
    pytest.importorskip("reasoning_gym")
    name = record("random", "polyathlon/Reasoning-v0", 4, "tests/words-v0", env_kwargs={"task": "chain_sum"})
    dataset = minari.load_dataset(name)
    for episode in dataset.iterate_episodes():
        assert "arithmetic" in episode.observations[0] and isinstance(episode.actions[0], str)
        assert all(dataset.observation_space.contains(text) for text in episode.observations)
        assert all(dataset.action_space.contains(text) for text in episode.actions)


def test_texts_that_hdf5_cannot_hold_are_replaced():
    assert storable("a\0b\ud800") == "a\ufffdb?"


def test_a_function_noise_steps_and_a_limit():
    def steady(observation, mask):
        return np.array([0.5], np.float32)

    record(steady, "Pendulum-v1", steps=250, dataset_id="tests/steady-v0", noise=0.5, max_steps=100)
    found = episodes_of("tests/steady-v0")
    assert [len(e) for e in found] == [100, 100, 100] and all(e.truncations[-1] for e in found)
    share = np.mean([(e.actions == 0.5).mean() for e in found])
    assert 0.35 < share < 0.65


def test_a_whole_dataset_is_kept_unless_told():
    record("random", "Pendulum-v1", episodes=1, dataset_id=NAME, seed=0)
    with pytest.raises(UsageError, match="overwrite=True"):
        record("random", "Pendulum-v1", episodes=1, dataset_id=NAME, seed=1)
    record("random", "Pendulum-v1", episodes=2, dataset_id=NAME, seed=1, overwrite=True)
    assert len(episodes_of(NAME)) == 2


def cut(data):
    path = data / "main_data.hdf5"
    path.write_bytes(path.read_bytes()[:3000])


def flip(data):
    path = data / "main_data.hdf5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))


def forget(data):
    (data / "metadata.json").unlink()


def scribble(data):
    (data / "metadata.json").write_text('{"total_episodes": ')


def recount(data):
    path = data / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "total_steps": 5}))


@pytest.mark.parametrize("harm", [cut, flip, forget, scribble, recount])
def test_a_damaged_dataset_is_refused_and_mended_by_recording_again(harm):
    record("random", "Pendulum-v1", episodes=2, dataset_id=NAME)
    harm(dataset_path(NAME) / "data")
    with pytest.raises(DamagedDataset, match="half-written or corrupted.*again"):
        open_dataset(NAME)
    with pytest.warns(UserWarning, match="written anew"):
        record("random", "Pendulum-v1", episodes=2, dataset_id=NAME)
    assert open_dataset(NAME).total_steps == 400


def test_episodes_that_minari_appends_are_no_damage():
    record("random", "Pendulum-v1", episodes=2, dataset_id=NAME)
    record("random", "Pendulum-v1", episodes=1, dataset_id="tests/more-v0", seed=9)
    dataset = minari.load_dataset(NAME)
    dataset.storage.update_from_storage(minari.load_dataset("tests/more-v0").storage)
    assert open_dataset(NAME).total_steps == 600


def test_a_killed_recording_leaves_no_dataset(root):
    script = f"import sys; from polyathlon.datasets import record\nrecord('random', 'Pendulum-v1', 100_000, {NAME!r})\n"
    process = subprocess.Popen([sys.executable, "-c", script], env=os.environ)
    deadline = time.monotonic() + 60
    file = root / "tests" / "pendulum" / f".random-v0.{process.pid}.partial" / "data" / "main_data.hdf5"
    while not (file.exists() and file.stat().st_size > 1000) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(UsageError, match="was interrupted: run it again"):
        open_dataset(NAME)
    assert minari.list_local_datasets() == {}
    record("random", "Pendulum-v1", episodes=1, dataset_id=NAME)
    assert os.listdir(root / "tests" / "pendulum") == ["random-v0"] or sorted(
        os.listdir(root / "tests" / "pendulum")
    ) == [
        "namespace_metadata.json",
        "random-v0",
    ]


def test_an_episode_that_fails_leaves_no_dataset(root):
    def failing(observation, mask):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        record(failing, "Pendulum-v1", episodes=1, dataset_id=NAME)
    assert not dataset_path(NAME).exists() and list((root / "tests" / "pendulum").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset_id": "pendulum"}, "namespace/name-v0"),
        ({"episodes": 0}, "positive integer"),
        ({"steps": 10}, "either episodes= or steps="),
        ({"noise": 2}, "between 0 and 1"),
        ({"infos": ["verdict"]}, "has no 'verdict'"),
        ({"env": "Pendulum-v9"}, "Did you mean"),
        ({"agent": 3}, "'random', an agent"),
        ({"env": gym.make("Pendulum-v1"), "env_kwargs": {"g": 9.8}}, "made already"),
    ],
)
def test_bad_arguments_are_refused(change, words):
    call = {"agent": "random", "env": "Pendulum-v1", "episodes": 1, "dataset_id": NAME, **change}
    with pytest.raises(UsageError, match=words):
        record(**call)
    assert not dataset_path(NAME).exists()


def test_several_objectives_are_refused():
    env = gym.make("polyathlon/MultiObjectiveTSP-v0", num_nodes=4, reward="vector")
    with pytest.raises(UsageError, match=r"2 objectives.*LinearReward"):
        record("random", env, episodes=1, dataset_id=NAME)


def test_another_tasks_agent_is_refused():
    agent = PPO("MlpPolicy", "CartPole-v1", seed=0)
    with pytest.raises(UsageError, match="wrap it as the agent's own environment was"):
        record(agent, "Pendulum-v1", episodes=1, dataset_id=NAME)


def test_an_unknown_dataset_names_those_there_are():
    record("random", "Pendulum-v1", episodes=1, dataset_id=NAME)
    with pytest.raises(UsageError, match=r"Did you mean 'tests/pendulum/random-v0'.*make_datasets"):
        open_dataset("tests/pendulum/randon-v0")
    assert open_dataset(dataset_path(NAME)).id == NAME


def test_a_space_that_minari_does_not_know_is_refused():
    with pytest.raises(UsageError, match="VectorObservation"):
        DatasetWriter(NAME, spaces.Sequence(spaces.Discrete(2)), spaces.Discrete(2))
