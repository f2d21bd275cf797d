"""The batched MuJoCo tasks against Gymnasium's own, number by number."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from polyathlon.envs.control.mujoco import make_vector

TASKS = ("HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid", "Swimmer")
BODIES = ("Hopper", "Ant", "Humanoid")
STEPS = 200


@pytest.fixture(autouse=True)
def _quiet_contacts():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*contacts changed in MuJoCo.*")
        yield


class Twin:
    """Gymnasium's scalar environment, following our rule for the starts of later episodes."""

    def __init__(self, task, seed, limit=1000, **options):
        self.env = gym.make(f"{task}-v5", max_episode_steps=limit, **options)
        self.seed, self.episode = seed, 0

    def reset(self):
        if self.episode == 0:
            self.obs, self.info = self.env.reset(seed=self.seed)
        else:
            sequence = np.random.SeedSequence(self.seed, spawn_key=(self.episode,))
            self.env.unwrapped.np_random = np.random.Generator(np.random.PCG64(sequence))
            self.obs, self.info = self.env.reset()
        self.episode += 1
        self.over = False

    def step(self, action):
        if self.over:
            self.reset()
            return self.obs, 0.0, False, False, self.info
        result = self.env.step(action)
        self.over = result[2] or result[3]
        return result


def assert_row(i, got, expected):
    """Everything of row i is Gymnasium's, to the last bit and with its types."""
    obs, reward, terminated, truncated, info = got
    np.testing.assert_array_equal(obs[i], expected[0])
    assert obs.dtype == expected[0].dtype
    assert (reward[i], bool(terminated[i]), bool(truncated[i])) == tuple(expected[1:4])
    assert_info(i, info, expected[4])


