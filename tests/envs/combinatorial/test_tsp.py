"""The travelling salesman problem: dynamics, masks, information, options."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from polyathlon.envs.combinatorial.instances import augment8
from polyathlon.envs.combinatorial.solvers import solve
from polyathlon.envs.combinatorial.tours import tour_length
from polyathlon.envs.combinatorial.tsp import TSP
from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import choice, make_keys
from polyathlon.envs.tensor.trees import leaves

FIVE = [[0.0, 0.0], [0.0, 1.0], [2.0, 1.0], [2.0, 0.0], [1.0, 2.0]]  # a, b, c, d, e
MDPS = ["bq", "direct"]


def keys(rows: int, seed: int = 0) -> torch.Tensor:
    return make_keys(torch.arange(seed, seed + rows), torch.zeros(rows, dtype=torch.int64))


def play(task: TSP, state, points):
    """Visit points, [B, k], in order; return the states and rewards after each step."""
    steps = []
    for point in torch.as_tensor(points).T:
        state, reward, terminated = task.step(state, task.action_of(state, point))
        steps.append((state, reward, terminated))
    return steps


def random_orders(rows: int, n: int, seed: int = 0) -> torch.Tensor:
    """Draw a random order of the points 1 ... n - 1 for each row."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, n - 1, generator=generator).argsort(1) + 1


@pytest.mark.parametrize("mdp", MDPS)
@pytest.mark.parametrize(
    ("order", "edges"),
    [
        ([1, 4, 2, 3], [1.0, math.sqrt(2), math.sqrt(2), 1.0 + 2.0]),
        ([1, 2, 3, 4], [1.0, 2.0, 1.0, 2 * math.sqrt(5)]),
        ([4, 3, 2, 1], [math.sqrt(5), math.sqrt(5), 1.0, 2.0 + 1.0]),
    ],
)
def test_rewards_are_the_edges_of_a_tour_by_hand(mdp, order, edges):
    task = TSP(num_nodes=5, mdp=mdp)
    steps = play(task, task.reset(keys(1), {"instance": FIVE}), [order])
    assert [float(reward) for _, reward, _ in steps] == pytest.approx([-edge for edge in edges], rel=1e-6)
    assert [bool(terminated) for *_, terminated in steps] == [False, False, False, True]
    info = task.info(steps[-1][0])
    assert float(info["cost"]) == pytest.approx(sum(edges), rel=1e-6)
    assert info["solution"].tolist() == [[0, *order]]
    assert info["cost"].dtype == torch.float64 and steps[-1][1].dtype == torch.float32


def values_by_search(task: TSP, state) -> float:
    """Return the best return from a state by trying every sequence of actions."""
    best = -math.inf
    for action in task.mask(state)[0].nonzero()[:, 0]:
        after, reward, terminated = task.step(state, action[None])
        best = max(best, float(reward) + (0.0 if terminated else values_by_search(task, after)))
    return best


@pytest.mark.parametrize("mdp", MDPS)
def test_optimal_values_of_the_hand_example(mdp):
    task = TSP(num_nodes=5, mdp=mdp)
    start = task.reset(keys(1), {"instance": FIVE})
    after = {point: play(task, start, [[point]])[0] for point in (1, 2, 3, 4)}
    values = {point: float(reward) + values_by_search(task, state) for point, (state, reward, _) in after.items()}
    assert values == pytest.approx({1: -6.828427, 3: -6.828427, 2: -7.886350, 4: -7.886350}, abs=1e-5)
    state = play(task, start, [[1, 2]])[-1][0]
    assert values_by_search(task, state) == pytest.approx(-5.472136, abs=1e-5)


