"""The rules of CVRP, OP, Knapsack and ATSP, against values worked out by hand and by trying everything."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from polyathlon.envs.combinatorial.atsp import ATSP, closure
from polyathlon.envs.combinatorial.conversions import play_solution
from polyathlon.envs.combinatorial.cvrp import CAPACITIES, CVRP
from polyathlon.envs.combinatorial.knapsack import Knapsack
from polyathlon.envs.combinatorial.op import OP
from polyathlon.envs.combinatorial.solvers import solve
from polyathlon.envs.random import make_keys

SQUARE = {"xy": [[0, 0], [1, 0], [1, 1], [0, 1]], "demand": [3, 4, 2], "capacity": 6}
by_mdp = pytest.mark.parametrize("mdp", ["bq", "direct"])


def keys(rows: int, seed: int = 0) -> torch.Tensor:
    return make_keys(torch.arange(seed, seed + rows), torch.zeros(rows, dtype=torch.int64))


def best_return(task, state) -> float:
    """Return the best return from a state by trying every sequence of actions."""
    if bool(state.is_over):
        return 0.0
    best = -math.inf
    for action in task.mask(state)[0].nonzero()[:, 0]:
        after, reward, _ = task.step(state, action[None])
        best = max(best, float(reward) + best_return(task, after))
    return best


def choose(task, state, node: int, via: int = 0):
    """Return the state and reward after choosing a node, or None where that is not allowed."""
    row = task.table.row_of(state.rows, torch.tensor([node]))
    action = row * task.actions_per_row + (via if task.actions_per_row > 1 else 0)
    if not bool(task.mask(state).gather(1, action[:, None])):
        return None
    after, reward, _ = task.step(state, action)
    return after, float(reward)


@by_mdp
def test_values_of_a_vehicle_routing_problem_by_hand(mdp):
    task = CVRP(num_nodes=3, mdp=mdp)
    start = task.reset(keys(1), {"instance": SQUARE})
    assert best_return(task, start) == pytest.approx(-(4 + math.sqrt(2)), abs=1e-6)
    state, reward = choose(task, start, 1)
    assert reward == -1.0 and float(state.amount) == pytest.approx(0.5)
    assert choose(task, state, 2) is None, "the demand 4 does not fit into what is left of 6 after 3"
    values = {}
    for node, via in ((2, 1), (3, 0), (3, 1)):
        after, gain = choose(task, state, node, via)
        values[node, via] = gain + best_return(task, after)
    # a direct edge that is allowed can be worse than the way by the depot
    expected = {(2, 1): -4.414214, (3, 0): -5.242641, (3, 1): -4.414214}
    assert values == pytest.approx(expected, abs=1e-6)


@by_mdp
def test_from_the_depot_both_ways_are_one(mdp):
    task = CVRP(num_nodes=3, mdp=mdp)
    start = task.reset(keys(1), {"instance": SQUARE})
    (straight, a), (by_depot, b) = choose(task, start, 2, 0), choose(task, start, 2, 1)
    assert a == b and torch.equal(straight.amount, by_depot.amount)
    assert torch.equal(task.solution(straight), task.solution(by_depot))


@by_mdp
def test_a_walk_is_written_with_the_depot_in_it(mdp):
    task = CVRP(num_nodes=4, mdp=mdp)
    state = task.reset(keys(1), {"instance": SQUARE})
    for node, via, walk in ((1, 1, [0, 1]), (3, 0, [0, 1, 3]), (2, 1, [0, 1, 3, 0, 2, 0])):
        state, _ = choose(task, state, node, via)
        assert task.solution(state).tolist() == [walk + [-1] * (9 - len(walk))]
    assert float(state.cost) == pytest.approx(1 + math.sqrt(2) + 1 + 2 * math.sqrt(2))
    assert task.illegal_reward(state).tolist() == pytest.approx([-2 * 3 * math.sqrt(2)])


@by_mdp
def test_only_what_remains_makes_a_state_of_a_vehicle_routing_problem(mdp):
    """Partial walks with equal last customer, equal served customers and equal capacity left have one future."""
    task = CVRP(num_nodes=4, mdp=mdp, dtype="float64")
    start = task.reset(keys(1, seed=4))
    values: dict = {}
    walks = 0

    def visit(state, last, served):
        nonlocal walks
        walks += 1
        best = 0.0 if len(served) == 4 else -math.inf
        for node, via in itertools.product(set(range(1, 5)) - served, (0, 1)):
            after = choose(task, state, node, via)
            if after is not None:
                best = max(best, after[1] + visit(after[0], node, served | {node}))
        signature = (last, served, round(float(state.amount), 9))
        table = task.observe(state)
        rows = torch.cat([table["nodes"][0], table["kind"][0].unsqueeze(1)], 1)
        rows = rows if mdp == "direct" else torch.cat([rows[:2], rows[2:][rows[2:].sum(1).argsort()]])
        known = values.setdefault(signature, (rows, table["globals"], best))
        torch.testing.assert_close(known[0], rows, rtol=0.0, atol=1e-12)
        torch.testing.assert_close(known[1], table["globals"], rtol=0.0, atol=1e-9)
        assert known[2] == pytest.approx(best, abs=1e-6)
        return best

    best = visit(start, 0, frozenset())
    assert len(values) < walks / 2
    plain = task.plain(start.instance, 0)
    for solver in ("brute_force", "dynamic_programming"):
        assert -best == pytest.approx(float(solve("cvrp", plain, solver).cost[0]), abs=1e-6)


@by_mdp
def test_a_node_at_exactly_half_the_length_is_within_reach(mdp):
    task = OP(num_nodes=3, mdp=mdp)
    nodes = {"xy": [[0, 0], [1, 0], [0, 0.9], [1, 1]], "prize": [0.5, 0.25, 1.0], "max_length": 2.0}
    state = task.reset(keys(1), {"instance": nodes})
    reach = task.table.numbers(state.rows, state.instance)[0][task.mask(state)[0]]
    assert sorted(reach.tolist()) == [1, 2]
    state, reward = choose(task, state, 1)
    assert reward == 0.5 and bool(state.is_over) and float(state.amount) == pytest.approx(1.0)
    shorter = task.reset(keys(1), {"instance": {**nodes, "max_length": 2.0 - 1e-5}})
    reach = task.table.numbers(shorter.rows, shorter.instance)[0][task.mask(shorter)[0]]
    assert reach.tolist() == [2]


@by_mdp
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_best_tour_of_limited_length_is_the_solvers(mdp, seed):
    task = OP(num_nodes=5, mdp=mdp, max_length=1.6)
    start = task.reset(keys(1, seed=seed))
    best, plain = best_return(task, start), task.plain(start.instance, 0)
    for solver in ("brute_force", "dynamic_programming"):
        assert best == pytest.approx(-float(solve("op", plain, solver).cost[0]), abs=1e-6)


@by_mdp
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_best_packing_is_the_solvers(mdp, seed):
    task = Knapsack(num_items=6, mdp=mdp)
    start = task.reset(keys(1, seed=seed))
    best = best_return(task, start)
    assert best == pytest.approx(
        -float(solve("knapsack", task.plain(start.instance, 0), "brute_force").cost[0]), abs=1e-6
    )


@by_mdp
def test_packing_by_hand(mdp):
    task = Knapsack(num_items=4, mdp=mdp)
    items = {"value": [10, 40, 30, 50], "weight": [5, 4, 6, 3], "capacity": 10}
    state = task.reset(keys(1), {"instance": items})
    for item, gain, fitting in ((3, 50.0, [0, 1, 2]), (1, 40.0, [])):
        state, reward = choose(task, state, item)
        assert reward == gain
        allowed = task.table.numbers(state.rows, state.instance)[0][task.mask(state)[0]]
        assert bool(state.is_over) or sorted(allowed.tolist()) == fitting
    assert (
        bool(state.is_over)
        and float(state.cost) == pytest.approx(-90.0)
        and float(state.amount) * 6 == pytest.approx(3.0)
    )
    assert task.solution(state).tolist() == [[3, 1, -1, -1]]


@by_mdp
@pytest.mark.parametrize("distances", ["remaining", "instance"])
def test_distances_depend_on_the_direction(mdp, distances):
    matrix = [[0, 1, 9, 9], [9, 0, 2, 9], [9, 9, 0, 3], [4, 9, 9, 0]]
    task = ATSP(num_nodes=4, mdp=mdp, distances=distances)
    start = task.reset(keys(1), {"instance": matrix})
    assert best_return(task, start) == pytest.approx(-10.0)
    end, _, rewards = play_solution(task, start, [[0, 3, 2, 1]])
    assert rewards.tolist() == [[-9.0, -9.0, -18.0]] and float(end.cost) == 36.0
    state, _ = choose(task, start, 2)
    seen, numbers = task.observe(state), task.table.numbers(state.rows, state.instance)[0].tolist()
    rows = [row for row, kind in enumerate(seen["kind"][0].tolist()) if kind]
    for i in rows:
        assert float(seen["nodes"][0, i, 0]) * 9 == pytest.approx(matrix[2][numbers[i]])
        assert float(seen["nodes"][0, i, 1]) * 9 == pytest.approx(matrix[numbers[i]][0])
        for j in rows:
            at = (i, j) if distances == "remaining" or mdp == "direct" else (numbers[i], numbers[j])
            assert float(seen["distances"][0][at]) * 9 == pytest.approx(matrix[numbers[i]][numbers[j]])
    if "numbers" in seen:
        assert [seen["numbers"][0, row].item() for row in rows] == [numbers[row] for row in rows]


def test_drawn_distances_obey_the_triangle_inequality():
    instance = ATSP(num_nodes=20).generate(keys(8))
    d = instance.distances
    assert bool((d.unsqueeze(3) + d.unsqueeze(1) >= d.unsqueeze(2) - 1e-6).all())
    assert bool((d.diagonal(dim1=1, dim2=2) == 0).all()) and not torch.equal(d, d.transpose(1, 2))
    one = torch.tensor([[[0.0, 5.0, 1.0], [1.0, 0.0, 9.0], [9.0, 1.0, 0.0]]])
    assert closure(one).tolist() == [[[0.0, 2.0, 1.0], [1.0, 0.0, 2.0], [2.0, 1.0, 0.0]]]


def test_drawn_demands_prizes_and_items():
    cvrp = CVRP(num_nodes=50).generate(keys(200))
    demand = cvrp.nodes[:, 1:, 2] * CAPACITIES[50]
    assert sorted(set(demand.round().flatten().tolist())) == list(range(1, 10))
    assert float(demand.mean()) == pytest.approx(5.0, abs=0.1) and bool((cvrp.nodes[:, 0, 2] == 0).all())
    by_distance = OP(num_nodes=20).generate(keys(50)).nodes
    far = (by_distance[:, 1:, :2] - by_distance[:, :1, :2]).norm(dim=2)
    assert bool((by_distance[:, 1:, 2].gather(1, far.argmax(1, keepdim=True)) == 1.0).all())
    assert float(by_distance[:, 1:, 2].min()) >= 0.01
    uniform = OP(num_nodes=20, prize="uniform").generate(keys(100)).nodes[:, 1:, 2] * 100
    assert float(uniform.min()) >= 0.99 and float(uniform.max()) <= 100.01 and 45 < float(uniform.mean()) < 56
    assert bool((OP(num_nodes=5, prize="constant").generate(keys(3)).nodes[:, 1:, 2] == 1).all())
    items = Knapsack(num_items=100, distribution="integers").generate(keys(100))
    thousandths = items.nodes.double() * 1000
    assert float(thousandths.min()) >= 0.99 and float(thousandths.max()) <= 998.01
    assert items.amount.tolist() == [25.0] * 100 and Knapsack(num_items=50).capacity == 12.5
    assert (OP(num_nodes=50).max_length, CVRP(num_nodes=100).capacity, CVRP(num_nodes=70).capacity) == (3.0, 50.0, 45.0)
