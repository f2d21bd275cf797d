"""One seat of PettingZoo games that are not ours.

Modules: polyathlon.wrappers.single_agent.
"""

from __future__ import annotations

import re
import time

import gymnasium as gym
import numpy as np
import pytest
import torch
from pettingzoo.classic import connect_four_v3, tictactoe_v3

from polyathlon.agents import PPO
from polyathlon.envs import werewolf
from polyathlon.envs.errors import UsageError
from polyathlon.envs.games.tic_tac_toe import TicTacToe
from polyathlon.envs.tensor import make_aec
from polyathlon.wrappers import SingleAgent
from polyathlon.wrappers.games.aec_seats import AECSeats


def first_allowed(obs, mask, player, env_index, key):
    return mask.to(torch.int8).argmax(1)


def walk(env, seed, steps):
    _, info = env.reset(seed=seed)
    seen = []
    for _ in range(steps):
        obs, reward, terminated, truncated, info = env.step(info["action_mask"].argmax(1))
        seen.append((obs.copy(), reward.copy(), terminated.copy(), info["seat"].copy()))
    return seen


def test_the_seat_is_paid_for_what_the_other_does():
    env = AECSeats(tictactoe_v3.env, 1, first_allowed, 1)
    _, info = env.reset(seed=0)
    assert info["seat"].tolist() == [1] and info["action_mask"][0].tolist() == [False] + [True] * 8
    # cells go down the columns: the first player takes 0, 1, 2
    _, reward, terminated, _, _ = env.step(np.array([4]))
    assert reward.tolist() == [0] and not terminated[0]
    _, reward, terminated, truncated, info = env.step(np.array([8]))
    assert reward.tolist() == [-1] and terminated[0] and not truncated[0]
    final = info["final_obs"][0]
    assert final[..., 0].sum() == 2 and final[..., 1].sum() == 3, "the end from the seat's side"
    assert info["action_mask"][0].sum() == 8, "the next game has begun"


def test_games_do_not_depend_on_their_neighbours_and_equal_ours():
    alone, three = walk(AECSeats(tictactoe_v3.env, 1), 5, 12), walk(AECSeats(tictactoe_v3.env, 3), 5, 12)
    for one, all_ in zip(alone, three):
        for a, b in zip(one, all_):
            np.testing.assert_array_equal(a[0], b[0])
    results = [
        reward for _, rewards, _, _ in walk(AECSeats(lambda: make_aec(TicTacToe), 4), 0, 20) for reward in rewards
    ]
    assert {-1.0, 0.0, 1.0} == set(results)


def test_a_state_is_played_again():
    one, two = (AECSeats(connect_four_v3.env, 2, max_episode_steps=9) for _ in range(2))
    walk(one, 3, 6)
    two.reset(seed=9)
    two.set_state(one.get_state())
    for _ in range(8):
        action = one.action_masks().argmax(1)
        for a, b in zip(one.step(action)[:4], two.step(action)[:4]):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(UsageError, match="holds 2 rows"):
        AECSeats(tictactoe_v3.env, 3).set_state(one.get_state())


def test_a_time_limit_counts_the_seats_own_moves():
    env = AECSeats(connect_four_v3.env, 2, first_allowed, 0, max_episode_steps=2)
    env.reset(seed=0)
    assert not env.step(np.array([3, 4]))[3].any()
    assert env.step(np.array([3, 4]))[3].all()


