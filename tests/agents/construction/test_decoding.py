"""From a policy to solutions: greedy, beams, forms of an instance."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from polyathlon.agents.construction import decoding
from polyathlon.agents.construction.decoding import beam_decode, greedy_decode, renumbered, solve_instances
from polyathlon.agents.construction.policies import ConstructionAttentionPolicy, ReZeroPolicy
from polyathlon.envs.combinatorial.solutions import solution_cost
from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor import load_task

TASKS = {
    "tsp:TSP": {"num_nodes": 8},
    "atsp:ATSP": {"num_nodes": 7},
    "cvrp:CVRP": {"num_nodes": 7, "capacity": 12},
    "op:OP": {"num_nodes": 8, "max_length": 1.6},
    "knapsack:Knapsack": {"num_items": 9},
}
FIVE = [[0.0, 0.0], [0.0, 1.0], [2.0, 1.0], [2.0, 0.0], [1.0, 2.0]]  # a, b, c, d, e


def made(name: str, rows: int = 12, mdp: str = "bq", **more):
    task = load_task(f"polyathlon.envs.combinatorial.{name}", mdp=mdp, **{**TASKS[name], **more})
    return task, task.generate(make_keys(torch.arange(rows), torch.zeros(rows, dtype=torch.int64)))


def policy_for(task, policy_class=ConstructionAttentionPolicy):
    torch.manual_seed(1)
    options = {"width": 16, "num_heads": 2, "num_layers": 1, "precision": "float32"}
    policy = policy_class(task.observation_space, task.action_space, lambda _: 1e-3, **options)
    with torch.no_grad():
        for parameter in policy.averaged.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return policy


def check(task, instance, found):
    for i, solution in enumerate(found.solution.tolist()):
        cost = solution_cost(type(task).__name__, task.plain(instance, i), solution)
        assert cost == pytest.approx(float(found.cost[i]), abs=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_solutions_are_feasible_and_cost_what_is_said(name):
    task, instance = made(name)
    policy = policy_for(task)
    greedy = greedy_decode(task, policy.log_probs, instance)
    check(task, instance, greedy)
    for width in (2, 5):
        check(task, instance, beam_decode(task, policy.log_probs, instance, width))


@pytest.mark.parametrize("name", TASKS)
def test_a_beam_of_one_is_greedy(name):
    task, instance = made(name)
    policy = policy_for(task)
    greedy, beam = greedy_decode(task, policy.log_probs, instance), beam_decode(task, policy.log_probs, instance, 1)
    assert torch.equal(greedy.solution, beam.solution)
    torch.testing.assert_close(greedy.cost, beam.cost)


@pytest.mark.parametrize("name", ["tsp:TSP", "atsp:ATSP"])
@pytest.mark.parametrize("merge", [True, False])
def test_a_beam_that_holds_everything_finds_the_optimum(name, merge):
    task, instance = made(name, rows=4, num_nodes=6)
    found = beam_decode(task, policy_for(task).log_probs, instance, 120, merge=merge)
    for i in range(4):
        plain = task.plain(instance, i)
        best = min(solution_cost(type(task).__name__, plain, (0, *order)) for order in permutations(range(1, 6)))
        assert float(found.cost[i]) == pytest.approx(best, abs=1e-6)


def test_the_hand_example_is_solved_by_a_wide_beam():
    task, _ = made("tsp:TSP", num_nodes=5)
    instance = task.read(FIVE, 1, None)
    found = beam_decode(task, policy_for(task).log_probs, instance, 24)
    assert float(found.cost[0]) == pytest.approx(6.828427, abs=1e-5)


def test_a_beam_returns_the_cheapest_of_its_complete_solutions():
    """With two cities left to order and both orders in the beam, the less likely one wins if it is shorter."""
    task, _ = made("tsp:TSP", num_nodes=4)
    instance = task.read([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], 1, None)

    def crossing_first(obs, mask):  # prefers the opposite corner
        distance = (obs["nodes"] - obs["nodes"][:, :1]).norm(dim=2)
        return distance.masked_fill(~mask, -1e9).log_softmax(1)

    assert float(greedy_decode(task, crossing_first, instance).cost[0]) == pytest.approx(2 + 2 * 2**0.5)
    assert float(beam_decode(task, crossing_first, instance, 6).cost[0]) == pytest.approx(4.0)


def test_merging_drops_what_leaves_the_same_at_a_higher_price():
    task, _ = made("tsp:TSP", num_nodes=6)
    xy = [[0.0, 0.0], [0.2, 0.0], [0.4, 0.1], [0.6, 0.0], [0.8, 0.0], [1.0, 1.0]]
    state = decoding.start(task, decoding.tree_rows(task.read(xy, 1, None), torch.zeros(3, dtype=torch.int64)))
    for nodes in ([1, 2, 1], [2, 1, 2], [3, 3, 4]):  # the same three nodes twice, and others
        state, _, _ = task.step(state, task.action_of(state, torch.tensor(nodes)))
    dominated = decoding._is_dominated(task, state, 1, 3)
    assert dominated.tolist() == [[False, True, False]]


@pytest.mark.parametrize("name", ["tsp:TSP", "atsp:ATSP", "cvrp:CVRP", "op:OP"])
@pytest.mark.parametrize("beam", [1, 3])
def test_eight_forms_give_the_best_of_eight(name, beam):
    task, instance = made(name)
    policy = policy_for(task, ReZeroPolicy)
    plain = solve_instances(task, policy.log_probs, instance, beam)
    best = solve_instances(task, policy.log_probs, instance, beam, augment=8)
    check(task, instance, best)
    assert bool((best.cost <= plain.cost + 1e-9).all())
    if name in ("tsp:TSP", "atsp:ATSP"):
        assert bool((best.cost < plain.cost - 1e-6).any())


def test_renumbered_tours_have_equal_lengths():
    for name in ("tsp:TSP", "atsp:ATSP"):
        task, instance = made(name, rows=3)
        shift = torch.tensor([0, 2, 5])
        other = renumbered(instance, shift)
        size = task.num_points
        order = [0, *np.random.default_rng(0).permutation(np.arange(1, size)).tolist()]
        for i in range(3):
            moved = [(node - int(shift[i])) % size for node in order]
            a = solution_cost(type(task).__name__, task.plain(instance, i), order)
            assert solution_cost(type(task).__name__, task.plain(other, i), moved) == pytest.approx(a, abs=1e-6)


@pytest.mark.parametrize("mdp", ["bq", "direct"])
def test_both_formulations_are_decoded(mdp):
    task, instance = made("tsp:TSP", mdp=mdp)
    policy = policy_for(task, ReZeroPolicy)
    found = beam_decode(task, policy.log_probs, instance, 3, merge=mdp == "bq")
    check(task, instance, found)


def test_parts_of_a_batch_are_solved_as_the_whole(monkeypatch):
    task, instance = made("tsp:TSP")
    policy = policy_for(task)
    whole = solve_instances(task, policy.log_probs, instance, 2)
    monkeypatch.setattr(decoding, "ROWS_AT_ONCE", 40)
    parts = solve_instances(task, policy.log_probs, instance, 2)
    assert torch.equal(whole.solution, parts.solution)


def test_impossible_numbers_are_refused():
    task, instance = made("knapsack:Knapsack")
    policy = policy_for(task)
    for options, words in (({"beam": 0}, "beam"), ({"augment": 3}, "1 or 8"), ({"augment": 8}, "Knapsack")):
        with pytest.raises(UsageError, match=words):
            solve_instances(task, policy.log_probs, instance, **options)
