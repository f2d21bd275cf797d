"""Interfaces of a tensor task: seeds, time limits, resets, masks, state.

Modules: polyathlon.envs.tensor.gym_env, polyathlon.envs.tensor.vector_env, polyathlon.envs.tensor.make.
"""

from __future__ import annotations

import copy
import pickle
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from polyathlon.envs import random
from polyathlon.envs.control.classic import CartPole, Pendulum
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor import TensorEnv, make_sb3, make_scalar, make_vector

MODES = list(AutoresetMode)
TABLE = np.random.default_rng(0).integers(0, 2, 1000)


class WalkState(NamedTuple):
    key: Tensor
    t: Tensor
    place: Tensor


class Walk(TensorEnv):
    """A walk on five places; masks forbid leaving them, reaching the last one ends it; two objectives, noisy steps."""

    reward_shape = (2,)
    max_episode_steps = 30

    def __init__(self, *, device="cpu", dtype=torch.float32):
        super().__init__(device=device, dtype=dtype)
        self.observation_space = spaces.Dict({"place": spaces.Box(0, 4, (), np.int64), "noise": spaces.Box(0, 1, (2,))})
        self.action_space = spaces.Discrete(3)

    def reset(self, keys, options=None):
        return WalkState(keys, torch.zeros_like(keys[:, 0]), random.integers(keys, 0, 0, 3))

    def step(self, state, action):
        after = WalkState(state.key, state.t + 1, (state.place + action - 1).clamp(0, 4))
        reward = torch.stack((after.place.float(), random.uniform(state.key, after.t)), 1)
        return after, reward, after.place == 4

    def observe(self, state, player=None):
        return {"place": state.place, "noise": random.uniform(state.key, state.t, (2,), stream=1)}

    def mask(self, state, player=None):
        moves = state.place[:, None] + torch.arange(-1, 2, device=state.t.device)
        return (moves >= 0) & (moves <= 4)

    def info(self, state):
        return {"place": state.place}


def rows_of(tree, row):
    if isinstance(tree, dict):
        return {name: rows_of(value, row) for name, value in tree.items()}
    return np.array(tree[row])


def scalar_episodes(task, seed, count, policy):
    """Return for each episode the list of (observation, reward, terminated, truncated)."""
    env, episodes = make_scalar(task), []
    for number in range(count):
        observation, _ = env.reset(seed=seed if number == 0 else None)
        episode, over = [(observation, None, False, False)], False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(policy(np.array([len(episode) - 1]))[0])
            episode.append((observation, reward, terminated, truncated))
            over = terminated or truncated
        episodes.append(episode)
    return episodes


def vector_episodes(env, row, count, policy, seed):
    """The same from one row of a vector environment, in any autoreset mode."""
    mode, is_torch = env.metadata["autoreset_mode"], getattr(env, "output", "numpy") == "torch"
    plain = (
        (lambda tree: {k: v.numpy() for k, v in tree.items()} if isinstance(tree, dict) else tree.numpy())
        if is_torch
        else lambda x: x
    )
    observation, _ = env.reset(seed=seed)
    episodes, episode = [], [(rows_of(plain(observation), row), None, False, False)]
    t, over = np.zeros(env.num_envs, np.int64), np.zeros(env.num_envs, bool)
    while True:
        if mode is AutoresetMode.DISABLED and over.any():
            observation, _ = env.reset(options={"reset_mask": over})
            t[over] = 0
            if over[row]:
                episode = [(rows_of(plain(observation), row), None, False, False)]
        action = policy(t)
        observation, reward, terminated, truncated, info = env.step(torch.as_tensor(action) if is_torch else action)
        reward, terminated, truncated = (np.asarray(x) for x in (reward, terminated, truncated))
        was_over, over = over, terminated | truncated
        t += 1
        if mode is AutoresetMode.NEXT_STEP:
            t[was_over] = 0
            if was_over[row]:
                assert not reward[row].any() and not over[row]
                episode = []
        seen = rows_of(plain(observation), row)
        if mode is AutoresetMode.SAME_STEP and over[row]:
            assert info["_final_obs"][row]
            final = rows_of(plain(info["final_obs"]), row) if is_torch else info["final_obs"][row]
            episodes.append([*episode, (final, reward[row], terminated[row], truncated[row])])
            episode = [(seen, None, False, False)]
        else:
            episode.append((seen, reward[row] if episode else None, terminated[row], truncated[row]))
            if over[row]:
                episodes.append(episode)
        if mode is AutoresetMode.SAME_STEP:
            t[over] = 0
        if len(episodes) == count:
            return episodes


