"""A collector whose answers an opponent answers too: who plays what, who is compared with whom, what is counted."""

from __future__ import annotations

import re

import pytest

from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.opponents import Opponents
from polyathlon.envs.errors import UsageError

asked = []


def longer(prompts, a, b):
    """A judge of texts."""
    asked.append((list(prompts), list(a), list(b)))
    return [0.5 + 0.25 * ((len(x) > len(y)) - (len(x) < len(y))) for x, y in zip(a, b, strict=True)]


def answer(group, reward, text="x", broke=False):
    failure = {"kind": "lost", "message": "gone"} if broke else None
    return Episode([7, 8], [False, True], [0.0, 0.0], [0.0, reward], group, group, text, failure=failure)


class Rules:
    """Reads ids as text."""

    def decode(self, ids):
        return " ".join(map(str, ids))


class Played:
    """A rollout that plays what it is given and writes down what it is asked."""

    num_prompts = 2
    knows_tasks = False
    rules = Rules()

    def __init__(self, *answers):
        self.answers, self.calls, self.judged = list(answers), [], 0

    def draw(self, n):
        return ["p", "q", "r"][:n]

    def sampler(self, *roles, mix=None):
        return (*roles, mix)

    def play(self, tasks, groups, sampler=None):
        self.calls.append(("play", list(tasks), list(groups), sampler))
        return self.answers.pop(0)

    def log_episodes(self, episodes, by_policy=True):
        self.calls.append(("log", [e.text for e in episodes], by_policy))

    def log_signal(self, differs):
        self.calls.append(("signal", differs))

    def log_judged(self, pairs):
        self.judged += pairs

    def task_method(self, name):
        return None


def test_each_answer_has_an_opponent_of_its_own():
    own = [answer(0, 1.0, "a"), answer(0, 0.0, "b", broke=True), answer(1, 0.5, "c"), answer(1, 0.0, "d")]
    others = [answer(0, 0.0, "e"), answer(0, 1.0, "f"), answer(1, 0.5, "g"), answer(1, 1.0, "h", broke=True)]
    rollout = Played(own, others)
    collector = Opponents(group_size=2, mixture=1)
    assert collector.collect(rollout) == own[:3]
    assert [e.extra for e in own] == [{"win": 1.0}, {"win": 0.5}, {"win": 0.5}, {"win": 0.5}]
    assert rollout.calls == [
        ("play", ["p", "p", "q", "q"], [0, 0, 1, 1], None),
        ("play", ["p", "p", "q", "q"], [0, 0, 1, 1], ("reference", None)),
        ("log", ["a", "b", "c", "d"], True),
        ("log", ["e", "f", "g", "h"], False),
        ("signal", [True, False]),
    ]
    assert rollout.judged == 0


def test_a_judge_reads_the_answers_of_both():
    own, others = [answer(0, 1.0, "aaa"), answer(1, 1.0, "b")], [answer(0, 1.0, "c"), answer(1, 1.0, "dd")]
    rollout, collector = Played(own, others), Opponents(group_size=1, judge=f"{__name__}:longer")
    asked.clear()
    assert collector.collect(rollout) == own and [e.extra["win"] for e in own] == [0.75, 0.25]
    assert asked[0] == (["7", "7"], ["aaa", "b"], ["c", "dd"]) and rollout.judged == 2
    assert rollout.calls[-1] == ("signal", [True, True])


def test_where_all_broke_nobody_is_compared():
    own, others = [answer(0, 1.0, broke=True)], [answer(0, 0.0)]
    rollout = Played(own, others)
    rollout.num_prompts = 1
    assert Opponents(group_size=1).collect(rollout) == own and own[0].extra == {"win": 0.5}
    assert rollout.calls[-1] == ("signal", [])


def test_who_writes_the_opponents_answers():
    rollout = Played()
    assert Opponents(mixture=0, opponent="past").sampler(rollout) == ("policy", None)
    assert Opponents(mixture=1, opponent="past").sampler(rollout) == ("past", None)
    *roles, mix = Opponents(mixture=0.25, opponent="past").sampler(rollout)
    assert roles == ["policy", "past"] and mix(8.0, 4.0) == 7.0


def test_what_it_is_made_of():
    plain = Opponents()
    assert (plain.group_size, plain.mixture, plain.opponent) == (4, 0.125, "reference")
    assert (plain.judge, plain.prompts, plain.roles) == (None, None, ("reference",))
    made = Opponents(group_size=2, mixture=1, opponent="past", judge="folder", prompts="prompt_samplers:Every")
    assert (made.group_size, made.mixture, made.opponent, made.judge) == (2, 1.0, "past", "folder")
    assert isinstance(made.mixture, float) and made.prompts == "prompt_samplers:Every" and made.roles == ("past",)
    for wrong in (-0.01, 1.01):
        with pytest.raises(UsageError, match="from 0"):
            Opponents(mixture=wrong)
    with pytest.raises(UsageError, match=re.escape(f"{__name__}:nobody")):
        Opponents(judge=f"{__name__}:nobody")