def test_agents_train_on_it():
    agent = PPO("MlpPolicy", AECSeats(tictactoe_v3.env, 2), n_steps=8, batch_size=8, n_epochs=1, seed=0).learn(32)
    assert agent.num_timesteps == 32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AECSeats(tictactoe_v3.env, 0), "num_envs"),
        (lambda: AECSeats(tictactoe_v3.env, 1, seats=2), "number from 0 to 1, got 2"),
        (lambda: AECSeats(tictactoe_v3.env, 1, "best"), "'random' or a callable"),
        (lambda: AECSeats(tictactoe_v3.env, 1).step(np.zeros(1, int)), "before reset"),
        (lambda: AECSeats(tictactoe_v3.env, 1, time_limit=0.0), "time_limit is a positive number"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_players_with_other_spaces_are_refused():
    def uneven():
        env = tictactoe_v3.env()
        spaces = {"player_1": gym.spaces.Discrete(9), "player_2": gym.spaces.Discrete(5)}
        env.action_space = spaces.__getitem__
        return env

    with pytest.raises(UsageError, match=r"one action space: player_1 has Discrete\(9\), player_2 has Discrete\(5\)"):
        AECSeats(uneven, 1)


def raises(*call):
    raise RuntimeError("no idea")


def hangs(*call):
    time.sleep(0.5)
    return torch.zeros(1)


@pytest.mark.parametrize(
    ("opponent", "kind", "text"),
    [
        (lambda *call: torch.zeros(1), "invalid action", "answered torch.float32 where integers"),
        (lambda *call: torch.zeros(2, dtype=torch.int64), "invalid action", r"shape \(2,\) where \(1,\)"),
        (lambda *call: torch.tensor([9]), "invalid action", r"9 is outside Discrete\(9\)"),
        (lambda *call: "left", "invalid action", "answered no numbers"),
        (raises, "raised", "raises: RuntimeError: no idea"),
        (hangs, "time limit", "hangs: no answer within 0.05 s"),
    ],
)
def test_a_fault_of_an_opponent_is_named_and_the_game_goes_on(opponent, kind, text):
    env = AECSeats(tictactoe_v3.env, 1, opponent, 0, time_limit=0.05)
    env.reset(seed=0)
    # the others play what their mask forbids, and lose by it
    _, reward, terminated, _, info = env.step(np.array([4]))
    assert [fault.kind for fault in env.faults] == [kind] and re.search(text, env.faults[0].message)
    assert terminated[0] and reward[0] == 0 and env.rows.played[0] == [], (
        "TerminateIllegal ends it; the next game has begun"
    )
    assert info["action_mask"].all()
    env.close()


@pytest.mark.parametrize("make", [tictactoe_v3.env, lambda: werewolf.env(num_players=4)])
def test_a_game_is_one_players_task(make):
    env = SingleAgent(make(), seat=1, opponents="random")
    observation, info = env.reset(seed=3)
    assert env.observation_space.contains(observation) and info["seat"] == 1
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, info = env.step(int(info["action_mask"].argmax()))
        total, ended = total + reward, terminated or truncated
    assert env.observation_space.contains(observation) and total in (-1.0, 0.0, 1.0)
    with pytest.raises(UsageError, match="the game is over"):
        env.step(0)
    with pytest.raises(UsageError, match="number from 0 to"):
        SingleAgent(make(), seat=7)
    agent = PPO("MlpPolicy", SingleAgent(make()), n_steps=8, batch_size=8, n_epochs=1, seed=0)
    assert agent.learn(16).num_timesteps == 16


def test_one_seat_is_kept_and_goes_on():
    env, other = (SingleAgent(tictactoe_v3.env(render_mode="ansi"), 1, first_allowed) for _ in range(2))
    _, info = env.reset(seed=0)
    assert set(info) == {"seat", "action_mask"} and info["seat"] == 1
    assert env.step(4)[1:4] == (0.0, False, False)
    state = env.get_state()
    other.reset(seed=9)
    other.set_state(state)
    assert other.action_masks().tolist() == env.action_masks().tolist() and other.action_masks().sum() == 6
    seen, reward, terminated, truncated, info = other.step(8)
    assert (reward, terminated, truncated) == (-1.0, True, False) and info["action_mask"].all()
    assert seen[..., 1].sum() == 3  # the end from the seat's side
    ended = other.get_state()
    env.set_state(ended)
    for game in (env, other):
        with pytest.raises(UsageError, match=r"^the game is over: call reset\(\)$"):
            game.step(0)
    first, second = env.reset(), other.reset()
    assert first[1]["seat"] == second[1]["seat"] == 1 and first[1]["action_mask"].sum() == 8
    assert env.render_mode == "ansi" and env.metadata["name"] == "tictactoe_v3" and env.num_players == 1
