"""The published methods that docs/extend/method.md writes as exercises: their length, numbers by hand, a few steps of training."""

from __future__ import annotations

import inspect
import math
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from polyathlon.agents import OffPolicy
from polyathlon.datasets import record

PAGE = Path(__file__).parents[2] / "docs" / "extend" / "method.md"
DATA = "tests/exercise-v0"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The code of the section, as a module."""
    section = PAGE.read_text().partition("## Three published methods")[2].partition("\n## ")[0]
    path = tmp_path_factory.mktemp("exercises") / "method_exercises.py"
    path.write_text("\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL)))
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    sys.modules[path.stem] = module
    exec(compile(path.read_text(), str(path), "exec"), vars(module))
    yield module
    del sys.modules[path.stem]


@pytest.mark.parametrize("name", ["cql", "redq", "crossq"])
def test_a_loss_has_at_most_15_lines(page, name):
    lines = [line for line in inspect.getsource(getattr(page, name)).splitlines() if line.strip()]
    assert 4 <= len(lines) <= 15


class Always:
    """Critics [E] or an actor of known values."""

    def __init__(self, *values):
        self.values = values

    def __call__(self, obs, action=None):
        if action is None:
            return self
        return torch.tensor(self.values)[:, None] * (1 + action[:, 0])

    def sample(self, noise):
        return noise, torch.full(noise.shape[:1], -0.5)

    def select(self, members):
        return Always(*[self.values[int(m)] for m in members])


def fields(**others):
    ones = torch.ones(2, 1)
    named = {"log_alpha": torch.tensor(0.2).log(), "obs": ones, "action": 0 * ones, "reward": ones[:, 0]}
    return {**named, "next_obs": ones, "discount": 0.9 * ones[:, 0], "next_noise": 0 * ones, **others}


def test_numbers_by_hand(page):
    shared = {"critic": Always(2.0, 4.0), "actor": Always()}
    # y = 1 + .9 (1 + .2 * .5): the targets are 1, 3, 5, of which the first two are drawn
    y = 1 + 0.9 * 1.1
    found = page.redq(critic_target=Always(1.0, 3.0, 5.0), members=torch.tensor([1, 0]), **shared, **fields())
    assert float(found) == pytest.approx(0.5 * ((2 - y) ** 2 + (4 - y) ** 2), rel=1e-5)
    y = 1 + 0.9 * 2.1  # its own values are the targets, their least is 2
    assert float(page.crossq(**shared, **fields())) == pytest.approx(0.5 * ((2 - y) ** 2 + (4 - y) ** 2), rel=1e-5)
    more = {
        "even": torch.full((1, 2, 1), 0.5),
        "own_noise": torch.zeros(2, 1),
        "coef": 1.0,
    }  # all of them the action 0
    loss, told = page.cql(critic_target=Always(1.0, 3.0), **shared, **fields(**more))
    high = [math.log((math.exp(q + math.log(2)) + math.exp(q + 0.5)) / 2) for q in (2.0, 4.0)]
    assert float(told["gap"]) == pytest.approx(sum(high) - 6, rel=1e-5)
    y = 1 + 0.9 * 1.1
    assert float(loss - told["gap"]) == pytest.approx(0.5 * ((2 - y) ** 2 + (4 - y) ** 2), rel=1e-5)


def test_they_train(page, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    record("random", "Pendulum-v1", episodes=1, dataset_id=DATA, max_steps=60)
    words = {"learning_starts": 20, "batch_size": 8, "seed": 0, "device": "cpu"}
    few = {"net_arch": [8], "n_critics": 4, "layer_norm": False}
    made = {
        "CQL": ({"dataset": DATA, "policy_kwargs": {"net_arch": [8]}}, 20),
        "REDQ": ({"gradient_steps": 20, "policy_kwargs": few}, 25),
        "CROSSQ": ({"policy_kwargs": {"net_arch": [8], "n_critics": 2}}, 40),
    }
    for name, (more, steps) in made.items():
        agent = OffPolicy("MlpPolicy", "Pendulum-v1", method=getattr(page, name), **words, **more)
        before = {key: network.vector.clone() for key, network in agent.networks.items()}
        report = agent.learn(steps)._report()
        assert all(np.isfinite(value) for value in report.values()) and agent.engine.count >= 20
        moved = {key for key, network in agent.networks.items() if not torch.equal(network.vector, before[key])}
        assert moved == set(before), name
        assert ("critic_target" in before) == (name != "CROSSQ")


def test_conservatism_takes_values_of_other_actions_down(page, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    record("random", "Pendulum-v1", episodes=1, dataset_id=DATA, max_steps=60)
    gaps = []
    for strength in (0.0, 5.0):
        method = page.with_options(page.CQL, coef=strength)
        words = {
            "batch_size": 32,
            "seed": 0,
            "device": "cpu",
            "learning_rate": 3e-3,
            "policy_kwargs": {"net_arch": [32]},
        }
        agent = OffPolicy("MlpPolicy", None, dataset=DATA, method=method, **words).learn(80)
        agent._report()
        agent.learn(1, reset_num_timesteps=False)
        gaps.append(agent._report()["gap"])
    assert gaps[1] < gaps[0] - 0.1
