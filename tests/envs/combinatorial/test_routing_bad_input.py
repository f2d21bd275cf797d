"""Instances that cannot be: a clear error, or a result that is defined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from polyathlon.envs.combinatorial.atsp import ATSP
from polyathlon.envs.combinatorial.cvrp import CVRP
from polyathlon.envs.combinatorial.knapsack import Knapsack
from polyathlon.envs.combinatorial.op import OP
from polyathlon.envs.combinatorial.tsp import TSP
from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import choice, make_keys

KEYS = make_keys(torch.arange(2), torch.zeros(2, dtype=torch.int64))
XY = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
ROUTES = {"xy": XY, "demand": [1, 2], "capacity": 3}
PRIZES = {"xy": XY, "prize": [1, 2], "max_length": 3}
ITEMS = {"value": [1, 2], "weight": [1, 2], "capacity": 3}
D = [[0, 1, 2], [2, 0, 1], [1, 2, 0]]


@pytest.mark.parametrize(
    ("task", "instance", "text"),
    [
        (TSP, [[0.0, 0.0]], "2 to 5 points here, got 1"),
        (TSP, D, r"matrix \(3, 3\); for a matrix of distances use polyathlon/ATSP-v0"),
        (TSP, {"distances": D}, "belongs to polyathlon/ATSP-v0"),
        (TSP, [[0.0, 0.0], [math.nan, 0.0]], "not finite"),
        (ATSP, [[0.0]], "2 to 5 nodes here, got 1"),
        (ATSP, [*XY[:2], [0.0, math.nan]], "not finite"),
        (ATSP, [[0.0, math.inf], [1.0, 0.0]], "not finite"),
        (ATSP, [[0.0, -1.0], [1.0, 0.0]], "must not be negative, got -1 from node 0 to node 1"),
        (ATSP, [[0.0, 1.0], [1.0, 3.0]], "to itself must be 0"),
        (ATSP, [[0.0, 1.0, 2.0], [1.0, 0.0, 2.0]], r"shape \(m, m\)"),
        (ATSP, np.zeros((6, 6)), "larger num_nodes"),
        (CVRP, XY, "a dict like"),
        (CVRP, {"xy": XY, "demand": [1, 2]}, "needs the entry 'capacity'"),
        (CVRP, {**ROUTES, "demands": [1, 2]}, "demand"),
        (CVRP, {**ROUTES, "demand": [1, 4]}, "customer 2 has the demand 4, more than the capacity 3"),
        (CVRP, {**ROUTES, "demand": [1, -1]}, "must not be negative, got -1 at position 1"),
        (CVRP, {**ROUTES, "demand": [1, math.nan]}, "demand holds a number that is not finite"),
        (CVRP, {**ROUTES, "demand": [1]}, r"demand has the shape \(2,\)"),
        (CVRP, {**ROUTES, "demand": [1, 1, 2]}, "the depot's and must be 0"),
        (CVRP, {**ROUTES, "capacity": 0}, "capacity is a positive number"),
        (CVRP, {**ROUTES, "capacity": -3}, "capacity is a positive number"),
        (CVRP, {**ROUTES, "capacity": "big"}, "capacity must be numbers"),
        (CVRP, {**ROUTES, "xy": XY[:1], "demand": []}, "got 1"),
        (CVRP, {**ROUTES, "xy": [[0, 0]] * 9, "demand": [1] * 8}, "larger num_nodes"),
        (OP, {**PRIZES, "prize": [1, -2]}, "prize must not be negative"),
        (OP, {**PRIZES, "max_length": 0}, "max_length is a positive number"),
        (OP, {**PRIZES, "max_length": math.nan}, "not finite"),
        (OP, {**PRIZES, "reference": 3.0}, "negative cost"),
        (Knapsack, {**ITEMS, "capacity": 0}, "capacity is a positive number"),
        (Knapsack, {**ITEMS, "weight": [1, 2, 3]}, r"weight has the shape \(2,\)"),
        (Knapsack, {**ITEMS, "weight": [1, -2]}, "weight must not be negative"),
        (Knapsack, {**ITEMS, "value": [], "weight": []}, "1 to 5 items here, got 0"),
        (Knapsack, {**ITEMS, "value": [1] * 6, "weight": [1] * 6}, "larger num_items"),
        (Knapsack, {**ITEMS, "value": 7}, "1 to 5 items here, got 0"),
    ],
)
def test_malformed_instances_are_refused(task, instance, text):
    with pytest.raises(UsageError, match=text):
        task(**{task.size_name: 5}).reset(KEYS, {"instance": instance})


@pytest.mark.parametrize(
    ("task", "options", "text"),
    [
        (CVRP, {"capacity": 0}, "positive number, got 0"),
        (CVRP, {"capacity": 8}, "at least 9, the largest demand drawn"),
        (CVRP, {"capacity": math.nan}, "positive number, got nan"),
        (CVRP, {"distribution": "unifrom"}, "uniform"),
        (OP, {"max_length": -1.0}, "positive number, got -1.0"),
        (OP, {"prize": "distanse"}, "distance"),
        (Knapsack, {"capacity": True}, "positive number, got True"),
        (Knapsack, {"distribution": "integer"}, "integers"),
        (ATSP, {"distances": "all"}, "remaining"),
        (ATSP, {"num_nodes": 1}, "at least 2, got 1"),
    ],
)
def test_wrong_options_are_refused(task, options, text):
    with pytest.raises(UsageError, match=text):
        task(**options)


@pytest.mark.parametrize("mdp", ["bq", "direct"])
@pytest.mark.parametrize(
    ("task", "instance", "cost"),
    [
        (TSP, [[0.5, 0.5]] * 4, 0.0),
        (ATSP, np.zeros((4, 4)), 0.0),
        (CVRP, {"xy": [[0.5, 0.5]] * 4, "demand": [1, 1, 1], "capacity": 1}, 0.0),
        (CVRP, {"xy": XY, "demand": [0, 0], "capacity": 1}, None),
        (CVRP, {"xy": XY[:2], "demand": [3], "capacity": 3}, 2.0),
        (OP, {"xy": [[0.5, 0.5]] * 4, "prize": [1, 1, 1], "max_length": 1e-9}, -3.0),
        (OP, {"xy": XY[:2], "prize": [7], "max_length": 1e9}, -7.0),
        (Knapsack, {"value": [5], "weight": [0], "capacity": 1}, -5.0),
        (Knapsack, {"value": [0, 0], "weight": [1, 1], "capacity": 1e12}, 0.0),
    ],
)
def test_what_is_odd_but_possible_has_its_result(task, instance, cost, mdp):
    env = task(mdp=mdp, **{task.size_name: 5})
    state = env.reset(KEYS, {"instance": instance})
    for step in range(5):
        if bool(state.is_over.all()):
            break
        seen = env.observe(state)
        row = {name: value[0].numpy() for name, value in seen.items()}
        assert env.observation_space.contains(row)
        state, _, _ = env.step(state, choice(state.key, step, env.mask(state)))
    assert bool(state.is_over.all())
    assert cost is None or state.cost.tolist() == pytest.approx([cost] * 2)
