"""Games of separate environments that are played in one batch are the games that they play alone.

Modules: polyathlon.envs.tensor.turn_engine.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import polyathlon  # noqa: F401
from polyathlon.envs.games.tic_tac_toe import TicTacToe
from polyathlon.envs.tensor.joined_seats import joinable_seat, prepare_resets, prepare_steps
from polyathlon.envs.tensor.seat_env import SeatEnv
from polyathlon.envs.tensor.seats import SeatVectorEnv
from polyathlon.wrappers.verbalize import Verbalize

GAMES = [
    ("polyathlon/Werewolf-v0", {"num_players": 4, "opponent": "heuristic"}),
    ("polyathlon/TicTacToe-v0", {"opponent": "random"}),
    ("polyathlon/RockPaperScissors-v0", {"opponent": "random"}),
]
IDS = [name for name, _ in GAMES]


def made(name, words, number):
    return [gym.make(name, **words) for _ in range(number)]


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(np.array_equal(one, other))


def asked(monkeypatch):
    """Count the calls of batches of games, by their number of rows."""
    counted: list[int] = []
    for name in ("reset", "step"):
        plain = getattr(SeatVectorEnv, name)

        def counting(self, *given, _plain=plain, **words):
            counted.append(self.num_envs)
            return _plain(self, *given, **words)

        monkeypatch.setattr(SeatVectorEnv, name, counting)
    return counted


@pytest.mark.parametrize(("name", "words"), GAMES, ids=IDS)
def test_games_played_together_are_those_played_alone(name, words, monkeypatch):
    alone, together = made(name, words, 5), made(name, words, 5)
    rng = np.random.default_rng(0)
    counted = asked(monkeypatch)
    for first in (7, 40):  # the second time in environments that have played
        starts = [env.reset(seed=first + i) for i, env in enumerate(alone)]
        del counted[:]
        assert prepare_resets(together, range(first, first + 5))
        assert same(starts, [env.reset(seed=first + i) for i, env in enumerate(together)]) and counted == [5]
        live = list(range(5))
        while live:
            actions = [np.int64(rng.choice(np.flatnonzero(alone[i].unwrapped.action_masks()))) for i in live]
            steps = [alone[i].step(action) for i, action in zip(live, actions)]
            del counted[:]
            is_prepared = prepare_steps([together[i] for i in live], actions)
            assert same(steps, [together[i].step(action) for i, action in zip(live, actions)])
            assert is_prepared == (len(live) > 1) and counted == [len(live)]
            for i in live:
                assert same(alone[i].unwrapped.action_masks(), together[i].unwrapped.action_masks())
            live = [i for i, step in zip(live, steps) if not (step[2] or step[3])]
    # the next game without a seed, alone: the count of episodes went with the row
    assert same([env.reset() for env in alone], [env.reset() for env in together])


def test_a_call_that_was_not_foreseen_is_played_as_if_nothing_had_been_prepared():
    name, words = GAMES[1]
    plain, prepared = made(name, words, 2), made(name, words, 2)
    for envs in (plain, prepared):
        for i, env in enumerate(envs):
            env.reset(seed=i)
    assert prepare_steps(prepared, [0, 0])
    free = np.flatnonzero(plain[0].unwrapped.action_masks())
    assert same(plain[0].step(free[-1]), prepared[0].step(free[-1]))
    assert prepare_resets(prepared, [3, 4])
    assert same(plain[0].reset(seed=9), prepared[0].reset(seed=9))
    # a state put back in between: what was prepared belonged to another
    plain[1].reset(seed=5), prepared[1].reset(seed=5)
    kept = [env.unwrapped.get_state() for env in (plain[1], prepared[1])]
    plain[1].reset(seed=6), prepared[1].reset(seed=6)
    action = np.flatnonzero(plain[1].unwrapped.action_masks())[0]
    assert prepare_steps([prepared[1], prepared[0]], [action, np.flatnonzero(prepared[0].unwrapped.action_masks())[0]])
    plain[1].unwrapped.set_state(kept[0]), prepared[1].unwrapped.set_state(kept[1])
    assert same(plain[1].step(free[0]), prepared[1].step(free[0]))


def test_only_seats_against_players_by_name_are_joined():
    def first_free(obs, mask, player, env_index, key):
        return mask.to(torch.int8).argmax(1)

    name, words = GAMES[1]
    assert joinable_seat(gym.make(name, **words)) is not None
    assert joinable_seat(gym.make(name, opponent=first_free)) is None
    assert joinable_seat(SeatEnv(TicTacToe(), "random")) is not None
    assert joinable_seat(SeatEnv(TicTacToe(), "random", time_limit=5.0)) is None
    assert joinable_seat(gym.make("polyathlon/TSP-v0")) is None
    assert joinable_seat(gym.wrappers.TransformAction(gym.make(name, **words), lambda a: a, None)) is None
    assert not prepare_resets([gym.make(name, opponent=first_free) for _ in range(2)], [0, 1])
    assert not prepare_resets(made(name, words, 1), [0])


def test_an_error_of_one_is_said_where_it_is_called():
    envs = made(*GAMES[1], 2)
    for env in envs:
        env.reset(seed=0)
    assert not prepare_steps(envs, [0, 99])
    envs[0].step(0)
    with pytest.raises(Exception, match="99"):
        envs[1].step(99)


@pytest.mark.parametrize("number", [1, 6])
def test_conversations_about_games_are_the_same_and_cost_one_batch_a_turn(number, monkeypatch):
    name, words = GAMES[0]
    env = Verbalize(gym.make(name, **words), brief=True)

    def play():
        rng, told = np.random.default_rng(1), []
        batch = env.batch(number)
        for seed in (3, None):
            told.append(batch.reset(seed=seed)[0])
            live = list(range(number))
            while live:
                answers = [str(rng.integers(0, 5)) if rng.random() < 0.8 else "?" for _ in live]
                texts, rewards, terminated, truncated, infos = batch.step(answers, live)
                told.append((texts, rewards.tolist(), [info["messages"] for info in infos]))
                live = [i for i, *over in zip(live, terminated, truncated) if not any(over)]
        return told

    counted = asked(monkeypatch)
    together = play()
    assert max(counted) == number and len(counted) <= len(together) + 10  # ten more where copies are compared
    with monkeypatch.context() as patch:
        patch.setattr("polyathlon.envs.tensor.joined_seats.joinable_seat", lambda env: None)
        assert play() == together
