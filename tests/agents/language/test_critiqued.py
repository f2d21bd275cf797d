"""The collector of critiques without a model: which tokens earn what, what is left out and counted, where tokens stand in a text."""

from __future__ import annotations

import json
import re

import pytest

from polyathlon.agents.language.critiqued import Critiqued, read_utterance, utterances
from polyathlon.agents.language.episodes import Episode
from polyathlon.envs.errors import UsageError

heard = []


def first_word(prompt, answer):
    """A critic: the first word is good, a word that begins with "no" is poor; of an answer with "?" nothing is said."""
    heard.append((prompt, answer))
    if "?" in answer:
        return None
    spans = [(0, len(answer.split(" ")[0]), 1.0)] if answer else []
    return spans + [(m.start(), m.end(), -2.0) for m in re.finditer(r"no\w*", answer)]


def all_kinds(prompt, answer):
    """One span that fits, one that overlaps it, two outside and one quotation of something else."""
    return [(0, 2, 1.0), (1, 2, 1.0), (5, 99, 1.0), (6, 99, 1.0), {"text": "seven", "score": 1.0}]


class Bytes:
    """Rules whose tokens are bytes; 256 ends an answer and has no text."""

    stop = ()

    def __init__(self, shown=None):
        self.shown, self.asked = shown, []

    def decode(self, ids):
        return bytes(i for i in ids if i < 256).decode("utf-8", "replace")

    def text(self, ids, end):
        self.asked.append(end)
        return self.decode(ids) if self.shown is None else self.shown


def answer(*parts, reward=0.5, task="t", broke=False):
    """An episode of parts: what the policy wrote is a text, what came before it stands in a tuple."""
    ids, written, lengths = [], [], []
    for part in parts:
        own = isinstance(part, str)
        piece = list((part if own else part[0]).encode()) + [256] * own
        ids += piece
        written += [own] * len(piece)
        lengths += [len(piece)] * own
    rewards = [0.0] * (len(ids) - 1) + [reward]
    failure = {"kind": "lost", "message": ""} if broke else None
    return Episode(ids, written, [0.0] * len(ids), rewards, 0, task, lengths=lengths, failure=failure)


class Rollout:
    """Plays what it is given."""

    knows_tasks = True
    num_prompts = 2

    def __init__(self, *episodes, solution=None):
        self.episodes, self.solution, self.rules, self.calls = list(episodes), solution, Bytes(), []

    def draw(self, n):
        return ["p", "q", "r"][:n]

    def play(self, tasks, groups):
        self.calls.append((list(tasks), list(groups)))
        return self.episodes

    def log_episodes(self, episodes):
        self.calls.append(len(episodes))

    def task_method(self, name):
        return self.solution if name == "solution" else None


def critiqued(critic="first_word", **words):
    return Critiqued(critic=critic and f"{__name__}:{critic}", **words)


def test_tokens_earn_what_is_said_of_their_words():
    part, rollout = critiqued(group_size=2), Rollout(answer(("q:",), "ok now"), answer(("q:",), "hm no", broke=True))
    heard.clear()
    assert part.collect(rollout) == rollout.episodes and rollout.calls == [(["p", "p", "q", "q"], [0, 0, 1, 1]), 2]
    assert rollout.episodes[0].rewards == [0, 0, 1, 1, 0, -2, -2, -2, 0]
    assert rollout.episodes[1].rewards[-1] == 0.5 and heard == [("q:", "ok now")]  # what broke is left alone
    assert part.counts["answers"] == 1


def test_each_utterance_is_judged_by_itself():
    part, rollout = critiqued(terminal=True), Rollout(answer(("q:",), "ok", ("more",), "no no"))
    heard.clear()
    part.collect(rollout)
    assert heard[0] == ("q:", "ok") and heard[1][1] == "no no" and heard[1][0].startswith("q:ok")
    assert rollout.episodes[0].rewards == [0, 0, 1, 1, 0, 0, 0, 0, 0, -2, -2, 0, -2, -2, 0.5]
    plain = answer(("q:",), "ok", ("more",), "no no")
    assert list(utterances(plain)) == [(2, 5), (9, 15)] and list(utterances(answer(("q",)))) == []


def test_options_of_the_scores():
    def paid(text, **words):
        rollout = Rollout(answer(("q",), text))
        critiqued(**words).collect(rollout)
        return rollout.episodes[0].rewards[1:]

    assert paid("no ab!") == [-2, -2, 0, 0, 0, 0, 0]
    assert paid("no ab!", merge="max", default=0.5) == [1, 1, 0, 0.5, 0.5, 0, 0]
    assert paid("no ab!", merge="sum", split=True, default=1.5) == [-0.5, -0.5, 0, 0.75, 0.75, 0, 0]
    assert paid("no ab!", default=0.5, punctuation=True) == [-2, -2, 0, 0.5, 0.5, 0.5, 0]
    plain = Critiqued()
    assert (plain.group_size, plain.critic, plain.terminal, plain.prompts, plain.log_as) == (
        1,
        None,
        False,
        None,
        "critic",
    )
    assert plain.options == {"merge": "min", "split": False, "default": 0.0, "punctuation": False}
    assert set(plain.counts.values()) == {0} and Critiqued(prompts="p").prompts == "p"


