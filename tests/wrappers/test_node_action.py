"""Rows of a table as points: which row an action means, masks, and which tasks are refused."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import polyathlon
from polyathlon.agents import CMORL, PPO, SAC
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers import ContinuousAction, NodeAction, VectorObservation


class Table(gym.Env):
    """Three rows of two features between 0 and 4; the second one is forbidden where `masked`."""

    nodes = np.array([[0, 0], [4, 4], [4, 0]], np.float32)

    def __init__(self, masked=False, low=0.0):
        self.masked = masked
        self.observation_space = gym.spaces.Dict(nodes=gym.spaces.Box(low, 4.0, (3, 2), np.float32))
        self.action_space = gym.spaces.Discrete(3)

    def _info(self):
        return {"action_mask": np.array([True, False, True])} if self.masked else {}

    def reset(self, *, seed=None, options=None):
        return {"nodes": self.nodes}, self._info()

    def step(self, action):
        return {"nodes": self.nodes[::-1].copy()}, float(action), False, False, self._info()


def test_an_action_means_the_nearest_row_in_the_units_of_the_bounds():
    env = NodeAction(Table())
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    env.reset()
    # the point is 2 + 4 a: (0, 0) is (2, 2), where all are equally far and the first is meant
    assert env.choice([0.0, 0.0]) == 0
    assert env.choice([0.1, 0.1]) == 1 and env.choice([0.1, -0.1]) == 2 and env.choice([-1, -1]) == 0
    assert [env.choice(env.point_of(i)) for i in range(3)] == [0, 1, 2]
    _, _, _, _, info = env.step(np.array([0.5, 0.5], np.float32))
    assert info["choice"] == 1
    assert env.choice([0.1, -0.1]) == 0  # the table turned round


def test_forbidden_rows_are_left_out_and_the_mask_is_no_longer_told():
    env = NodeAction(Table(masked=True))
    _, info = env.reset()
    assert "action_mask" not in info
    assert env.choice([1.0, 0.3]) == 2  # row 1 is nearer


@pytest.mark.parametrize(
    "env", [lambda: gym.make("CartPole-v1"), lambda: Table(low=-np.inf), lambda: gym.make("polyathlon/CVRP-v0")]
)
def test_other_forms_are_refused(env):
    with pytest.raises(UsageError, match=r"rows of an observed table.*ContinuousAction"):
        NodeAction(env())


def test_adapt_puts_it_on_tables_and_leaves_other_choices_to_continuous_action():
    for agent in (SAC, CMORL):
        env = polyathlon.adapt(gym.make("polyathlon/TSP-v0", num_nodes=6), agent)
        assert isinstance(env, VectorObservation) and isinstance(env.env, NodeAction) and env.action_space.shape == (2,)
    kept = polyathlon.adapt(gym.make("polyathlon/TSP-v0", num_nodes=6), SAC, dimensions=4)
    assert kept.action_space.shape == (4,)
    calls = "polyathlon/FunctionCall-v0"  # eight candidates of sixteen features
    assert polyathlon.adapt(calls, SAC).action_space.shape == (8,)
    assert polyathlon.adapt(calls, SAC, by_features=True).action_space.shape == (16,)
    assert isinstance(polyathlon.adapt(calls, CMORL).action_space, gym.spaces.Discrete)
    cvrp = polyathlon.adapt(gym.make("polyathlon/CVRP-v0", num_nodes=6), SAC)
    assert not isinstance(cvrp.env, NodeAction)


def test_the_nearest_city_is_reached_by_naming_where_one_stands():
    env = polyathlon.adapt(gym.make("polyathlon/TSP-v0", num_nodes=8), SAC)
    env.reset(seed=0)
    inner, total, over = env.env, 0.0, False
    random = []
    while not over:
        origin = inner.codes[0]  # the first row is where one stands
        _, reward, terminated, truncated, _ = env.step((origin - 0.5).astype(np.float32))
        total, over = total + reward, terminated or truncated
    for seed in range(20):
        env.reset(seed=0)
        env.action_space.seed(seed)
        paid, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            paid, over = paid + reward, terminated or truncated
        random.append(paid)
    assert total > np.mean(random)


def test_columns_are_the_features_by_which_rows_are_chosen():
    env = NodeAction(Table(), columns=[-1])
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation, _ = env.reset()
    assert observation["nodes"].shape == (3, 2)  # all of them are still seen
    # by the second feature alone, 0, 4 and 0: row 1 is the only one that has much of it
    assert env.choice([0.1]) == 1 and env.choice([-0.1]) == 0
    assert np.array_equal(env.point_of(1), np.float32([0.5]))
    both = NodeAction(Table(), columns=[1, 0])
    both.reset()
    assert both.choice([-0.3, 0.3]) == 2  # (4, 0): little of the second, much of the first


@pytest.mark.parametrize("columns", [[], [2], [-3], [0, 0], [1, -1], [0.5], [True], "1", 1])
def test_impossible_columns_are_refused(columns):
    with pytest.raises(
        UsageError, match=r"columns are different numbers of features, -2 to 1.*the rows have 2 features"
    ):
        NodeAction(Table(), columns=columns)


def test_rows_that_are_not_seen_are_still_chosen_from():
    env = polyathlon.adapt("polyathlon/Widgets-v0", SAC, columns=[12, 18], sees_rows=False)
    assert env.observation_space.shape == (12,) and env.action_space.shape == (2,)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    observation, *_, info = env.step(np.ones(2, np.float32))
    assert env.observation_space.contains(observation) and 0 <= info["choice"] < 32
    with pytest.raises(UsageError, match=r"sees_rows=False hides nodes and kind, and nothing else is observed"):
        NodeAction(Table(), sees_rows=False)


def test_a_number_is_answered_by_the_candidate_that_is_nearest_to_it():
    words = {"task": "chain_sum", "config": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}}
    bare = gym.make("polyathlon/Reasoning-v0", **words)
    env = polyathlon.adapt(bare, SAC, numbers=2, columns=[-1], sees_rows=False)
    assert env.observation_space.shape == (2,) and env.action_space.shape == (1,)
    paid = []
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        # numbers are x / (2 unit) + 1/2 and candidates c / (8 unit) + 1/2: the sum is linear in what is seen
        paid.append(env.step(np.float32([(observation - 0.5).sum() / 4]))[1])
    assert np.mean(paid) == 1.0  # which shows that the form can say it, and not that it is computed anywhere


def test_who_takes_numbered_choices_too_chooses_by_features_where_that_is_said():
    calls = "polyathlon/FunctionCall-v0"
    assert isinstance(polyathlon.adapt(calls, PPO).action_space, gym.spaces.Discrete)
    for words in ({"columns": [0, 1]}, {"by_features": True}):
        assert isinstance(polyathlon.adapt(calls, PPO, **words), NodeAction)
    # numbers are numbers where by_features=False says so, and an option of the wrapper that is not put on is refused
    with pytest.raises(UsageError, match="columns"):
        polyathlon.adapt(calls, PPO, by_features=False, columns=[0])


def test_of_equal_rows_the_first_is_taken():
    rng = np.random.default_rng(
        0
    )  # one in fifty of these tables took a later one: a matrix product adds rows in different orders
    tables = [rng.random((3, 7), dtype=np.float32)[rng.integers(0, 3, 30)] for _ in range(200)]
    env = NodeAction(gym.make("polyathlon/TSP-v0", num_nodes=5))
    env._middle, env._width = np.zeros(7, np.float32), np.ones(7, np.float32)
    for table in tables:
        env._take(table)
        row = env._nearest(0, rng.uniform(-1, 1, 7).astype(np.float32), None)
        assert row == int(np.flatnonzero((table == table[row]).all(1))[0])


@pytest.mark.parametrize("wrapper", [NodeAction, ContinuousAction])
def test_a_kept_state_goes_on_with_its_mask_and_rows(wrapper):
    def make():
        return wrapper(gym.make("polyathlon/TSP-v0", num_nodes=8))

    env, other = make(), make()
    env.reset(seed=3)
    actions = np.random.default_rng(0).uniform(-1, 1, (7, *env.action_space.shape)).astype(np.float32)
    for action in actions[:3]:
        env.step(action)
    kept = env.get_state()
    wanted = [env.step(action)[4]["choice"] for action in actions[3:]]
    other.reset(seed=9)
    other.set_state(
        kept
    )  # the environment went back, and the wrapper chose by the mask and the rows of another episode
    assert [other.step(action)[4]["choice"] for action in actions[3:]] == wanted
