"""Observations as agents keep and read them: rows of numbers, turned pictures, and the memory that holds each."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from polyathlon.agents import CMORL, PPO, SAC
from polyathlon.agents.parts import parts_replay
from polyathlon.agents.parts.observations import has_channels_first, is_turned, new_replay, numbers_of, turned
from polyathlon.agents.parts.parts_replay import PartsReplay
from polyathlon.agents.parts.replay import Replay, new_rows
from polyathlon.envs.errors import UsageError

CPU = torch.device("cpu")
LAST, FIRST = spaces.Box(0, 255, (40, 50, 3), np.uint8), spaces.Box(0, 255, (3, 40, 50), np.uint8)


def test_everything_in_an_observation_as_rows_of_numbers():
    parts = {"b": torch.tensor([[[1, 2]], [[3, 4]]]), "a": torch.tensor([[0.5], [1.5]], dtype=torch.float64)}
    found = numbers_of(parts)
    assert found.tolist() == [[1.0, 2.0, 0.5], [3.0, 4.0, 1.5]] and found.dtype is torch.float32
    assert numbers_of(torch.tensor([[[1], [2]]])).tolist() == [[1.0, 2.0]]


def test_pictures_are_turned_where_their_channels_are_last():
    assert is_turned(LAST, FIRST)
    assert not is_turned(FIRST, FIRST) and not is_turned(LAST, LAST)
    vector = spaces.Box(0, 1, (3,))
    assert not is_turned(LAST, vector) and not is_turned(vector, FIRST)
    assert not is_turned(LAST, spaces.Box(0, 255, (3, 50, 40), np.uint8))
    pictures = torch.arange(2 * 40 * 50 * 3).reshape(2, 40, 50, 3)
    found = turned(pictures, LAST, FIRST)
    assert found.shape == (2, 3, 40, 50) and found[1, 2, 3, 4] == pictures[1, 3, 4, 2]
    assert turned(pictures, LAST, LAST) is pictures


def test_where_the_channels_are():
    assert has_channels_first(FIRST) and not has_channels_first(LAST)
    with pytest.raises(UsageError, match=r"channels first or last.*\(40, 3, 50\)"):
        has_channels_first(spaces.Box(0, 255, (40, 3, 50), np.uint8))


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_memory_of_a_space(on_disk, monkeypatch):
    told: list[str] = []
    made = []
    monkeypatch.setattr(parts_replay, "new_rows", lambda *given: made.append(given[-1]) or new_rows(*given))
    flat = new_replay(10, spaces.Box(-1, 1, (2, 3)), 4, CPU, on_disk=on_disk, tell=told.append)
    parts = new_replay(10, spaces.Dict(a=LAST), 4, CPU, on_disk=on_disk, tell=told.append)
    assert type(flat) is Replay and type(parts) is PartsReplay
    assert made and set(made) == {on_disk} and parts.capacity == flat.capacity == 10


@pytest.mark.parametrize("agent", ["ppo", "sac", "cmorl"])
def test_an_observation_with_other_parts_is_refused_by_name(agent):
    space = spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Box(-1, 1, (3,)))

    class Task(gym.Env):
        observation_space, action_space = space, spaces.Box(-1, 1, (1,))
        reward_space = spaces.Box(-1, 1, (2,)) if agent == "cmorl" else None

    made = {
        "ppo": lambda: PPO("MultiInputPolicy", Task(), n_steps=8, batch_size=8),
        "sac": lambda: SAC("MultiInputPolicy", Task()),
        "cmorl": lambda: CMORL("MlpPolicy", Task()),
    }[agent]()
    a, b = np.zeros(2, np.float32), np.zeros(3, np.float32)
    assert made.predict({"a": a, "b": b})[0].shape == (1,)
    with pytest.raises(UsageError, match=r"must have the parts \['a', 'b'\], but it lacks \['b'\]$"):
        made.predict({"a": a})
    with pytest.raises(UsageError, match=r"but it lacks \['b'\] and it also has \['c'\]$"):
        made.predict({"a": a, "c": a})
    with pytest.raises(UsageError, match=r"also has \['c'\]$"):
        made.predict({"a": a, "b": b, "c": a})
    with pytest.raises(UsageError, match=r"is a dict with the parts \['a', 'b'\], got ndarray \(2,\)"):
        made.predict(a)
