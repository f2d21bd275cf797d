"""The rules on tensors and the rules on the event log: the same deals, turns, masks, views, rewards and ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polyathlon.envs import keyed
from polyathlon.envs.keyed import make_key
from polyathlon.envs.random import bits, choice, make_keys
from polyathlon.envs.werewolf import Werewolf
from polyathlon.envs.werewolf.dynamics import permutation
from polyathlon.envs.werewolf.game import Game
from polyathlon.envs.werewolf.observer import Observer

PLAY = 100  # streams of the random players, away from those of the game


def random_actions(task, state, mask):
    if not task.simultaneous:
        return choice(state.key, state.t, mask, PLAY)
    columns = [choice(state.key, state.t, mask[:, i], PLAY + i) for i in range(task.num_players)]
    return torch.stack(columns, 1)


def assert_equal_games(task, count, first=0, with_views=True):
    """Play `count` games in both forms by the same random actions, comparing everything in each tick.

    Without views, masks are compared in every fifth game.
    """
    seeds = torch.arange(first, first + count)
    state = task.reset(make_keys(seeds, seeds % 3))
    observers = [Observer(task.layout) if with_views else None for _ in range(count)]
    for observer in observers:
        if observer:
            observer.clear()
    games = [
        Game(task.config, make_key(first + i, (first + i) % 3), on_event=o.receive if (o := observers[i]) else None)
        for i in range(count)
    ]
    rows = list(range(count))
    winners = np.zeros(4, int)
    while rows:
        mask, acting = task.mask(state), task.acting(state)
        views = task.observe_all(state).numpy() if with_views else None
        action = random_actions(task, state, mask)
        allowed, acts, chosen = mask.numpy(), acting.numpy(), action.tolist()
        state, reward, ended = task.step(state, action)
        rewards, ends = reward.numpy(), ended.numpy()
        kept, paid = [], []
        for k, row in enumerate(rows):
            game = games[row]
            who = np.flatnonzero(acts[k]).tolist()
            assert (sorted(game.acting()) if task.simultaneous else game.queue[:1]) == who
            if views is not None:
                seen = np.stack([observers[row].vector(i) for i in range(task.num_players)])
                assert np.array_equal(seen, views[k])
            for i in who if with_views or row % 5 == 0 else ():
                legal = np.flatnonzero(allowed[k, i] if task.simultaneous else allowed[k])
                assert np.array_equal(game.legal(i), legal)
            if task.simultaneous:
                game.act_all({i: chosen[k][i] for i in who})
            else:
                game.act(who[0], chosen[k])
            paid.append(list(game.rewards))
            assert game.is_over == ends[k]
            if game.is_over:
                assert game.winner == int(state.winner[k])
                winners[game.winner] += 1
            else:
                kept.append(k)
        np.testing.assert_allclose(paid, rewards, atol=1e-6)  # of all games of the tick at once
        rows = [rows[k] for k in kept]
        index = torch.tensor(kept, dtype=torch.int64)
        state = type(state)(*[part.index_select(0, index) for part in state])
    return winners


MANY = {"roles": ["werewolf"] * 3 + ["seer", "doctor"] + ["villager"] * 5}
RULES = {
    "default": {},
    "four": {"num_players": 4, "config": {"vote_tie": "random", "simultaneous_vote": False}},
    "wolves by lot, revealed": {
        "config": {
            **MANY,
            "wolf_consensus": "plurality_random",
            "wolf_order": "random",
            "reveal_role": True,
            "talk_turns": 2,
            "doctor_self": False,
            "doctor_repeat": False,
            "speak_order": "random",
        }
    },
    "shaped, last words": {
        "num_players": 9,
        "config": {
            "last_words": True,
            "simultaneous_night": True,
            "simultaneous_talk": True,
            "vote_rule": "majority",
            "vote_reward": 0.1,
            "survive_reward": 0.05,
            "max_rounds": 3,
        },
    },
    "quiet start": {"config": {"first_night_kill": False, "talk_turns": 0, "wolf_consensus": "first"}},
    "no seer": {
        "config": {
            "roles": ["werewolf"] * 2 + ["doctor"] + ["villager"] * 4,
            "first_night_kill": False,
            "wolf_consensus": "one_random",
            "speak_order": "fixed",
        }
    },
    "secret mafia": {"config": "secret_mafia", "quirks": True},
    "arena": {"config": {"suite": "werewolf_arena", "talk_turns": 3}, "quirks": True},
    "arena, open votes": {
        "config": {"suite": "werewolf_arena", "talk_turns": 2, "reveal_votes": True, "simultaneous_vote": False}
    },
}


@pytest.mark.parametrize("ticks", ["turns", "phases"])
@pytest.mark.parametrize("name", RULES)
def test_both_forms_agree_under_every_rule(name, ticks):
    assert_equal_games(Werewolf(ticks=ticks, **RULES[name]), 12)


@pytest.mark.slow
def test_both_forms_agree_on_ten_thousand_games():
    winners = assert_equal_games(Werewolf(num_players=4), 7000, with_views=False)
    winners += assert_equal_games(Werewolf(), 3000, first=7000, with_views=False)
    assert winners[1] > 500 and winners[2] > 5000 and winners.sum() == 10_000


def test_numbers_drawn_one_by_one_equal_those_on_tensors():
    seeds, episodes = torch.tensor([0, 7, 2**62 - 1]), torch.tensor([0, 5, 2**31])
    keys = make_keys(seeds, episodes)
    for i, (seed, episode) in enumerate(zip(seeds.tolist(), episodes.tolist())):
        key = make_key(seed, episode)
        assert [x % 2**64 for x in keys[i].tolist()] == list(key)
        drawn = bits(keys, 9, (5,), stream=3)[i].tolist()
        assert [x % 2**64 for x in drawn] == [keyed.bits(key, 9, j, 3) for j in range(5)]
        assert permutation(keys, torch.tensor([4, 4, 4]), 7, 2)[i].tolist() == keyed.ranks(key, 4, 7, 2)
        mask = torch.tensor([[False, True, True, False, True]]).expand(3, 5)
        assert int(choice(keys, 11, mask, 6)[i]) == keyed.choice(key, 11, [1, 2, 4], 6)


def test_a_game_does_not_depend_on_its_neighbours():
    task = Werewolf()

    def play(count):
        seeds = torch.arange(count)
        state = task.reset(make_keys(seeds, torch.zeros_like(seeds)))
        record = []
        for _ in range(12):
            state, reward, _ = task.step(state, random_actions(task, state, task.mask(state)))
            record.append(torch.cat([part[:1].flatten().double() for part in (*state, reward)]))
        return torch.stack(record)

    alone = play(1)
    for count in (3, 64):
        torch.testing.assert_close(play(count), alone, rtol=0, atol=0)


@pytest.mark.parametrize("ticks", ["turns", "phases"])
def test_the_step_compiles_into_one_graph(ticks):
    task = Werewolf(ticks=ticks, config={"vote_tie": "random", "reveal_role": True, "last_words": True})
    compiled = torch.compile(task.step, fullgraph=True, backend="aot_eager")
    seeds = torch.arange(16)
    state = task.reset(make_keys(seeds, torch.zeros_like(seeds)))
    for _ in range(10):
        action = random_actions(task, state, task.mask(state))
        expected = task.step(state, action)
        found = compiled(state, action)
        for a, b in zip((*expected[0], *expected[1:]), (*found[0], *found[1:])):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        state = expected[0]
