"""The pool of answers that go on, without a model: who goes on, what is marked, whose numbers are kept, what is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.pools import OpenAnswer, WindowPool
from polyathlon.envs.errors import UsageError


class Writer:
    """A rollout whose answer to the task t is t tokens 10 t, 10 t + 1, ... after a prompt of two; its log-probabilities are minus its iteration."""

    def __init__(self, tasks, num_prompts=2, longest=6):
        self.rules = SimpleNamespace(max_new_tokens=longest, limit=lambda prompt: prompt + longest)
        self.waiting, self.num_prompts, self.iteration = list(tasks), num_prompts, 0
        self.played, self.logged = [], []

    def draw(self, number):
        return [self.waiting.pop(0) for _ in range(number)]

    def play(self, tasks, groups, max_new_tokens, prefixes, keys):
        self.played.append({"tasks": tasks, "window": max_new_tokens, "prefixes": prefixes, "keys": keys})
        found = []
        for row, (task, group) in enumerate(zip(tasks, groups, strict=True)):
            before = len(prefixes[row]) if prefixes else 0
            size = min(task, before + max_new_tokens)
            ids = [1, 2, *range(10 * task, 10 * task + size)]
            own = [False] * 2 + [True] * size
            found.append(
                Episode(
                    ids, own, [0.0, 0.0] + [-float(self.iteration)] * size, [0.0] * len(ids), group, task,
                    end="end_token" if size == task else "limit", finished=size == task, turns=1,
                    version=[-1, -1] + [self.iteration] * size, key=keys[row] if keys else (task, 100 + row),
                )
            )  # fmt: skip
        return found

    def log_episodes(self, episodes):
        self.logged.append([episode.task for episode in episodes])


def test_an_answer_goes_on_until_it_is_over():
    pool, rollout = WindowPool(group_size=1, window=2), Writer([5, 1, 2, 2])
    long, short = pool.collect(rollout)
    assert long.extra == {"window": [0, 0, 1, 1], "over": 0.0, "reach": 3.0}  # two tokens and half a window
    assert short.extra == {"window": [0, 0, 1], "over": 1.0, "reach": 1.0}
    assert pool.open == [OpenAnswer(5, 0, (5, 100), [50, 51], [-0.0, -0.0], [0, 0])] and rollout.logged == [[1]]

    rollout.iteration = 1
    long, fresh = pool.collect(rollout)
    first, second = rollout.played[1:]
    assert first == {"tasks": [5], "window": 2, "prefixes": [[50, 51]], "keys": [(5, 100)]}
    assert second == {"tasks": [2], "window": 2, "prefixes": None, "keys": None}
    assert long.ids[2:] == [50, 51, 52, 53] and long.extra["window"] == [0, 0, 0, 0, 1, 1]
    assert long.logps[2:] == [0, 0, -1, -1] and long.version[2:] == [0, 0, 1, 1]  # of who wrote each token
    assert (long.group, fresh.group) == (0, 2)

    rollout.iteration = 2
    long, _ = pool.collect(rollout)
    assert long.extra == {"window": [0] * 6 + [1], "over": 1.0, "reach": 5.0}
    assert long.logps[2:] == [0, 0, -1, -1, -2] and pool.open == [] and rollout.logged[-1] == [5, 2]


def test_groups_are_of_one_problem_and_numbered_on():
    pool, rollout = WindowPool(group_size=3, window=6), Writer([1, 2, 3, 4])
    assert [(e.task, e.group) for e in pool.collect(rollout)] == [(1, 0)] * 3 + [(2, 1)] * 3
    assert [(e.task, e.group) for e in pool.collect(rollout)] == [(3, 2)] * 3 + [(4, 3)] * 3


def test_more_that_goes_on_than_an_iteration_has_waits():
    pool, rollout = WindowPool(group_size=1, window=2), Writer([], num_prompts=2)
    pool.open = [OpenAnswer(task, task, (task, 0), [10 * task], [-0.5], [0]) for task in (2, 3, 4)]
    assert [e.task for e in pool.collect(rollout)] == [2, 3]
    assert [answer.task for answer in pool.open] == [4] and len(rollout.played) == 1


def test_a_window_is_a_third_of_an_answer_by_default_and_no_longer_than_one():
    rollout = Writer([1] * 4, longest=7)
    WindowPool(group_size=1).collect(rollout)
    WindowPool(group_size=1, window=7).collect(rollout)
    assert [played["window"] for played in rollout.played] == [3, 7]
    with pytest.raises(UsageError, match=r"window=8 is longer than an answer may be \(max_new_tokens=7\)"):
        WindowPool(window=8).collect(rollout)


def test_an_answer_at_the_longest_is_over():
    pool, rollout = WindowPool(group_size=1, window=4), Writer([9, 9], longest=4)
    assert [e.extra["over"] for e in pool.collect(rollout)] == [1.0, 1.0] and pool.open == []


@pytest.mark.parametrize("change", [{"verdict": {"correct": False}}, {"end": "task"}, {"finished": True}])
def test_what_the_task_or_an_end_token_ended_does_not_go_on(change):
    pool, rollout = WindowPool(group_size=1, window=2), Writer([5, 5])
    play = rollout.play

    def ended(*given, **words):
        episodes = play(*given, **words)
        vars(episodes[0]).update(change)
        return episodes

    rollout.play = ended
    assert [e.extra["over"] for e in pool.collect(rollout)] == [1.0, 0.0] and len(pool.open) == 1


def test_a_window_that_ends_in_a_second_utterance_is_refused():
    pool, rollout = WindowPool(group_size=1, window=2), Writer([5, 5])
    play = rollout.play

    def twice(*given, **words):
        episodes = play(*given, **words)
        episodes[1].turns = 2
        return episodes

    rollout.play = twice
    with pytest.raises(UsageError, match="a window ended within a second utterance"):
        pool.collect(rollout)


def test_the_state_goes_through_json():
    pool, again = WindowPool(group_size=1, window=2), WindowPool(group_size=1, window=2)
    pool.collect(Writer([5, 4]))
    again.load_state_dict(json.loads(json.dumps(pool.state_dict())))
    assert again.open == pool.open and len(pool.open) == 2 and again.groups == pool.groups == 2
