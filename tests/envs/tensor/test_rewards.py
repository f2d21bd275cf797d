"""Which environments pay for several objectives, and how rows of them are stepped."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import polyathlon  # noqa: F401
from polyathlon.agents.streams.environments import make_vec_env
from polyathlon.agents.streams.vec_envs import ScalarEnvs
from polyathlon.envs.errors import UsageError
from polyathlon.envs.games.tic_tac_toe import TicTacToe
from polyathlon.envs.probes import Tradeoff
from polyathlon.envs.tensor import make_scalar, make_vector
from polyathlon.envs.tensor.copies import copy_env
from polyathlon.envs.tensor.rewards import make_unchecked, num_objectives
from polyathlon.envs.tensor.sb3 import SB3VecEnv

TOURS = "polyathlon/MultiObjectiveTSP-v0"


def test_objectives_are_counted_through_wrappers_and_interfaces():
    scalar = gym.make(TOURS, reward="vector", num_objectives=3, disable_env_checker=True)
    vector = make_vector(Tradeoff, 2, autoreset_mode=AutoresetMode.SAME_STEP)
    assert num_objectives(scalar) == 3 and num_objectives(vector) == 2
    assert num_objectives(SB3VecEnv(vector, takes_objectives=True)) == 2
    assert num_objectives(ScalarEnvs([scalar])) == 3
    for env in (gym.make("Pendulum-v1"), gym.make(TOURS), make_scalar(TicTacToe), make_vector(TicTacToe, 2)):
        assert num_objectives(env) is None  # the numbers of a game's rewards are its players


def test_mo_gymnasium_s_environments_are_known_by_their_sign():
    mo_gymnasium = pytest.importorskip("mo_gymnasium")
    env = mo_gymnasium.make("deep-sea-treasure-v0")
    assert num_objectives(env) == 2
    assert num_objectives(mo_gymnasium.wrappers.LinearReward(env, weight=np.ones(2))) is None


def test_the_checker_stays_where_it_was(recwarn):
    def is_checked(env: gym.Env) -> bool:
        return "PassiveEnvChecker" in str(env)

    assert is_checked(make_unchecked("CartPole-v1")) and is_checked(copy_env(gym.make("CartPole-v1")))
    vector = make_unchecked(TOURS, reward="vector")
    assert not is_checked(vector) and not is_checked(copy_env(vector))
    vector.reset(seed=0)
    vector.step(1)
    assert not [w for w in recwarn if "reward" in str(w.message)]


def test_rows_of_scalar_environments_pay_vectors_and_report_episodes():
    rows = ScalarEnvs([make_scalar(Tradeoff, form="discrete") for _ in range(2)])
    rows.seed(0)
    rows.reset()
    _, reward, done, infos = rows.step(np.array([0, 1]))
    assert reward.tolist() == [[0.0, 1.0], [1.0, 0.0]] and reward.dtype == np.float32 and done.all()
    assert [info["episode"]["r"] for info in infos] == [1.0, 1.0] and infos[0]["episode"]["l"] == 1


def test_sb3_s_vec_env_hands_vectors_to_those_who_ask_for_them():
    interface = SB3VecEnv(make_vector(Tradeoff, 3, autoreset_mode=AutoresetMode.SAME_STEP), takes_objectives=True)
    interface.reset()
    _, reward, done, infos = interface.step(np.array([0, 1, 1]))
    assert reward.shape == (3, 2) and done.all() and infos[1]["episode"]["r"] == 1.0
    with pytest.raises(UsageError, match="2 objectives"):
        SB3VecEnv(make_vector(Tradeoff, 3, autoreset_mode=AutoresetMode.SAME_STEP))


def test_copies_of_a_vector_task_are_one_batch():
    import torch

    rows = make_vec_env(make_scalar(Tradeoff), 4, torch.device("cpu"))
    assert rows.num_envs == 4 and num_objectives(rows) == 2
