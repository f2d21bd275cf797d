"""What a seat sees in numbers, said in words."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from polyathlon.envs.werewolf.config import make_config
from polyathlon.envs.werewolf.layout import Layout
from polyathlon.envs.werewolf.seat_words import describe_seat, describe_seat_briefly
from polyathlon.wrappers import TokenAction, Verbalize


def layout(players=5, history=2):
    return Layout(make_config(num_players=players), history)


def observed(where, **parts):
    vector = np.zeros(where.size, np.int8)
    views = where.split(vector)
    for name, places in parts.items():
        for place, value in places.items():
            views[name][place] = value
    return vector


def allowed(*actions, players=5):
    mask = np.zeros(4 * players + 2, bool)
    mask[list(actions)] = True
    return mask


def second_day():
    """The Seer, player_1 of five, at the second vote: it looked at player_0, a werewolf, and at player_4, who is none."""
    where = layout()
    seen = observed(
        where,
        self={1: 1},
        role={2: 1},
        known={(1, 2): 1, (0, 1): 1, (4, 0): 1, (4, 2): 1, (4, 3): 1},
        round={0: 2},
        phase={2: 1},
        alive={0: 1, 1: 1, 4: 1},
        deaths={(2, 0): 1, (3, 1): 1},
        votes={(1, 0, 3): 1, (1, 1, 5): 1},
        # this round: 1 claims against 4, 4 says nothing; the one before: 3 vouched for 2
        speech={(0, 0, 1, 2): 1, (0, 0, 1, 8): 1, (0, 0, 4, 3): 1, (1, 0, 3, 1): 1, (1, 0, 3, 6): 1},
    )
    return where, seen, allowed(0, 4, 5)


def test_a_seat_is_told_all_that_its_numbers_say_and_which_actions_it_has():
    assert describe_seat(*second_day()).splitlines() == [
        "You are player_1, the seer. Round 2, vote.",
        "Alive: player_0, player_1, player_4.",
        "Killed at night: player_2.",
        "Voted out: player_3.",
        "You know: player_0 is a werewolf.",
        "You know: player_4 is no werewolf.",
        "Round 1: player_3 vouches for player_2; player_0 votes for player_3; player_1 votes for nobody.",
        "Round 2: player_1 claims to be the Seer and accuses player_4; player_4 says nothing.",
        "Answer with a number: 0 player_0; 4 player_4; 5 pass",
    ]


def test_the_short_form_says_the_same_in_few_characters():
    text = describe_seat_briefly(*second_day())
    assert text == "seer 1 vote2 alive 0 1 4 0=werewolf 4=ok said1 3v2 0>3 1>- said2 1c4 4s: 0 4 5"


@pytest.mark.parametrize("form", [describe_seat, describe_seat_briefly])
def test_every_number_of_an_observation_changes_the_words(form):
    where, seen, mask = second_day()
    told = form(where, seen, mask)
    night = observed(where, self={1: 1}, role={1: 1}, round={0: 1}, phase={0: 1}, proposals={3: 1}, protected={2: 1})
    assert "protected player_2" in form(where, night, mask) or "protected 2" in form(where, night, mask)
    assert "player_3 (1)" in form(where, night, mask) or "3x1" in form(where, night, mask)
    known = where.where["known"]
    for i in np.flatnonzero(seen):
        if known.start <= i < known.stop and i != known.start + 1:
            continue  # the own role stands elsewhere, and "no werewolf" in three numbers
        other = seen.copy()
        other[i] = 0
        if (where.where["deaths"].start <= i < where.where["deaths"].stop) and form is describe_seat_briefly:
            continue  # the short form tells the dead by their absence
        assert form(where, other, mask) != told, i


def test_parts_and_the_vector_are_told_alike_and_an_ended_game_offers_nothing():
    where, seen, mask = second_day()
    parts = {name: part.copy() for name, part in where.split(seen).items()}
    for form in (describe_seat, describe_seat_briefly):
        assert form(where, parts, mask) == form(where, seen, mask)
        over = seen.copy()
        where.split(over)["phase"][:] = 0
        assert "over" in form(where, over, mask) and not form(where, over, mask).endswith("5")


@pytest.mark.parametrize("brief", [False, True])
def test_a_game_in_numbered_words_is_played_by_the_scripted_player_without_a_fault(brief):
    env = Verbalize(gym.make("polyathlon/Werewolf-v0", num_players=4, opponent="heuristic"), brief=brief)
    faults, returns = 0, []
    for seed in range(4):
        text, info = env.reset(seed=seed)
        over = False
        while not over:
            answer = env.task.next_solution(env._task._row.episode)
            assert f" {answer}" in text.rpartition(":")[2]
            text, reward, terminated, truncated, info = env.step(answer)
            faults, over = faults + info["verdict"]["invalid"], terminated or truncated
        returns.append(reward)
    assert faults == 0 and set(returns) <= {-1.0, 0.0, 1.0}


def test_a_game_of_four_fits_into_the_context_of_tiny():
    env = TokenAction(
        Verbalize(gym.make("polyathlon/Werewolf-v0", num_players=4, opponent="heuristic"), brief=True),
        max_new_tokens=3,
        max_length=1024,
    )
    rows = env.batch(3)
    contexts = rows.reset(seed=1)
    live = list(range(3))
    while live:
        said = [env.rules.tokenizer.decode(ids).rpartition(":")[2].split()[0] for ids in contexts]
        ids = [[*env.rules.tokenizer.encode(one, add_special_tokens=False), env.rules.eos] for one in said]
        turn = rows.step_utterance(ids, rows=live)
        over = turn.terminated | turn.truncated
        assert not turn.truncated.any() and not any(info["verdict"]["invalid"] for info in turn.infos)
        live = [i for k, i in enumerate(live) if not over[k]]
        contexts = [turn.context[k] for k in range(len(over)) if not over[k]]
