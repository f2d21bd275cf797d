"""Werewolf-v0: one seat in numbers and in words, the others played inside, all rows at once."""

from __future__ import annotations

import re
import sys
import time

import gymnasium as gym
import numpy as np
import pytest
import torch

import polyathlon
from polyathlon.agents import SAC, LanguageAgent
from polyathlon.agents.games.word_seats import Speaker
from polyathlon.envs import werewolf
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.seat_env import SeatEnv
from polyathlon.envs.werewolf.speakers import GuardedSpeaker
from polyathlon.envs.werewolf.words_task import WerewolfWords


def words(**options):
    return gym.make(
        "polyathlon/Werewolf-v0", text=True, action="text", **{"num_players": 5, "opponent": "heuristic", **options}
    ).unwrapped


def played(task, rows, seed, answer="[player_1]"):
    batch = task.batch(rows)
    texts, _ = batch.reset(seed=seed)
    seen, live = [[text] for text in texts], list(range(rows))
    while live:
        texts, rewards, ended, cut, infos = batch.step([answer] * len(live), rows=live)
        for k, row in enumerate(live):
            seen[row].append((texts[k], float(rewards[k]), infos[k]["verdict"]["invalid"]))
        live = [row for k, row in enumerate(live) if not (ended[k] or cut[k])]
    return seen


def test_the_id_in_both_forms():
    env = gym.make("polyathlon/Werewolf-v0", num_players=5)
    assert isinstance(env.unwrapped, SeatEnv) and env.unwrapped.faults == []
    assert isinstance(words(), WerewolfWords)
    with pytest.raises(UsageError, match=r"in numbers .* or in words"):
        gym.make("polyathlon/Werewolf-v0", text=True)
    with pytest.raises(UsageError, match="batch"):
        gym.make_vec(
            "polyathlon/Werewolf-v0", num_envs=2, vectorization_mode="vector_entry_point", text=True, action="text"
        )
    for options, message in (
        ({"seat": 5}, "number from 0 to 4"),
        ({"opponent": "nobody"}, "unknown opponent"),
        ({"view": "long"}, "unknown view 'long'"),
        ({"render_mode": "html"}, "unknown render_mode"),
    ):
        with pytest.raises(UsageError, match=message):
            words(**options)


def test_rows_together_and_alone_play_the_same_games():
    task = words()
    together = played(task, 4, 3)
    for row in range(4):
        assert played(words(), 1, 3 + row)[0] == together[row]
    ends = [game[-1][1] for game in together]
    assert set(ends) <= {-1.0, 0.0, 1.0}


def test_the_game_is_that_of_the_turn_based_form():
    task = words(seat=0)
    text, info = task.reset(options={"task": (7, 0)})
    env = werewolf.env(num_players=5, text=True, action="text")
    env.reset(seed=7)
    whole = env.observe("player_0")
    role = next(line for line in whole.splitlines() if "You are a" in line)
    assert role in text and info["task"] == (7, 0)
    with pytest.raises(UsageError, match=r"the id of a game is \(seed, episode\)"):
        task.reset(options={"task": 3})


def test_later_turns_say_only_what_is_new():
    task = words()
    for game in played(task, 6, 0):
        for text, _, _ in game[1:-1]:
            assert "This is a game of Werewolf" not in text and text.count("Night falls") <= 1
            assert text.splitlines()[-1].startswith("[Moderator]")
        assert game[-1][0] == ""


def test_an_answer_that_names_nobody_is_asked_for_again_and_then_replaced():
    task = words(seat="random", opponent="random")
    seed = next(s for s in range(50) if "Whom do" in task.reset(options={"task": (s, 0)})[0])
    task.reset(options={"task": (seed, 0)})
    text, reward, over, _, info = task.step("I wonder")
    assert info["verdict"]["invalid"] and reward == 0 and not over and "Whom do" in text
    _, reward, _, _, info = task.step("I still wonder")
    assert info["verdict"]["invalid"] and "no allowed choice" in info["verdict"]["reason"]
    task.reset(options={"task": (seed, 0)})
    *_, info = task.step("\x00")
    assert info["verdict"]["invalid"] and "control character" in info["verdict"]["reason"]


def test_a_seat_that_dies_unasked_gets_another_game():
    task = words(opponent="random")
    asked = [task.reset(options={"task": (seed, 0)})[0] for seed in range(40)]
    assert all(text.splitlines()[-1].startswith("[Moderator]") and "The game is over" not in text for text in asked)
    assert any(task.begin((seed, 0)).data.attempt > 0 for seed in range(40))


