"""`train` and `compare` with segments: `--data` of agents that learn from preferences between them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import polyathlon
from polyathlon.datasets import record
from polyathlon.envs.errors import UsageError
from polyathlon.run_folder import RunFolder

DATA = "segment_runs/pendulum-v0"
SMALL = {"segment_length": 4, "batch_size": 4, "policy_kwargs": {"net_arch": [8]}}


@pytest.fixture(autouse=True)
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    record("random", gym.make("Pendulum-v1"), episodes=3, dataset_id=DATA, max_steps=12)


def test_a_run_learns_from_a_dataset_and_goes_on(tmp_path):
    words = {"data": DATA, "agent_kwargs": SMALL, "out": tmp_path / "run", "device": "cpu", "picture": False}
    agent = polyathlon.train("cpl", "Pendulum-v1", 6, **words)
    assert agent.segments.length == 4 and RunFolder(tmp_path / "run").config().agent_kwargs["data"] == DATA
    assert polyathlon.train("cpl", "Pendulum-v1", 9, resume=True, **words).num_timesteps == 9


def test_a_run_learns_from_a_file_of_pairs(tmp_path):
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(5, 2, 5, 3)), rng.uniform(-2, 2, size=(5, 2, 4, 1))
    np.savez(tmp_path / "pairs.npz", obs=obs, action=action, preferred=rng.integers(2, size=5))
    small = {name: value for name, value in SMALL.items() if name != "segment_length"}
    for name in ("cpl", "p_iql"):
        agent = polyathlon.train(name, "Pendulum-v1", 4, data=tmp_path / "pairs.npz", agent_kwargs=small, device="cpu")
        assert agent.segments.pairs.shape == (5, 2) and agent.num_timesteps == 4


def test_agents_are_compared_on_one_dataset(tmp_path):
    words = {"data": DATA, "steps": 4, "seeds": 2, "episodes": 1, "device": "cpu", "out": tmp_path / "compared"}
    small = {"batch_size": 4, "policy_kwargs": {"net_arch": [8]}}
    found = polyathlon.compare(["cpl", "bc"], "Pendulum-v1", agent_kwargs=small, **words)
    assert found.page.exists()
    kept = [RunFolder(tmp_path / "compared" / "runs" / f"{name}-seed0").config().agent_kwargs for name in ("cpl", "bc")]
    assert (kept[0]["data"], kept[1]["dataset"]) == (DATA, DATA)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"data": DATA, "holdout": 0.1}, "leave holdout out"),
        ({"data": DATA, "reward": "a:b"}, "leave reward out"),
        (
            {"data": {"source": DATA, "columns": {"a": "b"}}},
            "read arrays by their own names|reads arrays by their own names",
        ),
        ({"data": "segment_runs/none-v0"}, "there is no dataset"),
        ({}, "learns from recorded actions: give dataset="),
    ],
)
def test_words_that_mean_nothing_are_refused(words, message):
    with pytest.raises(UsageError, match=message):
        polyathlon.train("cpl", "Pendulum-v1", 4, **words)