def test_partial_tours_with_the_same_rest_are_one_reduced_state():
    task = TSP(num_nodes=7, dtype="float64")
    start = task.reset(keys(1))
    tours, values, masks = 0, {}, {}

    def visit(state, last: int, seen: frozenset[int]) -> float:
        nonlocal tours
        tours += 1
        table = task.observe(state)
        rows = torch.cat([table["nodes"][0], table["kind"][0].unsqueeze(1)], dim=1)
        rows = torch.cat([rows[:2], torch.stack(sorted(rows[2:], key=lambda row: row.tolist()))])
        best = 0.0 if len(seen) == 7 else -math.inf
        for point in set(range(7)) - seen:
            after, reward, _ = play(task, state, [[point]])[0]
            best = max(best, float(reward) + visit(after, point, seen | {point}))
        known = values.setdefault((last, seen), (rows, best))
        torch.testing.assert_close(known[0], rows, rtol=0.0, atol=0.0)
        assert known[1] == pytest.approx(best, abs=1e-6)
        masks[last, seen] = int(task.mask(state).sum())
        return best

    best = visit(start, 0, frozenset({0}))
    assert tours == 1957 and len(values) == 1 + 6 * 2**5
    assert all(count == 7 - len(seen) for (_, seen), count in masks.items() if len(seen) < 7)
    assert best == pytest.approx(-float(solve("tsp", start.instance.xy, "brute_force").cost[0]), abs=1e-5)


@pytest.mark.parametrize("n", [2, 3, 20])
def test_both_formulations_give_the_same_rewards(n):
    direct, reduced = TSP(num_nodes=n, mdp="direct"), TSP(num_nodes=n)
    orders = random_orders(64, n)
    steps = [play(task, task.reset(keys(64)), orders) for task in (direct, reduced)]
    for (a, reward_a, done_a), (b, reward_b, done_b) in zip(*steps):
        assert torch.equal(reward_a, reward_b) and torch.equal(done_a, done_b)
        for name in ("solution", "cost"):
            assert torch.equal(direct.info(a)[name], reduced.info(b)[name])


