"""Every registered environment that can pay for several objectives, in every interface that can; the registry is the only list."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import polyathlon
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.rewards import num_objectives
from polyathlon.wrappers import LinearReward

ROWS, STEPS, LIMIT, SEED = 3, 12, 5, 11


def scalar(env_id: str, **options: Any) -> gym.Env:
    return gym.make(env_id, reward="vector", disable_env_checker=True, max_episode_steps=LIMIT, **options)


def vector(env_id: str, mode: AutoresetMode, output: str = "numpy") -> gym.vector.VectorEnv:
    options = {"autoreset_mode": mode, "output": output, "max_episode_steps": LIMIT}
    return gym.make_vec(env_id, ROWS, "vector_entry_point", reward="vector", **options)


def can_pay_for_objectives(env_id: str) -> bool:
    """Tell whether an environment takes reward="vector" and this installation has what it needs."""
    try:
        env = scalar(env_id)
    except ImportError as error:
        assert "pip install 'polyathlon[" in str(error)
        return False
    except (UsageError, TypeError):
        return False
    env.close()
    return num_objectives(env) is not None


IDS = [record.id for record in polyathlon.environments() if can_pay_for_objectives(record.id)]
VECTOR_IDS = [env_id for env_id in IDS if gym.spec(env_id).vector_entry_point]
by_id = pytest.mark.parametrize("env_id", IDS)
by_vector_id = pytest.mark.parametrize("env_id", VECTOR_IDS)


def action_of(space: gym.Space, key: tuple[int, ...], mask: Any) -> Any:
    space.seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    return space.sample() if mask is None else space.sample(np.asarray(mask, np.int8))


def flat(obs: Any) -> np.ndarray:
    if isinstance(obs, str):
        return np.frombuffer(obs.encode(), np.uint8).astype(float)
    parts = obs.values() if isinstance(obs, dict) else [obs]
    return np.concatenate([np.asarray(part, float).reshape(-1) for part in parts])


def play(env: gym.Env, seed: int) -> tuple[list[np.ndarray], list[Any]]:
    """Play one episode with actions that depend on (seed, step) alone; return observations and rewards."""
    obs, info = env.reset(seed=seed)
    seen, paid, over = [flat(obs)], [], False
    while not over:
        action = action_of(env.action_space, (seed, len(paid)), info.get("action_mask"))
        obs, reward, terminated, truncated, info = env.step(action)
        seen.append(flat(obs))
        paid.append(reward)
        over = terminated or truncated
    return seen, paid


def test_some_environments_of_both_kinds_have_objectives():
    families = {record.family for record in polyathlon.environments() if record.id in IDS}
    assert "combinatorial" in families and VECTOR_IDS


@by_id
def test_rewards_are_vectors_of_the_space_promised(env_id):
    env = scalar(env_id)
    k = num_objectives(env)
    assert k >= 2 and env.unwrapped.reward_space.shape == (k,)
    _, paid = play(env, SEED)
    for reward in paid:
        assert reward.shape == (k,) and reward.dtype == np.float32 and np.isfinite(reward).all()
    _, again = play(scalar(env_id), SEED)
    np.testing.assert_array_equal(paid, again)


@by_id
def test_the_form_of_the_reward_changes_nothing_else(env_id):
    plain = gym.make(env_id, max_episode_steps=LIMIT)
    assert num_objectives(plain) is None
    with_vector, _ = play(scalar(env_id), SEED)
    with_number, paid = play(plain, SEED)
    assert len(with_vector) == len(with_number) and all(map(np.array_equal, with_vector, with_number))
    assert all(np.ndim(reward) == 0 for reward in paid)


@by_id
def test_a_weighted_sum_passes_gymnasiums_checker(env_id):
    env = scalar(env_id)
    weight = np.arange(1.0, num_objectives(env) + 1)
    wrapped = LinearReward(env, weight)
    _, paid = play(wrapped, SEED)
    _, vectors = play(scalar(env_id), SEED)
    np.testing.assert_allclose(paid, np.asarray(vectors, float) @ weight, rtol=1e-12)
    assert num_objectives(wrapped) is None
    check_env(LinearReward(scalar(env_id), weight), skip_render_check=True)


@by_vector_id
@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_rows_pay_what_scalar_environments_pay(env_id, mode, output):
    vec = vector(env_id, mode, output)
    k = num_objectives(vec)
    assert vec.single_reward_space.shape == (k,)
    wanted = [play(scalar(env_id), SEED + i)[1] for i in range(ROWS)]
    obs, info = vec.reset(seed=SEED)
    for t in range(min(map(len, wanted))):
        masks = np.asarray(info["action_mask"]) if "action_mask" in info else [None] * ROWS
        actions = np.stack([action_of(vec.single_action_space, (SEED + i, t), masks[i]) for i in range(ROWS)])
        obs, reward, terminated, truncated, info = vec.step(torch.as_tensor(actions) if output == "torch" else actions)
        assert isinstance(reward, torch.Tensor if output == "torch" else np.ndarray)
        found = np.asarray(reward)
        assert found.shape == (ROWS, k) and found.dtype == np.float32
        for i in range(ROWS):
            np.testing.assert_allclose(found[i], wanted[i][t], rtol=1e-6, atol=1e-6)
    vec.close()


@by_vector_id
def test_a_restart_pays_nothing(env_id):
    vec = vector(env_id, AutoresetMode.NEXT_STEP)
    _, info = vec.reset(seed=SEED)
    ended = np.zeros(ROWS, bool)
    restarts = 0
    for t in range(STEPS):
        masks = np.asarray(info["action_mask"]) if "action_mask" in info else [None] * ROWS
        actions = np.stack([action_of(vec.single_action_space, (i, t), masks[i]) for i in range(ROWS)])
        _, reward, terminated, truncated, info = vec.step(actions)
        assert (reward[ended] == 0).all()
        assert ended.all() or np.abs(reward[~ended]).sum() > 0
        restarts += int(ended.sum())
        ended = terminated | truncated
    assert restarts >= ROWS
    vec.close()


@by_vector_id
def test_a_saved_state_goes_on_to_the_same_rewards(env_id):
    vec = vector(env_id, AutoresetMode.SAME_STEP)
    _, info = vec.reset(seed=SEED)
    saved = vec.get_state()
    masks = np.asarray(info["action_mask"]) if "action_mask" in info else [None] * ROWS
    actions = np.stack([action_of(vec.single_action_space, (i,), masks[i]) for i in range(ROWS)])
    first = vec.step(actions)[1]
    vec.set_state(saved)
    np.testing.assert_array_equal(vec.step(actions)[1], first)
    vec.close()


@by_vector_id
def test_sb3_s_interface_refuses_what_it_does_not_know(env_id):
    from polyathlon.envs.tensor.sb3 import SB3VecEnv

    with pytest.raises(UsageError, match=r"one number as a reward.*objectives"):
        SB3VecEnv(vector(env_id, AutoresetMode.SAME_STEP))
