"""Answers that are learnt from several times, without a model: when they are written anew, what is read, ranked, paired and kept."""

from __future__ import annotations

import json
import math
import re
from types import SimpleNamespace

import pytest
import torch

from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.kept_answers import Both, Iterated, Refreshed, paired, win_rates
from polyathlon.agents.language.offline_data import OfflineData
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.tokens.token_rules import TokenRules

heard = []


def of_texts(prompts, a, b):
    """A judge that likes high numbers."""
    return [float(float(x) > float(y)) if x != y else 0.5 for x, y in zip(a, b, strict=True)]


def negative(prompts, answers):
    """A ranking of one's own."""
    heard.append((list(prompts), list(answers)))
    return [-float(answer) for answer in answers]


def one_alone(prompts, answers):
    return [1.0]


def infinite(prompts, answers):
    return [math.inf] * len(answers)


class Writer:
    """A rollout: the k-th answer to a problem earns the k-th of `rewards`; problems are numbered on."""

    knows_tasks = False

    def __init__(self, *rewards, num_prompts=2, iteration=0, broken=()):
        self.rewards, self.num_prompts, self.iteration, self.broken = rewards, num_prompts, iteration, broken
        self.generator, self.next, self.logged, self.given = torch.Generator().manual_seed(0), 0, [], []
        self.rules = SimpleNamespace(decode=lambda ids: "-".join(map(str, ids)))

    def draw(self, n):
        self.next += n
        return list(range(self.next - n, self.next))

    def play(self, tasks, groups):
        size = len(self.rewards)
        found = []
        for i, (task, group) in enumerate(zip(tasks, groups, strict=True)):
            reward = self.rewards[i % size]
            failure = {"kind": "lost", "message": ""} if i in self.broken else None
            episode = Episode(
                [7, task, i], [False, False, True], [0.0] * 3, [0.0, 0.0, reward], group, task, str(reward)
            )
            episode.version, episode.failure, episode.key = [4, 4, 4], failure, (task, i)
            found.append(episode)
        return found

    def log_episodes(self, episodes, by_policy=True):
        self.logged.append(len(episodes))

    def log_given(self, episodes):
        self.given.append(list(episodes))

    def log_judged(self, pairs):
        pass

    def task_method(self, name):
        return None


def told(episodes):
    return [(e.task, e.group, e.total, e.side) for e in episodes]


def test_answers_are_written_anew_after_so_many_updates():
    part, rollout = Refreshed(every=2, group_size=3, problems=3), Writer(0.0, 1.0, 0.5)
    seen, places = [], []
    for _ in range(5):
        found = part.collect(rollout)
        assert [(e.group, e.total, e.side) for e in found] == [(0, 1.0, 1), (0, 0.0, -1), (1, 1.0, 1), (1, 0.0, -1)]
        seen.append(([e.task for e in found[::2]], found[0].version))
        places.append(part.updates)
    assert places == [1, 2, 1, 2, 1] and rollout.logged == [9, 9, 9] and not rollout.given
    assert [version for _, version in seen] == [[4] * 3, [-1] * 3, [4] * 3, [-1] * 3, [4] * 3]
    orders = torch.Generator().manual_seed(0)
    drawn = [torch.randperm(3, generator=orders).tolist() for _ in range(5)]
    first = [drawn[0][2], drawn[0][1], drawn[0][0], drawn[1][2]]  # each group once before any comes again
    assert seen[0][0] + seen[1][0] == first and set(seen[2][0]) <= {3, 4, 5} and set(seen[4][0]) <= {6, 7, 8}
    assert part.order == drawn[4][:1]


def test_answers_that_are_never_written_anew_are_read_as_records_are():
    part, rollout = Refreshed(every=None, group_size=2, take="all"), Writer(0.0, 1.0)
    first = part.collect(rollout)
    assert rollout.given == [] and sorted((e.task, e.total, e.side) for e in first) == [
        (0, 0.0, 0),
        (0, 1.0, 0),
        (1, 0.0, 0),
        (1, 1.0, 0),
    ]
    assert [e.group for e in first] == [0, 0, 1, 1]
    later = [part.collect(rollout) for _ in range(3)]
    assert rollout.given == later and rollout.logged == [4] and part.updates == 4
    assert all(e.version == [-1] * 3 for found in later for e in found) and {e.task for e in later[2]} == {0, 1}


