"""The networks of BQ-NCO: what they may and may not see."""

from __future__ import annotations

import gymnasium as gym
import pytest
import torch

from polyathlon.agents.construction.policies import ConstructionAttentionPolicy, ReZeroPolicy
from polyathlon.agents.construction.table_rows import select_rows, spread_logits
from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import choice, make_keys
from polyathlon.envs.tensor import load_task

TASKS = {
    "tsp:TSP": {"num_nodes": 9},
    "atsp:ATSP": {"num_nodes": 9},
    "cvrp:CVRP": {"num_nodes": 8},
    "op:OP": {"num_nodes": 8},
    "knapsack:Knapsack": {"num_items": 9},
}
POLICIES = {
    ConstructionAttentionPolicy: {"width": 16, "num_layers": 2, "num_heads": 2},
    ReZeroPolicy: {"width": 16, "num_layers": 2, "num_heads": 2, "hidden": 32},
}


def task_named(name: str, **options):
    return load_task(f"polyathlon.envs.combinatorial.{name}", **{**TASKS[name], **options})


def keys(rows: int, seed: int = 0) -> torch.Tensor:
    return make_keys(torch.arange(seed, seed + rows), torch.zeros(rows, dtype=torch.int64))


def walk(task, rows: int, steps: int):
    """Return states some random steps away from the start."""
    state = task.reset(keys(rows))
    for t in range(steps):
        state, _, _ = task.step(state, choice(keys(rows, 100 + t), t, state.allowed))
    return state


def policy_for(policy_class, task, **options):
    torch.manual_seed(0)
    options = {**POLICIES[policy_class], "precision": "float32", **options}
    policy = policy_class(task.observation_space, task.action_space, lambda _: 1e-3, **options)
    with torch.no_grad():  # ReZero shows nothing of its blocks at the start
        for name, parameter in policy.named_parameters():
            if name.endswith("alpha"):
                parameter.fill_(0.3)
    return policy


@pytest.mark.parametrize("policy_class", POLICIES)
@pytest.mark.parametrize("name", TASKS)
def test_permuting_open_rows_permutes_the_logits(name, policy_class):
    task = task_named(name)
    state = walk(task, 5, 2)
    obs = task.observe(state)
    num_open = int(state.rows.num_open[0])
    first = task.table.first_open
    order = torch.arange(task.table.num_rows)
    order[first : first + num_open] = first + torch.randperm(num_open, generator=torch.Generator().manual_seed(1))
    policy = policy_for(policy_class, task)
    a = task.actions_per_row
    before = policy.logits(obs).view(5, -1, a)[:, order]
    after = policy.logits(select_rows(obs, order.expand(5, -1))).view(5, -1, a)
    used = slice(first, first + num_open)
    torch.testing.assert_close(before[:, used], after[:, used], atol=2e-5, rtol=1e-4)
    assert before[:, used].std() > 1e-4


def test_a_bias_of_the_keys_changes_nothing():
    task = task_named("tsp:TSP")
    obs, policy = task.observe(walk(task, 3, 1)), policy_for(ReZeroPolicy, task)
    before = policy.logits(obs)
    with torch.no_grad():
        for block in policy.averaged.blocks:
            block.key.bias += 3.0
    torch.testing.assert_close(policy.logits(obs), before, atol=1e-5, rtol=1e-5)


