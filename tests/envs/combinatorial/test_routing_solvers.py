"""Solvers of the five problems against exact ones, and labels kept on disk."""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from polyathlon.envs.combinatorial import labels
from polyathlon.envs.combinatorial.atsp import ATSP
from polyathlon.envs.combinatorial.conversions import play_solution
from polyathlon.envs.combinatorial.cvrp import CVRP
from polyathlon.envs.combinatorial.knapsack import Knapsack
from polyathlon.envs.combinatorial.labels import label_instances, make_labels
from polyathlon.envs.combinatorial.op import OP
from polyathlon.envs.combinatorial.solutions import tour_cost
from polyathlon.envs.combinatorial.solvers import SOLVERS, solve
from polyathlon.envs.combinatorial.tsp import TSP
from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import make_keys

FEW = {"iterations": 300}
PACKAGES = ("fast_tsp", "pyvrp", "ortools", "elkai")


def instances(problem: str, n: int, count: int = 4, seed: int = 0) -> list[dict]:
    """Draw instances with n nodes beside the first one, or with n items."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        d = rng.random((n + 1, n + 1))
        np.fill_diagonal(d, 0.0)
        made.append(
            {
                "tsp": {"xy": rng.random((n + 1, 2))},
                "atsp": {"distances": d},
                "cvrp": {"xy": rng.random((n + 1, 2)), "demand": rng.integers(1, 10, n), "capacity": 15},
                "op": {"xy": rng.random((n + 1, 2)), "prize": rng.integers(1, 101, n) / 100, "max_length": 1.8},
                "knapsack": {"value": rng.integers(1, 99, n), "weight": rng.integers(1, 99, n), "capacity": 20 * n},
            }[problem]
        )
    return made


@pytest.mark.parametrize(
    ("problem", "n", "exact", "other"),
    [
        ("tsp", 7, "brute_force", {"held_karp": {}, "pyvrp": FEW, "ortools": {"seconds": 1.0}, "elkai": {}}),
        ("atsp", 7, "brute_force", {"held_karp": {}, "pyvrp": FEW, "ortools": {"seconds": 1.0}, "elkai": {}}),
        ("cvrp", 5, "brute_force", {"dynamic_programming": {}, "pyvrp": FEW}),
        ("cvrp", 9, "dynamic_programming", {"pyvrp": FEW}),
        ("op", 6, "brute_force", {"dynamic_programming": {}, "pyvrp": FEW}),
        ("op", 11, "dynamic_programming", {"pyvrp": FEW}),
        ("knapsack", 12, "brute_force", {"dynamic_programming": {}, "ortools": {}}),
        ("knapsack", 60, "dynamic_programming", {"ortools": {}}),
    ],
)
def test_exact_solvers_and_packages_agree_on_small_instances(problem, n, exact, other):
    given = instances(problem, n, count=2 if problem in ("tsp", "atsp") else 4, seed=n)
    best = solve(problem, given, exact).cost
    for solver, options in other.items():
        if solver in PACKAGES and not find_spec(solver):
            continue
        np.testing.assert_allclose(solve(problem, given, solver, **options).cost, best, rtol=1e-6, err_msg=solver)


@pytest.mark.parametrize(
    ("problem", "rule", "exact", "n"),
    [
        ("atsp", "nearest_neighbour", "held_karp", 9),
        ("cvrp", "savings", "dynamic_programming", 9),
        ("op", "greedy", "dynamic_programming", 9),
        ("knapsack", "greedy", "brute_force", 14),
    ],
)
def test_simple_rules_are_feasible_and_never_better_than_the_optimum(problem, rule, exact, n):
    given = instances(problem, n, count=12)
    found, best = solve(problem, given, rule).cost, solve(problem, given, exact).cost
    assert (found >= best - 1e-9).all() and (found > best + 1e-9).any()
    assert np.mean((found - best) / np.abs(best)) < 1.0


@pytest.mark.parametrize("problem", sorted(SOLVERS))
def test_solvers_take_instances_with_a_single_choice(problem):
    given = instances(problem, 1, count=1)
    given[0].update({"op": {"max_length": 3.0}, "knapsack": {"capacity": 99}}.get(problem, {}))
    costs = []
    for solver in SOLVERS[problem]:
        if solver in PACKAGES and not find_spec(solver):
            continue
        few = FEW if solver == "pyvrp" else {"seconds": 0.02} if solver == "fast_tsp" else {}
        costs.append(float(solve(problem, given, solver, **few).cost[0]))
    assert costs == pytest.approx([costs[0]] * len(costs)) and costs[0] != 0.0


def test_where_nothing_is_within_reach_solvers_stay():
    pytest.importorskip("pyvrp")
    far = {"xy": [[0, 0], [1, 1]], "prize": [1.0], "max_length": 1.0}
    for solver in SOLVERS["op"]:
        assert solve("op", far, solver).solution.tolist() == [[0]]
    heavy = {"value": [1.0, 2.0], "weight": [3.0, 4.0], "capacity": 2.0}
    for solver in SOLVERS["knapsack"]:
        assert solve("knapsack", heavy, solver).cost.tolist() == [0.0]


@pytest.mark.parametrize(
    ("problem", "given", "solver", "options", "text"),
    [
        ("tps", [], None, {}, "Did you mean 'tsp'"),
        ("cvrp", instances("cvrp", 4), "savngs", {}, "savings"),
        ("cvrp", instances("cvrp", 4), "savings", {"seconds": 1}, "option of the solver savings"),
        ("cvrp", instances("cvrp", 4), "pyvrp", {"secnds": 1}, "seconds"),
        ("cvrp", instances("cvrp", 7), "brute_force", {}, "at most 6 points, got 7"),
        ("cvrp", instances("cvrp", 13), "dynamic_programming", {}, "at most 12 points, got 13"),
        ("op", instances("op", 16), "dynamic_programming", {}, "at most 15 points, got 16"),
        ("op", instances("op", 8), "brute_force", {}, "at most 7 points, got 8"),
        ("knapsack", instances("knapsack", 21), "brute_force", {}, "at most 20"),
        (
            "knapsack",
            [{"value": [1.0], "weight": [0.5], "capacity": 1.0}],
            "dynamic_programming",
            {},
            "integer weights",
        ),
        ("tsp", instances("atsp", 4), "two_opt", {}, "the same both ways"),
        ("tsp", instances("atsp", 4), "fast_tsp", {}, "the same both ways"),
        ("cvrp", np.zeros((3, 2)), None, {}, "instances of cvrp are dicts"),
        ("atsp", np.zeros((2, 3, 4)), None, {}, r"distances \(B, N, N\)"),
    ],
)
def test_what_cannot_be_solved_is_refused(problem, given, solver, options, text):
    with pytest.raises(UsageError, match=text):
        solve(problem, given, solver, **options)


# ----------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("task", "options"),
    [
        (TSP(num_nodes=8), {"seconds": 0.01}),
        (ATSP(num_nodes=8), FEW),
        (CVRP(num_nodes=8), FEW),
        (OP(num_nodes=8), FEW),
        (Knapsack(num_items=20), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_labels_are_solutions_of_the_instances_drawn(task, options):
    for package in ("fast_tsp", "pyvrp", "ortools"):
        pytest.importorskip(package)
    instance, found = make_labels(task, 6, seed=5, **options)
    # instance i is that of the first episode of the environment with the seed 5 + i
    keys = make_keys(torch.arange(5, 11), torch.zeros(6, dtype=torch.int64))
    assert torch.equal(task.reset(keys).instance.nodes, instance.nodes)
    end, _, rewards = play_solution(task, task.begin(keys, instance), found.solution)
    assert bool(end.is_over.all()) and found.cpu_seconds > 0
    np.testing.assert_allclose(-rewards.double().sum(1).numpy(), found.cost, rtol=1e-5, atol=1e-6)


def test_labels_are_kept_and_continued(tmp_path, monkeypatch):
    given = instances("knapsack", 15, count=10)
    whole = label_instances("knapsack", given, "greedy")
    calls = []
    original = labels._solve_chunk

    def failing(problem, part, solver, options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(part))
        return original(problem, part, solver, options)

    monkeypatch.setattr(labels, "_solve_chunk", failing)
    with pytest.raises(KeyboardInterrupt):
        label_instances("knapsack", given, "greedy", folder=tmp_path, chunk=3)
    assert calls == [3, 3] and len(list(tmp_path.glob("chunk-*.npz"))) == 2
    monkeypatch.setattr(labels, "_solve_chunk", lambda *a: calls.append(-1) or original(*a))
    resumed = label_instances("knapsack", given, "greedy", folder=tmp_path, chunk=3)
    assert calls == [3, 3, -1, -1], "what was finished is not made again"
    np.testing.assert_array_equal(resumed.solution, whole.solution)
    np.testing.assert_array_equal(resumed.cost, whole.cost)
    label_instances("knapsack", given, "greedy", folder=tmp_path, chunk=3)
    assert len(calls) == 4 and not list(tmp_path.glob(".*")), "no half-written file is left"


def test_labels_of_another_task_are_refused(tmp_path):
    given = instances("knapsack", 8, count=3)
    label_instances("knapsack", given, "greedy", folder=tmp_path)
    manifest = json.loads((tmp_path / labels.MANIFEST).read_text())
    assert manifest["solver"] == "greedy" and manifest["count"] == 3
    with pytest.raises(UsageError, match="solver is 'greedy' there, 'brute_force' was asked for"):
        label_instances("knapsack", given, "brute_force", folder=tmp_path)
    with pytest.raises(UsageError, match="instances is"):
        label_instances("knapsack", instances("knapsack", 8, count=3, seed=9), "greedy", folder=tmp_path)
    (tmp_path / "chunk-000000.npz").write_bytes(b"half a file")
    with pytest.raises(UsageError, match="cannot be read.*delete it"):
        label_instances("knapsack", given, "greedy", folder=tmp_path)
    (tmp_path / labels.MANIFEST).write_text("{")
    with pytest.raises(UsageError, match="not a manifest"):
        label_instances("knapsack", given, "greedy", folder=tmp_path)


def test_a_full_disk_leaves_no_half_file(tmp_path):
    with pytest.raises(OSError), labels.replacing(tmp_path / "x.npz") as file:
        file.write(b"half")
        raise OSError("no space left")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_several_processes_make_the_same_labels(tmp_path):
    given = instances("knapsack", 10, count=6)
    alone = label_instances("knapsack", given, "brute_force")
    together = label_instances("knapsack", given, "brute_force", workers=2, chunk=3, folder=tmp_path)
    np.testing.assert_array_equal(alone.solution, together.solution)


@pytest.mark.parametrize(("name", "value"), [("workers", 0), ("chunk", 0), ("workers", True)])
def test_impossible_numbers_are_refused(name, value):
    with pytest.raises(UsageError, match=f"{name} must be a positive integer"):
        label_instances("knapsack", instances("knapsack", 3), "greedy", **{name: value})
    with pytest.raises(UsageError, match="count must be a positive integer"):
        make_labels(TSP(num_nodes=4), 0)


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "elkai", None)
    with pytest.raises(ImportError, match=r"pip install 'polyathlon\[lkh\]'"):
        solve("tsp", instances("tsp", 5, count=1), "elkai")


@pytest.mark.parametrize(
    ("problem", "solver", "change", "text"),
    [
        ("tsp", "held_karp", {"xy": [[0, 0], [np.nan, 1], [1, 1]]}, "not finite"),  # without an end before
        ("tsp", "held_karp", {"xy": np.zeros((3, 3))}, r"shape \(N, 2\)"),
        ("tsp", "held_karp", {"xi": 1}, "Did you mean|Known"),
        ("atsp", "held_karp", {"distances": -np.ones((3, 3))}, "must not be negative, got -1 from node 0"),
        ("atsp", "held_karp", {"distances": np.zeros((3, 4))}, r"shape \(N, N\)"),
        ("cvrp", "dynamic_programming", {"demand": [16, 1, 1, 1]}, "demand 16, more than the capacity 15"),  # likewise
        ("cvrp", "dynamic_programming", {"demand": [1, np.nan, 1, 1]}, "not finite"),
        ("cvrp", "savings", {"demand": [1, 1, 1]}, r"shape \(4,\)"),
        ("cvrp", "savings", {"demand": [1, -1, 1, 1]}, "must not be negative"),
        ("op", "dynamic_programming", {"prize": [9, 9, 1, 1, 1, 1]}, r"shape \(4,\)"),  # the last four counted
        ("knapsack", "dynamic_programming", {"capacity": -1}, "positive number, .* got -1"),
        ("knapsack", "brute_force", {"value": [], "weight": []}, "at least one item"),
        ("knapsack", "ortools", {"weight": [1, -2, 2, 1]}, "must not be negative"),
    ],
)
def test_instances_that_a_solver_would_misread_are_refused(problem, solver, change, text):
    with pytest.raises(UsageError, match=text):
        solve(problem, {**instances(problem, 4, count=1)[0], **change}, solver)


def test_an_entry_that_is_missing_is_named():
    for problem, name in (("tsp", "xy"), ("cvrp", "capacity"), ("op", "prize"), ("knapsack", "weight")):
        given = {key: value for key, value in instances(problem, 4, count=1)[0].items() if key != name}
        with pytest.raises(UsageError, match=f"needs the entry {name}"):
            solve(problem, given)
    with pytest.raises(UsageError, match="seconds must be a positive number, got nan"):
        solve("tsp", instances("tsp", 4, count=1), "fast_tsp", seconds=float("nan"))
    with pytest.raises(UsageError, match="iterations must be a positive integer"):
        solve("tsp", instances("tsp", 4, count=1), "pyvrp", iterations=0)


def test_a_wrong_tour_of_many_nodes_is_named_at_once():
    nodes = 20_000  # every node was counted in the whole tour, 20,000 times
    before = time.process_time()
    with pytest.raises(UsageError, match=r"missing \[1\], twice \[0\]"):
        tour_cost({"distances": np.broadcast_to(0.0, (nodes, nodes))}, [0, 0, *range(2, nodes)])
    assert time.process_time() - before < 5.0


def test_damaged_labels_are_named(tmp_path):
    given = instances("knapsack", 8, count=3)
    label_instances("knapsack", given, "greedy", folder=tmp_path)
    path = tmp_path / "chunk-000000.npz"
    whole = path.read_bytes()
    for cut in (whole[:10], whole[: len(whole) // 2], whole[:200] + b"\xff" + whole[201:]):
        path.write_bytes(cut)
        with pytest.raises(UsageError, match="cannot be read.*delete it"):
            label_instances("knapsack", given, "greedy", folder=tmp_path)
    (tmp_path / labels.MANIFEST).write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not a manifest"):
        label_instances("knapsack", given, "greedy", folder=tmp_path)