def assert_info(i, info, expected):
    assert {key for key in info if not key.startswith("_") and info[f"_{key}"][i]} == set(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(info[key][i], value, err_msg=key)
        assert info[key].dtype == np.asarray(value).dtype, key


def follow(env, twins, steps, dtype=np.float32, seed=0):
    """Step both in NEXT_STEP mode, compare everything, and return the number of episodes that ended."""
    obs, info = env.reset(seed=[twin.seed for twin in twins])
    ended = 0
    for i, twin in enumerate(twins):
        twin.reset()
        np.testing.assert_array_equal(obs[i], twin.obs)
        assert_info(i, info, twin.info)
    rng = np.random.default_rng(seed)
    high = env.single_action_space.high[0]
    for _ in range(steps):
        action = rng.uniform(-high, high, env.action_space.shape).astype(dtype)
        got = env.step(action)
        for i, twin in enumerate(twins):
            assert_row(i, got, twin.step(action[i]))
            ended += twin.over
    return ended


@pytest.mark.parametrize(("num_envs", "num_threads"), [(1, 1), (3, 2)])
@pytest.mark.parametrize("task", TASKS)
def test_every_number_is_gymnasiums(task, num_envs, num_threads):
    env = make_vector(task, num_envs, num_threads=num_threads, max_episode_steps=120)
    twins = [Twin(task, 11 + i, limit=120) for i in range(num_envs)]
    assert follow(env, twins, STEPS) >= num_envs
    env.close()


OPTIONS = {
    "HalfCheetah": {"forward_reward_weight": 2.0, "ctrl_cost_weight": 0.3, "reset_noise_scale": 0.2},
    "Hopper": {"terminate_when_unhealthy": False, "healthy_state_range": (-2.0, 2.0), "healthy_reward": 0.5},
    "Walker2d": {"exclude_current_positions_from_observation": False, "healthy_z_range": (0.9, 1.5)},
    "Ant": {"include_cfrc_ext_in_observation": False, "main_body": "aux_1", "contact_force_range": (-0.5, 2.0)},
    "Humanoid": {
        "include_cinert_in_observation": False,
        "include_qfrc_actuator_in_observation": False,
        "contact_cost_weight": 1e-3,
        "contact_cost_range": (0.1, 0.5),
    },
    "Swimmer": {"exclude_current_positions_from_observation": False, "forward_reward_weight": 3.0},
}


@pytest.mark.parametrize("task", TASKS)
def test_options_mean_what_they_mean_in_gymnasium(task):
    env = make_vector(task, 2, **OPTIONS[task])
    follow(env, [Twin(task, 3 + i, **OPTIONS[task]) for i in range(2)], 40)


def test_frame_skip():
    # Gymnasium's class refuses a frame_skip that changes the frame rate it declares, except where it is derived.
    env = make_vector("HalfCheetah", 1, frame_skip=2)
    follow(env, [Twin("HalfCheetah", 4, frame_skip=2)], 20)


def test_float64_actions_give_float64_costs_as_in_gymnasium():
    env = make_vector("HalfCheetah", 2)
    follow(env, [Twin("HalfCheetah", i) for i in range(2)], 20, dtype=np.float64)


@pytest.mark.parametrize("task", BODIES)
def test_same_step_keeps_the_final_observation(task):
    env = make_vector(task, 2, autoreset_mode=AutoresetMode.SAME_STEP, max_episode_steps=15)
    twins = [Twin(task, 7 + i, limit=15) for i in range(2)]
    env.reset(seed=7)
    for twin in twins:
        twin.reset()
    rng, ends = np.random.default_rng(0), 0
    for _ in range(60):
        action = rng.uniform(-0.4, 0.4, env.action_space.shape).astype(np.float32)
        obs, reward, terminated, truncated, info = env.step(action)
        for i, twin in enumerate(twins):
            last, paid, is_terminated, is_truncated, last_info = twin.step(action[i])
            assert (reward[i], terminated[i], truncated[i]) == (paid, is_terminated, is_truncated)
            if not twin.over:
                assert_row(
                    i, (obs, reward, terminated, truncated, without_final(info)), (last, paid, False, False, last_info)
                )
                continue
            ends += 1
            assert info["_final_obs"][i] and info["_final_info"][i]
            np.testing.assert_array_equal(info["final_obs"][i], last)
            assert_info(i, info["final_info"], last_info)
            twin.reset()
            np.testing.assert_array_equal(obs[i], twin.obs)
            assert_info(i, without_final(info), twin.info)
    assert ends >= 4


def without_final(info):
    return {key: value for key, value in info.items() if "final" not in key}


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_nothing_handed_out_is_overwritten_or_feeds_back(output):
    env = make_vector("Hopper", 3, output=output, autoreset_mode="SAME_STEP", max_episode_steps=5)
    twin = make_vector("Hopper", 3, output=output, autoreset_mode="SAME_STEP", max_episode_steps=5)
    action = np.full((3, 3), 0.3, dtype=np.float32)
    env.reset(seed=0), twin.reset(seed=0)
    kept = []
    for _ in range(12):
        mine, other = env.step(action), twin.step(action)
        kept.append((other, copied(other)))
        assert same(mine, other)
        spoil(mine)
    assert all(same(now, then) for now, then in kept)


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    if isinstance(tree, tuple):
        return [leaf for item in tree for leaf in leaves(item)]
    if isinstance(tree, np.ndarray) and tree.dtype == object:
        return [leaf for leaf in tree if leaf is not None]
    return [tree]


def copied(tree):
    return tuple(np.asarray(leaf).copy() for leaf in leaves(tree))


def same(a, b):
    a, b = leaves(a), leaves(b)
    return len(a) == len(b) and all(np.array_equal(np.asarray(x), np.asarray(y), equal_nan=False) for x, y in zip(a, b))


def spoil(tree):
    for leaf in leaves(tree):
        leaf[...] = 1


def test_torch_output_is_float32_of_the_same_numbers():
    env, plain = make_vector("Ant", 2, output="torch"), make_vector("Ant", 2)
    obs, _ = env.reset(seed=1)
    assert obs.dtype == torch.float32
    np.testing.assert_array_equal(obs.numpy(), plain.reset(seed=1)[0].astype(np.float32))
    action = torch.full((2, 8), 0.1)
    mine, other = env.step(action), plain.step(action.numpy())
    for ours, theirs in zip(mine[:4], other[:4]):
        assert isinstance(ours, torch.Tensor)
        np.testing.assert_array_equal(ours.numpy(), theirs.astype(ours.numpy().dtype))
    assert mine[2].dtype == torch.bool and env.single_observation_space.dtype == np.float32
    exact = make_vector("Ant", 2, output="torch", dtype="float64").reset(seed=1)[0]
    np.testing.assert_array_equal(exact.numpy(), plain.reset(seed=1)[0])


def test_torch_final_observations_are_a_whole_batch():
    env = make_vector("Hopper", 2, output="torch", autoreset_mode="SAME_STEP", max_episode_steps=3)
    env.reset(seed=0)
    for _ in range(3):
        obs, _, _, truncated, info = env.step(torch.zeros(2, 3))
    assert truncated.all() and info["final_obs"].shape == obs.shape and info["_final_obs"].all()
    assert not torch.equal(info["final_obs"], obs)