def test_answers_of_which_nothing_is_said_are_left_out_and_too_few_are_no_update():
    part = critiqued()
    good, unread = (lambda: answer(("q",), "ok")), (lambda: answer(("q",), "so?"))
    half = Rollout(good(), unread())
    assert part.collect(half) == half.episodes
    assert half.episodes[1].failure == {"kind": "critic", "message": "the critic says nothing of it"}
    assert half.episodes[1].rewards == [0.0] * 5 and half.episodes[0].failure is None
    few = Rollout(good(), unread(), unread())
    assert part.collect(few) == [] and part.collect(Rollout()) == []
    assert part.counts == dict(answers=5, unread=3, spans=2, outside=0, unmatched=0, overlapping=0, skipped=1)
    assert part.metrics() == {
        "unread": 0.6, "outside": 0.0, "unmatched": 0.0, "overlapping": 0.0, "spans": 0.4, "skipped": 1.0
    }  # fmt: skip
    twice = Rollout(answer(("q",), "so?", ("more",), "ok", reward=2.0), good())
    part.collect(twice)
    assert part.counts["unread"] == 4 and part.counts["answers"] == 7  # of one answer with two utterances


def test_spans_that_do_not_fit_are_counted_and_go_through_json():
    part = critiqued("all_kinds")
    for _ in range(2):
        part.collect(Rollout(answer(("q",), "ab c")))
    assert part.counts == dict(answers=2, unread=0, spans=10, outside=4, unmatched=2, overlapping=2, skipped=0)
    assert part.metrics() == {
        "unread": 0.0, "outside": 0.4, "unmatched": 0.2, "overlapping": 0.2, "spans": 5.0, "skipped": 0.0
    }  # fmt: skip
    assert Critiqued().metrics() == {
        "unread": 0.0, "outside": 0.0, "unmatched": 0.0, "overlapping": 0.0, "spans": 1.0, "skipped": 0.0
    }  # fmt: skip
    again = critiqued("all_kinds")
    again.load_state_dict(json.loads(json.dumps(part.state_dict())))
    assert again.counts == part.counts and part.state_dict() == {"counts": part.counts}
    again.collect(Rollout(answer(("q",), "ab c")))
    assert part.counts["answers"] == 2 and again.counts["answers"] == 3


def test_without_a_critic_answers_are_compared_with_the_solution():
    rollout = Rollout(answer(("q",), "yes 4", task=7), solution=lambda task: f"maybe {task - 3}")
    Critiqued().collect(rollout)
    assert rollout.episodes[0].rewards == [0, -1, -1, -1, 0, 1, 0]
    said = (
        "text2grad has no critic, and the task no solution to compare answers with, or a wrapper stands around it: give "
        "critic='module:function', a file of records with spans, or the name of a language model (recipe_kwargs={'critic': ...})"
    )
    apart = Rollout(answer("x"), solution=lambda task: "x")
    apart.knows_tasks = False
    for lacking in (Rollout(answer("x")), Rollout(answer("x"), solution=lambda task: None), apart):
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            Critiqued().collect(lacking)


def spelt(text):
    return list(text.encode())


@pytest.mark.parametrize(
    ("ids", "shown", "text", "places"),
    [
        ([*spelt("ab c"), 256], None, "ab c", [(0, 1), (1, 2), (2, 3), (3, 4), (0, 0)]),
        (spelt("né!"), None, "né!", [(0, 1), (1, 2), (1, 2), (2, 3)]),
        (spelt("né")[:2], None, "n\ufffd", [(0, 1), (1, 2)]),
        (spelt("a:bc"), "bc", "bc", [(0, 0), (0, 0), (0, 1), (1, 2)]),
        (spelt("ab"), "AB", "ab", [(0, 1), (1, 2)]),  # what the task reads is not what was written
        (spelt("x:x"), "x", "x", [(0, 0), (0, 0), (0, 1)]),  # it stands last
    ],
)
def test_where_tokens_stand(ids, shown, text, places):
    rules = Bytes(shown)
    assert read_utterance(ids, rules) == (text, places) and rules.asked == ["eos"]
    rules.stop = ("\n",)
    read_utterance(ids, rules)
    assert rules.asked == ["eos", "stop"]