def assert_same(first, second, exact=True):
    assert [len(episode) for episode in first] == [len(episode) for episode in second]
    compare = np.testing.assert_array_equal if exact else np.testing.assert_allclose
    for one, two in zip(first, second):
        for (obs1, reward1, *flags1), (obs2, reward2, *flags2) in zip(one, two):
            for name in obs1 if isinstance(obs1, dict) else [...]:
                compare(obs1[name], obs2[name], **({} if exact else {"rtol": 1e-4, "atol": 1e-5}))
            assert [bool(flag) for flag in flags1] == [bool(flag) for flag in flags2]
            if reward1 is not None:
                compare(np.float32(reward1), np.float32(reward2), **({} if exact else {"rtol": 1e-4}))


def cart_policy(t):
    return TABLE[t % 1000]


def walk_policy(t):
    return (t * t) % 3


@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("mode", MODES)
def test_an_episode_depends_on_seed_and_number_only(mode, output):
    for task, policy in ((CartPole, cart_policy), (Walk, walk_policy)):
        expected = scalar_episodes(task, 13, 5, policy)
        for rows, row in ((1, 0), (5, 3), (4096, 3)):
            env = make_vector(task, rows, output=output, autoreset_mode=mode)
            assert_same(expected, vector_episodes(env, row, 5, policy, 13 - row))


def test_the_same_in_gymnasiums_and_sb3s_vector_environments():
    expected = scalar_episodes(CartPole, 13, 4, cart_policy)
    sync = SyncVectorEnv([lambda: make_scalar(CartPole) for _ in range(3)])
    assert_same(expected, vector_episodes(sync, 2, 4, cart_policy, 11))
    env = make_sb3(CartPole, 3)
    env.seed(11)
    observation, episode, episodes, t = env.reset(), [], [], np.zeros(3, np.int64)
    episode = [observation[2].copy()]
    while len(episodes) < 4:
        observation, _, dones, infos = env.step(cart_policy(t))
        t = np.where(dones, 0, t + 1)
        episode.append(np.array(infos[2]["terminal_observation"] if dones[2] else observation[2]))
        if dones[2]:
            episodes.append(episode)
            episode = [observation[2].copy()]
    for ours, theirs in zip(episodes, expected):
        np.testing.assert_array_equal(ours, [step[0] for step in theirs])


@pytest.mark.parametrize("mode", MODES)
def test_the_compiled_vector_environment_plays_the_same_episodes(mode):
    torch._dynamo.reset()
    env = make_vector(Walk, 6, autoreset_mode=mode, compile=True)
    assert_same(scalar_episodes(Walk, 13, 6, walk_policy), vector_episodes(env, 4, 6, walk_policy, 9), exact=False)


@pytest.mark.parametrize("mode", MODES[:2])
def test_many_compiled_rows_equal_plain_ones(mode):
    """Thousands of rows restart by look-up, few together in the graph; both equal the uncompiled interface."""
    interfaces = [make_vector(Walk, 4100, output="torch", autoreset_mode=mode, compile=flag) for flag in (True, False)]
    for env in interfaces:
        env.reset(seed=4)
    for t in range(25):
        action = torch.as_tensor(walk_policy(np.arange(4100) + t))
        (*fast, info), (*plain, expected) = (env.step(action) for env in interfaces)
        assert info.keys() == expected.keys()
        for one, two in zip(flat([*fast, info]), flat([*plain, expected])):
            torch.testing.assert_close(one, two)
    for one, two in zip(flat(interfaces[0].get_state()), flat(interfaces[1].get_state())):
        assert torch.equal(one, two)


