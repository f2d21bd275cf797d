"""Wrappers on rows of a tensor task: they show, choose and pay what the scalar wrappers do, and go on from a saved state."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import polyathlon
from polyathlon.agents import CMORL, SAC
from polyathlon.agents.streams.environments import make_vec_env, wrapped_rows
from polyathlon.agents.streams.vec_envs import ScalarEnvs
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.copies import copy_envs
from polyathlon.envs.tensor.sb3 import SB3VecEnv
from polyathlon.wrappers import ContinuousAction

TASKS = [
    ("polyathlon/TSP-v0", {"num_nodes": 6}, {}),
    ("polyathlon/Widgets-v0", {}, {"columns": [12, 18, 19, 5], "sees_rows": False}),
    ("polyathlon/Widgets-v0", {}, {"columns": [12, 18], "reach": 0.5}),
    ("polyathlon/Widgets-v0", {}, {"by_features": False}),
    ("polyathlon/Werewolf-v0", {}, {}),
    ("polyathlon/Widgets-v0", {}, {"cost": "steps", "columns": [12, 18]}),
    ("polyathlon/Widgets-v0", {}, {"cost": "effort", "columns": [12, 18]}),
]
CPU = torch.device("cpu")


def made(task, options, words):
    return polyathlon.adapt(gym.make(task, **options), CMORL if "cost" in words else SAC, **words)


@pytest.mark.parametrize(("task", "options", "words"), TASKS)
def test_rows_are_what_scalar_environments_are(task, options, words):
    env = made(task, options, words)
    rows = make_vec_env(env, 3, CPU)
    assert isinstance(rows, SB3VecEnv)
    one_by_one = ScalarEnvs([env, *copy_envs(env, 2)])
    assert rows.observation_space == one_by_one.observation_space and rows.action_space == one_by_one.action_space
    rows.seed(5)
    one_by_one.seed(5)
    rng, first = np.random.default_rng(0), np.ones(3, bool)  # first episodes; later ones are drawn in another order
    assert np.allclose(rows.reset(), one_by_one.reset())
    for _ in range(40):
        points = rng.uniform(-1, 1, (3, *rows.action_space.shape)).astype(np.float32)
        seen, *mine, infos = rows.step(points)
        expected, *theirs, told = one_by_one.step(points)
        for a, b in zip(mine, theirs, strict=True):
            assert np.allclose(a[first], b[first], atol=1e-5)
        for i in np.flatnonzero(mine[1] & first):
            assert np.allclose(infos[i]["terminal_observation"], told[i]["terminal_observation"], atol=1e-5)
            assert infos[i]["TimeLimit.truncated"] == told[i]["TimeLimit.truncated"]
        first &= ~mine[1]
        assert np.allclose(seen[first], expected[first], atol=1e-5)
    assert not first.any()


def test_rows_tell_the_choice_and_no_mask_and_go_on_from_a_state():
    env = wrapped_rows(made("polyathlon/TSP-v0", {"num_nodes": 6}, {}), 4, CPU)
    observation, info = env.reset(seed=1)
    assert "action_mask" not in info and tuple(observation.shape) == (4, *env.single_observation_space.shape)
    points = torch.rand(12, 4, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for point in points[:3]:
        *_, info = env.step(point)
        assert "action_mask" not in info and tuple(info["choice"].shape) == (4,)
    state = env.get_state()
    first = [env.step(point)[:2] for point in points[3:]]
    other = wrapped_rows(made("polyathlon/TSP-v0", {"num_nodes": 6}, {}), 4, CPU)
    other.set_state(state)
    for (seen, paid), point in zip(first, points[3:], strict=True):
        again, reward, *_ = other.step(point)
        assert torch.equal(again, seen) and torch.equal(reward, paid)
    with pytest.raises(UsageError, match="have no action masks"):
        env.action_masks()


def test_impossible_points_are_refused():
    env = wrapped_rows(made("polyathlon/TSP-v0", {"num_nodes": 6}, {}), 2, CPU)
    with pytest.raises(UsageError, match="call reset before step"):
        env.step(torch.zeros(2, 2))
    env.reset(seed=0)
    for wrong, message in (
        (torch.zeros(2, 3), r"shape \(2, 2\), got \(2, 3\)"),
        (torch.full((2, 2), torch.nan), "not finite"),
    ):
        with pytest.raises(UsageError, match=message):
            env.step(wrong)


def test_a_wrapper_that_changes_something_keeps_its_rows_apart():
    class Mine(ContinuousAction):
        def step(self, action):
            return super().step(-action)

    env = Mine(gym.make("polyathlon/Widgets-v0"))
    assert wrapped_rows(env, 2, CPU) is None and isinstance(make_vec_env(env, 2, CPU), ScalarEnvs)


def test_training_on_rows_resumes_to_the_bit(tmp_path):
    words = {"n_envs": 3, "learning_starts": 6, "batch_size": 8, "seed": 2, "policy_kwargs": {"net_arch": [8]}}
    whole = SAC("MlpPolicy", made("polyathlon/TSP-v0", {"num_nodes": 5}, {}), **words).learn(60)
    half = SAC("MlpPolicy", made("polyathlon/TSP-v0", {"num_nodes": 5}, {}), **words).learn(30)
    again = SAC.resume(
        half.checkpoint(tmp_path / "run.pt"), make_vec_env(made("polyathlon/TSP-v0", {"num_nodes": 5}, {}), 3, CPU)
    )
    again.learn(30, reset_num_timesteps=False)
    for name, wanted in whole.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], wanted), name


def test_a_state_of_scalar_environments_is_refused():
    env = made("polyathlon/TSP-v0", {"num_nodes": 5}, {})
    one_by_one = ScalarEnvs([env, *copy_envs(env, 1)])
    one_by_one.seed(0)
    one_by_one.reset()
    with pytest.raises(UsageError, match="saved on scalar environments"):
        wrapped_rows(env, 2, CPU).set_state(one_by_one.get_state())


def test_rows_without_masks_say_so():
    rows = gym.make_vec("CartPole-v1", 2, "sync", vector_kwargs={"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP})
    rows = SB3VecEnv(rows)
    rows.reset()
    with pytest.raises(UsageError, match='infos hold no "action_mask"'):
        rows.env_method("action_masks")
