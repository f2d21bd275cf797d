"""What the five combinatorial tasks have in common: one table, two formulations, two kinds of reward."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from polyathlon.envs.combinatorial.atsp import ATSP
from polyathlon.envs.combinatorial.conversions import play_solution
from polyathlon.envs.combinatorial.cvrp import CVRP
from polyathlon.envs.combinatorial.knapsack import Knapsack
from polyathlon.envs.combinatorial.op import OP
from polyathlon.envs.combinatorial.solutions import solution_cost
from polyathlon.envs.combinatorial.tsp import TSP
from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import choice, make_keys
from polyathlon.envs.tensor import make_vector
from polyathlon.envs.tensor.compiled import CompiledFunction
from polyathlon.envs.tensor.trees import leaves

TASKS = [TSP, ATSP, CVRP, OP, Knapsack]
MDPS = ["bq", "direct"]
by_task = pytest.mark.parametrize("make", TASKS)
by_mdp = pytest.mark.parametrize("mdp", MDPS)


def task_of(make, n: int, **options):
    return make(**{make.size_name: n}, **options)


def keys(rows: int, seed: int = 0) -> torch.Tensor:
    return make_keys(torch.arange(seed, seed + rows), torch.zeros(rows, dtype=torch.int64))


def rollout(task, state, seed: int = 0):
    """Play at random to the end of every row; return the last state of each row and its rewards, [B, T]."""
    generator, rewards, last = torch.Generator().manual_seed(seed), [], None
    alive = torch.ones(len(state.t), dtype=torch.bool)
    while alive.any():
        action = task.random_action(state, torch.rand(len(state.t), generator=generator))
        assert bool(task.mask(state).gather(1, action[:, None]).all())
        after, reward, is_over = task.step(state, action)
        rewards.append(torch.where(alive, reward.double(), 0.0))
        solution, cost = task.solution(after), after.cost
        last = (
            (solution, cost)
            if last is None
            else (torch.where(alive[:, None], solution, last[0]), torch.where(alive, cost, last[1]))
        )
        alive, state = alive & ~is_over, after
    return last[0], last[1], torch.stack(rewards, 1)


@by_task
@by_mdp
@pytest.mark.parametrize("reward", ["dense", "sparse"])
def test_the_return_is_minus_the_cost_computed_from_the_instance_alone(make, mdp, reward):
    task = task_of(make, 15, mdp=mdp, reward=reward)
    start = task.reset(keys(32))
    solution, cost, rewards = rollout(task, start)
    torch.testing.assert_close(rewards.sum(1), -cost, rtol=1e-6, atol=1e-5)
    for row in range(32):
        plain = task.plain(start.instance, row)
        assert float(cost[row]) == pytest.approx(solution_cost(make.__name__, plain, solution[row]), rel=1e-6)
    assert bool((rewards[:, :-1][:, : 1 if make in (OP, Knapsack) else None] == 0).all()) == (reward == "sparse")


@by_task
def test_both_formulations_give_the_same_rewards_step_by_step(make):
    reduced, direct = task_of(make, 12), task_of(make, 12, mdp="direct")
    starts = reduced.reset(keys(64)), direct.reset(keys(64))
    solution, cost, _ = rollout(reduced, starts[0])
    ends = [play_solution(task, start, solution) for task, start in zip((reduced, direct), starts)]
    assert torch.equal(ends[0][2], ends[1][2])
    for (end, actions, _), task in zip(ends, (reduced, direct)):
        assert bool(end.is_over.all()) and torch.equal(task.solution(end), solution)
        torch.testing.assert_close(end.cost, cost, rtol=0.0, atol=0.0)
        assert int(actions.max()) < task.action_space.n


@by_task
def test_both_formulations_allow_the_same_choices(make):
    reduced, direct = task_of(make, 9), task_of(make, 9, mdp="direct")
    states = [reduced.reset(keys(16)), direct.reset(keys(16))]

    def choices(task, state, row):
        numbers, k = task.table.numbers(state.rows, state.instance)[row], task.actions_per_row
        return sorted((int(numbers[a // k]), int(a % k)) for a in task.mask(state)[row].nonzero()[:, 0])

    for _ in range(9):
        chosen = []
        for row in range(16):
            if states[0].is_over[row]:
                chosen.append(-1)
                continue
            allowed = choices(reduced, states[0], row)
            assert allowed == choices(direct, states[1], row)
            chosen.append(allowed[(row * 7) % len(allowed)])
        for i, task in enumerate((reduced, direct)):
            nodes = torch.tensor([0 if c == -1 else c[0] for c in chosen])
            action = task.table.row_of(states[i].rows, nodes) * task.actions_per_row
            action = action + torch.tensor([0 if c == -1 else c[1] for c in chosen])
            states[i] = task.step(states[i], action)[0]


@by_task
@by_mdp
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_observations_lie_in_their_space_also_behind_the_end(make, mdp, dtype):
    task = task_of(make, 6, mdp=mdp, dtype=dtype)
    state = task.reset(keys(3))
    for step in range(9):
        seen = {name: value.numpy() for name, value in task.observe(state).items()}
        for row in range(3):
            assert task.observation_space.contains({name: value[row] for name, value in seen.items()})
        assert task.mask(state).shape == (3, task.action_space.n) and bool(task.mask(state).any(1).all())
        state, _, _ = task.step(state, choice(state.key, step, task.mask(state)))


@by_task
@by_mdp
def test_steps_leave_the_state_before_as_it_was(make, mdp):
    task = task_of(make, 8, mdp=mdp)
    state = task.reset(keys(4))
    before = [leaf.clone() for leaf in leaves(state)]
    task.step(state, task.mask(state).int().argmax(1))
    task.observe(state), task.info(state), task.random_action(state, torch.rand(4))
    for a, b in zip(before, leaves(state)):
        torch.testing.assert_close(a, b, rtol=0.0, atol=0.0, equal_nan=True)


@by_task
def test_a_row_does_not_depend_on_its_neighbours(make):
    task = task_of(make, 10)
    many, alone = task.generate(keys(40)), task.generate(keys(40)[17:18])
    for a, b in zip(leaves(many), leaves(alone)):
        torch.testing.assert_close(a[17:18], b, rtol=0.0, atol=0.0, equal_nan=True)


@by_task
@by_mdp
def test_an_instance_given_back_is_the_same_episode(make, mdp):
    task = task_of(make, 8, mdp=mdp)
    drawn = task.reset(keys(1))
    given = task.reset(keys(1, seed=9), {"instance": task.plain(drawn.instance, 0)})
    solution, cost, rewards = rollout(task, drawn)
    end, _, same = play_solution(task, given, solution)
    torch.testing.assert_close(same.double(), rewards[:, : same.shape[1]], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(end.cost, cost, rtol=1e-6, atol=1e-6)


@by_task
@by_mdp
def test_smaller_instances_are_padded_and_references_give_gaps(make, mdp):
    small, large = task_of(make, 5, mdp=mdp), task_of(make, 9, mdp=mdp)
    plain = small.plain(small.reset(keys(1)).instance, 0)
    start = small.reset(keys(1), {"instance": plain})
    solution, cost, _ = rollout(small, start)
    reference = float(cost) * 1.25
    given = large.reset(keys(2), {"instance": plain, "reference": reference})
    assert large.info(given)["gap"].tolist() == [math.inf] * 2
    end, _, _ = play_solution(large, given, solution.expand(2, -1))
    info = large.info(end)
    assert bool(end.is_over.all()) and info["cost"].tolist() == pytest.approx([float(cost)] * 2, rel=1e-6)
    # a solution that costs a fifth less than its reference; where a task collects, a fifth less collected
    gap = (float(cost) - reference) / abs(reference)
    assert info["gap"].tolist() == pytest.approx([gap] * 2, rel=1e-5)
    assert (gap > 0) == (make in (OP, Knapsack))
    assert info["orig"].shape == (2, large.table.num_rows) and int(info["orig"].max()) < int(given.instance.size[0])


@by_task
@by_mdp
def test_step_survives_a_compiler(make, mdp):
    task = task_of(make, 6, mdp=mdp)
    torch._dynamo.reset()
    compiled = torch.compile(task.step, fullgraph=True, backend="aot_eager")
    state, twin = task.reset(keys(5)), task.reset(keys(5))
    for step in range(4):
        action = choice(state.key, step, task.mask(state))
        state, reward_a, done_a = task.step(state, action)
        twin, reward_b, done_b = compiled(twin, action)
        torch.testing.assert_close(reward_a, reward_b)
        assert torch.equal(done_a, done_b) and torch.equal(task.mask(state), task.mask(twin))


def test_a_compiled_function_keeps_equal_arguments_apart():
    # the first table of a knapsack is the instance itself; traced as one argument, nothing would ever be packed
    add = CompiledFunction(lambda a, b: (a + 1, b))
    x = torch.zeros(3)
    first, second = add(x, x)
    assert add(first, second)[0].tolist() == [2.0] * 3


@by_task
@by_mdp
def test_random_actions_are_uniform_over_the_allowed_ones(make, mdp):
    task = task_of(make, 5, mdp=mdp)
    start = task.reset(keys(1).expand(4000, -1).contiguous())
    state = task.step(start, task.random_action(start, torch.full((4000,), 0.3)))[0]
    allowed = task.mask(state)[0]
    actions = task.random_action(state, torch.rand(4000, generator=torch.Generator().manual_seed(1)))
    share = torch.bincount(actions, minlength=len(allowed)) / 4000
    assert bool((share[~allowed] == 0).all())
    torch.testing.assert_close(
        share[allowed], torch.full_like(share[allowed], 1 / int(allowed.sum())), rtol=0, atol=0.04
    )
    assert int(task.random_action(state, torch.full((4000,), 1.0 - 2**-24)).max()) == int(allowed.nonzero()[-1])


@by_task
@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_vector_environments_play_whole_episodes(make, autoreset):
    vec = make_vector(make, 6, output="torch", autoreset_mode=autoreset, **{make.size_name: 7})
    _, info = vec.reset(seed=3)
    ended = torch.zeros(6, dtype=torch.int64)
    for step in range(20):
        action = choice(vec.state.key, step, info["action_mask"])
        _, _, terminated, truncated, info = vec.step(action)
        assert not bool(truncated.any()) and not bool(info["illegal_action"].any())
        ended += terminated
    assert bool((ended >= 2).all())


@by_task
def test_pictures_and_words(make):
    task = task_of(make, 6)
    start = task.reset(keys(2))
    state = start
    for step in range(3):
        state = task.step(state, choice(state.key, step, task.mask(state)))[0]
    first, later = task.render(start, 1), task.render(state, 1)
    assert first.shape == later.shape == (320, 320, 3) and first.dtype == np.uint8 and (first != later).any()
    assert f"{float(state.cost[1]):.6f}" in task.render_text(state, 1)


@pytest.mark.parametrize("make", [OP, Knapsack])
@by_mdp
def test_where_nothing_can_be_chosen_any_action_ends_the_episode_with_nothing(make, mdp):
    task = task_of(make, 2, mdp=mdp)
    instance = (
        {"xy": [[0, 0], [1, 1], [1, 0]], "prize": [1, 1], "max_length": 0.5}
        if make is OP
        else {"value": [3.0, 4.0], "weight": [2.0, 3.0], "capacity": 1.0}
    )
    state = task.reset(keys(1), {"instance": instance})
    assert bool(state.is_over) and bool(task.mask(state).all())
    before = task.observe(state)
    for action in range(task.action_space.n):
        after, reward, is_over = task.step(state, torch.tensor([action]))
        assert float(reward) == 0.0 and bool(is_over) and float(after.cost) == 0.0
        assert int((task.solution(after) > 0).sum()) == 0
        for name, value in task.observe(after).items():
            torch.testing.assert_close(value, before[name])
    vec = make_vector(make, 2, output="torch", autoreset_mode="disabled", mdp=mdp, **{make.size_name: 2})
    vec.reset(seed=0, options={"instance": instance})
    _, _, terminated, _, info = vec.step(torch.tensor([0, 1]))
    assert bool(terminated.all()) and not bool(info["illegal_action"].any())


@by_task
def test_unknown_options_are_refused(make):
    for option, text in (({"mdp": "bc"}, "bq"), ({"reward": "spares"}, "sparse"), ({make.size_name: 0}, "got 0")):
        with pytest.raises(UsageError, match=text):
            make(**option)
    with pytest.raises(UsageError, match="instance"):
        task_of(make, 5).reset(keys(1), {"instanse": 1})
    with pytest.raises(UsageError, match="belongs to an 'instance'"):
        task_of(make, 5).reset(keys(1), {"reference": 1.0})