@pytest.mark.parametrize("mode", MODES)
def test_steps_without_questions_equal_plain_ones(mode):
    """The form that accelerators use computes both branches of every question instead of waiting for the answer."""
    interfaces = [make_vector(Walk, 9, autoreset_mode=mode) for _ in range(2)]
    interfaces[0].engine.is_branching = False
    for env in interfaces:
        env.reset(seed=4)
    for t in range(60):
        steps = [env.step(walk_policy(np.arange(9) + t)) for env in interfaces]
        assert steps[0][4].keys() == steps[1][4].keys()
        for one, two in zip(flat(steps[0]), flat(steps[1])):
            np.testing.assert_array_equal(one, two)
        if mode is AutoresetMode.DISABLED and (over := steps[0][2] | steps[0][3]).any():
            for env in interfaces:
                env.reset(options={"reset_mask": over})


def test_seeds_as_a_list_and_episodes_that_go_on():
    env = make_vector(CartPole, 3)
    first, _ = env.reset(seed=[7, 7, 9])
    np.testing.assert_array_equal(first[0], first[1])
    assert (first[0] != first[2]).any()
    second, _ = env.reset()
    third, _ = env.reset(seed=[7, None, 9])
    np.testing.assert_array_equal(third[[0, 2]], first[[0, 2]])
    assert (third[1] != second[1]).any() and (third[1] != first[1]).any()
    unseeded = [make_vector(CartPole, 3).reset()[0] for _ in range(2)]
    assert (unseeded[0] != unseeded[1]).all()


def test_a_time_limit_cuts_and_is_no_end():
    env = make_vector(Pendulum, 2, max_episode_steps=3)
    env.reset(seed=0)
    flags = [env.step(np.zeros((2, 1), np.float32))[2:4] for _ in range(8)]
    assert [bool(truncated[0]) for _, truncated in flags] == [False, False, True, False, False, False, True, False]
    assert not any(terminated.any() for terminated, _ in flags)
    assert (
        make_scalar(Pendulum, max_episode_steps=1).reset(seed=0) and make_vector(Pendulum, 1).max_episode_steps == 200
    )


@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_handed_out_is_shared(mode, output):
    """Whatever a user writes into what he was given, the rows go on as if he had not."""
    runs = []
    for spoils in (False, True):
        env = make_vector(Walk, 4, output=output, autoreset_mode=mode)
        result = [env.reset(seed=0)]
        for t in range(40):
            if spoils:
                for value in flat(result[-1]):
                    if not isinstance(value, np.ndarray) or value.flags.writeable:
                        value[...] = 1
            over = env.engine.ended
            if mode is AutoresetMode.DISABLED and over.any():
                env.reset(options={"reset_mask": over.clone()})
            action = walk_policy(np.full(4, t))
            result.append(env.step(torch.as_tensor(action) if output == "torch" else action))
            if not spoils:
                result[-1] = copy.deepcopy(result[-1])
        runs.append([env.get_state(), copy.deepcopy(result[-1])])
    for one, two in zip(flat(runs[0]), flat(runs[1])):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(two))


def flat(tree):
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, np.ndarray) and tree.dtype == object:
        tree = [item for item in tree if item is not None]
    if isinstance(tree, list | tuple):
        return [leaf for item in tree for leaf in flat(item)]
    return [tree] if isinstance(tree, np.ndarray | Tensor) else []


def test_a_final_observation_is_what_the_last_step_saw():
    env = make_vector(Walk, 3, output="torch", autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=2)
    for _ in range(20):
        obs, _, terminated, _, info = env.step(torch.tensor([2, 1, 2]))
        if terminated.any():
            row = int(terminated.nonzero()[0])
            assert info["final_obs"]["place"][row] == 4 and info["final_info"]["place"][row] == 4
            assert obs["place"][row] < 3 and info["final_info"]["action_mask"][row].all()
            return
    raise AssertionError("no walk ended")