def test_a_run_that_goes_on_keeps_step_with_what_follows():
    part, rollout = Refreshed(every=4, group_size=2), Writer(0.0, 1.0, iteration=6)
    places = [part.collect(rollout) and part.updates for _ in range(4)]
    assert places == [3, 4, 1, 2] and rollout.logged == [4, 4]
    part.forget()
    assert (part.groups, part.order) == ([], [])
    rollout.iteration = 8
    part.collect(rollout)
    assert part.updates == 1 and rollout.logged == [4, 4, 4]


def test_what_is_taken_of_the_answers_to_a_problem():
    def taken(take, *rewards, **words):
        part = Refreshed(every=1, group_size=len(rewards), take=take)
        found = part.collect(Writer(*rewards, num_prompts=1, **words))
        assert all(e.score == e.total for e in found)
        return [(e.total, e.side, e.extra["label"]) for e in found]

    nothing = pytest.approx(math.nan, nan_ok=True)
    assert taken("all", 0.5, 2.0, 1.0) == [(0.5, 0, nothing), (2.0, 0, nothing), (1.0, 0, nothing)]
    assert taken("chosen", 0.5, 2.0, 1.0) == [(2.0, 0, nothing)]
    assert taken("pairs", 0.5, 2.0, 1.0) == [(2.0, 1, 1.0), (0.5, -1, 1.0)]
    assert taken("pairs", 1.0, 1.0) == []
    assert taken("pairs", 0.5, 2.0, 1.0, broken=(1,)) == [(1.0, 1, 1.0), (0.5, -1, 1.0)]
    assert taken("pairs", 0.5, 2.0, broken=(1,)) == [] and taken("all", 0.5, broken=(0,)) == []
    plain = Refreshed()
    assert (plain.every, plain.group_size, plain.problems, plain.take) == (8, 4, None, "pairs")
    said = "a pair is made of two answers to a problem, but group_size is 1: take at least 2"
    with pytest.raises(UsageError, match=f"^{said}$"):
        Refreshed(group_size=1)
    assert Refreshed(group_size=1, take="chosen").group_size == 1 and Refreshed(group_size=2).group_size == 2


def test_kept_answers_travel_through_json():
    part, rollout = Iterated(k=2, refresh=3, problems=3, older=(1.0,)), Writer(0.0, 1.0)
    part.collect(rollout)
    state = json.loads(json.dumps(part.state_dict()))
    assert sorted(state) == ["before", "groups", "order", "updates"] and state["updates"] == 1
    again = Iterated(k=2, refresh=3, problems=3, older=(1.0,))
    again.load_state_dict(state)
    for one, other in ((part.groups, again.groups), (part.before[0], again.before[0])):
        assert [[told([e]) for e in pair] for pair in one] == [[told([e]) for e in pair] for pair in other] != []
        assert [e.key for pair in other for e in pair] == [e.key for pair in one for e in pair]
        assert all(isinstance(e.key, tuple) for pair in other for e in pair)
    assert again.order == part.order and again.updates == 1
    state["groups"][0][0]["key"] = None
    again.load_state_dict(state)
    assert again.groups[0][0].key is None


# ---------------------------------------------------------------------------------------------------------- iterations


def group_of(*scores, ends=None):
    found = []
    for i, score in enumerate(scores):
        episode = Episode([7, i], [False, True], [0.0] * 2, [0.0, score], 0, 0, str(score), score=score)
        episode.version, episode.end = [4, 4], (ends or {}).get(i, "stop")
        found.append(episode)
    return found


def scores(pairs):
    return [(better.score, worse.score) for better, worse in pairs]


def test_pairs_of_a_group():
    group = group_of(0.5, 2.0, 1.0)
    (pair,) = paired([group], "best_worst", 0.0)
    assert scores([pair]) == [(2.0, 0.5)] and [e.side for e in pair] == [1, -1]
    assert [e.extra for e in pair] == [{"label": 1.0}] * 2 and [e.side for e in group] == [0] * 3
    assert scores(paired([group], "all", 0.0)) == [(2.0, 1.0), (2.0, 0.5), (1.0, 0.5)]
    assert scores(paired([group], "all", 0.5)) == [(2.0, 1.0), (2.0, 0.5), (1.0, 0.5)]
    assert scores(paired([group], "all", 0.51)) == [(2.0, 1.0), (2.0, 0.5)]
    assert scores(paired([group], "all", 0.0, least=1.0)) == [(2.0, 1.0), (2.0, 0.5), (1.0, 0.5)]
    assert scores(paired([group], "all", 0.0, least=1.01)) == [(2.0, 1.0), (2.0, 0.5)]
    assert paired([group_of(1.0)], "best_worst", 0.0, "keep") == paired([group_of()], "best_worst", 0.0, "keep") == []
    assert paired([group_of(1.0)], "all", 0.0, "keep") == []
    equal = group_of(1.0, 1.0)
    assert paired([equal], "best_worst", 0.0) == [] and scores(paired([equal], "best_worst", 0.0, "keep")) == [
        (1.0, 1.0)
    ]
    assert paired([equal], "all", 0.1, "keep") == [] and len(paired([group, equal, group], "best_worst", 0.0)) == 2
    given = group_of(0.5, 2.0, 1.0, ends={1: "given"})
    assert scores(paired([given], "all", 0.5, gold_gap=1.2)) == [(2.0, 0.5), (1.0, 0.5)]
    assert scores(paired([given], "all", 1.2, gold_gap=0.0)) == [(2.0, 1.0), (2.0, 0.5)]
    assert scores(paired([given], "all", 1.2)) == [(2.0, 0.5)]


