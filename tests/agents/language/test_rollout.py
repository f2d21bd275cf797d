"""What a collector sees of an agent: draws, plays in rows and windows, samplers, what is counted, what a task cannot say."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch

from polyathlon.agents.language import rollout as module
from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.recipe_wiring import PROMPTS
from polyathlon.agents.language.rollout import Rollout
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.tokens.text_rows import CopiedTexts
from polyathlon.wrappers.tokens.token_rows import CopiedTokens


class Prompts:
    """Three rows that draw the next problems."""

    def __init__(self):
        self.tasks, self.next, self.resets = [None] * 3, 0, []

    def __len__(self):
        return 3

    def reset(self, rows=None):
        self.resets.append(rows)
        for i in range(3) if rows is None else rows:
            self.tasks[i], self.next = self.next, self.next + 1


class Task:
    """A task with problems and what they cost."""

    task_ids = (4, 5, 6)

    def difficulty(self, task):
        return 2 * task

    def __str__(self):
        return "<Task>"


class Bare:
    """One without."""

    def __str__(self):
        return "<Bare>"


def agent_of(task=None, models=(), **words):
    made = SimpleNamespace(
        progress=0.25,
        generator="generator",
        token_env=SimpleNamespace(rules=SimpleNamespace(max_new_tokens=5, pad=0), unwrapped=task or Task()),
        opened_data="data",
        num_prompts=2,
        side_models=SimpleNamespace(iterations=7),
        recipe=SimpleNamespace(models=models),
        _wiring=SimpleNamespace(objects={}),
        _prompts=Prompts(),
        _rows=[None] * 2,
        device=torch.device("cpu"),
        policy=SimpleNamespace(is_mixed=False, language_model="model"),
        temperature=0.5,
        fast_forward="fast",
        _iterations=3,
        num_timesteps=100,
        _episode_num=10,
        given_answers=1,
        judged_pairs=2,
    )
    vars(made).update(words)
    return made


def answer(own=2, task=0, given=1):
    size = given + own
    return Episode([7] * size, [False] * given + [True] * own, [0.0] * size, [0.0] * size, 0, task)


def test_what_it_knows_of_the_agent():
    agent = agent_of()
    found = Rollout(agent)
    assert (found.progress, found.generator, found.data, found.num_prompts) == (0.25, "generator", "data", 2)
    assert found.rules is agent.token_env.rules and found.iteration == 0 and found.differs == []
    assert Rollout(agent_of(models=("reference",))).iteration == 7


def test_problems_are_drawn_as_many_at_a_time_as_there_are_rows():
    agent = agent_of()
    rollout = Rollout(agent)
    assert rollout.draw(7) == [0, 1, 2, 3, 4, 5, 6] and agent._prompts.resets == [None, None, [0]]
    assert rollout.drawn(2) == [7, 8] and agent._prompts.resets[3:] == [[0, 1]]
    assert rollout.drawn(3) == [9, 10, 11] and agent._prompts.resets[4:] == [None] and rollout.drawn(0) == []
    sampler = SimpleNamespace(draw=lambda n, source: [n, source])
    agent._wiring.objects[PROMPTS] = sampler
    assert rollout.draw(2) == [2, rollout] and rollout.drawn(1) == [12]


def test_what_samplers_ask_of_a_task():
    rollout = Rollout(agent_of())
    assert rollout.task_ids() == (4, 5, 6) and rollout.difficulty(3) == 6.0
    assert isinstance(rollout.difficulty(3), float)
    bare, apart = Rollout(agent_of(Bare())), Rollout(agent_of(_prompts=object.__new__(CopiedTokens)))
    said = (
        "a sampler of problems needs them all: {} gives no task_ids, or a wrapper stands around it; give the task a property task_ids, the "
        "sampler a number of tasks to draw once (pool=256), or leave prompts= of the collector out"
    )
    for each, name in ((bare, "<Bare>"), (apart, "<Task>")):
        with pytest.raises(UsageError, match=f"^{re.escape(said.format(name))}$"):
            each.task_ids()
    empty = Bare()
    empty.task_ids, empty.difficulty = (), 3
    with pytest.raises(UsageError, match="gives no task_ids"):
        Rollout(agent_of(empty)).task_ids()
    for task in (Bare(), empty):
        with pytest.raises(UsageError, match=r"^a curriculum needs difficulty\(task\) of <Bare>: give it that method$"):
            Rollout(agent_of(task)).difficulty(3)


def test_whether_tasks_are_the_tasks_own():
    assert Rollout(agent_of()).knows_tasks
    assert not Rollout(agent_of(_prompts=object.__new__(CopiedTokens))).knows_tasks
    for texts, known in ((object.__new__(CopiedTexts), False), (object(), True)):
        assert Rollout(agent_of(_prompts=SimpleNamespace(texts=texts))).knows_tasks is known


@pytest.fixture
def played(monkeypatch):
    """Episodes of two tokens each; the calls of `play` are kept."""
    calls = []

    def play(*words, **further):
        calls.append((words, further))
        return [answer(task=task) for task in words[2]]

    monkeypatch.setattr(module, "play", play)
    return calls


def test_more_tasks_than_rows_are_played_one_after_the_other(played):
    drawn = torch.arange(6).reshape(3, 2)
    agent = agent_of(_keys=lambda n: drawn[:n])
    found = Rollout(agent).play([4, 5, 6], [0, 0, 1])
    assert [e.task for e in found] == [4, 5, 6] and agent.num_timesteps == 106
    (first, words), (second, others) = played
    assert first[:4] == ("model", agent._rows, [4, 5], [0, 0]) and second[:4] == ("model", agent._rows, [6], [1])
    assert (
        first[4].tolist() == [[0, 1], [2, 3]] and second[4].tolist() == [[4, 5]] and first[5:] == second[5:] == (0.5,)
    )
    assert words == others == {"fast": "fast", "max_new_tokens": None, "prefixes": None, "version": 3}
    assert Rollout(agent).play([], []) == [] and agent.num_timesteps == 106


def test_windows_go_on_with_ids_and_keys(played):
    agent = agent_of()
    Rollout(agent).play([4, 5, 6], [0, 1, 2], "sampler", 5, [[1], [1, 2], []], [(1, 2), (3, 4), (5, 6)])
    (first, words), (second, others) = played
    assert first[0] == second[0] == "sampler" and first[4].dtype == torch.int64
    assert first[4].tolist() == [[1, 2], [3, 4]] and second[4].tolist() == [[5, 6]]
    assert words["prefixes"] == [[1], [1, 2]] and others["prefixes"] == [[]] and words["max_new_tokens"] == 5
    assert agent.num_timesteps == 100 + 6 - 3  # what was written before is no step again
    Rollout(agent).play([4], [0], max_new_tokens=1, keys=[(1, 2)])
    assert played[2][1]["max_new_tokens"] == 1


def test_plays_that_do_not_fit_are_refused(played):
    rollout = Rollout(agent_of())
    for name, words in (("groups", {"groups": [0]}), ("prefixes", {"prefixes": [[], [], []]}), ("keys", {"keys": []})):
        given = {"groups": [0, 0]} | words
        said = f"play() got 2 tasks and {len(given[name])} {name}; give one a task"
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            rollout.play([1, 2], **given)
    for wrong in (0, 6):
        said = f"max_new_tokens of play() must lie in 1..5 (TokenAction's), got {wrong}"
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            rollout.play([1], [0], max_new_tokens=wrong)
    assert not played


def test_a_mixed_policy_writes_through_its_own_decoder(played, monkeypatch):
    made = []
    monkeypatch.setattr(module, "_RoleDecoder", lambda *words: made.append(words) or "decoder")
    agent = agent_of(_keys=lambda n: torch.zeros(n, 2), policy=SimpleNamespace(is_mixed=True, language_model="model"))
    Rollout(agent).play([1], [0])
    assert played[0][0][0]("contexts", 5, "device") == "decoder" and made == [
        (agent, "policy", "contexts", 5, "device")
    ]


def test_samplers_of_one_role_or_of_a_mixture(monkeypatch):
    made = []

    def decoder(agent, role, contexts, room, device):
        made.append((agent, role, contexts, room, device))
        return SimpleNamespace(logits={"policy": 1.0, "past": 4.0}[role])

    monkeypatch.setattr(module, "_RoleDecoder", decoder)
    agent = agent_of()
    rollout = Rollout(agent)
    alone = rollout.sampler("past")("contexts", 5, "cpu")
    assert alone.logits == 4.0 and made == [(agent, "past", "contexts", 5, "cpu")]
    both = rollout.sampler("policy", "past", mix=lambda p, q: p - q)("contexts", 5, "cpu")
    assert both.logits == -3.0 and [role for _, role, *_ in made] == ["past", "policy", "past"]
    assert rollout.sampler("policy", mix=lambda p: -p)("contexts", 5, "cpu").logits == -1.0
    said = "sampler() takes a role, or several and mix=, a function of the logits of each"
    for roles, words in (((), {}), (("policy", "past"), {}), ((), {"mix": max})):
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            rollout.sampler(*roles, **words)


class Part:
    """A decoder whose logits are its number and the tokens that it has read."""

    def __init__(self, number, can=True):
        self.number, self.can, self.kept, self.logits = number, can, [], number

    def advance(self, tokens):
        return self.number * tokens

    def keep(self, index):
        self.kept.append(index)

    def follow(self, contexts, room):
        self.logits = self.number + len(contexts) + room
        return self.can


def test_a_mixture_reads_with_all_its_decoders():
    parts = [Part(10), Part(1)]
    mixed = module._MixedDecoder(parts, lambda p, q: p - q)
    assert mixed.logits == 9 and mixed.advance(3) == 27
    mixed.keep("rows")
    assert [part.kept for part in parts] == [["rows"], ["rows"]]
    assert mixed.follow("ab", 5) is True and mixed.logits == 9 and parts[0].logits == 17
    parts[0].number = 20
    assert mixed.follow("ab", 5) is True and mixed.logits == 19
    parts[1].can = False
    assert mixed.follow("a", 5) is False and mixed.logits == 19


def test_what_is_counted():
    agent, noted = agent_of(solutions=lambda n: [answer(own=3)] * n), []
    agent._note = lambda episodes, by_policy: noted.append((episodes, by_policy))
    rollout = Rollout(agent)
    rollout.log_episodes(["a"])
    rollout.log_episodes(["b"], by_policy=False)
    assert noted == [(["a"], True), (["b"], False)]
    rollout.log_judged(5)
    rollout.log_signal([True, False])
    rollout.log_signal([True])
    assert agent.judged_pairs == 7 and rollout.differs == [True, False, True]
    rollout.log_given([answer(own=2), answer(own=3)])
    assert (agent.num_timesteps, agent._episode_num, agent.given_answers) == (105, 12, 3)
    assert len(rollout.solutions(2)) == 2
    assert (agent.num_timesteps, agent._episode_num, agent.given_answers) == (111, 14, 5)


def test_methods_of_the_task_are_found(monkeypatch):
    monkeypatch.setattr(module, "find_method", lambda env, name: (env, name))
    agent = agent_of()
    assert Rollout(agent).task_method("hint") == (agent.token_env, "hint")
