"""Datasets in a replay memory: every transition once, scaled actions, no transition across episodes, on disk as in memory."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents.parts.replay import Replay
from polyathlon.agents.parts.replay_data import dataset_replay
from polyathlon.datasets import open_dataset, record
from polyathlon.envs.data.dataset_source import agent_spaces
from polyathlon.envs.data.datasets import DamagedDataset, DatasetWriter, Trajectory
from polyathlon.envs.data.transitions import transitions
from polyathlon.envs.errors import UsageError

NAME = "tests/data-v0"
OBS, ACTION = spaces.Box(-np.inf, np.inf, (2,), np.float64), spaces.Box(-2.0, 4.0, (1,), np.float32)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


def write(*episodes):
    with DatasetWriter(NAME, OBS, ACTION, overwrite=True) as writer:
        writer.write(episodes)


def episode(first, actions, ended=True):
    length = len(actions)
    observations = [np.array([first + t, 0.0]) for t in range(length + 1)]
    flags = [False] * (length - 1)
    return Trajectory(
        observations, [np.array([a]) for a in actions], [first + 0.5] * length, [*flags, ended], [*flags, not ended], {}
    )


def test_rows_by_hand():
    write(episode(0.0, [-2.0, 1.0]), episode(10.0, [4.0], ended=False))
    replay = dataset_replay(NAME)
    wanted = [
        [0.0, 0.0, -1.0, 1.0, 0.0, 0.5, 0.0],
        [1.0, 0.0, 0.0, 2.0, 0.0, 0.5, 1.0],
        [10.0, 0.0, 1.0, 11.0, 0.0, 10.5, 0.0],
    ]
    torch.testing.assert_close(replay.rows, torch.tensor(wanted))
    assert (replay.size, replay.capacity, replay.position) == (3, 3, 0)


def test_spare_room_is_filled_before_the_data_are_overwritten():
    write(episode(0.0, [0.0, 1.0]))
    replay = dataset_replay(NAME, spare=2)
    one = torch.ones(1)
    for k in range(3):
        replay.add(torch.full((1, 2), 7.0 + k), one[:, None], torch.zeros(1, 2), one, one)
    assert replay.rows[:, 0].tolist() == [9.0, 1.0, 7.0, 8.0]


def test_a_selection_of_episodes_and_long_episodes():
    write(episode(0.0, [0.0]), episode(5.0, [0.0] * 7))
    dataset = open_dataset(NAME)
    chosen = dataset.filter_episodes(lambda e: e.rewards[0] > 5)
    assert dataset_replay(chosen).rows[:, 0].tolist() == [5.0 + t for t in range(7)]
    parts = list(transitions(chosen, chunk=3))
    assert [len(p.reward) for p in parts] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([p.next_obs[:, 0] for p in parts]), [6.0 + t for t in range(7)])


def test_rows_on_the_disk_give_the_samples_of_memory():
    record("random", "Pendulum-v1", episodes=2, dataset_id=NAME)
    memory, disk = (dataset_replay(NAME, on_disk=on_disk) for on_disk in (False, True))
    samples = [r.sample(32, torch.Generator().manual_seed(0)) for r in (memory, disk)]
    for one, two in zip(*(sample[:6] for sample in samples), strict=True):
        assert torch.equal(one, two)


def peak_of_loading(episodes):
    import tracemalloc

    record("random", "Pendulum-v1", episodes=episodes, dataset_id=NAME, overwrite=True)
    dataset = open_dataset(NAME)
    dataset_replay(dataset)
    tracemalloc.start()
    dataset_replay(dataset)  # the rows are torch's, which tracemalloc does not see
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_beside_the_rows_does_not_grow_with_the_data():
    few, many = peak_of_loading(10), peak_of_loading(60)
    assert many < few + 30_000, (few, many)  # 50 more episodes take 360,000 bytes


def test_other_spaces_are_refused():
    write(episode(0.0, [0.0]))
    dataset = open_dataset(NAME)
    with pytest.raises(UsageError, match="shape"):
        agent_spaces(dataset, spaces.Box(-1, 1, (3,)), None)
    with pytest.raises(UsageError, match="lie in"):
        agent_spaces(dataset, None, spaces.Box(-1, 1, (1,)))
    record("random", "CartPole-v1", episodes=1, dataset_id="tests/cart-v0")
    with pytest.raises(UsageError, match="ContinuousAction"):
        dataset_replay("tests/cart-v0")
    with pytest.raises(UsageError, match="device='cpu'"):
        Replay(3, 1, 1, torch.device("meta"), on_disk=True)


def test_actions_out_of_bounds_and_numbers_that_are_none_are_refused():
    write(episode(0.0, [4.5]))
    with pytest.raises(UsageError, match="outside the bounds.*ClipAction"):
        dataset_replay(NAME)
    write(episode(np.nan, [0.0]))
    with pytest.raises(DamagedDataset, match="observation of episode 0 is not finite"):
        dataset_replay(NAME)


def test_bounds_must_be_finite():
    with DatasetWriter(NAME, OBS, spaces.Box(-np.inf, np.inf, (1,)), overwrite=True) as writer:
        writer.write([episode(0.0, [0.0])])
    with pytest.raises(UsageError, match="not finite"):
        dataset_replay(NAME)


def test_a_long_name_of_a_folder_is_a_dataset_too(tmp_path):
    record("random", gym.make("Pendulum-v1"), episodes=1, dataset_id=NAME)
    assert dataset_replay(tmp_path / "datasets" / "tests" / "data-v0").size == 200