class Parrot:
    """Names the first player that may be named."""

    def __init__(self):
        self.calls = []

    def answer(self, texts, keys, games):
        self.calls.append(len(texts))
        assert len(set(map(tuple, keys.tolist()))) == len(texts) == len(games)
        return ["[player_0] [pass]" if "player_0]" not in text else "[player_0]" for text in texts]


def test_speakers_answer_in_batches():
    parrot = Parrot()
    batch = words(opponent=parrot).batch(6)
    batch.reset(seed=0)
    assert max(parrot.calls) > 1
    before = len(parrot.calls)
    batch.step(["hello"] * 6)
    assert len(parrot.calls) - before < 40 and max(parrot.calls[before:]) > 1


def test_a_brief_view_is_short():
    for game in played(words(view="brief", num_players=7), 4, 1):
        assert all(len(text) < 600 for text, _, _ in game[1:]) and len(game[0]) < 600
        assert "This is a game" not in game[0] and game[0].startswith("You are player_")


def test_agents_of_every_kind_fit():
    env = polyathlon.adapt("polyathlon/Werewolf-v0", SAC)
    assert isinstance(env.action_space, gym.spaces.Box)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    spoken = polyathlon.adapt(words(view="brief"), LanguageAgent, max_new_tokens=8)
    assert LanguageAgent("tiny", spoken, num_prompts=2, group_size=2, seed=0).model_name == "tiny"


def test_a_person_sees_what_a_seat_may_know():
    task = werewolf.Werewolf(num_players=5)
    key = torch.tensor([[5, 6]])
    state = task.reset(key)
    for seat in range(5):
        shown = task.render_seat(state, 0, seat)
        own = werewolf.config.ROLES[int(state.role[0, seat])]
        assert f"you are player_{seat}" in shown and f"player_{seat}: {own}" in shown
        hidden = [p for p in range(5) if p != seat and int(state.role[0, p]) == 1 and own != "werewolf"]
        assert all(f"player_{p}: werewolf" not in shown for p in hidden)
    assert len(task.action_names) == task.action_space.n and np.unique(task.action_names).size == task.action_space.n


# ---- speakers that fail


class Broken:
    """Answers each call with what `reply` returns for its texts."""

    def __init__(self, reply):
        self.reply = reply

    def answer(self, texts, keys, games):
        return self.reply(texts)


def fails(texts):
    raise RuntimeError("out of memory")


def hangs(texts):
    time.sleep(0.3)
    return ["[pass]"] * len(texts)


SPEECHLESS = {
    "raised": (fails, "raised", "Broken raises: RuntimeError: out of memory"),
    "exits": (lambda texts: sys.exit(3), "raised", "Broken raises: SystemExit: 3"),
    "hangs": (hangs, "time limit", "Broken hangs: no answer within 0.05 s"),
    "too few": (
        lambda texts: ["[player_0]"] * (len(texts) - 1),
        "invalid action",
        r"gave \d answers where a list of \d",
    ),
    "one text": (lambda texts: "[player_0]", "invalid action", "gave a str where a list of 3 is asked for"),
    "no text": (lambda texts: [float("nan")] * len(texts), "invalid action", "answered with a float where a text"),
}


@pytest.mark.parametrize("kind", SPEECHLESS)
def test_a_speakers_fault_names_it_and_the_game_goes_on(kind):
    reply, fault, message = SPEECHLESS[kind]
    limit = 0.05 if kind == "hangs" else None
    with pytest.warns(UserWarning, match=message):
        task = words(opponent=Broken(reply), time_limit=limit, config={"max_rounds": 1})
        games = played(task, 3, 0)
    assert all(game for game in games) and {found.kind for found in task.faults} == {fault}
    assert task.faults[0].member == "Broken" and re.search(message, task.faults[0].message)
    task.opponent.close()


def test_a_speakers_wrong_answer_is_an_empty_one_and_the_others_count():
    def reply(texts):
        return [None, *["[player_0] [pass]"] * (len(texts) - 1)]

    speaker = GuardedSpeaker(Broken(reply))
    keys = torch.zeros(3, 2, dtype=torch.int64)
    with pytest.warns(UserWarning, match="NoneType"):
        assert speaker.answer(["a", "b", "c"], keys, [0, 1, 2]) == ["", "[player_0] [pass]", "[player_0] [pass]"]
    assert len(speaker.faults) == 1


def test_an_error_of_an_actor_of_ours_ends_the_run_and_limits_are_checked():
    class Failing:
        device = torch.device("cpu")
        answer = staticmethod(fails)

    with pytest.raises(TypeError):
        words(opponent=Speaker(Failing())).reset(seed=0)
    with pytest.raises(UsageError, match="time_limit is a positive number"):
        words(opponent=Broken(fails), time_limit=0)
    with pytest.raises(UsageError, match="time_limit is a positive number"):
        words(opponent="random", time_limit=-1.0)
