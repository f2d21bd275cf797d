"""ContinuousAction: which choice a point means, masks, refusals, and that an agent with a Box plays real tasks."""

from __future__ import annotations

import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

import polyathlon  # noqa: F401 (registers the ids)
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import TEXT_PROBES
from polyathlon.envs.tensor.copies import copy_env
from polyathlon.wrappers import ContinuousAction, TokenAction
from polyathlon.wrappers.continuous_action import choice_codes


class Choices(gym.Env):
    """Remembers the last choice; the mask, if any, is told in the info or by a method."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)

    def __init__(self, n=4, start=0, mask=None, by_method=False):
        self.action_space = spaces.Discrete(n, start=start)
        self.mask, self.taken = mask, None
        if by_method:
            self.action_masks = lambda: self.mask
        self.tells = mask is not None and not by_method

    def _info(self):
        return {"action_mask": self.mask, "other": 1} if self.tells else {"other": 1}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), self._info()

    def step(self, action):
        assert self.action_space.contains(action)
        self.taken = int(action)
        return np.zeros(1, np.float32), 1.0, False, False, self._info()


def taken(env, action):
    env.reset(seed=0)
    *_, info = env.step(np.asarray(action, np.float32))
    assert info["choice"] == env.unwrapped.taken and info["other"] == 1 and "action_mask" not in info
    return info["choice"]


def test_one_axis_for_each_of_a_few_choices():
    env = ContinuousAction(Choices(4))
    assert env.action_space == spaces.Box(-1.0, 1.0, (4,), np.float32)
    assert taken(env, [-0.9, 0.1, 0.3, -1.0]) == 2
    assert taken(env, [0.5, 0.5, 0.5, 0.5]) == 0  # the first of equals


def test_two_choices_are_a_sign_and_one_choice_is_any_point():
    env = ContinuousAction(Choices(2))
    assert env.action_space.shape == (1,)
    assert [taken(env, [x]) for x in (-0.2, 0.2)] == [0, 1]
    assert taken(ContinuousAction(Choices(1)), [-0.7]) == 0


def test_the_first_choice_need_not_be_zero():
    assert taken(ContinuousAction(Choices(3, start=5)), [0.0, 0.0, 1.0]) == 7


@pytest.mark.parametrize("n", [1, 2, 3, 32, 33, 300])
def test_every_choice_can_be_taken(n):
    env = ContinuousAction(Choices(n), dimensions=32)
    env.reset()
    assert env.action_space.shape[0] <= 32
    assert [env.choice(env.point_of(i)) for i in range(n)] == list(range(n))
    assert all(env.action_space.contains(env.point_of(i)) for i in range(n))


def test_directions_are_the_same_everywhere():
    codes = choice_codes(300, 8)
    np.testing.assert_array_equal(codes, choice_codes(300, 8))
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, rtol=1e-6)
    # saved agents rely on these directions, so they must never change
    np.testing.assert_allclose(codes[0, :3], [0.3293258, -0.1724586, -0.0104585], atol=1e-6)


def test_codes_decide_by_distance():
    # nearest to 0.4 is 0.5, although the inner product with 1.0 is larger
    assert taken(ContinuousAction(Choices(3), codes=[[-1.0], [0.5], [1.0]]), [0.4]) == 1


@pytest.mark.parametrize("by_method", [False, True])
def test_forbidden_choices_are_left_out(by_method):
    env = ContinuousAction(Choices(4, mask=np.array([True, False, False, True]), by_method=by_method))
    assert taken(env, [-0.5, 1.0, 0.9, -0.4]) == 3
    _, info = env.reset()
    assert "action_mask" not in info
    env.unwrapped.mask = np.zeros(4, bool)
    env.reset()
    with pytest.raises(UsageError, match="no action at all"):
        env.step(np.zeros(4, np.float32))


def test_bad_actions_are_refused():
    env = ContinuousAction(Choices(3))
    env.reset()
    with pytest.raises(UsageError, match=r"shape \(3,\), got \(\)"):
        env.step(np.float32(1))
    with pytest.raises(UsageError, match="not finite"):
        env.step(np.array([0, np.nan, 0]))
    with pytest.raises(TypeError, match="3 numbers"):
        env.step("left")


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match="wraps Discrete, MultiDiscrete and MultiBinary actions"):
        ContinuousAction(gym.make("Pendulum-v1"))
    with pytest.raises(UsageError, match="TokenAction"):
        ContinuousAction(TEXT_PROBES["CopyAnswer"]())
    for dimensions in (0, 1, True, 2.5):
        with pytest.raises(UsageError, match="dimensions"):
            ContinuousAction(Choices(), dimensions=dimensions)
    with pytest.raises(UsageError, match="row for each of the 4"):
        ContinuousAction(Choices(4), codes=np.zeros((3, 2)))
    with pytest.raises(UsageError, match="between -1 and 1"):
        ContinuousAction(Choices(2), codes=[[0.0], [np.nan]])
    with pytest.raises(UsageError, match="share a point"):
        ContinuousAction(Choices(2), codes=[[0.5], [0.5]])


def test_gymnasium_finds_nothing_wrong_and_copies_are_equal():
    env = ContinuousAction(gym.make("CartPole-v1"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CartPole's own bounds, and that a wrapper is there
        check_env(env, skip_render_check=True)
    for twin in (copy_env(env), pickle.loads(pickle.dumps(env))):
        twin.action_space.seed(0)
        action = twin.action_space.sample()
        np.testing.assert_array_equal(env.reset(seed=3)[0], twin.reset(seed=3)[0])
        np.testing.assert_array_equal(env.step(action)[0], twin.step(action)[0])


def test_random_points_make_tours():
    env = ContinuousAction(gym.make("polyathlon/TSP-v0", num_nodes=8))
    env.action_space.seed(0)
    for seed in range(5):
        env.reset(seed=seed)
        chosen, ended = [], False
        while not ended:
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            chosen.append(info["choice"])
            assert not info.get("illegal_action", False)
            ended = terminated or truncated
        assert len(chosen) >= 7


def test_tasks_without_masks_are_left_as_they_are():
    env = ContinuousAction(gym.make("polyathlon/CartPole-v1"))
    _, info = env.reset(seed=0)
    observation, reward, *_ = env.step(np.array([0.3], np.float32))
    assert env.observation_space.contains(observation) and float(reward) == 1.0


def test_tokens_are_chosen_by_direction():
    env = ContinuousAction(TokenAction(TEXT_PROBES["CopyAnswer"](), max_new_tokens=2, max_length=64), dimensions=16)
    assert env.action_space.shape == (16,)
    observation, _ = env.reset(seed=0)
    token = 65
    observation, *_, info = env.step(env.point_of(token))
    assert info["choice"] == token
    assert observation["tokens"][int(observation["length"]) - 1] == token


class Several(Choices):
    """Three choices at once, the second counted from 5."""

    def __init__(self, mask=None, space=None):
        super().__init__(mask=mask)
        self.action_space = space or spaces.MultiDiscrete([2, 3, 40], start=[0, 5, 0])

    def step(self, action):
        assert self.action_space.contains(action)
        self.taken = action
        return np.zeros(1, np.float32), 1.0, False, False, self._info()


def test_several_choices_lie_side_by_side():
    env = ContinuousAction(Several())
    assert env.action_space.shape == (1 + 3 + 32,)
    point = np.concatenate([[-0.2], [0.1, 0.0, 0.9], choice_codes(40)[17]]).astype(np.float32)
    env.reset(seed=0)
    assert env.step(point)[4]["choice"].tolist() == [0, 7, 17] == env.unwrapped.taken.tolist()
    assert env.choice(env.point_of([1, 6, 39])).tolist() == [1, 6, 39]
    binary = ContinuousAction(Several(space=spaces.MultiBinary(3)))
    binary.reset(seed=0)
    assert binary.step(np.array([0.5, -0.5, 0.1], np.float32))[4]["choice"].tolist() == [1, 0, 1]
    check_env(ContinuousAction(Several()), skip_render_check=True)


def test_masks_of_several_choices_lie_side_by_side():
    mask = np.array([True, False, False, True, True] + [True] * 40)
    env = ContinuousAction(Several(mask))
    env.reset(seed=0)
    assert env.step(np.concatenate([[1.0], [1.0, 0.2, 0.1], choice_codes(40)[3]]).astype(np.float32))[4][
        "choice"
    ].tolist() == [0, 6, 3]
    env.unwrapped.mask = np.array([True, True, False, False, False] + [True] * 40)
    env.reset()
    with pytest.raises(UsageError, match="no action at all"):
        env.choice(np.zeros(36))
    with pytest.raises(UsageError, match="leave codes out"):
        ContinuousAction(Several(), codes=np.eye(3))


def test_a_state_holds_the_task_and_the_mask_of_the_next_choice():
    class Kept(Choices):
        def get_state(self):
            return {"taken": self.taken}

        def set_state(self, state):
            self.taken = state["taken"]

    mask = np.array([False, True, True, False])
    env, other = ContinuousAction(Kept(mask=mask)), ContinuousAction(Kept())
    taken(env, [1.0, 0.5, 0.0, 0.0])
    state = env.get_state()
    assert state["task"] == {"taken": 1} and state["mask"].tolist() == mask.tolist()
    other.reset(seed=0)
    assert other.get_state() == {"task": {"taken": None}, "mask": None}
    other.set_state(state)
    state["mask"][:] = False
    assert other.unwrapped.taken == 1 and other.get_state()["mask"].tolist() == mask.tolist()
    other.step(np.array([1.0, -1.0, 0.0, 0.9], np.float32))
    assert other.unwrapped.taken == 2
