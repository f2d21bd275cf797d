"""Advice in errors of environments is followed here, where no other test does it: first the error, then what it advises."""

from __future__ import annotations

import re

import gymnasium as gym
import numpy as np
import pytest

import polyathlon.envs.werewolf as werewolf
from polyathlon.envs.data.records import records
from polyathlon.envs.errors import UsageError

CHEETAH, HOPPER = "polyathlon/HalfCheetah-v5", "polyathlon/Hopper-v5"


def test_the_first_reset_is_of_all_rows():
    rows = gym.make_vec(CHEETAH, num_envs=2)
    with pytest.raises(UsageError, match="call reset\\(\\) without 'reset_mask'"):
        rows.reset(options={"reset_mask": np.array([True, False])})
    rows.reset()
    rows.reset(options={"reset_mask": np.array([True, False])})


@pytest.mark.parametrize("make", [gym.make, lambda id, **words: gym.make_vec(id, num_envs=2, **words)])
def test_a_control_cost_without_weight_is_no_objective_in_either_form(make):
    """The scalar form paid NaN without a word: MO-Gymnasium divides the cost by its weight."""
    pytest.importorskip("mo_gymnasium")
    with pytest.raises(UsageError, match="give it a positive weight"):
        make(HOPPER, reward="vector", ctrl_cost_weight=0.0)
    for words in ({"ctrl_cost_weight": 1e-3}, {"ctrl_cost_weight": 0.0, "cost_objective": False}):
        env = make(HOPPER, reward="vector", **words)
        env.reset(seed=0)
        assert np.isfinite(env.step(env.action_space.sample())[1]).all()


@pytest.mark.parametrize(
    ("id", "wrong", "said", "right"),
    [
        (CHEETAH, {"cost_objective": False}, "belongs to reward='vector'", None),
        (CHEETAH, {"cost_objective": False, "reward": "vector"}, "is for Hopper and Ant", None),
        (
            HOPPER,
            {"cost_objective": False},
            "belongs to reward='vector'",
            {"cost_objective": False, "reward": "vector"},
        ),
        ("polyathlon/Werewolf-v0", {"text": True}, "text=True, action='text'", {"text": True, "action": "text"}),
        ("polyathlon/Werewolf-v0", {"action": "txt"}, "unknown kind of action 'txt'. Did you mean 'text'", None),
        ("polyathlon/Prompts-v0", {"weights": (1.0, 2.0)}, r"give judge=\[", None),
        (
            "polyathlon/Judge-v0",
            {"weights": (1.0, 2.0, 1.0)},
            "give kind='critique', or",
            {"weights": (1.0, 2.0, 1.0), "kind": "critique"},
        ),
        (
            "polyathlon/PrivateFineTune-v0",
            {"state_sigma": 8.0},
            "private_state=True shows: give both",
            {"state_sigma": 8.0, "private_state": True},
        ),
        ("polyathlon/Werewolf-v0", {"num_players": 3}, "give the roles yourself: config=", None),
        (
            "polyathlon/Werewolf-v0",
            {"config": {"speak_order": "bid", "talk_turns": 0}},
            "talk_turns of at least 1",
            {"config": {"speak_order": "bid", "talk_turns": 1, "simultaneous_talk": False}},
        ),
    ],
)
def test_options_that_belong_together(id, wrong, said, right):
    if wrong.get("reward") == "vector" or (right or {}).get("reward") == "vector":
        pytest.importorskip("mo_gymnasium")
    with pytest.raises(UsageError, match=said):
        gym.make(id, **wrong)
    if right is not None:
        gym.make(id, **right).reset(seed=0)


def test_any_mixture_of_words_and_numbers_is_where_the_error_says():
    with pytest.raises(UsageError, match="polyathlon.envs.werewolf.env takes any mixture"):
        gym.make("polyathlon/Werewolf-v0", text=True, action="discrete")
    werewolf.env(text=True, action="discrete").reset(seed=0)


def test_rows_of_werewolf_know_their_kinds_of_action():
    with pytest.raises(UsageError, match="unknown kind of action 'txt'"):
        gym.make_vec("polyathlon/Werewolf-v0", 2, action="txt")


def test_rows_of_werewolf_in_words_are_made_as_the_error_says():
    with pytest.raises(UsageError, match=r"text=True, action='text'\).unwrapped.batch\(n\)"):
        gym.make_vec("polyathlon/Werewolf-v0", num_envs=2, text=True, action="text")
    rows = gym.make("polyathlon/Werewolf-v0", text=True, action="text").unwrapped.batch(2)
    assert len(rows.reset(seed=0)[0]) == 2


USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
TWO_ROWS = '{"prompt": "p", "completion": "a"}\n{"prompt": "p", "completion": "b"}\n'


@pytest.mark.parametrize(
    ("wrong", "said", "right"),
    [
        (
            {"prompt": "p", "completions": ["a", "b"], "scores": [1]},
            "give one score a completion",
            {"prompt": "p", "completions": ["a", "b"], "scores": [1, 0]},
        ),
        (
            {"prompt": "p", "messages": [USER, ASSISTANT]},
            "put the prompt into the messages",
            {"messages": [USER, ASSISTANT]},
        ),
    ],
)
def test_rows_are_written_as_the_error_says(wrong, said, right):
    with pytest.raises(UsageError, match=said):
        records([wrong])
    assert len(records([right])) == 1


def test_lines_of_records_are_named_as_the_error_says(tmp_path):
    for name, text, said in (("a.json", TWO_ROWS, "name the file .jsonl"), ("b.jsonl", "[1]\n", "write {...} on each")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=re.escape(said)):
            records(str(tmp_path / name))
    (tmp_path / "a.jsonl").write_text(TWO_ROWS)
    assert len(records(str(tmp_path / "a.jsonl"))) == 2


def test_what_the_challenge_of_nethack_refuses_is_taken_as_the_error_says(tmp_path):
    pytest.importorskip("nle")
    play = {"task": "score", "actions": "full", "character": "@"}
    with pytest.raises(UsageError, match=r"play task='score' with actions='full' and character='@'"):
        gym.make("polyathlon/NetHack-v0", task="challenge").reset(seed=1)
    assert gym.make("polyathlon/NetHack-v0", **play).reset(seed=1)
    with pytest.raises(UsageError, match=r"use task='score' with actions='full'"):
        gym.make("polyathlon/NetHack-v0", task="challenge", wizard=True)
    assert gym.make("polyathlon/NetHack-v0", **play, wizard=True).reset()
    with pytest.raises(UsageError, match="give save_ttyrec_every=1"):
        gym.make("polyathlon/NetHack-v0", savedir=tmp_path, save_ttyrec_every=0)
    assert gym.make("polyathlon/NetHack-v0", savedir=tmp_path, save_ttyrec_every=1).reset()