def test_at_the_start_rezero_is_affine_in_each_row_alone():
    task = task_named("cvrp:CVRP")
    policy = policy_for(ReZeroPolicy, task)
    obs = task.observe(walk(task, 3, 0))
    with torch.no_grad():
        for block in policy.averaged.blocks:
            block.alpha.zero_()
    before = policy.logits(obs)
    moved = {**obs, "nodes": obs["nodes"].clone()}
    moved["nodes"][:, 4] += 0.125
    twice = {**obs, "nodes": obs["nodes"].clone()}
    twice["nodes"][:, 4] += 0.25
    first, second = (policy.logits(shown) - before for shown in (moved, twice))
    torch.testing.assert_close(second, 2 * first, atol=1e-5, rtol=1e-4)
    others = [i for i in range(before.shape[1]) if i // 2 != 4]
    assert first[:, others].abs().max() == 0.0 and first.abs().max() > 0.0


def test_the_papers_network_has_its_number_of_parameters():
    task = task_named("tsp:TSP", num_nodes=20)
    policy = ReZeroPolicy(task.observation_space, task.action_space, lambda _: 1e-3)
    assert sum(p.numel() for p in policy.network.parameters()) == pytest.approx(3_107_539, abs=1000)


@pytest.mark.parametrize("angle", [0.3, 2.0])
def test_the_scale_free_view_ignores_place_size_and_direction(angle):
    task = task_named("tsp:TSP", num_nodes=12)
    policy = policy_for(ConstructionAttentionPolicy, task, neighbours=6)
    obs = task.observe(walk(task, 4, 3))
    turn = torch.tensor([[torch.cos(torch.tensor(angle)), -torch.sin(torch.tensor(angle))], [0.0, 0.0]])
    turn[1] = torch.tensor([-turn[0, 1], turn[0, 0]])
    is_used = (obs["kind"] != 0).unsqueeze(2)
    moved = {**obs, "nodes": (obs["nodes"] @ turn.T * 0.4 + 0.2) * is_used}
    torch.testing.assert_close(policy.logits(moved), policy.logits(obs), atol=2e-4, rtol=1e-3)
    plain = policy_for(ReZeroPolicy, task)
    assert (plain.logits(moved) - plain.logits(obs)).abs().max() > 1e-3


@pytest.mark.parametrize("policy_class", POLICIES)
@pytest.mark.parametrize("name", TASKS)
def test_keeping_all_rows_is_no_pruning(name, policy_class):
    task = task_named(name)
    obs, policy = task.observe(walk(task, 4, 1)), policy_for(policy_class, task)
    rows = task.table.num_rows
    index = policy.problem.neighbours(obs, rows)
    pruned = spread_logits(policy.scores(select_rows(obs, index)).logits, index, rows)
    allowed = task.mask(walk(task, 4, 1))
    whole = policy.logits(obs)
    torch.testing.assert_close(pruned[allowed], whole[allowed], atol=2e-5, rtol=1e-4)
    assert torch.equal(policy.logits(obs, neighbours=rows), whole) and torch.equal(policy.logits(obs, rows + 5), whole)


@pytest.mark.parametrize("name", TASKS)
def test_pruning_keeps_the_ends_and_the_nearest(name):
    task = task_named(name)
    obs = task.observe(walk(task, 6, 1))
    index = policy_for(ConstructionAttentionPolicy, task).problem.neighbours(obs, 5)
    assert index.shape == (6, 5) and all(len(set(row)) == 5 for row in index.tolist())
    assert bool((obs["kind"].gather(1, index) != 0).all())
    if task.has_route:
        assert index[:, :2].tolist() == [[0, 1]] * 6
    if name == "tsp:TSP":
        distance = (obs["nodes"] - obs["nodes"][:, :1]).norm(dim=2).masked_fill(obs["kind"] != 3, 9.0)
        assert index[:, 2:].tolist() == distance.topk(3, largest=False).indices.tolist()


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_mask_is_read_off_the_observation(name, steps):
    task = task_named(name)
    state = walk(task, 64, steps)
    problem = policy_for(ReZeroPolicy, task).problem
    assert torch.equal(problem.allowed(task.observe(state)), task.mask(state))


def test_the_mask_of_the_direct_formulation_is_read_too():
    for name in TASKS:
        task = task_named(name, mdp="direct")
        state = walk(task, 32, 2)
        policy = policy_for(ReZeroPolicy, task)
        assert torch.equal(policy.problem.allowed(task.observe(state)), task.mask(state))
        assert policy.logits(task.observe(state)).shape == state.allowed.shape


def test_visited_rows_are_seen_in_the_direct_formulation():
    task = task_named("tsp:TSP", mdp="direct")
    obs = task.observe(walk(task, 2, 4))
    policy = policy_for(ReZeroPolicy, task)
    visited = int((obs["visited"][0] == 1).nonzero()[1])
    moved = {**obs, "nodes": obs["nodes"].clone()}
    moved["nodes"][:, visited] = 1.0 - moved["nodes"][:, visited]
    assert (policy.logits(moved) - policy.logits(obs)).abs().max() > 1e-6


def test_bad_options_are_refused():
    task, direct = task_named("tsp:TSP"), task_named("tsp:TSP", mdp="direct")
    for options in ({"width": 10, "num_heads": 4}, {"neighbours": 2}, {"neighbours": "few"}, {"precision": "float8"}):
        with pytest.raises(UsageError, match=next(iter(options))):
            policy_for(ConstructionAttentionPolicy, task, **options)
    with pytest.raises(UsageError, match='mdp="bq"'):
        policy_for(ConstructionAttentionPolicy, direct)
    with pytest.raises(UsageError, match='mdp="bq"'):
        policy_for(ReZeroPolicy, direct).logits(direct.observe(direct.reset(keys(1))), neighbours=3)
    with pytest.raises(UsageError, match="at least 3"):
        policy_for(ReZeroPolicy, task).logits(task.observe(task.reset(keys(1))), neighbours=1)
    with pytest.raises(UsageError, match="polyathlon/TSP-v0"):
        ConstructionAttentionPolicy(gym.spaces.Box(0, 1, (3,)), gym.spaces.Discrete(3), lambda _: 1e-3)
