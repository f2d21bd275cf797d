"""Vector rewards of the batched MuJoCo tasks against MO-Gymnasium, step for step."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import polyathlon  # noqa: F401
from polyathlon.agents.streams.environments import TWINS, find_spec, make_vec_env, twin_options
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.rewards import num_objectives

mo_gymnasium = pytest.importorskip("mo_gymnasium")
ROWS, STEPS = 2, 40


def rows_of(env_id: str, **options) -> gym.vector.VectorEnv:
    spec = gym.spec(env_id)
    options = {**twin_options(spec, TWINS[env_id]), **options}
    return gym.make_vec(TWINS[env_id], ROWS, "vector_entry_point", **options)


@pytest.mark.parametrize("env_id", TWINS)
def test_every_step_equals_mo_gymnasium(env_id):
    vec = rows_of(env_id, autoreset_mode=AutoresetMode.DISABLED)
    scalars = [mo_gymnasium.make(env_id) for _ in range(ROWS)]
    objectives = num_objectives(scalars[0])
    assert vec.single_reward_space.shape == (objectives,) and num_objectives(vec) == objectives
    vec.reset(seed=3)
    for i, env in enumerate(scalars):
        env.reset(seed=3 + i)
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        action = rng.uniform(-1, 1, vec.action_space.shape).astype(np.float32)
        obs, reward, terminated, _, _ = vec.step(action)
        assert reward.dtype == np.float32 and reward.shape == (ROWS, objectives)
        for i, env in enumerate(scalars):
            wanted_obs, wanted, over, _, _ = env.step(action[i])
            np.testing.assert_array_equal(obs[i], wanted_obs)
            np.testing.assert_array_equal(reward[i], wanted)
            assert terminated[i] == over
        if terminated.any():
            break
    vec.close()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_the_step_that_starts_again_pays_nothing_or_the_last_reward(mode):
    vec = rows_of("mo-halfcheetah-v5", autoreset_mode=mode, max_episode_steps=3)
    vec.reset(seed=0)
    action = np.ones(vec.action_space.shape, np.float32)
    rewards = np.stack([vec.step(action)[1] for _ in range(4)])
    assert (rewards[:3, :, 1] == -6.0).all()
    assert (rewards[3, :, 1] == (0.0 if mode is AutoresetMode.NEXT_STEP else -6.0)).all()


def test_torch_output_and_saved_states_have_vector_rewards_too():
    vec = rows_of("mo-hopper-2obj-v5", output="torch")
    vec.reset(seed=0)
    saved = vec.get_state()
    action = torch.full(vec.action_space.shape, 0.3)
    first = vec.step(action)[1]
    assert isinstance(first, torch.Tensor) and first.dtype is torch.float32 and first.shape == (ROWS, 2)
    vec.set_state(saved)
    assert torch.equal(vec.step(action)[1], first)


def test_the_scalar_environment_with_a_vector_reward_is_mo_gymnasium_s():
    env = gym.make("polyathlon/Hopper-v5", reward="vector", cost_objective=False, disable_env_checker=True)
    assert type(env.unwrapped).__name__ == "MOHopperEnv" and num_objectives(env) == 2
    assert num_objectives(gym.make("polyathlon/Hopper-v5")) is None


@pytest.mark.parametrize("env_id", ["mo-halfcheetah-v5", "mo-hopper-2obj-v5"])
def test_agents_step_mo_gymnasium_s_tasks_in_a_batch(env_id):
    for given in (mo_gymnasium.make(env_id), f"mo_gymnasium:{env_id}"):
        rows = make_vec_env(given, 3, torch.device("cpu"))
        assert type(rows.vector_env).__name__ == "MujocoVector" and num_objectives(rows) == 2
    assert find_spec(f"mo_gymnasium:{env_id}").id == env_id


def test_objectives_that_do_not_exist_are_refused():
    for options in ({"reward": "pair"}, {"reward": "vector", "cost_objective": False}):
        for make in (gym.make, lambda env_id, **given: gym.make_vec(env_id, 2, "vector_entry_point", **given)):
            with pytest.raises(UsageError, match=r"cost_objective|reward must be"):
                make("polyathlon/Walker2d-v5", **options)
    with pytest.raises(UsageError, match="positive weight"):
        gym.make_vec("polyathlon/Swimmer-v5", 2, "vector_entry_point", reward="vector", ctrl_cost_weight=0.0)
    for make in (gym.make, lambda env_id, **given: gym.make_vec(env_id, 2, "vector_entry_point", **given)):
        with pytest.raises(UsageError, match="belongs to"):
            make("polyathlon/Hopper-v5", cost_objective=False)