@pytest.mark.parametrize("mdp", MDPS)
@pytest.mark.parametrize("reward", ["dense", "sparse"])
def test_the_return_is_minus_the_length_of_the_tour(mdp, reward):
    task = TSP(num_nodes=30, mdp=mdp, reward=reward)
    start = task.reset(keys(128))
    orders = random_orders(128, 30)
    steps = play(task, start, orders)
    rewards = torch.stack([step[1].double() for step in steps])
    tours = torch.cat([torch.zeros(128, 1, dtype=torch.int64), orders], dim=1)
    expected = tour_length(start.instance.xy, tours)
    torch.testing.assert_close(-rewards.sum(0), expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(task.info(steps[-1][0])["cost"], expected, rtol=1e-12, atol=1e-12)
    assert (rewards[:-1] == 0).all() == (reward == "sparse")


@pytest.mark.parametrize("mdp", MDPS)
def test_the_mask_allows_the_open_points_and_only_them(mdp):
    task = TSP(num_nodes=12, mdp=mdp)
    state, rows = task.reset(keys(32)), torch.arange(32)
    visited = [{0} for _ in rows]
    for step in range(11):
        mask, orig, kind = task.mask(state), task.info(state)["orig"], task.observe(state)["kind"]
        assert torch.equal(mask, kind == 3)
        for row in rows.tolist():
            allowed = orig[row][mask[row]].tolist()
            assert sorted(allowed) == sorted(set(range(12)) - visited[row])
        action = choice(state.key, step, mask)
        for row, point in enumerate(orig[rows, action].tolist()):
            visited[row].add(point)
        state, _, terminated = task.step(state, action)
        assert bool((terminated == (step == 10)).all())
    assert task.mask(state).all()


@pytest.mark.parametrize("mdp", MDPS)
def test_the_table_shows_the_points_that_remain(mdp):
    task = TSP(num_nodes=5, mdp=mdp)
    start = task.reset(keys(1), {"instance": np.array(FIVE) / 2})
    state = play(task, start, [[2, 4]])[-1][0]
    seen, orig = task.observe(state), task.info(state)["orig"][0]
    by_kind = {
        kind: sorted(orig[row].item() for row in range(len(orig)) if seen["kind"][0, row] == kind) for kind in (1, 2, 3)
    }
    assert by_kind == {1: [4], 2: [0], 3: [1, 3]}
    for row, point in enumerate(orig.tolist()):
        if point >= 0:
            assert seen["nodes"][0, row].tolist() == [coordinate / 2 for coordinate in FIVE[point]]
    assert float(seen["globals"]) == 2 / 4
    if mdp == "direct":
        assert seen["visited"].tolist() == [[1, 0, 1, 0, 1]]
        assert seen["first"].tolist() == [[0]] and seen["last"].tolist() == [[4]]
    else:
        assert seen["nodes"][0, 4:].eq(0).all() and orig[4:].tolist() == [-1, -1]


@pytest.mark.parametrize("mdp", MDPS)
def test_numbering_the_points_differently_changes_nothing(mdp):
    task = TSP(num_nodes=15, mdp=mdp)
    start, orders = task.reset(keys(16)), random_orders(16, 15)
    number = torch.cat([torch.tensor([0]), torch.randperm(14, generator=torch.Generator().manual_seed(1)) + 1])
    moved = torch.empty_like(start.instance.xy)
    moved[:, number] = start.instance.xy
    other = task.reset(keys(16, seed=99), {"instance": moved})
    a, b = play(task, start, orders), play(task, other, number[orders])
    for (_, reward_a, _), (_, reward_b, _) in zip(a, b):
        torch.testing.assert_close(reward_a, reward_b, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(number[task.info(a[-1][0])["solution"]], task.info(b[-1][0])["solution"])


def test_the_symmetries_of_the_square_keep_every_length():
    task = TSP(num_nodes=11)
    start, orders = task.reset(keys(4)), random_orders(4, 11)
    images = augment8(start.instance.xy)
    assert images.shape == (32, 11, 2) and torch.equal(images[:4], start.instance.xy)
    assert len({tuple(image.flatten().tolist()) for image in images}) == 32
    steps = play(task, task.reset(keys(32), {"instance": images}), orders.repeat(8, 1))
    cost = task.info(steps[-1][0])["cost"].reshape(8, 4)
    torch.testing.assert_close(cost, cost[:1].expand(8, 4), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mdp", MDPS)
def test_smaller_instances_are_padded(mdp):
    task = TSP(num_nodes=9, mdp=mdp)
    state = task.reset(keys(1), {"instance": FIVE, "reference": 6.828427})
    assert int(task.mask(state).sum()) == 4
    orig = task.info(state)["orig"][0].tolist()
    # the reduced table shows point 0 twice, as origin and destination
    assert sorted(orig) == [-1] * 4 + [0] * (mdp == "bq") + [0, 1, 2, 3, 4]
    steps = play(task, state, [[1, 2, 3, 4]])
    info = task.info(steps[-1][0])
    assert bool(steps[-1][2]) and info["solution"].tolist() == [[0, 1, 2, 3, 4, -1, -1, -1, -1]]
    cost = 4.0 + 2 * math.sqrt(5)
    assert float(info["cost"]) == pytest.approx(cost, rel=1e-6)
    assert float(info["gap"]) == pytest.approx(cost / 6.828427 - 1, rel=1e-6)
    assert task.info(state)["gap"].tolist() == [math.inf]
    unknown = play(task, task.reset(keys(1), {"instance": FIVE}), [[1, 2, 3, 4]])[-1][0]
    assert task.info(unknown)["gap"].tolist() == [math.inf]


def test_an_instance_in_its_own_units_is_seen_in_the_unit_square():
    task = TSP(num_nodes=5)
    state = task.reset(keys(2), {"instance": np.array(FIVE) * 100.0 - 50.0})
    nodes = task.observe(state)["nodes"]
    assert float(nodes.min()) == 0.0 and float(nodes.max()) == 1.0
    steps = play(task, state, [[1, 4, 2, 3]] * 2)
    assert task.info(steps[-1][0])["cost"].tolist() == pytest.approx([682.8427, 682.8427], rel=1e-6)
    assert task.illegal_reward(state).tolist() == pytest.approx([-5 * math.sqrt(2) * 200] * 2)


def test_the_penalty_bounds_every_tour():
    task = TSP(num_nodes=10)
    state = task.reset(keys(3))
    assert task.illegal_reward(state).tolist() == pytest.approx([-10 * math.sqrt(2)] * 3)


@pytest.mark.parametrize("mdp", MDPS)
def test_observations_lie_in_their_space(mdp):
    for dtype in ("float32", "float64"):
        task = TSP(num_nodes=6, mdp=mdp, dtype=dtype)
        state = task.reset(keys(3))
        for step in range(7):  # two steps more than there are points: what comes after the end must not fail
            seen = {name: value.numpy() for name, value in task.observe(state).items()}
            for row in range(3):
                assert task.observation_space.contains({name: value[row] for name, value in seen.items()})
            assert task.action_space.n == task.mask(state).shape[1]
            state, _, _ = task.step(state, choice(state.key, step, task.mask(state)))


@pytest.mark.parametrize("mdp", MDPS)
def test_steps_leave_the_state_before_as_it_was(mdp):
    task = TSP(num_nodes=8, mdp=mdp)
    state = task.reset(keys(4))
    before = [leaf.clone() for leaf in leaves(state)]
    task.step(state, task.mask(state).int().argmax(1))
    task.observe(state), task.info(state)
    for a, b in zip(before, leaves(state)):
        torch.testing.assert_close(a, b, rtol=0.0, atol=0.0, equal_nan=True)


def test_a_row_does_not_depend_on_its_neighbours():
    task = TSP(num_nodes=10, distribution="clusters")
    many, alone = task.reset(keys(64)), task.reset(keys(64)[17:18])
    assert torch.equal(many.instance.xy[17], alone.instance.xy[0])


@pytest.mark.parametrize("mdp", MDPS)
@pytest.mark.parametrize("reward", ["dense", "sparse"])
def test_step_survives_a_compiler(mdp, reward):
    task = TSP(num_nodes=7, mdp=mdp, reward=reward)
    torch._dynamo.reset()
    compiled = torch.compile(task.step, fullgraph=True, backend="aot_eager")
    state, twin = task.reset(keys(5)), task.reset(keys(5))
    for step in range(6):
        action = choice(state.key, step, task.mask(state))
        state, reward_a, done_a = task.step(state, action)
        twin, reward_b, done_b = compiled(twin, action)
        assert torch.equal(reward_a, reward_b) and torch.equal(done_a, done_b)
    assert all(torch.equal(a, b) for a, b in zip(leaves(state), leaves(twin)) if a.dtype != torch.float64)
    torch.testing.assert_close(state.cost, twin.cost)


def test_pictures_and_words():
    task = TSP(num_nodes=5)
    start = task.reset(keys(1), {"instance": FIVE})
    steps = play(task, start, [[1, 4, 2, 3]])
    assert task.render_text(steps[0][0], 0) == "0 - 1   length 1.000000"
    assert task.render_text(steps[-1][0], 0) == "0 - 1 - 4 - 2 - 3 - 0   length 6.828427"
    first, last = task.render(start, 0), task.render(steps[-1][0], 0)
    assert first.shape == last.shape == (320, 320, 3) and first.dtype == np.uint8
    assert (first != last).any(axis=2).mean() > 0.01


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_nodes": 1}, "num_nodes must be an integer of at least 2, got 1"),
        ({"num_nodes": 0}, "got 0"),
        ({"num_nodes": 5.0}, "got 5.0"),
        ({"num_nodes": True}, "got True"),
        ({"mdp": "bc"}, "bq"),
        ({"reward": "spares"}, "sparse"),
        ({"distribution": "unifrom"}, "uniform"),
        ({"dtype": "float16"}, "float32"),
        ({"device": "quantum"}, "cpu"),
    ],
)
def test_wrong_options_are_refused(options, text):
    with pytest.raises(UsageError, match=text):
        TSP(**options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"instanse": FIVE}, "instance"),
        ({"instance": [[0.0, 1.0]]}, "2 to 5 points here, got 1"),
        ({"instance": [[0.0, 0.0]] * 6}, "larger num_nodes"),
        ({"instance": [[0.0, math.nan]] * 3}, "not finite"),
        ({"instance": [[1e308, 0.0], [-1e308, 0.0]]}, "scale its coordinates down"),
        ({"instance": [1.0, 2.0]}, "shape"),
        ({"instance": "berlin52"}, "array of coordinates"),
        ({"instance": [FIVE] * 3}, "for every row"),
        ({"instance": {"xy": FIVE, "cost": 1}}, "reference"),
        ({"instance": {"reference": 1.0}}, "needs the entry 'xy'"),
        ({"instance": FIVE, "reference": -1.0}, "positive cost"),
        ({"instance": FIVE, "reference": [1.0, 2.0, 3.0]}, "positive cost"),
        ({"reference": 1.0}, "belongs to an 'instance'"),
    ],
)
def test_malformed_instances_are_refused(options, text):
    with pytest.raises(UsageError, match=text):
        TSP(num_nodes=5).reset(keys(2), options)
