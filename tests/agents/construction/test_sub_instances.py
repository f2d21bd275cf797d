"""Solved instances, and the sub-instances cut out of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from polyathlon.agents.construction.expert_data import as_choices
from polyathlon.agents.construction.imitation import imitation_loss, one_cycle
from polyathlon.agents.construction.policies import ConstructionAttentionPolicy
from polyathlon.agents.construction.problems import cvrp, op, tours
from polyathlon.agents.construction.sub_instances import sample_sub_instances
from polyathlon.agents.construction.table_rows import among_rows
from polyathlon.agents.parts.cross_entropy import soft_cross_entropy
from polyathlon.envs.combinatorial.labels import make_labels
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor import load_task

SOLVERS = {
    "tsp:TSP": ({"num_nodes": 8}, "held_karp"),
    "atsp:ATSP": ({"num_nodes": 7}, "held_karp"),
    "cvrp:CVRP": ({"num_nodes": 8, "capacity": 12}, "savings"),
    "op:OP": ({"num_nodes": 8, "max_length": 1.6}, "greedy"),
    "knapsack:Knapsack": ({"num_items": 9}, "greedy"),
}
COUNT = 24


def solved(name: str, route_order: str = "fullest_first"):
    options, solver = SOLVERS[name]
    task = load_task(f"polyathlon.envs.combinatorial.{name}", **options)
    instance, labels = make_labels(task, COUNT, 3, solver)
    return task, as_choices(task, instance, labels.solution, route_order), labels


def cuts(task, labels, rows=256, seed=0, sampling="infix", augment=False):
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(COUNT, (rows,), generator=generator)
    return which, sample_sub_instances(task, labels, which, generator, sampling, augment)


@pytest.mark.parametrize("name", SOLVERS)
def test_choices_cost_what_the_solutions_cost(name):
    _, found, labels = solved(name)
    np.testing.assert_allclose(found.cost.numpy(), labels.cost, atol=1e-6)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_suffix_is_a_state_on_the_way_of_the_solution(name, monkeypatch):
    """Play the label; what the task shows at each step must be what a cut there shows, up to the order of open rows."""
    for module in (cvrp, op, tours):
        monkeypatch.setattr(module, "coin", lambda batch, generator: torch.zeros(batch, dtype=torch.bool))
    task, labels, _ = solved(name)
    generator = torch.Generator().manual_seed(0)
    seen = {}
    state = task.begin(torch.zeros(COUNT, 2, dtype=torch.int64), labels.instance)
    is_tour = name in ("tsp:TSP", "atsp:ATSP")
    for step in range(int(is_tour), labels.nodes.shape[1]):
        obs = task.observe(state)
        for i in range(COUNT):
            if labels.nodes[i, step] >= 0:
                seen[i, int(state.rows.num_open[i])] = ({k: v[i] for k, v in obs.items()}, state.allowed[i])
        node = labels.nodes[:, step].clamp(min=0)
        action = task.table.row_of(state.rows, node) * task.actions_per_row + (
            labels.via[:, step] if task.actions_per_row > 1 else 0
        )
        state, _, _ = task.step(state, action)
    compared = 0
    for _ in range(4):
        cut = sample_sub_instances(task, labels, torch.arange(COUNT), generator, "suffix", False)
        for i in range(COUNT):
            if name == "knapsack:Knapsack":  # whose items have no order
                continue
            obs, allowed = seen[i, int((cut.obs["kind"][i] == 3).sum())]
            mine = {k: v[i] for k, v in cut.obs.items()}
            compared += 1
            torch.testing.assert_close(mine["globals"], obs["globals"], atol=1e-5, rtol=0)
            torch.testing.assert_close(mine["nodes"][:2], obs["nodes"][:2])
            mine_rows, rows = (sorted(map(tuple, t["nodes"][2:].round(decimals=4).tolist())) for t in (mine, obs))
            assert mine_rows == rows
            assert int(cut.mask[i].sum()) == int(allowed.sum())
    assert compared >= 10 or name == "knapsack:Knapsack"


@pytest.mark.parametrize("sampling", ["infix", "suffix"])
@pytest.mark.parametrize("name", SOLVERS)
def test_targets_are_allowed_and_add_up_to_one(name, sampling):
    task, labels, _ = solved(name)
    _, cut = cuts(task, labels, sampling=sampling)
    torch.testing.assert_close(cut.target.sum(1), torch.ones(256))
    assert bool((cut.mask | (cut.target == 0)).all())
    own = torch.stack([cut.obs["kind"][i] == 3 for i in range(256)])
    rows = cut.target.view(256, task.table.num_rows, -1).sum(2) > 0
    assert bool((own | ~rows).all())


def test_tours_are_cut_at_all_lengths_with_the_closed_one():
    task, labels, _ = solved("tsp:TSP")
    _, cut = cuts(task, labels, rows=2000)
    lengths = (cut.obs["kind"] != 0).sum(1)
    assert lengths.unique().tolist() == list(range(4, 10))
    closed = lengths == 9
    nodes = cut.obs["nodes"]
    assert torch.equal(nodes[closed, 0], nodes[closed, 1]) and not torch.equal(nodes[~closed, 0], nodes[~closed, 1])
    _, cut = cuts(task, labels, rows=2000, sampling="suffix")
    lengths = (cut.obs["kind"] != 0).sum(1)
    assert lengths.unique().tolist() == list(range(3, 9))  # the released code never shows the closed tour


@pytest.mark.parametrize("name", ["tsp:TSP", "atsp:ATSP"])
def test_every_cut_of_an_optimal_tour_is_an_optimal_path(name):
    from itertools import permutations

    task, labels, _ = solved(name)
    which, cut = cuts(task, labels, rows=40)
    for i in range(40):
        count = int((cut.obs["kind"][i] != 0).sum())
        if "distances" in cut.obs:
            d = among_rows(cut.obs)["distances"][i].double()
        else:
            xy = cut.obs["nodes"][i].double()
            d = torch.cdist(xy, xy)

        def length(path, d=d):
            return float(sum(d[a, b] for a, b in itertools.pairwise(path)))

        best = min(length((0, *order, 1)) for order in permutations(range(2, count)))
        following = cut.position[i, :count].argsort()
        path = [row for row in following.tolist() if row > 1]
        assert length((0, *path, 1)) == pytest.approx(best, abs=1e-5)
        assert path[0] == int(cut.target[i].argmax())


def test_mirrored_instances_keep_their_solutions():
    task, labels, _ = solved("tsp:TSP")
    which, plain = cuts(task, labels, seed=1)
    generator = torch.Generator().manual_seed(1)
    torch.randint(COUNT, (256,), generator=generator)
    turned = sample_sub_instances(task, labels, which, generator, "infix", True)
    assert not torch.equal(plain.obs["nodes"], turned.obs["nodes"])
    assert bool((turned.obs["nodes"] >= 0).all()) and bool((turned.obs["nodes"] <= 1).all())


def test_routes_are_sorted_by_the_capacity_they_leave():
    task, labels, _ = solved("cvrp:CVRP")
    _, as_given, _ = solved("cvrp:CVRP", "as_given")
    torch.testing.assert_close(labels.cost, as_given.cost)
    loads = []
    for i in range(COUNT):
        demand = labels.instance.nodes[i, labels.nodes[i], 2]
        loads.append(torch.zeros(9).index_add_(0, labels.via[i].cumsum(0), demand)[: int(labels.via[i].sum()) + 1])
    assert all(bool((load.diff() <= 1e-6).all()) for load in loads) and max(map(len, loads)) >= 3
    assert not torch.equal(labels.nodes, as_given.nodes)


def test_solutions_that_are_none_are_refused():
    task, labels, _ = solved("tsp:TSP")
    wrong = labels.nodes.clone()
    wrong[5, 3] = wrong[5, 2]
    with pytest.raises(UsageError, match="instance 5 is not feasible"):
        as_choices(task, labels.instance, wrong)
    with pytest.raises(UsageError, match="shape"):
        as_choices(task, labels.instance, wrong[0])
    with pytest.raises(UsageError, match="fullest_first"):
        as_choices(task, labels.instance, labels.nodes, "fullest")
    short = labels.nodes.clone()
    short[2, -1] = -1
    with pytest.raises(UsageError, match="instance 2 leaves nodes out"):
        as_choices(task, labels.instance, short)
    with pytest.raises(UsageError, match="sampling"):
        cuts(task, labels, sampling="prefix")


def test_the_loss_of_a_knapsack_by_hand():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]], requires_grad=True)
    target = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    loss = soft_cross_entropy(logits, target)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.940190, abs=1e-6)
    np.testing.assert_allclose(logits.grad[0], [0.143914, -0.263117, 0.087144, 0.032059], atol=1e-6)
    mask = torch.tensor([[True, True, False, True]])
    assert soft_cross_entropy(logits.detach(), target, mask).item() == pytest.approx(0.849012, abs=1e-6)
    equal = torch.zeros(1, 5)
    for count in (1, 3, 5):
        share = (torch.arange(5) < count).float()[None] / count
        assert soft_cross_entropy(equal, share).item() == pytest.approx(1.609438, abs=1e-6)
    assert soft_cross_entropy(logits.detach(), torch.zeros(1, 4)).item() == 0.0


@pytest.mark.parametrize("name", SOLVERS)
def test_the_loss_is_the_cross_entropy_of_the_policy(name):
    task, labels, _ = solved(name)
    _, cut = cuts(task, labels, rows=32)
    torch.manual_seed(0)
    policy = ConstructionAttentionPolicy(
        task.observation_space,
        task.action_space,
        lambda _: 1e-3,
        width=16,
        num_heads=2,
        num_layers=1,
        precision="float32",
    )
    loss = imitation_loss(policy, cut, with_edges=True)
    log_probs = policy.scores(cut.obs, True).logits.masked_fill(~cut.mask, -torch.inf).log_softmax(1)
    expected = -torch.where(cut.target > 0, cut.target * log_probs, 0.0).sum()
    torch.testing.assert_close(loss.choice, expected, atol=1e-3, rtol=1e-5)
    assert (loss.edges > 0) == (name != "knapsack:Knapsack") and 0 <= int(loss.right) <= 32


def test_labels_that_were_pruned_away_teach_nothing():
    task, labels, _ = solved("tsp:TSP")
    _, cut = cuts(task, labels, rows=64)
    torch.manual_seed(0)
    policy = ConstructionAttentionPolicy(
        task.observation_space, task.action_space, lambda _: 1e-3, width=16, num_heads=2, num_layers=1, neighbours=3
    )
    logits = policy.scores(cut.obs, True).logits
    is_seen = (logits > -1e8).float().mul(cut.target).sum(1) > 0.5
    assert 0 < int(is_seen.sum()) < 64
    loss = imitation_loss(policy, cut, with_edges=False)
    assert float(loss.choice) == pytest.approx(
        0.0, abs=1e-4
    )  # one open row is kept: no choice where it is the right one


def test_the_step_size_rises_and_falls():
    assert one_cycle(1.0, 0.1) == 0.0 and one_cycle(0.0, 0.1) == pytest.approx(0.0)
    assert one_cycle(0.95, 0.1) == pytest.approx(0.5 * 0.5 * (1 + np.cos(np.pi * 0.05)))
    assert one_cycle(0.5, 0.1) == pytest.approx(0.5) and one_cycle(1.0, 0.0) == 1.0