def test_win_rates():
    assert win_rates([1.0, 0.0, 0.0, 2.0]) == [2 / 3, 0.5 / 3, 0.5 / 3, 1.0]
    assert win_rates([3.0, 1.0]) == [1.0, 0.0] and win_rates([1.0]) == [0.0] and win_rates([]) == []


def test_words_of_an_iteration():
    plain = Iterated()
    assert (plain.k, plain.group_size, plain.every, plain.problems) == (5, 5, 8, None)
    assert (plain.filter, plain.min_gap, plain.older, plain.rank, plain.judge) == (
        "best_worst",
        0.0,
        (),
        "reward",
        None,
    )
    assert (plain.gold, plain.repeats, plain.one_pass, plain.prompts, plain.before) == (False, 0, False, None, [])
    assert plain.words == {"ties": "drop", "least": -math.inf, "gold_gap": None}
    made = Iterated(
        k=2,
        refresh=3,
        problems=4,
        older=[0.5],
        filter="all",
        min_gap=0.1,
        ties="keep",
        least=0.2,
        gold_gap=0.3,
        prompts="p",
    )
    assert (made.k, made.group_size, made.every, made.problems, made.older) == (2, 2, 3, 4, (0.5,))
    assert made.words == {"ties": "keep", "least": 0.2, "gold_gap": 0.3} and made.prompts == "p"
    with pytest.raises(UsageError, match="^pairs are made of at least two answers to a problem, got k=1$"):
        Iterated(k=1)
    with pytest.raises(UsageError, match="^judge='j' is asked for rank='win_rate', got rank='reward'$"):
        Iterated(judge="j")
    with pytest.raises(UsageError, match="nobody"):
        Iterated(rank="win_rate", judge=f"{__name__}:nobody")


def test_how_many_problems_an_iteration_asks():
    four = SimpleNamespace(num_prompts=4)
    for words, number in (
        ({"k": 5}, 32),
        ({"k": 5, "filter": "all"}, 32),
        ({"k": 5, "one_pass": True}, 32),
        ({"k": 5, "filter": "all", "one_pass": True}, 4),
        ({"k": 4, "filter": "all", "one_pass": True}, 6),
        ({"k": 4, "filter": "all", "one_pass": True, "gold": True}, 4),
        ({"k": 2, "filter": "all", "one_pass": True, "refresh": 3}, 12),
        ({"problems": 7}, 7),
    ):
        assert Iterated(**words)._number(four) == number, words


def test_a_judge_ranks_by_how_often_an_answer_wins():
    part = Iterated(k=3, rank="win_rate", judge=f"{__name__}:of_texts", filter="all")
    groups = [group_of(0.5, 2.0, 1.0)]
    assert scores(part._chosen(groups, Writer())) == [(1.0, 0.5), (1.0, 0.0), (0.5, 0.0)]
    rewarded = Iterated(k=3, rank="win_rate", filter="all")
    assert scores(rewarded._chosen([group_of(0.0, 0.0, 1.0)], Writer())) == [(1.0, 0.25), (1.0, 0.25)]
    earned = group_of(0.5, 2.0)
    for episode in earned:
        episode.score = math.nan
    assert scores(Iterated(k=2)._chosen([earned], Writer())) == [(2.0, 0.5)]