@pytest.mark.parametrize("mode", MODES)
def test_a_forbidden_action_ends_the_episode_with_the_penalty(mode):
    env = make_vector(Walk, 2, autoreset_mode=mode)
    for seed in range(50):
        observation, info = env.reset(seed=seed)
        if observation["place"][0] == 0 and observation["place"][1] != 0:
            break
    assert info["action_mask"][0].tolist() == [False, True, True]
    observation, reward, terminated, truncated, info = env.step(np.array([0, 1]))
    assert terminated.tolist() == [True, False] and info["illegal_action"].tolist() == [True, False]
    np.testing.assert_array_equal(reward[0], [-1, -1])
    assert reward[1, 0] == observation["place"][1]
    assert info["action_mask"].any(1).all()
    if mode is AutoresetMode.NEXT_STEP:
        assert info["action_mask"][0].all()
        _, reward, terminated, _, info = env.step(np.array([0, 1]))
        assert not terminated[0] and not reward[0].any() and not info["illegal_action"][0]


def test_the_scalar_environment_can_refuse_forbidden_actions():
    env = make_scalar(Walk, on_illegal="raise")
    for seed in range(50):
        if env.reset(seed=seed)[0]["place"] == 0:
            break
    assert env.action_masks().tolist() == [False, True, True]
    with pytest.raises(UsageError, match=r"action 0 is not allowed now; allowed: \[1, 2\]"):
        env.step(0)
    assert env.step(1)[1].shape == (2,)


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("mode", MODES[:2])
def test_a_saved_state_continues_bit_for_bit(mode, is_compiled, tmp_path):
    env = make_vector(CartPole, 7, autoreset_mode=mode, compile=is_compiled)
    env.reset(seed=3)
    for t in range(60):
        env.step(np.resize(TABLE[t : t + 7], 7))
    torch.save(env.get_state(), tmp_path / "state.pt")
    expected = [env.step(np.resize(TABLE[t : t + 7], 7)) for t in range(100)]
    again = make_vector(CartPole, 7, autoreset_mode=mode, compile=is_compiled)
    again.set_state(torch.load(tmp_path / "state.pt"))
    for t, step in enumerate(expected):
        for ours, theirs in zip(again.step(np.resize(TABLE[t : t + 7], 7))[:4], step[:4]):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("task", [CartPole, Pendulum, Walk])
def test_pickled_interfaces_go_on_alike(task):
    scalar, vector = make_scalar(task), make_vector(task, 3)
    for env in (scalar, vector):
        env.reset(seed=5)
        env.action_space.seed(0)
        env.step(env.action_space.sample())
        twin = pickle.loads(pickle.dumps(env))
        action = env.action_space.sample()
        for one, two in zip(flat(env.step(action)), flat(twin.step(action))):
            np.testing.assert_array_equal(one, two)
        env.close()


def test_scalar_state_can_be_kept():
    env = make_scalar(CartPole)
    env.reset(seed=0)
    saved = env.get_state()
    first = [env.step(1)[0] for _ in range(5)]
    env.set_state(saved)
    np.testing.assert_array_equal(first, [env.step(1)[0] for _ in range(5)])


def test_gymnasiums_vector_wrappers_work():
    env = gym.wrappers.vector.RecordEpisodeStatistics(make_vector(CartPole, 4))
    env.reset(seed=0)
    lengths = []
    for t in range(200):
        info = env.step(np.full(4, t % 2))[4]
        lengths += info["episode"]["l"][info["_episode"]].tolist() if "episode" in info else []
    assert lengths and min(lengths) > 5
    listed = gym.wrappers.vector.DictInfoToList(make_vector(Walk, 2))
    assert set(listed.reset(seed=0)[1][0]) == {"place", "action_mask"}


def test_sb3_learns_on_the_interface():
    from stable_baselines3 import PPO

    env = make_sb3(CartPole, 8)
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=64, seed=0, device="cpu").learn(1024)
    assert len(model.ep_info_buffer) > 10
    assert model.get_env().env_method("action_masks")[0].tolist() == [True, True]
    with pytest.raises(UsageError, match="SAME_STEP"):
        make_sb3(make_vector(CartPole, 2))
    with pytest.raises(UsageError, match="one number as a reward, this environment pays for 2 objectives"):
        make_sb3(Walk, 2)
