"""Tables of many rows are moved in other units than small ones: what happens in a row must not depend on that."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from polyathlon.envs.combinatorial import tables
from polyathlon.envs.random import make_keys

NAMES = ("TSP", "ATSP", "CVRP", "OP", "Knapsack")
FEW, MANY = tables._MANY - 1, tables._MANY + 44


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mdp", ["bq", "direct"])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_the_same_among_few_and_among_many(name, mdp, dtype):
    """Played to the end and beyond, where finished rows go on with nothing left to choose."""
    make = getattr(import_module(f"polyathlon.envs.combinatorial.{name.lower()}"), name)
    task = make(mdp=mdp, dtype=dtype, **{make.size_name: 6})
    keys = make_keys(torch.arange(MANY), torch.zeros(MANY, dtype=torch.int64))
    few, many = (task.begin(part, task.generate(part)) for part in (keys[:FEW], keys))
    generator, is_over = torch.Generator().manual_seed(0), torch.zeros(MANY, dtype=torch.bool)
    for _ in range(9):
        u = torch.rand(MANY, generator=generator)
        action, own = task.random_action(many, u), task.random_action(few, u[:FEW])
        assert torch.equal(own, action[:FEW])
        (few, reward, _), (many, rewards, is_over) = task.step(few, own), task.step(many, action)
        assert torch.equal(reward, rewards[:FEW])
        assert torch.equal(task.mask(few), task.mask(many)[:FEW])
        seen, all_seen = task.observe(few), task.observe(many)
        for part, value in seen.items():
            assert torch.equal(value, all_seen[part][:FEW]), part
    assert bool(is_over.all())