def test_answers_that_repeat_themselves_lose_to_all_others():
    part = Iterated(k=3, filter="all", repeats=1, ties="keep")
    group = group_of(5.0, 1.0, -2.0)
    group[0].ids, group[0].written = [7, 1, 1, 1, 1, 1], [False] + [True] * 5  # a run that comes three times
    group[1].ids, group[1].written = [7, 1, 1, 1, 1], [False] + [True] * 4  # and one that comes twice
    assert scores(part._chosen([group], Writer())) == [(1.0, -2.0), (1.0, -3.0), (-2.0, -3.0)]
    assert Iterated(k=2, repeats=1)._chosen([], Writer()) == []


def test_older_pairs_stay_as_shares_of_the_new_ones():
    part, rollout = Iterated(k=2, older=(0.5, 0.25)), Writer()

    def iteration(number, score):
        found = part._chosen([group_of(score, 0.0) for _ in range(number)], rollout)
        return [(pair[0].score, pair[0].version[0]) for pair in found]

    assert iteration(4, 1.0) == [(1.0, 4)] * 4
    assert iteration(5, 2.0) == [(2.0, 4)] * 5 + [(1.0, -1)] * 2
    assert iteration(4, 3.0) == [(3.0, 4)] * 4 + [(2.0, -1)] * 2 + [(1.0, -1)]
    assert iteration(1, 4.0) == [(4.0, 4)] and len(part.before) == 2  # none of half a pair
    assert [pairs[0][0].score for pairs in part.before] == [4.0, 3.0]


def test_a_function_of_ones_own_ranks_prompts_and_answers():
    part = Iterated(k=2, rank=f"{__name__}:negative")
    heard.clear()
    assert scores(part._chosen([group_of(1.0, 2.0), group_of(3.0, 4.0)], Writer())) == [(-1.0, -2.0), (-3.0, -4.0)]
    assert heard == [(["7"] * 4, ["1.0", "2.0", "3.0", "4.0"])]
    for name, given in (("one_alone", "[1.0]"), ("infinite", "[inf, inf]")):
        said = f"{__name__}:{name} must return one finite number for each of 2 completions, got {given}"
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            Iterated(k=2, rank=f"{__name__}:{name}")._chosen([group_of(1.0, 2.0)], Writer())
    with pytest.raises(UsageError, match="^rank is 'reward', 'win_rate' or 'module:function', got 'rewards'$"):
        Iterated(rank="rewards")
    for path, why in ((f"{__name__}:nobody", "nobody"), ("nowhere:f", "No module named 'nowhere'")):
        with pytest.raises(UsageError, match=f"^rank='{path}' cannot be imported: .*{why}"):
            Iterated(rank=path)


def test_gold_needs_answers_of_the_task():
    with pytest.raises(UsageError, match="gold=True takes the task's own answers"):
        Iterated(k=2, gold=True)._chosen([group_of(1.0, 2.0)], Writer())


# ---------------------------------------------------------------------------------------------------------- beside records

PAIRS = [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(5)]


def test_records_come_before_fresh_answers():
    part, rollout = Both(batch=2, group_size=3, problems=1), Writer(0.0, 1.0, 0.5)
    rollout.data, rollout.rules = OfflineData(PAIRS, 0.0, 0), TokenRules("tiny", 8, 64, ())
    found = part.collect(rollout)
    assert [(e.group, e.side) for e in found] == [(0, 1), (0, -1), (1, 1), (1, -1), (2, 0), (2, 0), (2, 0)]
    assert [e.task for e in found[4:]] == [0] * 3 and rollout.given == [found[:4]] and rollout.logged == [3]
    assert all(math.isnan(e.extra["label"]) and e.extra["margin"] == 0.0 for e in found[4:])
    more = Both(batch=2, group_size=2).collect(rollout)
    assert [e.group for e in more] == [0, 0, 1, 1, 2, 2, 3, 3] and [e.task for e in more[4:]] == [1, 1, 2, 2]


def test_how_many_answers_both_kinds_are():
    data = OfflineData(PAIRS, 0.0, 0)
    part = Both(batch=2, group_size=3, problems=4)
    assert part.completions_of(data) == 10 + 3 * 4 * 3 and part.completions_of(data, 2) == 4 + 4 * 3
    assert Both(batch=2, group_size=3).completions_of(data, 3) == 6 + 2 * 2 * 3


def test_words_of_both():
    plain = Both()
    assert (plain.batch, plain.group_size, plain.problems, plain.take) == (8, 2, None, "pairs")
    assert plain.rows_options == {"too_long": "error", "empty": "error", "equal": "keep"} and not plain.can_store
    made = Both(take="all", too_long="drop", empty="drop", equal="drop")
    assert made.take == "all" and made.rows_options == {"too_long": "drop", "empty": "drop", "equal": "drop"}
