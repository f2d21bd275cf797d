"""Answers that are compared: by what they earned or by a judge, in groups, with the task's own, and what a judge reads."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.judging import (
    check_judge,
    judge_of,
    own_answers,
    prompts_of,
    repeats,
    wins,
    write_win_rates,
)
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language.judges import DENSITY_RATIO

asked = []


def of_texts(prompts, a, b):
    """A judge: the second number of 0.1 x 0.1 is how often the first text of a pair wins."""
    asked.extend(zip(prompts, a, b, strict=True))
    return [0.5 + (int(x) - int(y)) / 20 for x, y in zip(a, b, strict=True)]


def answer(reward=0.0, text="", group=0, task=0, prompt=(7,)):
    written = [False] * len(prompt) + [True]
    return Episode([*prompt, 9], written, [0.0] * len(written), [0.0] * len(prompt) + [reward], group, task, text)


class Rollout:
    """What a judge and the task's own answers see of an agent."""

    def __init__(self, knows_tasks=True, **methods):
        self.knows_tasks, self.methods, self.judged = knows_tasks, methods, 0
        self.rules = SimpleNamespace(decode=lambda ids: "-".join(map(str, ids)))

    def log_judged(self, pairs):
        self.judged += pairs

    def task_method(self, name):
        return self.methods.get(name)


def test_without_a_judge_what_was_earned_is_compared():
    rollout = Rollout()
    found = wins(rollout, None, [answer(1.0), answer(0.5), answer(0.0)], [answer(0.0), answer(0.5), answer(2.0)])
    assert found == [1.0, 0.5, 0.0] and rollout.judged == 0
    with pytest.raises(ValueError, match="zip"):
        wins(rollout, None, [answer()], [])


def test_a_judge_is_asked_of_both_texts_and_counted():
    rollout = Rollout()
    asked.clear()
    a, b = [answer(text="4", prompt=(1, 2)), answer(text="1")], [answer(text="2"), answer(text="3")]
    assert wins(rollout, f"{__name__}:of_texts", a, b) == pytest.approx([0.6, 0.4]) and rollout.judged == 2
    assert asked[:2] == [("1-2", "4", "2"), ("7", "1", "3")]


def test_win_rates_are_means_over_the_others_of_a_group():
    groups = [
        [answer(text="0"), answer(text="2"), answer(text="6")],
        [answer(text="5")],
        [answer(text="9"), answer(text="1")],
    ]
    rollout = Rollout()
    write_win_rates(rollout, f"{__name__}:of_texts", groups)
    found = [[episode.score for episode in group] for group in groups]
    assert found[0] == pytest.approx([0.3, 0.45, 0.75]) and found[2] == pytest.approx([0.9, 0.1])
    assert rollout.judged == 4  # pairs within groups alone
    earned = [[answer(1.0), answer(0.0)], [answer(3.0), answer(3.0)]]
    write_win_rates(rollout, None, earned)
    assert [[episode.score for episode in group] for group in earned] == [[1.0, 0.0], [0.5, 0.5]]


def test_a_judge_reads_a_text_a_conversation_or_the_tokens():
    given_up = []

    def start(task):
        messages = [{"role": "user", "content": f"p{task}"}]
        return SimpleNamespace(task=task, messages=messages * (2 if task == 2 else 1))

    rollout = Rollout(start=start, give_up=lambda trial: given_up.append(trial.task))
    twice = [{"role": "user", "content": "p2"}] * 2
    assert prompts_of(rollout, [answer(task=1), answer(task=2), answer(task=1)]) == ["p1", twice, "p1"]
    assert given_up == [1, 2]  # each problem is begun once, and ended
    for other in (Rollout(knows_tasks=False, start=start), Rollout()):
        assert prompts_of(other, [answer(task=1, prompt=(4, 5))]) == ["4-5"]


class Words:
    """A tokenizer: a letter is its place in the alphabet."""

    def encode(self, text, add_special_tokens=True):
        assert not add_special_tokens
        return [ord(letter) - 96 for letter in text]


def rules(longest=4, room=3):
    return SimpleNamespace(tokenizer=Words(), eos=99, limit=lambda start: min(start + room, longest + 2))


def test_the_tasks_own_answers_are_judged_by_the_task():
    heard = []
    texts = {0: "ab", 1: None, 2: "abcd", 3: "c"}
    rollout = Rollout(
        solution=texts.get,
        start=lambda task: f"trial {task}",
        prepare=lambda begun: heard.append(("prepare", list(begun))),
        answer=lambda trial, text: heard.append((trial, text)) or SimpleNamespace(reward=len(text) / 4),
        give_up=lambda trial: heard.append(("over", trial)),
    )
    rollout.rules = rules()
    found = own_answers(rollout, [answer(group=5 + task, task=task, prompt=(7, 8)) for task in range(4)])
    first = Episode(
        [7, 8, 1, 2, 99], [False] * 2 + [True] * 3, [0.0] * 5, [0.0] * 4 + [0.5], 5, 0, "ab", "given", turns=1
    )
    last = Episode([7, 8, 3, 99], [False] * 2 + [True] * 2, [0.0] * 4, [0.0] * 3 + [0.25], 8, 3, "c", "given", turns=1)
    shown = [None if own is None else vars(own) | {"score": None} for own in found]
    assert shown == [vars(first) | {"score": None}, None, None, vars(last) | {"score": None}]
    assert found[0].logps is not found[0].rewards
    assert heard == [
        ("prepare", [("trial 0", "ab"), ("trial 3", "c")]),
        *[("trial 0", "ab"), ("over", "trial 0"), ("trial 3", "c"), ("over", "trial 3")],
    ]
    said = (
        "gold=True takes the task's own answers, but it has none (LanguageTask.solution), or a wrapper stands around it: take gold=False "
        "(recipe_kwargs={'gold': False})"
    )
    both = {"solution": texts.get, "start": str}
    for lacking in (Rollout(knows_tasks=False, **both), Rollout(solution=texts.get), Rollout(start=str)):
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            own_answers(lacking, [])


def test_repeats_of_runs_of_three():
    def counted(*ids):
        return repeats(Episode([1, 2, 3, *ids], [False] * 3 + [True] * len(ids), [], [], 0))

    assert counted() == counted(1) == counted(1, 2, 3) == counted(1, 2, 1, 2) == 0
    assert counted(1, 1, 1, 1) == 1 and counted(1, 2, 1, 2, 1) == 1 and counted(1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3) == 2


def test_judges_are_imported_at_once_and_models_later():
    check_judge(None)
    check_judge("a folder that is not there")
    check_judge(f"{DENSITY_RATIO}:reference")
    check_judge(f"{__name__}:of_texts")
    assert judge_of(f"{__name__}:of_texts") is judge_of(f"{__name__}:of_texts")
    with pytest.raises(UsageError, match="nobody"):
        check_judge(f"{__name__}:nobody")
