"""Collectors of groups, without a model: who is asked what, what is kept, replaced, marked and told.

Modules: polyathlon.agents.language.collectors.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from polyathlon.agents.language.collectors import (
    AdaptiveSecondPass,
    Groups,
    HintStages,
    Proposals,
    Solutions,
    ThinkingGroups,
)
from polyathlon.agents.language.episodes import Episode
from polyathlon.envs.errors import UsageError


class Writer:
    """A rollout of so many problems a draw, whose answers earn what `earns(task, k-th answer to it)` says."""

    def __init__(self, earns, num_prompts=2, progress=0.0, correct=True, hints=()):
        self.earns, self.num_prompts, self.progress, self.correct = earns, num_prompts, progress, correct
        self.hints, self.next, self.calls, self.asked = set(hints), 0, [], {}
        self.rules = SimpleNamespace(tokenizer=SimpleNamespace(decode=lambda ids: WORDS[ids[0]]))

    def draw(self, n):
        self.next += n
        return [(i,) for i in range(self.next - n, self.next)]

    def sampler(self, *roles):
        return roles

    def play(self, tasks, groups, sampler=None):
        self.calls.append(("play", list(tasks), list(groups), sampler))
        found = []
        for task, group in zip(tasks, groups, strict=True):
            k = self.asked[task] = self.asked.get(task, -1) + 1
            reward = self.earns(task, k)
            right = reward > 0.5 if self.correct else None
            found.append(
                Episode([7, 8], [False, True], [0.0] * 2, [0.0, reward], group, task, is_correct=right, version=[3, 3])
            )
        return found

    def log_episodes(self, episodes, by_policy=True):
        self.calls.append(("log", len(episodes), by_policy))

    def log_signal(self, differs):
        self.calls.append(("signal", list(differs)))

    def task_method(self, name):
        return (lambda task: "a hint" if task in self.hints else "") if name == "hint" else None

    def solutions(self, n):
        return [f"solution {i}" for i in range(n)]


def told(episodes):
    return [(e.task[0], e.group, e.total) for e in episodes]


def mixed(task, k):
    """Even problems are answered once right, once wrong, ...; others are always wrong."""
    return float(k % 2) if task[0] % 2 == 0 else 0.0


def test_each_problem_is_answered_so_many_times():
    rollout = Writer(mixed)
    found = Groups(group_size=2).collect(rollout)
    assert told(found) == [(0, 0, 0.0), (0, 0, 1.0), (1, 1, 0.0), (1, 1, 0.0)]
    assert rollout.calls == [
        ("play", [(0,), (0,), (1,), (1,)], [0, 0, 1, 1], None),
        ("log", 4, True),
        ("signal", [True, False]),
    ]
    plain = Groups()
    assert (plain.group_size, plain.dynamic_sampling, plain.prompts) == (8, 0, None)
    assert (plain.least_accuracy, plain.most_accuracy, plain.by_policy) == (0.0, 1.0, True)


def test_problems_are_drawn_again_until_enough_groups_differ():
    rollout = Writer(mixed)
    found = Groups(group_size=2, dynamic_sampling=5).collect(rollout)
    assert told(found) == [(0, 0, 0.0), (0, 0, 1.0), (2, 1, 0.0), (2, 1, 1.0)]
    assert rollout.calls[3] == ("play", [(2,), (2,), (3,), (3,)], [1, 1, 2, 2], None) and len(rollout.calls) == 6
    few = Writer(mixed)
    assert told(Groups(group_size=2, dynamic_sampling=1).collect(few)) == [(0, 0, 0.0), (0, 0, 1.0)]
    assert Groups(group_size=2, dynamic_sampling=3).collect(Writer(lambda task, k: 0.0)) == []
    many = Writer(lambda task, k: float(k % 2), num_prompts=3)
    assert len(Groups(group_size=2, dynamic_sampling=3).collect(many)) == 6 and len(many.calls) == 3
    alone = Writer(mixed)  # answers that are alone are not left out
    assert told(Groups(group_size=1, dynamic_sampling=2).collect(alone)) == [(0, 0, 0.0), (1, 1, 0.0)]


def test_dynamic_sampling_looks_at_verdicts_and_shares():
    small = Writer(lambda task, k: 0.1 * k)  # rewards differ, verdicts do not
    assert Groups(group_size=2, dynamic_sampling=1).collect(small) == []
    assert len(Groups(group_size=2).collect(Writer(lambda task, k: 0.1 * k))) == 4
    unjudged = Writer(lambda task, k: 0.1 * k, correct=False)
    assert len(Groups(group_size=2, dynamic_sampling=1).collect(unjudged)) == 4

    def quarter(task, k):
        return float(k < task[0])  # 0, 1, 2, 3 of four are right

    kept = Groups(group_size=4, dynamic_sampling=1, least_accuracy=0.25, most_accuracy=0.5)
    found = kept.collect(Writer(quarter, num_prompts=4))
    assert [(task, group) for task, group, _ in told(found)[::4]] == [(1, 0), (2, 1)]
    paid = Writer(lambda task, k: 0.1 * (k < 1), correct=False, num_prompts=1)  # without a verdict what earns is right
    half = Groups(group_size=2, dynamic_sampling=1, least_accuracy=0.5, most_accuracy=0.5)
    assert len(half.collect(paid)) == 2


def test_proposals_are_not_the_policys_own():
    rollout = Writer(mixed)
    found = Proposals(group_size=2).collect(rollout)
    assert [e.version for e in found] == [[-1, -1]] * 4
    assert rollout.calls == [
        ("play", [(0,), (0,), (1,), (1,)], [0, 0, 1, 1], ("proposal",)),
        ("log", 4, False),
        ("signal", [True, False]),
    ]
    plain = Proposals()
    assert (plain.group_size, plain.prompts, plain.dynamic_sampling) == (8, None, 0)
    assert Proposals(prompts="prompt_samplers:Every").prompts == "prompt_samplers:Every"


WORDS = {1: "<th", 2: "ink>", 3: "a b", 4: "</think>", 5: "f(1)", 7: "no", 8: "<think>x"}


@pytest.mark.parametrize(
    ("ids", "marks"),
    [
        ([1, 2, 3, 5, 4, 5], [0, 0, 1, 1, 0, 0]),
        ([1, 2, 3], [0, 0, 1]),
        ([3, 4, 5], [0, 0, 0]),
        ([4, 1, 2, 3, 4, 3], [0, 0, 0, 1, 0, 0]),
        ([8, 3, 4], [0, 1, 0]),  # a token that begins before the tag ends is not within
        ([1, 2, 4, 3], [0, 0, 0, 0]),
        ([2, 3], [0, 0]),
    ],
)
def test_reasoning_is_what_stands_within_the_tags(ids, marks):
    episode = Episode([8, *ids], [False] + [True] * len(ids), [], [], 0)
    tokenizer = SimpleNamespace(decode=lambda ids: WORDS[ids[0]])
    assert ThinkingGroups()._marks(episode, tokenizer) == [0.0, *map(float, marks)]
    apart = Episode([*ids, 3], [True] * len(ids) + [False], [], [], 0)
    assert ThinkingGroups()._marks(apart, tokenizer) == [*map(float, marks), 0.0]


def test_reasoning_is_marked_on_every_answer():
    found = ThinkingGroups(group_size=2).collect(Writer(mixed))
    assert [e.extra for e in found] == [{"thinking": [0.0, 0.0]}] * 4
    plain, own = ThinkingGroups(), ThinkingGroups(group_size=3, opened="no", closed="f")
    assert (plain.group_size, plain.opened, plain.closed) == (8, "<think>", "</think>")
    assert (own.group_size, own.opened, own.closed) == (3, "no", "f")
    tokenizer = SimpleNamespace(decode=lambda ids: WORDS[ids[0]])
    assert own._marks(Episode([7, 3, 5, 3], [True] * 4, [], [], 0), tokenizer) == [0.0, 1.0, 0.0, 0.0]


def test_hard_problems_are_answered_again():
    def earns(task, k):
        return float(k < task[0])  # none, one, two of four right

    rollout = Writer(earns, num_prompts=3)
    found = AdaptiveSecondPass(group_size=4, n_max=6).collect(rollout)
    # ET: S(1/8) = 0.21875, S(1/4) = 0.375, the goal 2: ceil(2 / S - 4) = 6 and 2, at most 2
    assert rollout.calls == [
        ("play", [(0,)] * 4 + [(1,)] * 4 + [(2,)] * 4, [0] * 4 + [1] * 4 + [2] * 4, None),
        ("signal", [False, True, True]),
        ("play", [(0,), (0,), (1,), (1,)], [0, 0, 1, 1], None),
        ("log", 16, True),
    ]
    assert [e.group for e in found] == [0] * 4 + [1] * 4 + [2] * 4 + [0, 0, 1, 1]
    easy = Writer(lambda task, k: 1.0)
    assert len(AdaptiveSecondPass(group_size=4, n_max=9).collect(easy)) == 8 and len(easy.calls) == 3

    def number(**words):
        return len(AdaptiveSecondPass(group_size=4, n_max=99, **words).collect(Writer(earns, num_prompts=2))) - 8

    # the goal of HW is 2 (1 - u) times as high; with the deviation S(u) = 2 sqrt(u (1 - u)) and the goal is 4
    assert number() == 6 + 2 and number(schedule="HW") == 12 + 4 and number(with_std=True) == 3 + 1


def test_words_of_the_second_pass():
    plain = AdaptiveSecondPass()
    assert (plain.group_size, plain.n_max, plain.schedule, plain.with_std) == (8, 32, "ET", False)
    assert AdaptiveSecondPass(group_size=4, n_max=4).n_max == 4
    with pytest.raises(UsageError, match="^n_max=7 is below group_size=8: give at least as many$"):
        AdaptiveSecondPass(n_max=7)


def hinted(task, k):
    """Right with so much of a hint: problem 0 without, 1 from a half on, 2 never."""
    return float((len(task) == 1 and task[0] == 0) or (len(task) == 2 and task[0] == 1 and task[1] >= 0.5))


def test_problems_that_nobody_solved_are_asked_with_hints():
    hints = [(1, 0.25), (1, 0.5), (2, 0.5), (2, 1.0)]  # the first piece of the third solution is empty
    rollout = Writer(hinted, num_prompts=3, hints=hints)
    found = HintStages(group_size=2, fractions=(0.25, 0.5, 1.0)).collect(rollout)
    assert [(e.task, e.group) for e in found] == [
        *[((0,), 0)] * 2,
        *[((1, 0.5), 1)] * 2,
        *[((2, 1.0), 2)] * 2,
    ]
    assert rollout.calls == [
        ("play", [(0,), (0,), (1,), (1,), (2,), (2,)], [0, 0, 1, 1, 2, 2], None),
        ("log", 6, True),
        ("signal", [False, False, False]),
        ("play", [(1, 0.25)] * 2, [1, 1], None),
        ("log", 2, True),
        ("play", [(1, 0.5)] * 2 + [(2, 0.5)] * 2, [1, 1, 2, 2], None),
        ("log", 4, True),
        ("play", [(2, 1.0)] * 2, [2, 2], None),
        ("log", 2, True),
    ]


def test_hints_stop_where_all_is_solved_and_begin_when_they_are_to():
    for progress, number in ((0.4, 3), (0.5, 5), (0.6, 5)):
        rollout = Writer(lambda task, k: float(len(task) > 1), num_prompts=1, progress=progress, hints=[(0, 0.25)])
        HintStages(group_size=2, hints_from=0.5).collect(rollout)
        assert len(rollout.calls) == number
    paid = Writer(lambda task, k: 0.1, num_prompts=1, correct=False, hints=[(0, 0.25)])
    HintStages(group_size=2).collect(paid)
    assert len(paid.calls) == 3  # what earned something is not wrong
    plain = HintStages()
    assert (plain.group_size, plain.fractions, plain.hints_from) == (8, (0.25, 0.5, 0.75), 0.0)
    assert HintStages(fractions=[0.1, 1.0]).fractions == (0.1, 1.0)
    for wrong in ((), (0.5, 0.5), (0.5, 0.25), (0.0, 0.5), (0.5, 1.01), (-0.5,)):
        said = f"fractions of hints rise between 0 and 1, such as (0.25, 0.5, 0.75), got {wrong!r}"
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            HintStages(fractions=wrong)


def test_solutions_are_one_for_each_problem():
    assert Solutions().collect(Writer(mixed, num_prompts=2)) == ["solution 0", "solution 1"]
