"""Solutions of RL4CO and Jumanji, recorded from the real packages by scripts/record_routing_cases.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from polyathlon.envs.combinatorial import conversions
from polyathlon.envs.combinatorial.atsp import ATSP
from polyathlon.envs.combinatorial.cvrp import CVRP
from polyathlon.envs.combinatorial.knapsack import Knapsack
from polyathlon.envs.combinatorial.op import OP
from polyathlon.envs.combinatorial.solutions import solution_cost
from polyathlon.envs.combinatorial.tsp import TSP
from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import make_keys

CASES = json.loads((Path(__file__).parents[2] / "data" / "routing_cases.json").read_text())
TASKS = {"tsp": TSP, "atsp": ATSP, "cvrp": CVRP, "op": OP, "knapsack": Knapsack}
KEY = make_keys(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("mdp", ["bq", "direct"])
@pytest.mark.parametrize("case", CASES, ids=[f"{case['suite']}-{case['problem']}" for case in CASES])
def test_other_suites_agree_on_what_a_solution_costs(case, mdp):
    problem, instance = case["problem"], case["instance"]
    convert = conversions.from_rl4co if case["suite"] == "rl4co" else conversions.from_jumanji
    solution = convert(problem, case["actions"])
    cost = solution_cost(problem, instance, solution[0])
    assert cost == pytest.approx(-case["reward"], abs=1e-5)
    task = TASKS[problem](mdp=mdp, **{TASKS[problem].size_name: 10})
    start = task.reset(KEY, {"instance": instance})
    end, _, rewards = conversions.play_solution(task, start, solution)
    assert float(rewards.double().sum()) == pytest.approx(case["reward"], abs=1e-5)
    # a tour of limited length may be left before it is full; everything else is complete
    assert problem == "op" or bool(end.is_over)


@pytest.mark.parametrize("case", CASES, ids=[f"{case['suite']}-{case['problem']}" for case in CASES])
def test_converting_there_and_back_changes_nothing(case):
    problem, actions = case["problem"], case["actions"]
    suite = "rl4co" if case["suite"] == "rl4co" else "jumanji"
    there, back = getattr(conversions, f"from_{suite}"), getattr(conversions, f"to_{suite}")
    solution = there(problem, actions)
    again = back(problem, solution)[0].tolist()
    if problem in ("tsp", "atsp"):  # the same tour from another start
        start = actions.index(0)
        assert again == actions[start:] + actions[:start]
    else:  # rows of RL4CO that are done wait at the depot, and the last way home need not be an action
        assert (
            np.trim_zeros(again, "b") == np.trim_zeros(actions, "b") if problem in ("cvrp", "op") else again == actions
        )
    np.testing.assert_array_equal(there(problem, again), solution)


def test_conversions_by_hand():
    walk = [[0, 3, 1, 0, 2, 0], [0, 1, 2, 3, 0, -1]]
    assert conversions.to_rl4co("cvrp", walk).tolist() == [[3, 1, 0, 2, 0], [1, 2, 3, 0, 0]]
    assert conversions.to_jumanji("cvrp", walk).tolist() == [[3, 1, 0, 2, 0], [1, 2, 3, 0, -1]]
    assert conversions.from_rl4co("cvrp", [[3, 1, 0, 2, 0], [1, 2, 3, 0, 0]]).tolist() == walk
    nodes, via = conversions.choices_of("cvrp", walk)
    assert nodes.tolist() == [[3, 1, 2], [1, 2, 3]] and via.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert conversions.to_rl4co("op", [[0, 2, 1], [0, -1, -1]]).tolist() == [[2, 1, 0], [0, 0, 0]]
    assert conversions.from_rl4co("op", [[2, 1, 0], [0, 0, 0]]).tolist() == [[0, 2, 1], [0, -1, -1]]
    assert conversions.from_rl4co("tsp", [[2, 0, 1]]).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("convert", "problem", "text"),
    [
        (conversions.to_rl4co, "knapsack", "RL4CO has no knapsack"),
        (conversions.from_rl4co, "knapsack", "RL4CO has no knapsack"),
        (conversions.to_jumanji, "op", "Jumanji has no op"),
        (conversions.from_jumanji, "atsp", "Jumanji has no atsp"),
        (conversions.to_rl4co, "tps", "Did you mean 'tsp'"),
        (conversions.from_rl4co, "tsp", "visits node 0 too"),
    ],
)
def test_what_cannot_be_converted_is_refused(convert, problem, text):
    with pytest.raises(UsageError, match=text):
        convert(problem, [[1, 2]])


def test_solutions_that_are_not_feasible_are_refused():
    square = {"xy": [[0, 0], [1, 0], [1, 1], [0, 1]], "demand": [3, 4, 2], "capacity": 6}
    task = CVRP(num_nodes=3)
    state = task.reset(KEY, {"instance": square})
    with pytest.raises(UsageError, match="row 0: node 2 cannot be chosen in step 1"):
        conversions.play_solution(task, state, [[0, 1, 2, 3, 0]])
    for solution, text in (
        ([0, 1, 2, 0, 3, 0], r"route \[1, 2\] carries 7"),
        ([0, 1, 0, 2, 0], r"missing \[3\]"),
        ([0, 1, 1, 0, 2, 3, 0], r"twice \[1\]"),
        ([0, 1, 0, 2, 3, 9, 0], r"unknown \[9\]"),
    ):
        with pytest.raises(UsageError, match=text):
            solution_cost("cvrp", square, solution)
    with pytest.raises(UsageError, match="is 2 long, more than the 1 that"):
        solution_cost("op", {"xy": [[0, 0], [1, 0]], "prize": [1], "max_length": 1}, [0, 1])
    with pytest.raises(UsageError, match="weigh 3, more than the capacity 2"):
        solution_cost("knapsack", {"value": [1, 1], "weight": [1, 2], "capacity": 2}, [0, 1])
    with pytest.raises(UsageError, match="at most once"):
        solution_cost("knapsack", {"value": [1, 1], "weight": [1, 2], "capacity": 2}, [0, 0])
    with pytest.raises(UsageError, match="at most once"):
        solution_cost("op", {"xy": [[0, 0], [1, 0]], "prize": [1], "max_length": 9}, [0, 1, 1])


@pytest.mark.parametrize("mdp", ["bq", "direct"])
def test_solutions_that_do_not_belong_to_the_rows_are_refused(mdp):
    task = TSP(num_nodes=5, mdp=mdp)
    state = task.reset(make_keys(torch.arange(2), torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(UsageError, match="numbers from 0 to 4, got 99"):
        conversions.play_solution(task, state, [[0, 1, 2, 3, 99]] * 2)
    with pytest.raises(UsageError, match="each of 2 rows is needed, got 1"):
        conversions.play_solution(task, state, [[0, 1, 2, 3, 4]])
