"""The travelling salesman problem on several maps: lengths against brute force, instances, errors."""

from __future__ import annotations

from itertools import permutations

import gymnasium as gym
import numpy as np
import pytest
import torch

import polyathlon  # noqa: F401
from polyathlon.envs.combinatorial.tours import tour_length
from polyathlon.envs.errors import UsageError

TASK = "polyathlon/MultiObjectiveTSP-v0"


def make(**options):
    return gym.make(TASK, disable_env_checker=True, **options)


def test_the_rewards_of_a_tour_add_up_to_its_length_on_every_map():
    env = make(num_nodes=7, num_objectives=3, reward="vector")
    xy = np.random.default_rng(0).uniform(size=(7, 3, 2)).astype(np.float32)
    order = [0, 3, 5, 1, 6, 2, 4]
    _, info = env.reset(seed=0, options={"instance": xy})
    total = np.zeros(3)
    for point in order[1:]:
        assert info["action_mask"][point]
        _, reward, terminated, _, info = env.step(point)
        total -= reward
    wanted = [float(tour_length(torch.tensor(xy[None, :, k]), torch.tensor([order]))[0]) for k in range(3)]
    assert terminated and total == pytest.approx(wanted, rel=1e-6)
    assert info["costs"] == pytest.approx(wanted, rel=1e-6) and info["solution"].tolist() == order


def test_the_scalar_reward_is_the_mean_of_the_vector():
    tours = [make(num_nodes=5, reward=reward) for reward in ("vector", "scalar")]
    for env in tours:
        env.reset(seed=4)
    for point in (2, 1, 4, 3):
        vector, number = (env.step(point)[1] for env in tours)
        assert number == pytest.approx(float(vector.mean()), rel=1e-6)


def test_the_front_of_a_small_instance_has_a_trade_off():
    env = make(num_nodes=6, reward="vector")
    points = set()
    for tour in permutations(range(1, 6)):
        env.reset(seed=0)
        points.add(tuple(np.round(sum(env.step(point)[1] for point in tour), 4)))
    best = [p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)]
    assert len(best) > 1


def test_observations_show_both_maps_and_where_the_path_stands():
    env = make(num_nodes=4, reward="vector")
    xy = np.linspace(0, 1, 16).reshape(4, 2, 2)
    obs, _ = env.reset(options={"instance": xy})
    np.testing.assert_allclose(obs["nodes"], xy.reshape(4, 4), rtol=1e-6)
    assert obs["kind"].tolist() == [1, 3, 3, 3]
    assert env.step(2)[0]["kind"].tolist() == [2, 3, 1, 3]


def test_a_point_that_was_visited_is_paid_for_on_every_map():
    env = make(num_nodes=4, reward="vector")
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step(0)
    assert terminated and info["illegal_action"] and reward == pytest.approx([-4 * 2**0.5] * 2)


def test_bad_input_is_refused():
    with pytest.raises(UsageError, match="at least 2"):
        make(num_objectives=1)
    with pytest.raises(UsageError, match="unknown reward"):
        make(reward="pair")
    env = make(num_nodes=4)
    for instance, hint in ((np.zeros((4, 2)), "shape"), (np.full((4, 2, 2), 2.0), "outside"), ("map", "shape")):
        with pytest.raises(UsageError, match=hint):
            env.reset(options={"instance": instance})
    with pytest.raises(UsageError, match="reset option"):
        env.reset(options={"xy": 0})
