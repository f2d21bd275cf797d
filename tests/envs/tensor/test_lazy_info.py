"""Infos that are computed when they are read, and observations that last for an episode."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from polyathlon.envs.combinatorial.atsp import ATSP
from polyathlon.envs.combinatorial.cvrp import CVRP
from polyathlon.envs.combinatorial.tables import as_words, in_pairs
from polyathlon.envs.combinatorial.tsp import TSP
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor import make_vector
from polyathlon.envs.tensor.lazy_info import LazyInfo


def lazy(calls):
    def compute():
        calls.append(1)
        return {"cost": 3, "solution": 4}

    return LazyInfo({"action_mask": 1}, ("cost", "solution"), compute)


@pytest.mark.parametrize(
    "read",
    [
        lambda info: info["cost"] == 3 and info["solution"] == 4,
        lambda info: info.get("cost") == 3 and info.get("other", 5) == 5,
        lambda info: dict(info) == {"action_mask": 1, "cost": 3, "solution": 4},
        lambda info: {**info} == {"action_mask": 1, "cost": 3, "solution": 4},
        lambda info: info == {"action_mask": 1, "cost": 3, "solution": 4},
        lambda info: sorted(info) == ["action_mask", "cost", "solution"] and len(info) == 3,
        lambda info: sorted(info.items())[1:] == [("cost", 3), ("solution", 4)],
        lambda info: type(pickle.loads(pickle.dumps(info))) is dict and copy.deepcopy(info)["cost"] == 3,
        lambda info: (info | {"more": 0}).keys() == {"action_mask", "cost", "solution", "more"},
        lambda info: info.pop("cost") == 3 and "cost" not in info,
    ],
)
def test_every_way_of_reading_finds_all_entries_and_computes_them_once(read):
    calls = []
    info = lazy(calls)
    assert "cost" in info and "other" not in info and info["action_mask"] == 1 and info.get("action_mask") == 1
    assert not calls
    assert read(info) and calls == [1]
    with pytest.raises(KeyError):
        info["other"]


def test_what_was_set_meanwhile_stays():
    info = lazy([])
    info["cost"] = 7
    assert dict(info) == {"action_mask": 1, "cost": 7, "solution": 4}


def test_an_info_read_late_tells_of_its_own_step():
    env = make_vector(CVRP(num_nodes=6), 5, output="torch")
    twin = make_vector(CVRP(num_nodes=6), 5, output="torch")
    _, info = env.reset(seed=3)
    _, own = twin.reset(seed=3)
    infos, known = [], []
    for _ in range(14):
        action = info["action_mask"].int().argmax(1)
        *_, info = env.step(action)
        *_, own = twin.step(action)
        infos.append(info)
        known.append({name: value.clone() for name, value in own.items()})
    for read, expected in zip(infos, known):
        assert {"solution", "cost", "gap", "orig", "action_mask"} <= set(read)
        assert all(torch.equal(read[name], expected[name]) for name in expected)


def test_distances_are_handed_out_once_an_episode_and_are_not_the_states():
    env = make_vector(ATSP(num_nodes=5), 3, output="torch")
    obs, info = env.reset(seed=0)
    first, kept = obs["distances"], obs["distances"].clone()
    for _ in range(4):
        obs, *_, info = env.step(info["action_mask"].int().argmax(1))
        assert obs["distances"] is first
    obs, *_ = env.step(info["action_mask"].int().argmax(1))
    assert obs["distances"] is not first and not torch.equal(obs["distances"], kept) and torch.equal(first, kept)
    assert torch.equal(obs["distances"], env.state.instance.distances)
    obs["distances"].zero_()
    assert bool(env.state.instance.distances.any())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [TSP, ATSP, CVRP])
def test_many_rows_are_stepped_as_few_are(make, dtype):
    """Tables of many rows are moved and built in another way; every row must come out the same."""
    task, few, many = make(num_nodes=6, dtype=dtype), 8, 320
    keys = make_keys(torch.arange(many), torch.zeros(many, dtype=torch.int64))
    states = [task.reset(keys), task.reset(keys[:few])]
    for t in range(7):
        u = torch.rand(many, generator=torch.Generator().manual_seed(t))
        states = [task.step(state, task.random_action(state, u[: len(state.t)]))[0] for state in states]
        whole, part = (task.observe(state) for state in states)
        assert all(torch.equal(whole[name][:few], part[name]) for name in part)
        assert torch.equal(states[0].allowed[:few], states[1].allowed)
        assert torch.equal(states[0].cost[:few], states[1].cost)


def test_pairs_are_stacks_for_any_number_of_rows():
    for rows in (3, 300):
        a, b = torch.rand(rows, 7), torch.rand(rows, 7)
        assert torch.equal(in_pairs(a, b), torch.stack((a, b), 2))
        assert torch.equal(in_pairs(a > 0.5, b > 0.5), torch.stack((a > 0.5, b > 0.5), 2))
    assert as_words(torch.rand(300, 4, 2)).shape == (1200,) and as_words(torch.rand(300, 4, 3)).shape == (1200, 3)


def test_an_info_without_an_entry_still_computes_the_others_when_they_are_read():
    asked = []
    info = LazyInfo({"mask": 1, "player": 2}, ["score"], lambda: asked.append(1) or {"score": 3})
    rest = info.without("mask")
    assert "mask" not in rest and rest["player"] == 2 and not asked
    assert rest["score"] == 3 and len(asked) == 1 and "mask" in info
    assert info.without("nothing")["mask"] == 1
